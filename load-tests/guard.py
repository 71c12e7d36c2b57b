#!/usr/bin/env python3
"""The guard over HTTP: what it adds to the first token and to a chunk, on the embedded engine, and what it holds back.

One server, two tenants with one and the same base model: one under the standard policy (prompts and answers judged,
strict), one with the guard off. Their requests take turns, so that both see the same machine. Answers are ordinary
ones: chats of the base model. What a chunk costs is the server's CPU time where no engine runs: many streams of a mock
worker (`mock_worker.py`) at once, in turns with the guard on and off. The crate's own benchmark,
`cargo run --release -p tenantry-bench-guard`, is put in front.

Run it by `make bench`.
"""

import argparse
import asyncio
import json
import pathlib
import re
import statistics
import subprocess
import sys
import time
import urllib.request

from harness import cpu_seconds, free_port, machine, mock_worker, serving, version, write_section

QUESTIONS = (
    "What do rabbits eat?", "Why is the sky blue?", "Tell me about the sea.", "How do I boil an egg?",
    "What is a volcano?", "Write three sentences about autumn.", "How do I kill a process in Linux?",
    "Explain how a bicycle works.", "What is the best way to learn a language?", "Who was Marie Curie?",
)
POLICIES = """[guard.policies.off]
prompt.mode = "off"
output.mode = "off"
"""
# How the mock worker gives its chunks.
PACES = {"flat": "at full speed", "paced": "one every 20 ms"}


def mocked(port: int) -> str:
    """A worker at that port, and a tenant with the guard on and one with it off."""
    lines = [f'[workers.mock]\ndriver = "openai"\nbases = {list(PACES)}\nurl = "http://127.0.0.1:{port}/v1"']
    for name, more in (("on", ""), ("off", 'guard = "off"')):
        lines.append(f'[[tenants]]\nid = "chunks-{name}"\nkeys = [{{ demo = "sk-demo-chunks-{name}" }}]\n{more}')
        lines.append("[tenants.models]\n" + "\n".join(f'{pace} = {{ base = "{pace}" }}' for pace in PACES))
    return "\n".join(lines)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--binary", type=pathlib.Path, required=True)
    arguments.add_argument("--inside", type=pathlib.Path, required=True, help="tenantry-bench-guard")
    arguments.add_argument("--model", type=pathlib.Path, required=True, help="SmolLM2-135M as GGUF or folder")
    arguments.add_argument("--rounds", type=int, default=12)
    arguments.add_argument("--max-tokens", type=int, default=64)
    arguments.add_argument("--streams", type=int, default=24, help="of the mock worker, at one time")
    arguments.add_argument("--chunks", type=int, default=128, help="of each of them")
    arguments.add_argument("--out", type=pathlib.Path, help="writes the tables to this file too")
    options = arguments.parse_args()
    inside = subprocess.run([options.inside], capture_output=True, text=True, check=True).stdout
    at = free_port()
    more = POLICIES + mocked(at)
    with mock_worker(at), serving(options.binary, options.model, 2, 8, more, {1: 'guard = "off"'}) as (port, ops, process):
        answers = asyncio.run(take_turns(port, options))
        chunks = asyncio.run(count_chunks(port, process, options))
        with urllib.request.urlopen(f"http://127.0.0.1:{ops}/metrics") as response:
            metrics = response.read().decode()
    text = report(inside, answers, chunks, metrics, options)
    print(text)
    if options.out:
        write_section(options.out, text)


async def take_turns(port: int, options: argparse.Namespace) -> dict:
    answers = {"on": [], "off": []}
    keys = {"on": "sk-demo-bench-0", "off": "sk-demo-bench-1"}
    for name, key in keys.items():
        await chat(port, key, QUESTIONS[0], 4)
    for number in range(options.rounds):
        for at, question in enumerate(QUESTIONS):
            for name in ("on", "off") if (number + at) % 2 else ("off", "on"):
                answers[name].append(await chat(port, keys[name], question, options.max_tokens))
    return answers


async def chat(port: int, key: str, question: str, max_tokens: int) -> dict:
    """Streams one chat; times are seconds since the request was sent."""
    messages = [{"role": "user", "content": question}]
    body = json.dumps({
        "model": "base", "messages": messages, "max_tokens": max_tokens, "temperature": 0, "stream": True,
    }).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    ).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    started = time.perf_counter()
    writer.write(head + body)
    times, finish = [], None
    async for line in reader:
        if not line.startswith(b"data: {"):
            continue
        chunk = json.loads(line[6:])
        choice = chunk["choices"][0]
        if choice["delta"].get("content"):
            times.append(time.perf_counter() - started)
        finish = choice["finish_reason"] or finish
    writer.close()
    if not times:
        sys.exit(f"no text in the answer to {question!r}: {finish}")
    gaps = [after - before for before, after in zip(times, times[1:])]
    return {"first": times[0], "last": times[-1], "gap": max(gaps, default=0.0), "finish": finish}


async def count_chunks(port: int, process: int, options: argparse.Namespace) -> dict:
    """Microseconds of CPU a chunk, by the pace and by the guard; the median of the rounds."""
    costs = {(pace, name): [] for pace in PACES for name in ("on", "off")}
    for number in range(options.rounds + 1):
        for pace in PACES:
            for name in ("on", "off") if number % 2 else ("off", "on"):
                before = cpu_seconds(process)
                counts = await asyncio.gather(*(stream(port, name, pace, options.chunks) for _ in range(options.streams)))
                # The first round is for connections and caches.
                if number:
                    costs[pace, name].append(1e6 * (cpu_seconds(process) - before) / sum(counts))
    return {key: statistics.median(values) for key, values in costs.items()}


async def stream(port: int, name: str, pace: str, chunks: int) -> int:
    """The chunks that the worker sent, all of which have to arrive."""
    messages = [{"role": "user", "content": QUESTIONS[0]}]
    body = json.dumps({"model": pace, "messages": messages, "max_tokens": chunks, "stream": True}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer sk-demo-chunks-{name}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    ).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head + body)
    said = await reader.read()
    writer.close()
    if said.count(b'"content":"') < chunks or b"data: [DONE]" not in said:
        sys.exit(f"an answer of {pace} is not whole: {said[-2000:].decode(errors='replace')}")
    return chunks


def counter(metrics: str, name: str) -> float:
    """The sum over all labels."""
    found = re.findall(rf"(?m)^{name}(?:\{{[^}}]*\}})? ([0-9.e+-]+)$", metrics)
    return sum(map(float, found))


def report(inside: str, answers: dict, chunks: dict, metrics: str, options: argparse.Namespace) -> str:
    def median(name: str, of: str) -> float:
        return 1000 * statistics.median(answer[of] for answer in answers[name])

    judged = len([answer for answer in answers["on"]])
    blocked = sum(answer["finish"] == "content_filter" for answer in answers["on"])
    escalated = counter(metrics, "tenantry_guard_escalations_total")
    lines = [
        "# The guard", "",
        f"{version(options.binary)}, {machine()}. In the process, one thread, the fastest of many rounds:", "",
        "```", inside.rstrip(), "```", "",
        f"Over HTTP: {judged} chats of the base model under the standard policy and as many with the guard off, in turns, "
        f"{options.max_tokens} tokens each.", "",
        "| median ms | guard on | off |", "|---|---|---|",
        f"| to the first text | {median('on', 'first'):.1f} | {median('off', 'first'):.1f} |",
        f"| to the last | {median('on', 'last'):.1f} | {median('off', 'last'):.1f} |",
        f"| longest gap between two chunks | {median('on', 'gap'):.1f} | {median('off', 'gap'):.1f} |", "",
        f"Of the {judged} answers and as many prompts {escalated:.0f} parts were doubtful enough for stage 2; "
        f"{blocked} answers were blocked.", "",
        f"What a chunk costs over HTTP, {options.streams} streams of a mock worker at one time, a word a chunk, medians of "
        f"{options.rounds} rounds in turns:", "",
        "| CPU µs a chunk | guard on | off | ratio |", "|---|---|---|---|",
    ]
    for pace, words in PACES.items():
        on, off = chunks[pace, "on"], chunks[pace, "off"]
        lines.append(f"| {words} | {on:.1f} | {off:.1f} | {on / off:.2f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
