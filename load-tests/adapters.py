#!/usr/bin/env python3
"""Adapters in flight: what it costs that every stream has another adapter, and what a cold one costs.

One server, 64 tenants with an adapter each. First every adapter is asked for once while nothing else runs: the time to
the first token with the load in it (cold: fetched, loaded, proven by its probe) and without (warm). Then bursts of 1 to
64 simultaneous streams, all on the base model and all on different adapters. Then adapters that were not loaded yet are
asked for while eight streams run: what a load costs those who run beside it. Last, adapters are published while nothing
runs: the time from the call to the first token.

Plots need matplotlib. Run it by `make bench`.
"""

import argparse
import asyncio
import json
import pathlib
import random
import statistics
import sys
import tempfile
import time
import urllib.request

from harness import PROMPT_TOKENS, machine, one_stream, serving, version, write_adapter, write_section

IN_FLIGHT = (1, 2, 4, 8, 16, 32, 64)
# Tenants whose adapters the bursts do not touch, so that they are cold afterwards.
SPARE = 24
PUBLISHED = 9


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--binary", type=pathlib.Path, required=True)
    arguments.add_argument("--model", type=pathlib.Path, required=True, help="SmolLM2-135M as GGUF or folder")
    arguments.add_argument("--max-tokens", type=int, default=64)
    arguments.add_argument("--bursts", type=int, default=5)
    arguments.add_argument("--out", type=pathlib.Path, help="writes the table to this file too")
    arguments.add_argument("--plot", type=pathlib.Path, help="writes the plot to this PNG")
    options = arguments.parse_args()
    tenants = max(IN_FLIGHT)
    with serving(options.binary, options.model, tenants + SPARE) as ports:
        cold = asyncio.run(cold_and_warm(ports[0], tenants))
        loads = load_seconds(ports[1])
        rows = asyncio.run(bursts(ports[0], options))
        gaps = asyncio.run(beside_loads(ports[0], tenants))
        publishes = asyncio.run(published(ports))
    text = report(rows, cold, loads, gaps, publishes, options)
    print(text)
    if options.out:
        write_section(options.out, text)
    if options.plot:
        plot(rows, cold, options.plot)


def prompt(generator: random.Random) -> list:
    return [generator.randrange(1000, 40000) for _ in range(PROMPT_TOKENS)]


async def cold_and_warm(port: int, tenants: int) -> dict:
    """Times to the first token in seconds, one request at a time."""
    generator, cold, warm = random.Random(2), [], []
    await one_stream(port, "sk-demo-bench-0", "base", prompt(generator), 4)
    for number in range(tenants):
        for times in (cold, warm):
            answer = await one_stream(port, f"sk-demo-bench-{number}", "own", prompt(generator), 4)
            times.append(answer["first"])
    return {"cold": cold, "warm": warm}


def load_seconds(port: int) -> float:
    """The mean of the server's own histogram of loads."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    value = {line.split(" ")[0]: float(line.split(" ")[1]) for line in lines if line.startswith("tenantry_adapter_load")}
    return value["tenantry_adapter_load_seconds_sum"] / value["tenantry_adapter_load_seconds_count"]


async def burst(port: int, in_flight: int, model: str, max_tokens: int, generator: random.Random) -> dict:
    streams = [
        one_stream(port, f"sk-demo-bench-{number}", model, prompt(generator), max_tokens) for number in range(in_flight)
    ]
    started = time.perf_counter()
    results = await asyncio.gather(*streams)
    wall = time.perf_counter() - started
    firsts = sorted(result["first"] for result in results)
    return {
        "aggregate": sum(result["tokens"] for result in results) / wall,
        "first": statistics.median(firsts),
        "slowest": firsts[-1],
    }


async def bursts(port: int, options: argparse.Namespace) -> list:
    generator, rows = random.Random(3), []
    for number in IN_FLIGHT:
        for model in ("base", "own"):
            await burst(port, number, model, options.max_tokens, generator)
            runs = [await burst(port, number, model, options.max_tokens, generator) for _ in range(options.bursts)]
            rows.append((number, model, runs))
            tokens = statistics.median(run["aggregate"] for run in runs)
            print(f"{number:3} in flight, {model}: {tokens:.0f} tokens/s", file=sys.stderr)
    return rows


async def gaps_of(port: int, number: int, tokens: int, generator: random.Random) -> list:
    """Times between tokens, in seconds, of eight streams of which this is one."""
    body = json.dumps({
        "model": "own", "prompt": prompt(generator), "max_tokens": tokens, "temperature": 0, "ignore_eos": True,
        "stream": True,
    }).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer sk-demo-bench-{number}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    ).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head + body)
    gaps, before = [], None
    async for line in reader:
        if line.startswith(b"data: {"):
            now = time.perf_counter()
            if before is not None:
                gaps.append(now - before)
            before = now
    writer.close()
    return gaps


async def beside_loads(port: int, tenants: int) -> dict:
    """Gaps of eight running streams: alone, beside requests of loaded adapters, and beside requests that load one."""
    generator, gaps = random.Random(4), {}
    loaded, cold = range(16, 16 + SPARE), range(tenants, tenants + SPARE)
    for name, others in (("alone", ()), ("beside warm requests", loaded), ("beside loads", cold)):
        async def requests(numbers=others) -> None:
            for number in numbers:
                await one_stream(port, f"sk-demo-bench-{number}", "own", prompt(generator), 2)
        streams = [gaps_of(port, number, 400, generator) for number in range(8)]
        *running, _ = await asyncio.gather(*streams, requests())
        gaps[name] = sorted(gap for stream in running for gap in stream)
    return gaps


async def published(ports: tuple) -> list:
    """Seconds from the call that publishes an adapter to the first token of its tenant's answer."""
    generator, times = random.Random(5), []
    for number in range(PUBLISHED):
        with tempfile.TemporaryDirectory() as folder:
            adapter = pathlib.Path(folder) / "adapter"
            write_adapter(adapter, 10_000 + number)
            form = multipart({"tenant": "tenant-0", "name": f"new-{number}", "base": "base"}, adapter)
        started = time.perf_counter()
        url = f"http://127.0.0.1:{ports[1]}/admin/v1/adapters"
        request = urllib.request.Request(url, form, {"content-type": "multipart/form-data; boundary=part"})
        await asyncio.to_thread(lambda: urllib.request.urlopen(request, timeout=60).read())
        taken = time.perf_counter() - started
        answer = await one_stream(ports[0], "sk-demo-bench-0", f"new-{number}", prompt(generator), 4)
        times.append(taken + answer["first"])
    return times


def multipart(fields: dict, adapter: pathlib.Path) -> bytes:
    head = b'--part\r\ncontent-disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
    parts = [head % (name.encode(), b"", value.encode()) for name, value in fields.items()]
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        name = file.encode()
        parts.append(head % (name, b'; filename="%s"' % name, (adapter / file).read_bytes()))
    return b"".join(parts) + b"--part--\r\n"


def of(values: list, share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def report(rows: list, cold: dict, loads: float, gaps: dict, publishes: list, options: argparse.Namespace) -> str:
    lines = [
        "# Adapters in flight",
        "",
        f"{version(options.binary)}, {machine()}; {options.model.name}; adapters of rank 8 on q_proj and v_proj; prompts "
        f"of {PROMPT_TOKENS} tokens, {options.max_tokens} new tokens, greedy, streamed over HTTP; {options.bursts} bursts "
        "after one to warm up: median (least–most). The load generator runs on the same cores.",
        "",
        "![Adapters in flight](adapters.png)",
        "",
        "| in flight | adapters | aggregate tokens/s | of base | first token, median ms | slowest ms |",
        "|---|---|---|---|---|---|",
    ]
    base = 1.0
    for number, model, runs in rows:
        def column(name: str, scale: float = 1.0) -> str:
            values = [run[name] * scale for run in runs]
            return f"{statistics.median(values):.0f} ({min(values):.0f}–{max(values):.0f})"
        aggregate = statistics.median(run["aggregate"] for run in runs)
        base = aggregate if model == "base" else base
        name = "base" if model == "base" else "all different"
        lines.append(
            f"| {number} | {name} | {column('aggregate')} | {100 * aggregate / base:.0f} % | {column('first', 1000)} | "
            f"{column('slowest', 1000)} |"
        )
    medians = {name: 1000 * statistics.median(times) for name, times in cold.items()}
    lines += [
        "",
        f"First token of an adapter that has to be loaded first (fetched, loaded, proven by its probe): "
        f"{medians['cold']:.0f} ms at the median of {len(cold['cold'])}, {1000 * max(cold['cold']):.0f} ms at most; "
        f"loaded: {medians['warm']:.0f} ms. By the server's own account a load takes {1000 * loads:.0f} ms.",
        "",
        f"From the call that publishes an adapter to its first token: {1000 * statistics.median(publishes):.0f} ms at the "
        f"median of {len(publishes)}, {1000 * min(publishes):.0f} to {1000 * max(publishes):.0f} ms.",
        "",
        "| eight streams run | time between tokens, median ms | p99 ms | most ms |",
        "|---|---|---|---|",
    ]
    for name, values in gaps.items():
        lines.append(
            f"| {name} | {1000 * of(values, 0.5):.1f} | {1000 * of(values, 0.99):.1f} | {1000 * values[-1]:.1f} |"
        )
    return "\n".join(lines) + "\n"


def plot(rows: list, cold: dict, path: pathlib.Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (speed, first, loads) = pyplot.subplots(1, 3, figsize=(15, 4.5))
    for model, label, colour in (("base", "base model", "#888888"), ("own", "all different adapters", "#0b6e99")):
        mine = [(number, runs) for number, which, runs in rows if which == model]
        numbers = [number for number, _ in mine]
        for axis, name, scale in ((speed, "aggregate", 1), (first, "first", 1000)):
            values = [[run[name] * scale for run in runs] for _, runs in mine]
            medians = [statistics.median(value) for value in values]
            spread = [[m - min(v) for m, v in zip(medians, values)], [max(v) - m for m, v in zip(medians, values)]]
            axis.errorbar(numbers, medians, yerr=spread, marker="o", capsize=3, label=label, color=colour)
    for axis, title, unit in (
        (speed, "Throughput", "tokens per second, prefill counted"), (first, "Time to first token", "ms, median of the burst")
    ):
        axis.set_xscale("log", base=2)
        axis.set_xticks(IN_FLIGHT, [str(number) for number in IN_FLIGHT])
        axis.set_xlabel("streams in flight")
        axis.set_ylabel(unit)
        axis.set_ylim(bottom=0)
        axis.set_title(title)
        axis.grid(alpha=0.3)
        axis.legend()
    for name, colour in (("cold", "#c0392b"), ("warm", "#0b6e99")):
        values = sorted(1000 * value for value in cold[name])
        loads.plot(values, [(at + 1) / len(values) for at in range(len(values))], label=name, color=colour)
    loads.set_xlabel("ms to the first token, one request at a time")
    loads.set_ylabel("share of the adapters")
    loads.set_xlim(left=0)
    loads.set_title("An adapter that has to be loaded first")
    loads.grid(alpha=0.3)
    loads.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
