#!/usr/bin/env bash
# scripts/start-nats.sh FOLDER PORT
#
# Becomes a NATS server with JetStream on 127.0.0.1:PORT with its streams in
# FOLDER, which is made when it is not there: the one that scripts/services.sh
# installs, or what NATS_SERVER names. No password is asked for.
#
# This process is the server. SIGINT and SIGTERM end it.
set -euo pipefail
usage="usage: scripts/start-nats.sh FOLDER PORT"
folder=${1:?"$usage"}
port=${2:?"$usage"}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
cd "$(dirname "$0")/.."
. scripts/need.sh

DATA_DIR=${DATA_DIR:-.tenantry}
server=${NATS_SERVER:-}
if [ -z "$server" ]; then
    server=$DATA_DIR/services/nats/bin/nats-server
    if [ ! -f "$DATA_DIR/services/nats.done" ] || [ ! -x "$server" ]; then
        say "no NATS server is installed; run scripts/services.sh, or name one as NATS_SERVER"
        exit 1
    fi
fi
exec "$server" --addr 127.0.0.1 --port "$port" --jetstream --store_dir "$folder" </dev/null
