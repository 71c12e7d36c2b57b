#!/usr/bin/env bash
# scripts/start-vllm.sh PORT [ARGUMENT...]
#
# Becomes vLLM on 127.0.0.1:PORT, serving the quickstart's base as `smollm2`;
# adapters are loaded while it runs. scripts/engines.sh installs it.
#
# This process is the server. SIGTERM ends it and the processes it started in
# order; when it is killed, the kernel kills those (engines/startup says how).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/need.sh

DATA_DIR=${DATA_DIR:-.tenantry}
port=${1:?"usage: scripts/start-vllm.sh PORT [ARGUMENT...]"}
shift

if [ ! -f "$DATA_DIR/engines/vllm.done" ] || [ ! -f "$DATA_DIR/engines/base.done" ]; then
    say "vLLM is not installed; run scripts/engines.sh"
    exit 1
fi
engines=$(cd "$DATA_DIR/engines" && pwd)
venv=$engines/vllm/venv

# OpenMP from the venv, and the faster allocator where there is one.
preload=$venv/lib/libiomp5.so
tcmalloc=$(ldconfig -p 2>/dev/null | sed -n 's/.*libtcmalloc_minimal\.so\.4 .*=> //p' | head -n 1)
export LD_PRELOAD=${tcmalloc:+$tcmalloc:}$preload
export HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 VLLM_ALLOW_RUNTIME_LORA_UPDATING=True
export VLLM_CPU_KVCACHE_SPACE=${VLLM_CPU_KVCACHE_SPACE:-2}
# By default one core is kept back.
export VLLM_CPU_OMP_THREADS_BIND=${VLLM_CPU_OMP_THREADS_BIND:-0-$(($(nproc) - 1))} VLLM_CPU_NUM_OF_RESERVED_CPU=0
export ENGINE_PID=$$ PYTHONPATH=$PWD/scripts/engines/startup PYTHONDONTWRITEBYTECODE=1

# The package has another name than the `vllm` command looks up.
exec "$venv/bin/python" -m vllm.entrypoints.openai.api_server --model "$engines/models/smollm2" \
    --served-model-name smollm2 --host 127.0.0.1 --port "$port" --max-model-len 2048 --max-num-seqs 32 \
    --enable-lora --max-loras 16 --max-cpu-loras 128 --max-lora-rank 16 "$@" </dev/null
