#!/usr/bin/env python3
"""What admission costs: in the process, with very many tenants, and the whole of a refused request over HTTP.

The first is measured by `load-tests/admission`, a program of its own on the gateway's library. For the second, one tenant
is over its limit and asks again and again over connections that stay open; what counts is the CPU time of the server.
Run it by `make bench`.
"""

import argparse
import asyncio
import os
import pathlib
import statistics
import subprocess

from harness import machine, serving, version, write_section

CONNECTIONS, REQUESTS, ROUNDS = 8, 20_000, 5
KEY = "sk-demo-bench-poor"
TENANT = f"""[[tenants]]
id = "poor"
keys = [{{ demo = "{KEY}" }}]
limits = {{ requests_per_minute = 1 }}
models = {{ base = {{ base = "base" }} }}"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--binary", type=pathlib.Path, required=True)
    arguments.add_argument("--inside", type=pathlib.Path, required=True, help="the program of load-tests/admission")
    arguments.add_argument("--model", type=pathlib.Path, required=True)
    arguments.add_argument("--tenants", type=int, default=100_000)
    arguments.add_argument("--out", type=pathlib.Path, help="writes the table to this file too")
    options = arguments.parse_args()
    inside = subprocess.run([options.inside, str(options.tenants)], check=True, capture_output=True, text=True).stdout
    with serving(options.binary, options.model, 1, more=TENANT) as (port, _, pid):
        costs = {name: asyncio.run(refused(port, pid, body)) for name, body in (("small", 100), ("of 64 KiB", 65536))}
    lines = [
        "# Admission",
        "",
        f"{version(options.binary)}, {machine()}. In the process, one thread; time on the clock.",
        "",
        inside.strip(),
        "",
        f"Over HTTP, {CONNECTIONS} connections, {ROUNDS} rounds of {REQUESTS} requests of a tenant over its limit: CPU time "
        "of the whole server, median (least–most).",
        "",
        "| a request's body | µs of CPU for a refusal |",
        "|---|---|",
    ]
    for name, values in costs.items():
        lines.append(f"| {name} | {statistics.median(values):.1f} ({min(values):.1f}–{max(values):.1f}) |")
    text = "\n".join(lines) + "\n"
    print(text)
    if options.out:
        write_section(options.out, text)


def cpu_seconds(pid: int) -> float:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def refused(port: int, pid: int, body: int) -> list:
    """Microseconds of the server's CPU time for each request, of several rounds after one that is not counted."""
    prompt = "a" * body
    text = f'{{"model":"base","prompt":"{prompt}","max_tokens":1}}'.encode()
    request = (
        f"POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {KEY}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(text)}\r\n\r\n"
    ).encode() + text
    # A body that is not read ends its connection, and the next request has another one.
    requests = REQUESTS if body < 1000 else REQUESTS // 20

    async def ask(times: int) -> None:
        writer = None
        while times:
            if writer is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
                await reader.readexactly(length)
            except (OSError, asyncio.IncompleteReadError):
                writer = None
                continue
            # The first of all may have been let through.
            times -= head.startswith(b"HTTP/1.1 429")
            if b"connection: close" in head.lower():
                writer.close()
                writer = None

    costs = []
    for _ in range(ROUNDS + 1):
        before = cpu_seconds(pid)
        await asyncio.gather(*(ask(requests // CONNECTIONS) for _ in range(CONNECTIONS)))
        costs.append((cpu_seconds(pid) - before) * 1e6 / requests)
    return costs[1:]


if __name__ == "__main__":
    main()
