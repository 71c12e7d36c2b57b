#!/usr/bin/env python3
"""An endpoint that speaks OpenAI's interface and says the same ordinary sentences to everybody, a word a chunk.

The model's name is how: `paced` gives a chunk every 20 ms, anything else all of them as fast as they are taken. It costs
next to nothing, so that what is measured is the gateway.
"""

import argparse
import asyncio
import json

PROSE = (
    "The committee met on Tuesday to discuss the new library. Members heard a report on the roof, which needs repair "
    "before winter, and on the opening hours of the reading room, and asked the treasurer for two figures. The old "
    "building will stay open until the spring, and nobody has to carry books home before then. "
)
EVERY = 0.02


def frame(data: bytes) -> bytes:
    """One event, as a chunk of HTTP/1.1."""
    event = b"data: " + data + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(event), event)


def chunk(model: str, choices: list, **more: object) -> bytes:
    made = {"id": "chatcmpl-0", "object": "chat.completion.chunk", "created": 0, "model": model, "choices": choices}
    return frame(json.dumps(made | more).encode())


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
            request = json.loads(await reader.readexactly(int(fields[b"content-length"])))
            await answer(request, writer)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    writer.close()


async def answer(request: dict, writer: asyncio.StreamWriter) -> None:
    model, count = request["model"], request["max_tokens"]
    words = [word + " " for word in PROSE.split()]
    said = [words[at % len(words)] for at in range(count)]
    chunks = [chunk(model, [{"index": 0, "delta": {"content": word}, "finish_reason": None}]) for word in said]
    end = chunk(model, [{"index": 0, "delta": {}, "finish_reason": "length"}])
    usage = {"prompt_tokens": 8, "completion_tokens": count, "total_tokens": 8 + count}
    end += chunk(model, [], usage=usage) + frame(b"[DONE]") + b"0\r\n\r\n"
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
    started = asyncio.get_running_loop().time()
    for number, one in enumerate(chunks):
        writer.write(one)
        if model == "paced":
            await asyncio.sleep(started + (number + 1) * EVERY - asyncio.get_running_loop().time())
        elif number % 16 == 0:
            await writer.drain()
    writer.write(end)
    await writer.drain()


async def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--port", type=int, required=True)
    server = await asyncio.start_server(serve, "127.0.0.1", arguments.parse_args().port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
