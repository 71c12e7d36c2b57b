"""The hash of stage 1 once more, in Python, to hold src/guard/linear/features.rs to it.

Training does not use this (it calls the crate); it says what the numbers in the
weights stand for. `features.py > tests/fixtures/guard/features.json` writes the golden
vectors, and the crate's tests compare.
"""

import json
import re

PRIME, MASK = 0x01000193, 0xFFFFFFFF
GRAM, WORD, PAIR, NEGATED, QUOTED = 0x811C9DC5, 0x9747B28C, 0x1B873593, 0xE6546B64, 0x85EBCA6B
LONGEST = 48
WORDS = re.compile(rb"[0-9a-z'*\x80-\xff]+|[^0-9a-z'*\x80-\xff ]+")
NEGATIONS = {b"not", b"no", b"never", b"nobody", b"none", b"nor", b"without", b"cannot", b"dont", b"isnt"}


def mix(number):
    return ((number ^ (number >> 15)) * 0x9E3779B1) & MASK


def fnv(seed, letters):
    for byte in letters:
        seed = ((seed ^ byte) * PRIME) & MASK
    return seed


def with_word(seed, whole):
    return mix(seed ^ ((whole * PRIME) & MASK))


def of_word(padded):
    for start in range(len(padded) - 1):
        for length in range(2, 6):
            if start + length <= len(padded):
                yield mix(fnv(GRAM, padded[start : start + length]))
    yield mix(fnv(WORD, padded))


def features(normal, stretched=()):
    """Hashes of a text in its normal form; `stretched` are the offsets of letters that
    were written three times or more."""
    before, negated, quoted = 0, 0, False
    for found in WORDS.finditer(normal.encode()):
        letters = found.group()[:LONGEST]
        signs = not re.match(rb"[0-9a-z'*\x80-\xff]", letters)
        if signs:
            quoted ^= b'"' in letters
            negated = 0
            if letters.strip(b"!?"):
                continue
        padded = b" " + letters + b" "
        whole = fnv(WORD, padded)
        yield from of_word(padded)
        if before:
            rotated = ((before << 13) | (before >> 19)) & MASK
            yield mix(PAIR ^ rotated ^ ((whole * PRIME) & MASK))
        before = whole
        if not signs:
            if negated:
                yield with_word(NEGATED, whole)
            if quoted:
                yield with_word(QUOTED, whole)
            negation = letters in NEGATIONS or letters.endswith(b"n't")
            negated = 3 if negation else max(negated - 1, 0)
        places = [at - found.start() for at in stretched if found.start() <= at < found.start() + len(letters)]
        if places:
            twice = b"".join(bytes([byte]) * (2 if at in places else 1) for at, byte in enumerate(letters))
            yield from of_word(b" " + twice + b" ")


# What was written, its normal form, and which letters of that were stretched.
TEXTS = [
    ("", "", []),
    ("a", "a", []),
    ("You are NOT a fool", "you are not a fool", []),
    ("he said \"go home, fool\" to me.", "he said \"go home, fool\" to me.", []),
    ("f*ck off!!! don't", "f*ck off!!! don't", []),
    ("soooo asss", "so as", [1, 4]),
    ("Grüße an 한", "grusse an \u1112\u1161\u11ab", []),
    ("x" * 2 + "ab" * 40, "x" * 2 + "ab" * 40, []),
]

if __name__ == "__main__":
    rows = [{"text": text, "normal": normal, "hashes": list(features(normal, stretched))} for text, normal, stretched in TEXTS]
    print("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]")
