#!/usr/bin/env python3
"""Noisy neighbour: nine tenants ask now and then, the tenth asks fifty times as often.

Servers one after the other: the nine alone; all ten with the fair queue, with more and more of the places kept free of a
flood (`queue.headroom_percent`); all ten in the order of arrival. Arrivals are the same in all (one seed):
the nine ask steadily, each at its own phase and a tenth of an interval off at most, the tenth as it comes (Poisson). What is told is the time to the first token of the nine, queueing included.

Plots need matplotlib. Run it by `make bench`.
"""

import argparse
import asyncio
import pathlib
import random
import statistics
import sys

from harness import PROMPT_TOKENS, machine, one_stream, serving, version, write_section

CALM, NOISE = 9, 50
COLOURS = ("#888888", "#9ecae1", "#3182bd", "#08519c", "#c0392b")
NOISY = CALM
RUNS = (
    ("alone", "fair", 25, False),
    *((f"fair queue, {percent} % kept free", "fair", percent, True) for percent in (0, 25, 50)),
    ("order of arrival", "arrival", 0, True),
)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--binary", type=pathlib.Path, required=True)
    arguments.add_argument("--model", type=pathlib.Path, required=True, help="SmolLM2-135M as GGUF or folder")
    arguments.add_argument("--seconds", type=float, default=60)
    arguments.add_argument("--every", type=float, default=1.5, help="seconds between requests of one of the nine")
    arguments.add_argument("--max-tokens", type=int, default=32)
    arguments.add_argument("--rows", type=int, default=8, help="the engine's places")
    arguments.add_argument("--out", type=pathlib.Path, help="writes the table to this file too")
    arguments.add_argument("--plot", type=pathlib.Path, help="writes the plot to this PNG")
    options = arguments.parse_args()
    results = {}
    for name, order, percent, noisy in RUNS:
        more = f'[queue]\norder = "{order}"\nheadroom_percent = {percent}\nmax_wait = "10m"\nmax_waiting = 100000'
        with serving(options.binary, options.model, CALM + 1, options.rows, more) as ports:
            results[name] = asyncio.run(load(ports[0], options, noisy))
        firsts = results[name]["calm"]
        print(f"{name}: p99 of the nine {1000 * of(firsts, 0.99):.0f} ms, of {len(firsts)}", file=sys.stderr)
    text = report(results, options)
    print(text)
    if options.out:
        write_section(options.out, text)
    if options.plot:
        plot(results, options.plot)


def arrivals(tenant: int, options: argparse.Namespace) -> list:
    """When a tenant asks, in seconds from the start."""
    generator = random.Random(tenant)
    if tenant != NOISY:
        phase, count = generator.random(), int(options.seconds / options.every)
        return [(number + phase + generator.uniform(-0.1, 0.1) + 0.1) * options.every for number in range(count)]
    times, now = [], 0.0
    while True:
        now += generator.expovariate(NOISE / options.every)
        if now > options.seconds:
            return times
        times.append(now)


async def load(port: int, options: argparse.Namespace, noisy: bool) -> dict:
    generator = random.Random(7)
    # Loads are another scenario's.
    for tenant in range(CALM + 1):
        await one_stream(port, f"sk-demo-bench-{tenant}", "own", [1000 + n for n in range(PROMPT_TOKENS)], 4)
    begin = asyncio.get_running_loop().time() + 0.5
    answers = {"calm": [], "noisy": [], "refused": 0}

    async def ask(tenant: int, at: float, prompt: list) -> None:
        await asyncio.sleep(begin + at - asyncio.get_running_loop().time())
        try:
            answer = await one_stream(port, f"sk-demo-bench-{tenant}", "own", prompt, options.max_tokens)
        except (RuntimeError, OSError):
            answers["refused"] += 1
            return
        answers["noisy" if tenant == NOISY else "calm"].append(answer["first"])

    tenants = range(CALM + 1 if noisy else CALM)
    asks = [
        ask(tenant, at, [generator.randrange(1000, 40000) for _ in range(PROMPT_TOKENS)])
        for tenant in tenants for at in arrivals(tenant, options)
    ]
    calm = [asyncio.ensure_future(one) for one in asks]
    await asyncio.gather(*calm)
    return answers


def of(values: list, share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def report(results: dict, options: argparse.Namespace) -> str:
    alone = of(results["alone"]["calm"], 0.99)
    lines = [
        "# Noisy neighbour",
        "",
        f"{version(options.binary)}, {machine()}; {options.model.name}; {options.rows} places; nine tenants with a request "
        f"every {options.every:g} s each, the tenth {NOISE} times as often, all with adapters of their own; prompts of "
        f"{PROMPT_TOKENS} tokens, {options.max_tokens} new tokens; arrivals over {options.seconds:g} s. The load generator "
        "runs on the same cores.",
        "",
        "![Noisy neighbour](neighbours.png)",
        "",
        "| | of the nine: first token p50 ms | p99 ms | of alone | answered | the tenth: p50 ms | answered | refused |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, answers in results.items():
        calm, noisy = answers["calm"], answers["noisy"]
        tenth = f"{1000 * statistics.median(noisy):.0f}" if noisy else ""
        lines.append(
            f"| {name} | {1000 * statistics.median(calm):.0f} | {1000 * of(calm, 0.99):.0f} | "
            f"{of(calm, 0.99) / alone:.2f}× | {len(calm)} | {tenth} | {len(noisy)} | {answers['refused']} |"
        )
    return "\n".join(lines) + "\n"


def plot(results: dict, path: pathlib.Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(7, 4.5))
    for (name, answers), colour in zip(results.items(), COLOURS):
        values = sorted(answers["calm"])
        axis.plot(values, [(at + 1) / len(values) for at in range(len(values))], label=name, color=colour)
    axis.set_xscale("log")
    axis.set_xlabel("seconds to the first token of the nine, queueing included")
    axis.set_ylabel("share of the requests")
    axis.set_title("A neighbour that asks fifty times as often")
    axis.grid(alpha=0.3)
    axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
