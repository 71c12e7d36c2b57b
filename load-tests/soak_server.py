"""What the soak runs against: a gateway, a worker process, and a webhook with moods."""

import asyncio
import json
import pathlib
import signal
import subprocess
import urllib.request

from harness import free_port, wait_ready, write_adapter


class Webhook:
    """Takes events when it is well; refuses them, does not answer, or hangs up otherwise."""

    def __init__(self) -> None:
        self.mood = "well"

    async def start(self, port: int) -> None:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", port)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
                await reader.readexactly(int(lengths[0]) if lengths else 0)
                if self.mood == "gone":
                    return
                if self.mood == "hangs":
                    await asyncio.sleep(15)
                status = b"503 Service Unavailable" if self.mood == "refuses" else b"204 No Content"
                writer.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\n\r\n")
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


class Setup:
    def __init__(self, folder: pathlib.Path, options, tenants: int) -> None:
        self.folder, self.options, self.tenants = folder, options, tenants
        self.port, self.ops, self.worker_port, self.hook_port = (free_port() for _ in range(4))
        self.config = folder / "soak.toml"
        self.gateway = self.worker = None
        for number in range(tenants):
            write_adapter(folder / f"adapter-{number}", number)
        for number in range(2):
            write_adapter(folder / f"rolling-{number}", 1000 + number)
        (folder / "hook-url").write_text(f"http://127.0.0.1:{self.hook_port}/events")
        (folder / "hook-key").write_text("whsec_c29hay1rZXktb2YtdGhlLXNvYWstdGVzdC1vbmx5")

    def write_config(self, limit: int = 3000, broken: bool = False) -> None:
        model, folder = self.options.model.resolve(), self.folder
        lines = [
            f'[server]\nlisten = "127.0.0.1:{self.port}"\n[ops]\nlisten = "127.0.0.1:{self.ops}"\n[log]\nfilter = "error"',
            f'[catalogue]\ndata_dir = "{folder}/data"\n[ratings]\nfolder = "{folder}/spool"',
            f'[ratings.sinks.file]\nkind = "file"\nfolder = "{folder}/events"\nrotate_bytes = "1MiB"',
            '[ratings.sinks.hook]\nkind = "http"\nurl = "file:hook-url"\nkey = "file:hook-key"\ntimeout = "5s"',
            f'[bases.base]\npath = "{model}"',
            '[workers.local]\ndriver = "embedded"\nbases = ["base"]\nthreads = 1\ncontext = 2048\nmax_batch_rows = 8',
            f'[workers.remote]\ndriver = "grpc"\nbases = ["base"]\nurl = "http://127.0.0.1:{self.worker_port}"',
        ]
        for number in range(self.tenants):
            lines.append(
                f'[[tenants]]\nid = "tenant-{number}"\nkeys = [{{ demo = "sk-demo-soak-{number}" }}]\n'
                f"[tenants.limits]\nrequests_per_minute = {limit}\n"
                f'[[tenants.adapters]]\nname = "own"\nbase = "base"\npath = "adapter-{number}"\n'
                '[tenants.models]\nbase = { base = "base" }\nown = { base = "base", adapter = "own" }'
            )
        if broken:
            lines.append('[[tenants]]\nid = "nobody"\nno_such_key = 1')
        # As editors and Kubernetes do it: the old file, or the new one, never half of it.
        new = self.config.with_suffix(".new")
        new.write_text("\n".join(lines) + "\n")
        new.replace(self.config)

    def start_worker(self) -> None:
        config = self.folder / "worker.toml"
        config.write_text(
            f'[worker]\nlisten = "127.0.0.1:{self.worker_port}"\nthreads = 1\ncontext = 2048\nmax_batch_rows = 8\n'
            f'[log]\nfilter = "error"\n[bases.base]\npath = "{self.options.model.resolve()}"\n'
        )
        self.worker = subprocess.Popen([self.options.binary, "worker", "--config", config])

    def start(self) -> None:
        self.write_config()
        self.start_worker()
        self.gateway = subprocess.Popen([self.options.binary, "serve", "--config", self.config])
        wait_ready(self.gateway, self.ops)
        done = self.publish(0)
        if done != "ok":
            raise RuntimeError(f"the first publish: {done}")

    def publish(self, which: int) -> str:
        """A new revision; the one before the last goes."""
        adapters = [self.options.binary, "adapters"]
        where = ["--server", f"http://127.0.0.1:{self.ops}", "--tenant", "tenant-0", "--name", "rolling"]
        done = subprocess.run(
            [*adapters, "publish", *where, "--base", "base", self.folder / f"rolling-{which}"],
            capture_output=True, text=True,
        )
        if done.returncode:
            return f"failed: {done.stderr.strip()[:100]}"
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ops}/admin/v1/adapters/tenant-0/rolling") as answer:
            revisions = sorted(it["revision"] for it in json.load(answer)["adapters"])
        for revision in revisions[:-2]:
            for command in ("retire", "delete"):
                subprocess.run([*adapters, command, *where, "--revision", str(revision)], capture_output=True)
        return "ok"

    def status(self) -> dict:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ops}/admin/v1/status") as answer:
            return json.load(answer)

    def stop(self) -> None:
        for process in (self.gateway, self.worker):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(timeout=60)


def process(pid: int) -> dict:
    """Resident bytes, threads and open files of a process."""
    status = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
    files = len(list(pathlib.Path(f"/proc/{pid}/fd").iterdir()))
    return {"resident": int(status["VmRSS"].split()[0]) * 1024, "threads": int(status["Threads"]), "files": files}


def unchunked(raw: bytes) -> str:
    """The body of an answer in HTTP/1.1's chunks."""
    rest, body = raw.split(b"\r\n\r\n", 1)[1], b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size or b"0", 16)
        if length == 0:
            break
        body, rest = body + rest[:length], rest[length + 2 :]
    return body.decode(errors="replace")
