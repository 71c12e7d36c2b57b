"""What training both stages has in common: reading rows, their kinds, and counting alarms."""

import gzip
import json
import re

CATEGORIES = ["insult", "hate", "threat", "profanity"]
# The data's `category` column by its beginning; rows of others ("toxic",
# "toxic_content", "other toxicity") say nothing of a kind and train none.
KINDS = [
    ("offensive", {"profanity"}),
    ("profane/obscene", {"profanity"}),
    ("insult", {"insult"}),
    ("threat", {"threat"}),
    ("sexism:1", {"threat", "hate"}),
    ("hate:threatening", {"threat", "hate"}),
    ("sexism", {"hate"}),
    ("hate", {"hate"}),
    ("implicit_hate", {"hate"}),
    ("identity based attack", {"hate"}),
]
# A row has one category, but an insult may swear as well.
SWEARS = re.compile(r"\b(?:\w*fuck\w*|\w*shit\w*|bitch\w*|cunts?|ass|asses|asshole\w*|dick|pussy|cock|hoes?|damn)\b", re.I)


def read_rows(path):
    opened = gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8")
    with opened as lines:
        return [json.loads(line) for line in lines]


def kinds_of(row):
    """The kinds of a toxic row, a set of CATEGORIES; None where the data does not say."""
    for prefix, kinds in KINDS:
        if row["label"] == 1 and row.get("category", "").startswith(prefix):
            return kinds | ({"profanity"} if SWEARS.search(row["text"]) else set())
    return None


def at_threshold(scores, labels, threshold):
    """Precision, recall and false alarms of an array of scores against one of booleans."""
    flagged = scores >= threshold
    hits = (flagged & labels).sum()
    alarms = (flagged & ~labels).sum() / max((~labels).sum(), 1)
    return {
        "threshold": threshold,
        "precision": round(float(hits / max(flagged.sum(), 1)), 4),
        "recall": round(float(hits / labels.sum()), 4),
        "false_alarms": round(float(alarms), 4),
    }
