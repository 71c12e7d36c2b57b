#!/usr/bin/env bash
# Builds, fetches the base model once, and becomes the server of the quickstart:
# signals go straight to it, and its exit code is this script's.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/need.sh

DATA_DIR=${DATA_DIR:-.tenantry}
BASE_MODEL=${BASE_MODEL:-}
LISTEN=${LISTEN:-127.0.0.1:8080}
OPS_LISTEN=${OPS_LISTEN:-127.0.0.1:9090}

need cargo cc python
[ -n "$BASE_MODEL" ] || need pip

binary=${CARGO_TARGET_DIR:-target}/release/tenantry
[ -x "$binary" ] || say "building; the first build takes several minutes"
cargo build --release --locked --bin tenantry

export TENANTRY_SERVER__LISTEN=$LISTEN
export TENANTRY_OPS__LISTEN=$OPS_LISTEN
export TENANTRY_CATALOGUE__DATA_DIR=$DATA_DIR/data
export TENANTRY_RATINGS__SINKS__EVENTS__FOLDER=$DATA_DIR/events

config=config/quickstart.toml
if [ -z "$BASE_MODEL" ]; then
    BASE_MODEL=$(python3 scripts/base_model.py --data-dir "$DATA_DIR")
    export TENANTRY_BASES__SMOLLM2_135M__PATH=$BASE_MODEL
elif TENANTRY_BASES__SMOLLM2_135M__PATH=$BASE_MODEL "$binary" check "$config" >/dev/null 2>&1; then
    export TENANTRY_BASES__SMOLLM2_135M__PATH=$BASE_MODEL
else
    # What is wrong with the weights themselves is told when they are served.
    say "the demonstration adapters do not fit $BASE_MODEL; serving it without them"
    config=config/bare.toml
    export TENANTRY_BASES__BASE__PATH=$BASE_MODEL
fi

# After `exec` this process is the server. The announcer is nobody's child then,
# and ends by itself once the server is ready or gone.
(python3 scripts/announce.py --process $$ --listen "$LISTEN" --ops "$OPS_LISTEN" </dev/null &)
say "starting on $LISTEN, with operations on $OPS_LISTEN"
exec "$binary" serve --config "$config" </dev/null
