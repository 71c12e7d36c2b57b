"""What both stages reach together, through the crate itself: src/guard/combined.rs has its
constants from here.

Usage: measure.py DATA [--prose FOLDER]

    cargo build --release -p tenantry-guard --example score

Benign sets that are held to 2 % of false alarms: prompts and pairs of this project that were
kept back, rows of the benign sources that were kept back, and paragraphs of the documentation
that is found under --prose (files called METADATA and *.md, *.rst, *.txt), 3 000 of them.
"""

import argparse
import json
import random
import re
import subprocess
from pathlib import Path

import numpy as np

import covert
import harmless
import prompts
from rows import at_threshold, read_rows
from train_stage2 import ROOT, auc, split_benign

MIXES = [(0.3, 0.7), (0.4, 0.6), (0.5, 0.5), (0.6, 0.4), (0.7, 0.3)]
PARAGRAPHS = 3000


def paragraphs(folder):
    """Of prose: some words, hardly any signs of code and tables."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.name == "METADATA" or path.suffix in (".md", ".rst", ".txt"):
            try:
                text = path.read_text()[:200_000]
            except (OSError, UnicodeDecodeError):
                continue
            for part in re.split(r"\n\s*\n", text):
                part = " ".join(part.split())
                if 60 <= len(part) <= 1200 and sum(ch.isalpha() or ch in " ,.'" for ch in part) > 0.92 * len(part):
                    found.append(part)
    found = sorted(set(found))
    return random.Random(7).sample(found, min(PARAGRAPHS, len(found)))


def scores(texts, program, model):
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    command = [program, "--stage2"] + ([model] if model else [])
    written = subprocess.run(command, input=lines.encode(), stdout=subprocess.PIPE, check=True).stdout
    rows = [json.loads(line) for line in written.decode().splitlines()]
    return np.array([row["stage1"] for row in rows]), np.array([row["stage2"] for row in rows])


def log_odds(likely):
    likely = np.clip(likely, 1e-6, 1 - 1e-6)
    return np.log(likely / (1 - likely))


def mixed(first, second, mix):
    return 1 / (1 + np.exp(-(mix[0] * log_odds(first) + mix[1] * log_odds(second))))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--prose", type=Path)
    parser.add_argument("--score", default=ROOT / "target/release/examples/score", help="the crate's example, built")
    parser.add_argument("--model", help="a folder instead of the embedded model")
    parser.add_argument("--doubtful", type=float, default=0.2)
    parser.add_argument("--keep", type=Path, help="a file to write all scores to")
    options = parser.parse_args()

    dev = read_rows(options.data / "dev.jsonl.gz")
    _, benign = split_benign(read_rows(options.data / "train.jsonl.gz"))
    contrast = [row for row in read_rows(ROOT / "tests/fixtures/guard/contrast.jsonl") if row["split"] == "check"]
    own = [row for row in prompts.rows() if row["split"] == "check"]
    sets = {"dev": dev, "contrast": [row for row in contrast if row["kind"] != "sounds_bad"], "own prompts": own}
    sets["sounds bad"] = [row for row in contrast + own if row["label"] == 0 and row["kind"].startswith(("sounds", "prompt"))]
    sets["covert"] = [row for row in covert.rows() if row["split"] == "check"]
    sets["harmless"] = [row for row in harmless.rows() if row["split"] == "check"]
    for source in sorted({row["source"] for row in benign}):
        sets[source] = [row for row in benign if row["source"] == source]
    if options.prose:
        sets["prose"] = [{"text": text, "label": 0} for text in paragraphs(options.prose)]
    read = {name: scores([row["text"] for row in rows], options.score, options.model) for name, rows in sets.items()}
    labels = {name: np.array([row["label"] == 1 for row in rows]) for name, rows in sets.items()}
    if options.keep:
        kept = {name: [a.tolist(), b.tolist(), labels[name].tolist()] for name, (a, b) in read.items()}
        options.keep.write_text(json.dumps(kept))

    for name, (first, second) in read.items():
        asked = first >= options.doubtful
        print(f"{name}: {len(first)} rows, {asked[~labels[name]].mean():.3f} of the benign are doubtful")
        if labels[name].any():
            print("  AUC stage 1", round(auc(labels[name], first), 4), "stage 2", round(auc(labels[name], second), 4),
                  *(f"{mix} {auc(labels[name], mixed(first, second, mix)):.4f}" for mix in MIXES))
    for mix in MIXES:
        for threshold in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8):
            # What stage 2 is not asked of passes.
            both = {name: np.where(first >= options.doubtful, mixed(first, second, mix), 0) for name, (first, second) in read.items()}
            row = at_threshold(both["dev"], labels["dev"], threshold)
            alarms = {name: round(float((both[name][~labels[name]] >= threshold).mean()), 3) for name in sets}
            print(mix, json.dumps(row), "benign:", json.dumps(alarms))


if __name__ == "__main__":
    main()
