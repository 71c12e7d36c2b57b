#!/usr/bin/env bash
# scripts/start-llamacpp.sh PORT [ARGUMENT...]
#
# Becomes llama.cpp's server on 127.0.0.1:PORT, serving the quickstart's base as
# `smollm2` with the adapters json (0), pirate (1) and rhyme (2). It has no
# other processes. scripts/engines.sh installs it.
#
# A request without a list of adapters gets all of them at once, whatever
# --lora-init-without-apply promises: name them in each.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/need.sh

DATA_DIR=${DATA_DIR:-.tenantry}
port=${1:?"usage: scripts/start-llamacpp.sh PORT [ARGUMENT...]"}
shift

if [ ! -f "$DATA_DIR/engines/llamacpp.done" ] || [ ! -f "$DATA_DIR/engines/adapters.done" ]; then
    say "llama.cpp is not installed; run scripts/engines.sh"
    exit 1
fi
engines=$(cd "$DATA_DIR/engines" && pwd)
threads=$(nproc)

exec "$engines/llamacpp/llama-server" --model "$engines/models/smollm2.f16.gguf" --alias smollm2 \
    --host 127.0.0.1 --port "$port" --threads "$threads" --threads-batch "$threads" \
    --parallel 8 --ctx-size 8192 --metrics --no-ui \
    --lora "$engines/adapters/json.gguf,$engines/adapters/pirate.gguf,$engines/adapters/rhyme.gguf" \
    --lora-init-without-apply "$@" </dev/null
