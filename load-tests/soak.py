#!/usr/bin/env python3
"""Half an hour of everything at once, and what is left of it afterwards.

One gateway with an embedded worker and a worker process behind it, tenants with adapters, the guard on, ratings into a
file and a webhook. Clients chat, stream, leave in the middle, rate and have texts moderated, while in a loop the
configuration is read again (every fourth time a broken one), adapters are published and taken away, the worker process
is killed, and the webhook refuses or is gone. In the end the load stops, and nothing may be held: no generation, place,
sequence, file or event. Memory is sampled all the time; its slope is that of the last two thirds.

Run it by `make soak`; exits non-zero where something was left.
"""

import argparse
import asyncio
import collections
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time

import soak_server
from harness import machine, version, write_section

TENANTS = 6
CLIENTS = 6
# What a client may be told while workers die, limits hold and the server reloads.
EXPECTED = {200, 429, 502, 503}


class Soak:
    def __init__(self, options: argparse.Namespace, folder: pathlib.Path) -> None:
        self.options, self.folder = options, folder
        self.random = random.Random(options.seed)
        self.outcomes = collections.Counter()
        self.samples: list[dict] = []
        self.webhook = soak_server.Webhook()
        self.until = 0.0
        self.setup = soak_server.Setup(folder, options, TENANTS)

    def left(self) -> bool:
        return time.monotonic() < self.until

    async def every(self, seconds: float, what) -> None:
        """Until the time is up, with a little chance in it so that the loops do not march in step."""
        while self.left():
            await asyncio.sleep(seconds * self.random.uniform(0.7, 1.3))
            if self.left():
                await what()

    # --- load ---

    async def client(self) -> None:
        while self.left():
            tenant = self.random.randrange(TENANTS)
            kind = self.random.choices(("stream", "leave", "whole", "moderate"), (5, 2, 3, 1))[0]
            try:
                if kind == "moderate":
                    status, _ = await self.post(tenant, "/v1/moderations", {"input": "what a lovely idiot"})
                else:
                    status = await self.chat(tenant, kind)
                self.outcomes[f"{kind} {status}"] += 1
            except (OSError, asyncio.IncompleteReadError, json.JSONDecodeError) as error:
                self.outcomes[f"{kind} {type(error).__name__}"] += 1
            await asyncio.sleep(self.random.uniform(0.0, 0.2))

    async def chat(self, tenant: int, kind: str) -> int:
        model = self.random.choice(("base", "own", "own", *(("rolling",) if tenant == 0 else ())))
        body = {
            "model": model, "max_tokens": self.random.choice((8, 24, 64)), "stream": kind != "whole",
            "messages": [{"role": "user", "content": self.random.choice(("Say hello.", "Count to ten. " * 20))}],
        }
        leave_after = self.random.randrange(1, 2000) if kind == "leave" else None
        status, answer = await self.post(tenant, "/v1/chat/completions", body, leave_after)
        if status == 200 and kind != "leave" and self.random.random() < 0.5:
            line = answer if kind == "whole" else answer.split("data: ", 1)[1].split("\n", 1)[0]
            rating = {"generation_id": json.loads(line)["id"], "thumb": self.random.choice(("up", "down")),
                      "end_user": str(self.random.randrange(1000))}
            rated, _ = await self.post(tenant, "/v1/ratings", rating)
            self.outcomes[f"rate {rated}"] += 1
        return status

    async def post(self, tenant: int, path: str, body: dict, leave_after: int | None = None) -> tuple:
        """The status and the body; after so many bytes of it the client leaves."""
        data = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-demo-soak-{tenant}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(data)}\r\nconnection: close\r\n\r\n"
        ).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.setup.port)
        try:
            writer.write(head + data)
            status = int((await reader.readline()).split()[1])
            if leave_after is not None:
                await reader.read(leave_after)
                return status, ""
            raw = await asyncio.wait_for(reader.read(), 120)
        finally:
            writer.close()
        text = raw.split(b"\r\n\r\n", 1)[1].decode(errors="replace") if b"\r\n\r\n" in raw else ""
        if path.endswith("completions") and body["stream"] and status == 200 and "[DONE]" not in text:
            # A worker died in the middle: told as an error event, or the connection ended with the server's.
            self.outcomes["stream error event" if '"error"' in text else "stream CUT WITHOUT A WORD"] += 1
        return status, text if "chunked" not in raw[:400].decode(errors="replace") else soak_server.unchunked(raw)

    # --- trouble ---

    async def reload(self) -> None:
        broken = self.random.random() < 0.25
        self.setup.write_config(limit=self.random.randrange(2000, 4000), broken=broken)
        os.kill(self.setup.gateway.pid, signal.SIGHUP)
        self.outcomes["reload, broken" if broken else "reload"] += 1
        if broken:
            await asyncio.sleep(2)
            self.setup.write_config(limit=3000)

    async def publish(self) -> None:
        done = await asyncio.to_thread(self.setup.publish, self.random.randrange(2))
        self.outcomes[f"publish {done}"] += 1

    async def kill_worker(self) -> None:
        self.setup.worker.kill()
        self.setup.worker.wait()
        await asyncio.sleep(self.random.uniform(0.5, 4))
        self.setup.start_worker()
        self.outcomes["worker killed"] += 1

    async def sink_outage(self) -> None:
        self.webhook.mood = self.random.choice(("refuses", "hangs", "gone"))
        await asyncio.sleep(self.random.uniform(3, 12))
        self.webhook.mood = "well"
        self.outcomes["sink outage"] += 1

    async def sample(self) -> None:
        reading = soak_server.process(self.setup.gateway.pid)
        self.samples.append({"at": time.monotonic(), **reading})

    # --- the run ---

    async def run(self) -> list[str]:
        await self.webhook.start(self.setup.hook_port)
        self.setup.start()
        self.until = time.monotonic() + 20
        await asyncio.gather(*(self.client() for _ in range(CLIENTS)))
        await self.quiet()
        before = soak_server.process(self.setup.gateway.pid)
        self.until = time.monotonic() + self.options.minutes * 60
        await asyncio.gather(
            *(self.client() for _ in range(CLIENTS)), self.every(20, self.reload), self.every(15, self.publish),
            self.every(60, self.kill_worker), self.every(45, self.sink_outage), self.every(5, self.sample),
        )
        self.webhook.mood = "well"
        return await self.quiet(before)

    async def quiet(self, before: dict | None = None) -> list[str]:
        """Waits until nothing is held; what still is after two minutes is told."""
        wrong: list[str] = []
        for _ in range(120):
            status = await asyncio.to_thread(self.setup.status)
            reading = soak_server.process(self.setup.gateway.pid)
            wrong = [f"{status['running']} generations"] if status["running"] else []
            for worker in status["workers"]:
                held = {name: worker[name] for name in ("leases", "batch_rows", "waiting") if worker[name]}
                wrong += [f"{worker['name']} holds {held}"] if held else []
            wrong += [f"{base['name']}: {base['waiting']} wait" for base in status["bases"] if base["waiting"]]
            wrong += [f"{status['spool']['events']} events in the spool"] if status["spool"]["events"] else []
            # Connections to workers and sinks come and go; what leaks grows with the load.
            if before and reading["files"] > before["files"] + 8:
                wrong.append(f"{reading['files']} open files, {before['files']} before")
            if before and reading["threads"] > before["threads"] + 4:
                wrong.append(f"{reading['threads']} threads, {before['threads']} before")
            if not wrong:
                break
            await asyncio.sleep(1)
        return wrong


def slope(samples: list[dict]) -> float:
    """KiB of resident memory a minute, by least squares."""
    times = [sample["at"] / 60 for sample in samples]
    sizes = [sample["resident"] / 1024 for sample in samples]
    middle, mean = sum(times) / len(times), sum(sizes) / len(sizes)
    return sum((t - middle) * (s - mean) for t, s in zip(times, sizes)) / sum((t - middle) ** 2 for t in times)


def report(soak: Soak, wrong: list[str]) -> str:
    options, samples = soak.options, soak.samples
    late = samples[len(samples) // 3 :]
    mib = lambda sample: f"{sample['resident'] / 2**20:.0f}"
    rows = "\n".join(f"| {what} | {count:,} |" for what, count in sorted(soak.outcomes.items()))
    thirds = [samples[0], *(samples[len(samples) * part // 6 - 1] for part in (2, 3, 4, 5, 6))]
    return f"""# Soak

{version(options.binary)}, {machine()}, {options.minutes:g} minutes, seed {options.seed}, `make soak`: {CLIENTS} clients of {TENANTS} tenants on an embedded
worker and a worker process, the guard on, ratings into a file and a webhook, with reloads, publishes, killed workers and
outages of the webhook in a loop.

Left in the end: **{'; '.join(wrong) or 'nothing: no generation, lease, sequence, waiting request, event, file or thread'}**.

Resident memory, MiB, at the start and after each sixth from the second on: {', '.join(map(mib, thirds))}. Slope over the last two thirds: **{slope(late):+.1f} KiB a minute**. Open files at most {max(sample['files'] for sample in samples)}, threads {max(sample['threads'] for sample in samples)}.

| what | times |
|---|---|
{rows}
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--binary", type=pathlib.Path, required=True)
    arguments.add_argument("--model", type=pathlib.Path, required=True, help="SmolLM2-135M as GGUF or folder")
    arguments.add_argument("--minutes", type=float, default=30)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--out", type=pathlib.Path, help="writes the report to this file too")
    options = arguments.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tenantry-soak-"))
    soak = Soak(options, folder)
    try:
        wrong = asyncio.run(soak.run())
        text = report(soak, wrong)
    finally:
        soak.setup.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print(text)
    if options.out:
        write_section(options.out, text)
    unexpected = [name for name in soak.outcomes if not ok(name)]
    if wrong or unexpected:
        sys.exit(f"left: {wrong}; unexpected: {unexpected}")


def ok(outcome: str) -> bool:
    """Whether an outcome is one that may be."""
    kind, _, rest = outcome.partition(" ")
    if rest.isdigit():
        return int(rest) in EXPECTED
    return kind in ("reload", "reload,", "worker", "sink") or outcome in ("stream error event", "publish ok")


if __name__ == "__main__":
    main()
