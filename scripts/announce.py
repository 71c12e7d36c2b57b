#!/usr/bin/env python3
"""Waits until a server is ready, and prints what can be done with it.

Ends without a word when the server's process is gone: why it went is for the
server to say.
"""

import argparse
import os
import time
import urllib.error
import urllib.request

KEYS = "sk-demo-acme sk-demo-globex sk-demo-initech sk-demo-hooli"
QUESTION = '{"model":"assistant","stream":true,"messages":[{"role":"user","content":"What is the sea?"}]}'


def reachable(listen: str) -> str:
    """The address for a client on this machine."""
    host, _, port = listen.rpartition(":")
    return {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host) + ":" + port


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def ready(url: str) -> bool:
    # A proxy that the environment names is not the way to this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--process", type=int, required=True)
    arguments.add_argument("--listen", required=True)
    arguments.add_argument("--ops", required=True)
    options = arguments.parse_args()
    public, ops = reachable(options.listen), reachable(options.ops)

    while not ready(f"http://{ops}/readyz"):
        if not alive(options.process):
            return
        time.sleep(0.1)
    print(
        f"\n"
        f"curl -N http://{public}/v1/chat/completions -H 'authorization: Bearer sk-demo-acme'"
        f" -H 'content-type: application/json' -d '{QUESTION}'\n"
        f"http://{public}/ # the playground; demonstration keys: {KEYS}\n"
        f"curl http://{ops}/metrics\n",
        flush=True,
    )


if __name__ == "__main__":
    main()
