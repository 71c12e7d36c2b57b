"""Trains stage 1 of the guard: src/guard/weights/stage1.bin, and what it reaches.

Usage, from the repository's root:

    pip install -r scripts/guard/requirements.txt
    cargo build --release -p tenantry-guard --example features
    python scripts/guard/train_stage1.py DATA    # the folder with train.jsonl.gz, dev.jsonl.gz

Text is normalised and hashed by the crate itself. `--without-contrast` leaves out
the contrast pairs and `--without-share-alike` rows under CC-BY-SA, `--without-covert` what
was written of covert abuse and of harmless prompts, to see what they bring. The same data gives the same bytes, on the
same versions and one thread; it takes a minute.
"""

import argparse
import json
import os
import struct
import subprocess
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from scipy.sparse import csr_matrix, diags, vstack
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

import covert
import harmless
import prompts
from rows import CATEGORIES, at_threshold, kinds_of, read_rows

ROOT = Path(__file__).resolve().parents[2]
TOXIC_BITS = 18
CATEGORY_BITS = 16
STRENGTH = 2.0  # C, the inverse of the regularisation
CONTRAST_WEIGHT = 5.0
COVERT_WEIGHT = 3.0
HARMLESS_WEIGHT = 0.5
SMOOTH = 0.3  # added to each bucket's log-odds before they scale it


def hashes_of(rows, program):
    """The features of each row: one array of 32-bit hashes, and where each row's begin."""
    lines = "".join(json.dumps({"text": row["text"]}) + "\n" for row in rows)
    written = subprocess.run([program], input=lines.encode(), stdout=subprocess.PIPE, check=True).stdout
    numbers = np.frombuffer(written, dtype="<u4")
    parts, begins, at = [], [0], 0
    while at < len(numbers):
        count = int(numbers[at])
        parts.append(numbers[at + 1 : at + 1 + count])
        begins.append(begins[-1] + count)
        at += count + 1
    assert len(parts) == len(rows)
    return np.concatenate(parts), np.array(begins)


def counts_of(hashes, bits):
    """Rows by buckets: how often a row's features fall into each, over the root of their number."""
    values, begins = hashes
    buckets = (values >> np.uint32(32 - bits)).astype(np.int32)
    shape = (len(begins) - 1, 1 << bits)
    matrix = csr_matrix((np.ones(len(buckets), np.float32), buckets, begins), shape=shape)
    matrix.sum_duplicates()
    root = 1 / np.sqrt(np.maximum(np.diff(begins), 1))
    return (diags(root.astype(np.float32)) @ matrix).tocsr().astype(np.float32)


def scales_of(matrix, labels):
    """How far each bucket is to be trusted: its inverse document frequency, times how much
    likelier it is in rows of one label than of the other (naive Bayes' log-odds)."""
    rows = np.bincount(matrix.indices, minlength=matrix.shape[1])
    rarity = (np.log((1 + matrix.shape[0]) / (1 + rows)) + 1) / 6
    with_it = np.asarray(matrix[labels == 1].sum(axis=0)).ravel() + 0.5
    without = np.asarray(matrix[labels == 0].sum(axis=0)).ravel() + 0.5
    odds = np.log((with_it / with_it.sum()) / (without / without.sum()))
    return (rarity * (np.abs(odds) + SMOOTH)).astype(np.float32)


def fit(matrix, labels, weights, strength, balanced=False):
    """Weights and bias on the counts themselves, the scales folded in."""
    scales = scales_of(matrix, labels)
    model = LogisticRegression(
        C=strength, max_iter=80, tol=1e-7, random_state=0, class_weight="balanced" if balanced else None
    )
    model.fit((matrix @ diags(scales)).tocsr(), labels, sample_weight=weights)
    return model.coef_[0].astype(np.float32) * scales, float(model.intercept_[0])


def quantised(weights):
    """As bytes with sign, and the scale: a byte `b` stands for `b * |b| * scale`, so that the
    many small weights are not rounded away beside the few large ones."""
    scale = float(np.abs(weights).max()) / 127**2
    return (np.sign(weights) * np.round(np.sqrt(np.abs(weights) / scale))).astype(np.int8), scale


def train_categories(rows, hashes):
    """One head for each category, on toxic rows alone: its tables, scales and biases."""
    kinds = [kinds_of(row) for row in rows]
    used = np.array([at for at, kind in enumerate(kinds) if kind is not None])
    matrix = counts_of(hashes, CATEGORY_BITS)[used]
    heads = []
    for category in CATEGORIES:
        labels = np.array([category in kinds[at] for at in used])
        weights, bias = fit(matrix, labels, None, 0.5, balanced=True)
        heads.append((*quantised(weights), bias))
    return heads


def covert_rows():
    """Rows, each with its weight. Those that are toxic or not by a single word are left to
    stage 2, and so are answers with an insult in them: sums of words learn from them that
    people are toxic, and rabbits that eat hay."""
    for room, weight in ((covert, COVERT_WEIGHT), (harmless, HARMLESS_WEIGHT)):
        for row in room.rows():
            if row["split"] == "train" and not row["kind"].startswith(("either", "covert_answers")):
                yield row | {"weight": weight}


def write(path, toxic, categories):
    table, scale, bias = toxic
    heads = [(scale, bias)] + [(scale, bias) for _, scale, bias in categories]
    with open(path, "wb") as file:
        file.write(b"TGL1" + bytes([TOXIC_BITS, CATEGORY_BITS, len(categories), 0]))
        file.write(struct.pack(f"<{2 * len(heads)}f", *(number for head in heads for number in head)))
        file.write(table.tobytes())
        file.write(np.stack([table for table, _, _ in categories], axis=1).tobytes())


def scores(toxic, hashes):
    table, scale, bias = toxic
    weights = table.astype(np.float32)
    logits = counts_of(hashes, TOXIC_BITS) @ (weights * np.abs(weights) * scale) + bias
    return 1 / (1 + np.exp(-logits))


def report(dev, dev_scores, check, check_scores):
    labels = np.array([row["label"] == 1 for row in dev])
    print("dev AUC", round(roc_auc_score(labels, dev_scores), 4))
    for threshold in (0.2, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9):
        print("dev", json.dumps(at_threshold(dev_scores, labels, threshold)))
    for source in sorted({row["source"] for row in dev}):
        of = np.array([row["source"] == source for row in dev])
        alarms = round(float((dev_scores[of & ~labels] >= 0.5).mean()), 3) if (of & ~labels).any() else None
        print("dev", source, "rows", int(of.sum()), "recall", round(float((dev_scores[of & labels] >= 0.5).mean()), 3),
              "false alarms", alarms)
    truth = np.array([row["label"] == 1 for row in check])
    right = (check_scores >= 0.5) == truth
    for kind in dict.fromkeys(row["kind"] for row in check):
        of = np.array([row["kind"] == kind for row in check])
        print("contrast", kind, "right", round(float(right[of].mean()), 3),
              "of the benign", round(float(right[of & ~truth].mean()), 3))
    pairs = truth | np.isin([row["kind"] for row in check], ["sounds_bad"], invert=True)
    print("contrast AUC", round(roc_auc_score(truth[pairs], check_scores[pairs]), 4))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--features", default=ROOT / "target/release/examples/features", help="the crate's example, built")
    parser.add_argument("--out", type=Path, default=ROOT / "src/guard/weights/stage1.bin")
    parser.add_argument("--contrast-weight", type=float, default=CONTRAST_WEIGHT)
    parser.add_argument("--without-contrast", action="store_true")
    parser.add_argument("--without-covert", action="store_true")
    parser.add_argument("--without-share-alike", action="store_true", help="leave out rows under CC-BY-SA")
    options = parser.parse_args()

    train = read_rows(options.data / "train.jsonl.gz")
    if options.without_share_alike:
        train = [row for row in train if "CC-BY-SA" not in row["license"]]
    dev = read_rows(options.data / "dev.jsonl.gz")
    contrast = read_rows(ROOT / "tests/fixtures/guard/contrast.jsonl")
    check = [row for row in contrast if row["split"] == "check"]
    added = [] if options.without_contrast else [row for row in contrast if row["split"] == "train"]
    added = [row | {"weight": options.contrast_weight} for row in added]
    added += [] if options.without_covert else list(covert_rows())

    hashes = hashes_of(train, options.features)
    matrix = counts_of(hashes, TOXIC_BITS)
    labels = [row["label"] for row in train + added]
    weights = [1.0] * len(train) + [row["weight"] for row in added]
    if added:
        matrix = vstack([matrix, counts_of(hashes_of(added, options.features), TOXIC_BITS)]).tocsr()
    fitted, bias = fit(matrix, np.array(labels), np.array(weights, np.float32), STRENGTH)
    toxic = (*quantised(fitted), bias)
    write(options.out, toxic, train_categories(train, hashes))

    own = {room.__name__: [row for row in room.rows() if row["split"] == "check"] for room in (prompts, covert, harmless)}
    sets = {"dev": dev, "check": check} | own
    of = {name: scores(toxic, hashes_of(rows, options.features)) for name, rows in sets.items()}
    report(dev, of["dev"], check, of["check"])
    for name, rows in own.items():
        truth = np.array([row["label"] == 1 for row in rows])
        print(name, *(f"at {at}: recall {(of[name][truth] >= at).mean() if truth.any() else 0:.3f} false alarms "
                      f"{(of[name][~truth] >= at).mean():.3f}" for at in (0.2, 0.6)))


if __name__ == "__main__":
    main()
