"""What transformers say of tiny models of each family that stage 2 can open, to hold
src/guard/encoder to it: `tiny_models.py > tests/fixtures/guard/tiny.json`.

The weights are not written down: number `at` of the tensor called `name` is
`0.3 * sin(1.7 * at + len(name))`, plus 1 for the scales of layer normalisations, and the crate's
test makes the same.
"""

import json
import math

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForSequenceClassification

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
VOCABULARY = SPECIAL + [chr(ord("a") + at) for at in range(26)] + ["##" + chr(ord("a") + at) for at in range(26)]
TEXTS = ["a", "you are a fool", "kindness is free and so is the sea", "abc " * 20]
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
FAMILIES = [
    ("bert", SIZES | {"max_position_embeddings": 40, "id2label": {0: "neutral", 1: "toxic"}}),
    ("bert", SIZES | {"max_position_embeddings": 40, "hidden_act": "gelu_new", "id2label": {0: "toxic"}}),
    ("distilbert", {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, "max_position_embeddings": 40,
                    "id2label": {0: "LABEL_0", 1: "LABEL_1"}}),
    ("roberta", SIZES | {"max_position_embeddings": 44, "type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1,
                         "problem_type": "multi_label_classification",
                         "id2label": {0: "toxicity", 1: "threat", 2: "neutral"}}),
    ("xlm-roberta", SIZES | {"max_position_embeddings": 44, "type_vocab_size": 1, "pad_token_id": 1,
                             "id2label": {0: "hate", 1: "offensive", 2: "neither"}}),
]


def tokenizer():
    ids = {word: at for at, word in enumerate(VOCABULARY)}
    made = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return made


def fill(model):
    for name, tensor in model.state_dict().items():
        if tensor.dtype == torch.float32:
            scale = "LayerNorm.weight" in name or "layer_norm.weight" in name
            numbers = [0.3 * math.sin(1.7 * at + len(name)) + scale for at in range(tensor.numel())]
            tensor.copy_(torch.tensor(numbers, dtype=torch.float32).reshape(tensor.shape))


def probabilities(model, ids):
    logits = model(input_ids=torch.tensor([ids])).logits[0]
    several = model.config.problem_type == "multi_label_classification" or len(logits) == 1
    likely = torch.sigmoid(logits) if several else torch.softmax(logits, 0)
    return [round(number, 6) for number in likely.tolist()]


def main():
    split, families = tokenizer(), []
    # Short enough to be one window.
    texts = [text for text in TEXTS if len(split.encode(text).ids) <= 40]
    for family, sizes in FAMILIES:
        config = AutoConfig.for_model(family, vocab_size=len(VOCABULARY), **sizes)
        model = AutoModelForSequenceClassification.from_config(config).eval()
        with torch.inference_mode():
            fill(model)
            outputs = [probabilities(model, split.encode(text).ids) for text in texts]
        written = {"model_type": family, "vocab_size": len(VOCABULARY)} | sizes
        shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items() if tensor.dtype == torch.float32}
        families.append({"config": written, "shapes": shapes, "probabilities": outputs})
    print(json.dumps({"tokenizer": json.loads(split.to_str()), "texts": texts, "families": families}))


if __name__ == "__main__":
    main()
