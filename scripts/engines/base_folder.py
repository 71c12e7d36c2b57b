#!/usr/bin/env python3
"""Writes a GGUF base model as a Hugging Face folder, with weights in bfloat16."""

import argparse
import json
import pathlib

import torch
import transformers


def write(model: pathlib.Path, folder: pathlib.Path) -> None:
    origin = {"pretrained_model_name_or_path": str(model.parent), "gguf_file": model.name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(**origin)
    weights = transformers.AutoModelForCausalLM.from_pretrained(**origin, dtype=torch.bfloat16)
    # The weights are no longer quantised, and are not saved while they seem so.
    weights.hf_quantizer = None
    if hasattr(weights.config, "quantization_config"):
        del weights.config.quantization_config
    weights.save_pretrained(folder)
    tokenizer.save_pretrained(folder)

    # Engines differ in where they look for the rotation's base.
    file = folder / "config.json"
    config = json.loads(file.read_text())
    config.setdefault("rope_theta", config["rope_parameters"]["rope_theta"])
    file.write_text(json.dumps(config, indent=2) + "\n")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("model", type=pathlib.Path)
    arguments.add_argument("folder", type=pathlib.Path)
    options = arguments.parse_args()
    write(options.model, options.folder)


if __name__ == "__main__":
    main()
