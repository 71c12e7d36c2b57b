"""Averages the weights of several runs of train_stage2.py from the same base, which differ in
their seed: one model, as large as each, that errs less than they do.

Usage: average_stage2.py --out FOLDER RUN RUN... [--data DATA]

Writes a folder as train_stage2.py does; with the data, prints the AUC on dev of each run and of
the average.
"""

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from rows import read_rows
from train_stage2 import ROOT, auc, normal_forms, open_model, open_tokenizer, probabilities


def average(folders):
    runs = [load_file(folder / "model.safetensors") for folder in folders]
    return {name: torch.stack([run[name].float() for run in runs]).mean(0).contiguous() for name in runs[0]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="the folder with dev.jsonl.gz")
    parser.add_argument("--features", default=ROOT / "target/release/examples/features", help="the crate's example, built")
    options = parser.parse_args()

    options.out.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "tokenizer.json"):
        shutil.copyfile(options.runs[0] / name, options.out / name)
    save_file(average(options.runs), options.out / "model.safetensors")
    if options.data:
        dev = read_rows(options.data / "dev.jsonl.gz")
        texts, labels = normal_forms(dev, options.features), [row["label"] for row in dev]
        for folder in [*options.runs, options.out]:
            scores = probabilities(open_model(folder), open_tokenizer(folder), texts)
            print(folder.name, "dev AUC", round(auc(labels, scores[:, 0]), 5))


if __name__ == "__main__":
    main()
