#!/usr/bin/env python3
"""Many adapters in one batch: tokens per second and time to first token.

Starts a release build of Tenantry on free loopback ports with as many tenants as there are requests in flight, each
with an adapter of its own (random numbers, rank 8 on q_proj and v_proj), and sends bursts of simultaneous streamed
completions over HTTP: prompts of 41 tokens, 64 new tokens, greedy, end of text ignored. Three cases: all on the bare
base model, all on one adapter, every request on another adapter.

Needs nothing but Python's standard library. Run it by `make bench`.
"""

import argparse
import asyncio
import json
import os
import pathlib
import random
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

HIDDEN, KV, LAYERS, RANK = 576, 192, 30, 8
PROMPT_TOKENS = 41


def write_adapter(folder: pathlib.Path, seed: int) -> None:
    """A PEFT folder with random weights: what it says is noise, what it costs is real."""
    generator = random.Random(seed)
    # Drawing each of half a million numbers anew would take seconds and measure nothing else.
    pool = [struct.pack("<e", generator.gauss(0.0, 0.02)) for _ in range(4096)]
    tensors, parts, offset = {}, [], 0
    for layer in range(LAYERS):
        for module, width in (("q_proj", HIDDEN), ("v_proj", KV)):
            for part, shape in (("lora_A", (RANK, HIDDEN)), ("lora_B", (width, RANK))):
                data = b"".join(generator.choices(pool, k=shape[0] * shape[1]))
                name = f"base_model.model.model.layers.{layer}.self_attn.{module}.{part}.weight"
                tensors[name] = {"dtype": "F16", "shape": shape, "data_offsets": [offset, offset + len(data)]}
                parts.append(data)
                offset += len(data)
    header = json.dumps(tensors).encode()
    header += b" " * (-len(header) % 8)
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"".join(parts))
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def write_config(folder: pathlib.Path, model: pathlib.Path, tenants: int, ports: tuple) -> pathlib.Path:
    lines = [
        f'[server]\nlisten = "127.0.0.1:{ports[0]}"\n[ops]\nlisten = "127.0.0.1:{ports[1]}"\n[log]\nfilter = "warn"',
        f'[bases.base]\npath = "{model}"',
        '[workers.local]\ndriver = "embedded"\nbases = ["base"]\nmax_batch_rows = 64',
    ]
    for number in range(tenants):
        write_adapter(folder / f"adapter-{number}", number)
        lines.append(
            f'[[tenants]]\nid = "tenant-{number}"\nkeys = [{{ demo = "sk-demo-bench-{number}" }}]\n'
            f'[[tenants.adapters]]\nname = "own"\nbase = "base"\npath = "adapter-{number}"\n'
            '[tenants.models]\nbase = { base = "base" }\nown = { base = "base", adapter = "own" }'
        )
    path = folder / "bench.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


async def one_stream(port: int, key: str, model: str, prompt: list, max_tokens: int) -> dict:
    """Streams one completion; times are seconds since the request was sent."""
    body = json.dumps({
        "model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True,
        "stream": True, "stream_options": {"include_usage": True},
    }).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    ).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    started = time.perf_counter()
    writer.write(head + body)
    times, usage, seen = [], None, []
    async for line in reader:
        seen.append(line)
        if not line.startswith(b"data: {"):
            continue
        now = time.perf_counter() - started
        if b'"error"' in line:
            raise RuntimeError(line.decode())
        if b'"choices":[]' in line:
            usage = json.loads(line[6:])["usage"]
        elif b'"finish_reason":null' in line:
            times.append(now)
    writer.close()
    if usage is None:
        raise RuntimeError("no usage in the answer: " + b"".join(seen[:20]).decode(errors="replace"))
    return {"first": times[0], "last": times[-1], "tokens": usage["completion_tokens"], "prompt": usage["prompt_tokens"]}


async def burst(port: int, in_flight: int, case: str, max_tokens: int, generator: random.Random) -> dict:
    """`in_flight` streams at the same moment; prompts are all different."""
    streams = []
    for number in range(in_flight):
        tenant = number if case == "all different" else 0
        model = "base" if case == "base" else "own"
        prompt = [generator.randrange(1000, 40000) for _ in range(PROMPT_TOKENS)]
        streams.append(one_stream(port, f"sk-demo-bench-{tenant}", model, prompt, max_tokens))
    started = time.perf_counter()
    results = await asyncio.gather(*streams)
    wall = time.perf_counter() - started
    tokens = sum(result["tokens"] for result in results)
    firsts = sorted(result["first"] for result in results)
    decode = sum(result["tokens"] - 1 for result in results) / (max(r["last"] for r in results) - firsts[0])
    return {"aggregate": tokens / wall, "decode": decode, "first": statistics.median(firsts), "slowest": firsts[-1]}


def wait_ready(process: subprocess.Popen, port: int) -> None:
    for _ in range(600):
        if process.poll() is not None:
            sys.exit(f"the server ended with code {process.returncode} before it was ready")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    sys.exit("the server was not ready within a minute")


def cpu_name() -> str:
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "unknown processor"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--binary", type=pathlib.Path, required=True)
    arguments.add_argument("--model", type=pathlib.Path, required=True, help="SmolLM2-135M as GGUF or folder")
    arguments.add_argument("--in-flight", default="1,8,16")
    arguments.add_argument("--max-tokens", type=int, default=64)
    arguments.add_argument("--bursts", type=int, default=5)
    arguments.add_argument("--out", type=pathlib.Path, help="writes the table to this file too")
    options = arguments.parse_args()
    in_flight = [int(number) for number in options.in_flight.split(",")]

    with tempfile.TemporaryDirectory() as folder:
        ports = (free_port(), free_port())
        config = write_config(pathlib.Path(folder), options.model.resolve(), max(in_flight), ports)
        server = subprocess.Popen([options.binary, "serve", "--config", config])
        try:
            wait_ready(server, ports[1])
            rows = asyncio.run(measure(ports[0], in_flight, options))
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(timeout=60)
    version = subprocess.run([options.binary, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    table = report(rows, version, options)
    print(table)
    if options.out:
        options.out.write_text(table)


async def measure(port: int, in_flight: list, options: argparse.Namespace) -> list:
    generator, rows = random.Random(1), []
    for number in in_flight:
        for case in ("base", "one adapter", "all different"):
            await burst(port, number, case, options.max_tokens, generator)
            runs = [await burst(port, number, case, options.max_tokens, generator) for _ in range(options.bursts)]
            rows.append((number, case, runs))
            print(f"{number:3} in flight, {case}: {statistics.median(r['aggregate'] for r in runs):.0f} tokens/s",
                  file=sys.stderr)
    return rows


def report(rows: list, version: str, options: argparse.Namespace) -> str:
    lines = [
        "# Many adapters in one batch",
        "",
        f"{version}, {os.cpu_count()} cores, {cpu_name()}; {options.model.name}; prompts of {PROMPT_TOKENS} tokens, "
        f"{options.max_tokens} new tokens, greedy, streamed over HTTP; {options.bursts} bursts after one to warm up: "
        "median (least–most). Aggregate counts prefill, decode counts from the first token of the burst on. "
        "The load generator runs on the same cores.",
        "",
        "| in flight | adapters | aggregate tokens/s | decode tokens/s | first token, median ms | slowest ms |",
        "|---|---|---|---|---|---|",
    ]
    for number, case, runs in rows:
        def column(name: str, scale: float = 1.0) -> str:
            values = [run[name] * scale for run in runs]
            return f"{statistics.median(values):.0f} ({min(values):.0f}–{max(values):.0f})"
        lines.append(
            f"| {number} | {case} | {column('aggregate')} | {column('decode')} | {column('first', 1000)} | "
            f"{column('slowest', 1000)} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
