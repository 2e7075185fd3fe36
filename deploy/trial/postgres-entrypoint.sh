#!/bin/sh
# The part of the public postgres image's entrypoint that docker-compose.yml relies on.
set -eu

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    mkdir -p "$PGDATA"
    chmod 700 "$PGDATA"
    export PGPASSWORD="${POSTGRES_PASSWORD:?is not set}" POSTGRES_USER="${POSTGRES_USER:-postgres}"
    umask 077
    printf '%s\n' "$PGPASSWORD" >/tmp/password
    # shellcheck disable=SC2086  # several arguments, as in the public image
    initdb --pgdata="$PGDATA" --username="$POSTGRES_USER" --pwfile=/tmp/password ${POSTGRES_INITDB_ARGS:-}
    rm /tmp/password
    printf 'host all all all scram-sha-256\n' >>"$PGDATA/pg_hba.conf"
    pg_ctl --pgdata="$PGDATA" --wait --options="-c listen_addresses=''" start
    for script in /docker-entrypoint-initdb.d/*.sh; do
        echo "running $script"
        "$script"
    done
    pg_ctl --pgdata="$PGDATA" --wait --mode=fast stop
    unset PGPASSWORD
fi
exec "$@" -c listen_addresses='*'
