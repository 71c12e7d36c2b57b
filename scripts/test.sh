#!/usr/bin/env bash
# Sets up what the tests need, each thing only when it is missing or its lock
# file has changed, and runs them all.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/need.sh

DATA_DIR=${DATA_DIR:-.tenantry}
need cargo cc python pip venv node chromium

# What a client's packages were installed from is kept beside them.
fresh() {
    [ -f "$2" ] && cmp -s "$1" "$2"
}

mkdir -p "$DATA_DIR"
model=$(python3 scripts/base_model.py --data-dir "$DATA_DIR")

venv=$DATA_DIR/venv
requirements=$DATA_DIR/requirements.txt
sort -u tests/clients/*/requirements.txt tests/deploy/requirements.txt >"$requirements"
if ! fresh "$requirements" "$venv/installed.txt" || ! "$venv/bin/python" -c '' 2>/dev/null; then
    say "installing the Python clients and checkers into $venv"
    python3 -m venv --clear "$venv"
    "$venv/bin/python" -m pip --disable-pip-version-check install --quiet --requirement "$requirements" </dev/null
    cp "$requirements" "$venv/installed.txt"
fi

# Postgres, Redis, NATS, an S3 server, Prometheus and Helm.
DATA_DIR=$DATA_DIR bash scripts/services.sh

for lock in tests/clients/*/package-lock.json; do
    folder=$(dirname "$lock")
    if ! fresh "$lock" "$folder/node_modules/installed.json"; then
        say "installing the Node packages of $folder"
        npm ci --prefix "$folder" --no-audit --no-fund --loglevel=error </dev/null
        cp "$lock" "$folder/node_modules/installed.json"
    fi
done

# Absolute, since tests run in folders of their own.
absolute() {
    (cd "$(dirname "$1")" && echo "$PWD/$(basename "$1")")
}
TENANTRY_TEST_MODEL=$(absolute "$model")
TENANTRY_TEST_PYTHON=$(absolute "$venv")/bin/python
TENANTRY_TEST_CHROMIUM=$(command -v chromium || command -v chromium-browser || command -v google-chrome)
TENANTRY_TEST_DATA=$(absolute "$DATA_DIR")
export TENANTRY_TEST_DATA
export TENANTRY_TEST_MODEL TENANTRY_TEST_PYTHON TENANTRY_TEST_CHROMIUM

say "running the tests; the first build takes several minutes"
cargo test --locked --workspace </dev/null
