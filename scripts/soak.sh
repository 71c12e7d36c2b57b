#!/usr/bin/env bash
# Half an hour of mixed load with trouble in a loop; says what is left of it.
#   MINUTES  how long  (30)
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/need.sh

DATA_DIR=${DATA_DIR:-.tenantry}
BASE_MODEL=${BASE_MODEL:-}

need cargo cc python pip

binary=${CARGO_TARGET_DIR:-target}/release/tenantry
[ -x "$binary" ] || say "building; the first build takes several minutes"
cargo build --release --locked --bin tenantry
if [ -z "$BASE_MODEL" ]; then
    BASE_MODEL=$(python3 scripts/base_model.py --data-dir "$DATA_DIR")
fi
say "soaking for ${MINUTES:-30} minutes"
exec python3 load-tests/soak.py --binary "$binary" --model "$BASE_MODEL" --minutes "${MINUTES:-30}" \
    --out load-tests/RESULTS.md
