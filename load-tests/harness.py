"""What the scenarios share: a server with many tenants, streams to it, and the file of results."""

import asyncio
import contextlib
import json
import os
import pathlib
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator

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


# Weights at random say anything; what is measured is not whether it may be said.
UNGUARDED = '[guard]\npolicy = "off"\n[guard.policies.off]\nprompt.mode = "off"\noutput.mode = "off"\n'


def write_config(
    folder: pathlib.Path, model: pathlib.Path, tenants: int, ports: tuple, rows: int, more: str, own: dict
) -> pathlib.Path:
    lines = [
        f'[server]\nlisten = "127.0.0.1:{ports[0]}"\n[ops]\nlisten = "127.0.0.1:{ports[1]}"\n[log]\nfilter = "warn"',
        f'[bases.base]\npath = "{model}"',
        '[workers.local]\ndriver = "embedded"\nbases = ["base"]\n' f"max_batch_rows = {rows}",
        more,
    ]
    for number in range(tenants):
        write_adapter(folder / f"adapter-{number}", number)
        lines.append(
            f'[[tenants]]\nid = "tenant-{number}"\nkeys = [{{ demo = "sk-demo-bench-{number}" }}]\n'
            f"{own.get(number, '')}\n"
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


def cpu_seconds(process: int) -> float:
    """CPU time of all threads there are, to the nanosecond."""
    threads = pathlib.Path(f"/proc/{process}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


@contextlib.contextmanager
def mock_worker(port: int) -> Iterator[None]:
    """`mock_worker.py` at that port."""
    worker = subprocess.Popen([sys.executable, pathlib.Path(__file__).with_name("mock_worker.py"), "--port", str(port)])
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.1)
        yield
    finally:
        worker.terminate()
        worker.wait(timeout=10)


def cpu_name() -> str:
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "unknown processor"


def machine() -> str:
    return f"{os.cpu_count()} cores, {cpu_name()}"


def version(binary: pathlib.Path) -> str:
    return subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout.strip()


@contextlib.contextmanager
def serving(
    binary: pathlib.Path, model: pathlib.Path, tenants: int, rows: int = 64, more: str = "", own: dict | None = None
) -> Iterator[tuple]:
    """A server with that many tenants, each with an adapter of its own; yields its two ports and its process id.

    `own` has more lines of single tenants, by their numbers. Where it is not given, nothing is judged.
    """
    if own is None:
        more = f"{more}\n{UNGUARDED}"
    with tempfile.TemporaryDirectory() as folder:
        ports = (free_port(), free_port())
        config = write_config(pathlib.Path(folder), model.resolve(), tenants, ports, rows, more, own or {})
        server = subprocess.Popen([binary, "serve", "--config", config])
        try:
            wait_ready(server, ports[1])
            yield (*ports, server.pid)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(timeout=60)


def write_section(path: pathlib.Path, section: str) -> None:
    """Puts a section, which begins with its `# ` heading, in the place of the one with that heading, or at the end."""
    heading = section.splitlines()[0]
    text = path.read_text() if path.exists() else ""
    sections = [part for part in re.split(r"(?m)^(?=# )", text) if part.strip()]
    kept = [part for part in sections if part.splitlines()[0] != heading]
    at = next((at for at, part in enumerate(sections) if part.splitlines()[0] == heading), len(kept))
    kept.insert(at, section)
    path.write_text("\n".join(part.rstrip() + "\n" for part in kept))
