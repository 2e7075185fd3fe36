#!/bin/bash
# Run the whole docker-compose.yml once, for real, on a Debian 12 machine that reaches no public image registry:
# Debian's own engine and Compose 1.29, images made of Debian packages standing in for the public ones.
#
#   sudo deploy/trial.sh          (TRIAL_BASE=/some/file.tar keeps the base image for the next time)
#
# It installs docker.io, docker-compose and debootstrap where they are missing and leaves them; all else it takes away
# again. Needs root, 4 GB of disk, about five minutes. Exits non-zero at the first thing that does not hold.
set -euo pipefail
export PATH=/usr/sbin:/usr/bin:/sbin:/bin DOCKER_BUILDKIT=1 COMPOSE_DOCKER_CLI_BUILD=1

here=$(cd "$(dirname "$0")" && pwd)
repository=$(dirname "$here")
project=bursar-trial-$$
work=$(mktemp -d /var/tmp/bursar-trial.XXXXXX)
log=$work/trial.log
exec 3>&1

readonly HEALTHY_S=120   # first start: PostgreSQL makes its files, migrations run; a slow disk takes half of this
readonly OUTCOME_S=60    # a killed worker is back within seconds; its commands wait for it
readonly STOP_S=15       # below it, nothing was killed for not stopping: no grace period is shorter
readonly NOTICE_S=120    # a command counts as overdue after 30 s; then two checks, 15 s apart, have to fail
readonly SPENDS=200      # posted around the kill

say() { printf '%4d s  %s\n' "$SECONDS" "$*" >&3; }
fail() { say "FAILED: $*" && exit 1; }

# wait_for <seconds> <what> <command …>: try once a second, fail with a sentence when the time is over.
wait_for() {
    local seconds=$1 what=$2 until=$((SECONDS + $1))
    shift 2
    while ((SECONDS < until)); do
        "$@" >/dev/null 2>&1 && return
        sleep 1
    done
    say "waited $seconds s for $what" && return 1
}

compose() {
    docker-compose --project-name "$project" --project-directory "$repository" -f "$repository/docker-compose.yml" \
        --env-file "$work/env" "$@"
}
bursar() { compose exec -T api bursar "$@"; }
# Not by `docker-compose ps`, which takes a second of processor time.
container() {
    docker ps --all --quiet --filter "label=com.docker.compose.project=$project" \
        --filter "label=com.docker.compose.service=$1"
}
state() { docker inspect --format "$2" "$(container "$1")"; }
# The value at a path of the JSON on standard input: `json outcome code`, `json data 0 id`.
json() {
    python3 -c 'import json, sys
value = json.load(sys.stdin)
for step in sys.argv[1:]:
    value = value[int(step) if isinstance(value, list) else step]
print(value)' "$@"
}

# shellcheck source=deploy/trial/machine.sh
. "$here/trial/machine.sh"

finish() {
    local status=$?
    trap - EXIT INT TERM
    if [ "$status" -ne 0 ]; then
        say "It did not hold. The last that was logged:"  # also where `set -e` ended it: no step hides its failure
        { tail -n 30 "$log" && compose ps && compose logs --no-color --tail 30; } >&3 2>&1 || true
    fi
    say "Cleaning up"
    clean_up >/dev/null 2>&1 || true
    [ "$status" -eq 0 ] && say "Everything held."
    exit "$status"
}

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

write_environment() {
    "$here/make-env" "$work/env" >/dev/null
    port=$(free_port) flower_port=$(free_port)
    cat >>"$work/env" <<END
BURSAR_IMAGE=$project
POSTGRES_IMAGE=$project-postgres
REDIS_IMAGE=$project-redis
BURSAR_PORT=$port
FLOWER_PORT=$flower_port
END
}

up() {
    compose up --detach --no-build >>"$log" 2>&1
    for service in postgres redis api worker flower; do
        wait_for "$HEALTHY_S" "$service to be healthy" healthy "$service" || fail "$service is $(state "$service" '{{.State.Health.Status}}')"
    done
}
healthy() { [ "$(state "$1" '{{.State.Health.Status}}')" = healthy ]; }
unhealthy() { [ "$(state "$1" '{{.State.Health.Status}}')" = unhealthy ]; }

api() {  # api <method> <path> [curl options …]
    local method=$1 path=$2
    shift 2
    curl --silent --show-error --fail-with-body --max-time 40 --request "$method" "http://127.0.0.1:$port$path" \
        --header "Authorization: Bearer $key" --header 'Content-Type: application/json' "$@"
}
gold() { api GET /v1/wallets/alice | python3 -c 'import json, sys
print(next(a["posted"] for a in json.load(sys.stdin)["accounts"] if a["asset"] == "gold_coins"))'; }

spend_and_wait() {  # spend_and_wait <key>: one coin, applied within 20 s
    local answer
    answer=$(api POST /v1/commands --header "Idempotency-Key: $project-$1" --header 'Prefer: wait=20' \
        --data '{"type": "spend", "wallet": "alice", "asset": "gold_coins", "amount": "1"}')
    [ "$(json outcome code <<<"$answer")" = applied ] || fail "the spend $1 came back as $answer"
}
holds_gold() { [ "$(gold)" = "$1" ]; }

prove_what_runs() {
    local service
    for service in api worker flower postgres redis; do
        [ "$(compose exec -T "$service" id -u)" != 0 ] || fail "$service runs as root"
        ! compose exec -T "$service" sh -c ': >/etc/written' 2>/dev/null || fail "$service can write to its image"
        ! compose exec -T "$service" sh -c 'cat /proc/1/cmdline' | grep -qFf <(sed -n 's/.*PASSWORD=//p' "$work/env") ||
            fail "the command line of $service shows a password"
    done
    [ "$(curl -s -o /dev/null -w '%{http_code}' "http://127.0.0.1:$flower_port/")" = 401 ] || fail "Flower asks for no password"
    if ss -Hltn "( sport = :$port or sport = :$flower_port )" | grep -qv '127\.0\.0\.1:'; then
        fail "a published port listens beyond loopback"
    fi
}

# Power off the worker, all its processes at once, in the midst of spends; Docker starts it again.
kill_the_worker() {
    local before spend
    before=$(state worker '{{.RestartCount}}')
    for ((spend = 1; spend <= SPENDS; spend++)); do
        api POST /v1/commands --header "Idempotency-Key: $project-kill-$spend" \
            --data '{"type": "spend", "wallet": "alice", "asset": "gold_coins", "amount": "1"}' >/dev/null
        [ "$spend" -ne $((SPENDS / 2)) ] || kill -9 "$(state worker '{{.State.Pid}}')"
    done
    wait_for "$OUTCOME_S" "the worker to be started again" restarted "$before" || fail "nothing started the worker again"
}
restarted() { [ "$(state worker '{{.RestartCount}}')" -gt "$1" ] && [ "$(state worker '{{.State.Running}}')" = true ]; }

# A worker that lives but consumes nothing: its health check has to say so, and to forgive once it works again.
freeze_the_worker() {
    local pids
    mapfile -t pids < <(docker top "$(container worker)" -o pid | tail -n +2)
    kill -STOP "${pids[@]}"
    api POST /v1/commands --header "Idempotency-Key: $project-frozen" \
        --data '{"type": "spend", "wallet": "alice", "asset": "gold_coins", "amount": "1"}' >/dev/null
    wait_for "$NOTICE_S" "the frozen worker to be unhealthy" unhealthy worker || fail "nobody noticed a worker that consumes nothing"
    kill -CONT "${pids[@]}"
    wait_for "$NOTICE_S" "the worker to be healthy again" healthy worker || fail "the worker stayed unhealthy"
}

# Docker restarts what dies, which can hide for weeks that something keeps dying.
nothing_else_died() {
    local service
    for service in postgres redis api flower; do
        [ "$(state "$service" '{{.RestartCount}}')" -eq 0 ] || fail "$service died and was started again"
    done
    [ "$(state worker '{{.RestartCount}}')" -eq 1 ] || fail "the worker died more often than it was killed"
}

stop_gently() {
    local started=$SECONDS service
    compose stop api worker flower >>"$log" 2>&1
    [ $((SECONDS - started)) -lt "$STOP_S" ] || fail "stopping took $((SECONDS - started)) s"
    for service in api worker flower; do
        [ "$(state "$service" '{{.State.ExitCode}}')" -ne 137 ] || fail "$service had to be killed"
    done
}

[ "$(id -u)" -eq 0 ] || fail "needs root: it starts a Docker engine"
. /etc/os-release
[ "$ID-$VERSION_ID" = debian-12 ] || fail "this is $PRETTY_NAME; the trial is written for Debian 12"
trap finish EXIT INT TERM

say "Logging to $log"
install_packages
start_engine
import_base
say "Building the images"
write_environment
build_images

say "Starting postgres, redis, migrate, api, worker, flower"
up
prove_what_runs
say "Healthy: not root, images read-only, loopback only, no password on a command line"

key=$(bursar keys create --scope admin --client trial 2>>"$log" | tr -d '\r')
compose exec -T -e "BURSAR_API_KEY=$key" api bursar seed >>"$log" 2>&1
api POST /v1/commands --header "Idempotency-Key: $project-top-up" --header 'Prefer: wait=20' \
    --data '{"type": "top_up", "wallet": "alice", "asset": "gold_coins", "amount": "1000"}' >/dev/null
coins=$(gold)
say "Seeded; alice has $coins gold"

spend_and_wait first
holds_gold $((coins -= 1)) || fail "alice has $(gold) gold after one spend, expected $coins"
say "One spend, applied: $coins left"

kill_the_worker
wait_for "$OUTCOME_S" "the spends around the kill" holds_gold $((coins -= SPENDS)) || fail "alice has $(gold) gold, expected $coins"
say "$SPENDS spends with the worker killed in their midst: exactly $SPENDS applied, $coins left"
spend_and_wait after-kill
holds_gold $((coins -= 1)) || fail "alice has $(gold) gold, expected $coins"
say "And one more: $coins left"

compose stop redis >>"$log" 2>&1
spend_and_wait without-redis
compose start redis >>"$log" 2>&1
holds_gold $((coins -= 1)) || fail "alice has $(gold) gold, expected $coins"
say "Redis stopped: a spend still applies; $coins left"

freeze_the_worker
holds_gold $((coins -= 1)) || fail "alice has $(gold) gold, expected $coins"
say "Worker frozen with work waiting: unhealthy, and healthy again after; $coins left"

nothing_else_died
stop_gently
say "Stopped in time, each by itself"
compose down >>"$log" 2>&1
up
holds_gold "$coins" || fail "after down and up alice has $(gold) gold, expected $coins"
spend_and_wait again
holds_gold $((coins -= 1)) || fail "alice has $(gold) gold, expected $coins"
say "Down and up: the volumes kept everything; $coins left after one more spend"

bursar audit >&3 || fail "the audit found something"
