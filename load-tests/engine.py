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
import pathlib
import random
import statistics
import sys
import time

from harness import PROMPT_TOKENS, machine, one_stream, serving, version, write_section


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

    with serving(options.binary, options.model, max(in_flight)) as ports:
        rows = asyncio.run(measure(ports[0], in_flight, options))
    table = report(rows, version(options.binary), options)
    print(table)
    if options.out:
        write_section(options.out, table)


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
        f"{version}, {machine()}; {options.model.name}; prompts of {PROMPT_TOKENS} tokens, "
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
