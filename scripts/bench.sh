#!/usr/bin/env bash
# Measures a release build; the load generators start and stop the server.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/need.sh

DATA_DIR=${DATA_DIR:-.tenantry}
BASE_MODEL=${BASE_MODEL:-}

need cargo cc python pip venv

binary=${CARGO_TARGET_DIR:-target}/release/tenantry
[ -x "$binary" ] || say "building; the first build takes several minutes"
cargo build --release --locked --bin tenantry
cargo build --release --locked --package tenantry-bench-admission --package tenantry-bench-guard \
    --package tenantry-bench-ratings
if [ -z "$BASE_MODEL" ]; then
    BASE_MODEL=$(python3 scripts/base_model.py --data-dir "$DATA_DIR")
fi

# For the plots.
venv=$DATA_DIR/bench-venv
if ! cmp -s load-tests/requirements.txt "$venv/installed.txt"; then
    say "installing matplotlib into $venv"
    python3 -m venv --clear "$venv"
    "$venv/bin/python" -m pip --disable-pip-version-check install --quiet --requirement load-tests/requirements.txt </dev/null
    cp load-tests/requirements.txt "$venv/installed.txt"
fi

say "measuring; this takes several minutes"
"$venv/bin/python" load-tests/engine.py --binary "$binary" --model "$BASE_MODEL" --out load-tests/RESULTS.md
"$venv/bin/python" load-tests/adapters.py --binary "$binary" --model "$BASE_MODEL" --out load-tests/RESULTS.md \
    --plot load-tests/adapters.png
"$venv/bin/python" load-tests/admission.py --binary "$binary" --inside "${binary%/*}/tenantry-bench-admission" \
    --model "$BASE_MODEL" --out load-tests/RESULTS.md
"$venv/bin/python" load-tests/guard.py --binary "$binary" --inside "${binary%/*}/tenantry-bench-guard" \
    --model "$BASE_MODEL" --out load-tests/RESULTS.md
"$venv/bin/python" load-tests/ratings.py --binary "$binary" --inside "${binary%/*}/tenantry-bench-ratings" \
    --folder "$DATA_DIR" --out load-tests/RESULTS.md
"$venv/bin/python" load-tests/neighbours.py --binary "$binary" --model "$BASE_MODEL" --out load-tests/RESULTS.md \
    --plot load-tests/neighbours.png
