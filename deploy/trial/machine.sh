# shellcheck shell=bash disable=SC2154,SC2016
# What deploy/trial.sh needs of the machine: packages, a base image made of Debian packages, an engine. Sourced by it.
# Everything lands in $work; clean_up takes it away again, whatever happened.

readonly ENGINE_READY_S=30
readonly ENGINE_STOP_S=20
engine_pid=

install_packages() {
    local missing=() package
    for package in docker.io docker-compose debootstrap iptables iproute2 curl; do
        dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null | grep -q ' installed' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    say "Installing ${missing[*]}"
    apt-get update
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "${missing[@]}"
} >>"$log" 2>&1

# The machine's own mirror, whichever format its sources have.
mirror() {
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' \
        "Codename: $VERSION_CODENAME" 'Component: main' | head -n 1
}

# One base for all: Python, PostgreSQL and Redis from Debian. TRIAL_BASE keeps it as a file for the next time.
import_base() {
    local base=${TRIAL_BASE:-$work/base.tar} root=$work/root
    if [ ! -s "$base" ]; then
        say "Making a base image from Debian $VERSION_CODENAME (a minute or two)"
        debootstrap --variant=minbase --include=ca-certificates,python3-venv,postgresql,redis-server \
            "$VERSION_CODENAME" "$root" "$(mirror)"
        rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale}
        # A machine behind a proxy trusts its proxy's certificate; pip in the image has to, as well.
        cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
        ln -s /usr/bin/python3 "$root/usr/local/bin/python"
        tar -C "$root" --exclude='./dev/*' --exclude='./proc/*' -cf "$base.part" .
        mv "$base.part" "$base"
        rm -rf "$root"
    fi
    docker import --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
        "$base" "$project-base"
} >>"$log" 2>&1

# An engine that runs already is used, with names of our own. Otherwise one of our own is started, all of it under $work.
start_engine() {
    docker info >/dev/null 2>&1 && return
    say "Starting a Docker engine of its own"
    export DOCKER_HOST=unix://$work/docker.sock
    cat /proc/sys/net/ipv4/ip_forward >"$work/ip_forward"
    { iptables-save -t filter && iptables-save -t nat; } >"$work/iptables" 2>/dev/null  # else it tells of old tables
    # No bridge of its own: Compose makes one for its network and takes it away again.
    dockerd --host "$DOCKER_HOST" --data-root "$work/data" --exec-root "$work/exec" --pidfile "$work/dockerd.pid" \
        --bridge=none >"$work/dockerd.log" 2>&1 &
    engine_pid=$!
    wait_for "$ENGINE_READY_S" "the engine to answer" docker info
}

# Whatever pip on this machine is told (an index of its own, a certificate) holds in the build as well, as a secret.
pip_configuration() {
    local file name value
    for file in "${PIP_CONFIG_FILE:-}" "$HOME/.config/pip/pip.conf" "$HOME/.pip/pip.conf" /etc/pip.conf; do
        [ -s "$file" ] && cat "$file" && break
    done
    printf '\n[install]\n'
    for name in index-url extra-index-url cert trusted-host; do
        value=PIP_$(tr a-z- A-Z_ <<<"$name")
        [ -n "${!value:-}" ] && printf '%s = %s\n' "$name" "${!value}"
    done
    return 0
}

build_images() {
    local context=$here/trial part
    pip_configuration >"$work/pip.conf"
    for part in postgres redis; do
        docker build --quiet --network host --build-arg "BASE=$project-base" \
            -f "$context/$part.Dockerfile" -t "$project-$part" "$context"
    done
    nice docker build --network host --build-arg "PYTHON_IMAGE=$project-base" --secret "id=pip.conf,src=$work/pip.conf" \
        -f "$here/Dockerfile" -t "$project" "$repository"
} >>"$log" 2>&1

# Only ever the engine that start_engine started. It leaves its firewall rules behind; the tables go back to what they were.
stop_engine() {
    [ -n "$engine_pid" ] || return 0
    kill "$engine_pid"
    wait_for "$ENGINE_STOP_S" "the engine to stop" gone "$engine_pid" || kill -9 "$engine_pid"
    awk -v under="$work/" 'index($2, under) == 1 { print $2 }' /proc/mounts | sort -r | xargs -r umount --lazy
    iptables-restore <"$work/iptables"
    cat "$work/ip_forward" >/proc/sys/net/ipv4/ip_forward
}

gone() { ! kill -0 "$1" 2>/dev/null; }

clean_up() {
    compose down --volumes --timeout 5
    docker image rm --force "$project" "$project-postgres" "$project-redis" "$project-base"
    stop_engine
    rm -rf "$work"
}
