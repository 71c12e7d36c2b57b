#!/usr/bin/env bash
# Measures a release build; the load generator starts and stops the server.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/need.sh

DATA_DIR=${DATA_DIR:-.tenantry}
BASE_MODEL=${BASE_MODEL:-}

need cargo cc python
[ -n "$BASE_MODEL" ] || need pip

binary=${CARGO_TARGET_DIR:-target}/release/tenantry
[ -x "$binary" ] || say "building; the first build takes several minutes"
cargo build --release --locked --bin tenantry
if [ -z "$BASE_MODEL" ]; then
    BASE_MODEL=$(python3 scripts/base_model.py --data-dir "$DATA_DIR")
fi

say "measuring; this takes a few minutes"
exec python3 load-tests/engine.py --binary "$binary" --model "$BASE_MODEL" --out load-tests/RESULTS.md
