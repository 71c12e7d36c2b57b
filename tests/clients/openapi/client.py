"""Requests that schemathesis makes up from proto/openapi.json, to both listeners.

Every answer has to be as the document says: its status, its type, its headers,
its body; what the document forbids has to be refused, and nothing may be a fault
of ours. The seed is fixed, so a run can be repeated.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[3]
# A stream that never ends is left out.
OPERATIONS = "^/(admin/(?!v1/status/stream).*|metrics|healthz|readyz|openapi.json|status)$"
HERE = pathlib.Path(__file__).resolve().parent


def run(url, paths, key, examples):
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml"), "run"]
    command += [str(ROOT / "proto" / "openapi.json"), "--url", url, "--include-path-regex", paths]
    command += ["--max-examples", str(examples), "--seed", "1", "--no-color"]
    if key:
        command += ["--header", f"Authorization: Bearer {key}"]
    with tempfile.TemporaryDirectory() as folder:
        # What it remembers between runs stays out of the way.
        return subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONUNBUFFERED": "1"}).returncode


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--public", required=True)
    parser.add_argument("--operations", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--admin-key", required=True)
    parser.add_argument("--examples", type=int, default=10)
    given = parser.parse_args()
    public = run(given.public, "^/(v1/.*)?$", given.key, given.examples)
    operations = run(given.operations, OPERATIONS, given.admin_key, given.examples)
    sys.exit(1 if public or operations else 0)


if __name__ == "__main__":
    main()
