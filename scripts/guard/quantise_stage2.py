"""Writes src/guard/weights/stage2 from the folder that train_stage2.py made: model.gguf with
8 bits for each weight (blocks of 32 with a scale, `Q8_0`), config.json and tokenizer.json.

Usage: quantise_stage2.py FLOAT [--data DATA]

Tensors keep their names, so that the crate reads both kinds of folders by one code. What the
model says of a few texts before and after goes to tests/fixtures/guard/stage2.json, to which
the crate's tests hold it; with the data, the AUC on dev before and after is printed.
"""

import argparse
import json
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import load_file

from rows import read_rows
from train_stage2 import LONGEST, ROOT, auc, normal_forms, open_model, open_tokenizer, probabilities

Q8_0, F32 = gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.F32
POSITIONS = "bert.embeddings.position_embeddings.weight"


TEXTS = [
    "you are a stupid worthless idiot",
    "You are not an idiot at all.",
    "How do I kill a Python process?",
    "The train to the coast leaves at nine.",
    "Rabbits eat hay. Only a complete idiot would ask that, you stupid fool.",
    "Rabbits eat hay and grass.",
    "all immigrants are filthy vermin",
    "Hatred of immigrants has no place in our schools.",
    "holy sh1t this is f.u.c.k.i.n.g good",
    "I will find you and hurt you.",
    "kys",
    "phuck you",
    "go get gassed",
    "Parallel parking is a pain in the ass.",
    "Can a rat be stupid?",
    "My son cried because a boy at school had called him a \"stupid idiot\".",
    "🖕 \u0443\u043eu l\u03bfser",
    "The committee met on Tuesday to discuss the new library, and heard a report on its roof. " * 5,
]


def record(texts, before, after):
    """[toxic, and each kind given toxic] of the floats and of the rounded weights."""
    def listed(numbers):
        return [round(float(number), 5) for number in numbers]

    rows = [{"text": text, "float": listed(a), "rounded": listed(b)} for text, a, b in zip(texts, before, after)]
    path = ROOT / "tests/fixtures/guard/stage2.json"
    path.write_text("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n")


def kind_of(name, tensor, table):
    """Vectors stay floats, and the classifier, which is 2 000 numbers."""
    if tensor.ndim < 2 or name.startswith("classifier") or tensor.shape[-1] % 32:
        return F32
    return table if "word_embeddings" in name else Q8_0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("float", type=Path)
    parser.add_argument("--data", type=Path, help="the folder with dev.jsonl.gz")
    parser.add_argument("--out", type=Path, default=ROOT / "src/guard/weights/stage2")
    parser.add_argument("--table", default="Q8_0", help="the type of the table of words, the half of all weights")
    parser.add_argument("--features", default=ROOT / "target/release/examples/features", help="the crate's example, built")
    options = parser.parse_args()
    table = gguf.GGMLQuantizationType[options.table]

    options.out.mkdir(parents=True, exist_ok=True)
    tokenizer, model = open_tokenizer(options.float), open_model(options.float)
    config = model.config.to_dict()
    config["max_position_embeddings"] = LONGEST  # more are never used
    kept = ["model_type", "architectures", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
            "hidden_act", "layer_norm_eps", "max_position_embeddings", "type_vocab_size", "vocab_size", "pad_token_id",
            "problem_type", "id2label", "label2id", "tenantry_normal_form", "tenantry_kinds_given_toxic"]
    (options.out / "config.json").write_text(json.dumps({key: config[key] for key in kept if key in config}, indent=2) + "\n")
    (options.out / "tokenizer.json").write_text((options.float / "tokenizer.json").read_text())

    writer = gguf.GGUFWriter(options.out / "model.gguf", "bert")
    rounded = {}
    for name, tensor in sorted(load_file(options.float / "model.safetensors").items()):
        numbers = tensor.float().numpy()
        if name == POSITIONS:
            numbers = np.ascontiguousarray(numbers[:LONGEST])
        kind = kind_of(name, numbers, table)
        packed = numbers if kind == F32 else gguf.quants.quantize(numbers, kind)
        writer.add_tensor(name, packed, raw_dtype=kind)
        rounded[name] = torch.from_numpy(numbers if kind == F32 else gguf.quants.dequantize(packed, kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    size = sum(file.stat().st_size for file in options.out.iterdir() if file.suffix in (".gguf", ".json"))
    print(f"{size} bytes")

    texts = {"own": normal_forms([{"text": text} for text in TEXTS], options.features)}
    if options.data:
        dev = read_rows(options.data / "dev.jsonl.gz")
        texts["dev"] = normal_forms(dev, options.features)
    before = {name: probabilities(model, tokenizer, texts) for name, texts in texts.items()}
    rounded[POSITIONS] = torch.cat([rounded[POSITIONS], model.state_dict()[POSITIONS][LONGEST:]])
    model.load_state_dict(rounded)
    after = {name: probabilities(model, tokenizer, texts) for name, texts in texts.items()}
    record(TEXTS, before["own"], after["own"])
    if options.data:
        labels = [row["label"] for row in dev]
        print("dev AUC", *(round(auc(labels, scores["dev"][:, 0]), 5) for scores in (before, after)))
        print("largest difference", float(np.abs(before["dev"] - after["dev"])[:, 0].max()))


if __name__ == "__main__":
    main()
