"""A byte-pair vocabulary in CLIP's format in which every caption word is one token."""

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

from tools.emoji.common import write_json

START, END = "<|startoftext|>", "<|endoftext|>"
Word = tuple[str, ...]


def byte_symbols() -> list[str]:
    """The 256 printable stand-ins for bytes that GPT-2 and CLIP use."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return [*map(chr, plain), *(chr(256 + i) for i in range(len(others)))]


def join(word: Word, pair: tuple[str, str]) -> Word:
    """The word with each occurrence of the pair joined."""
    joined: list[str] = []
    for symbol in word:
        if joined and (joined[-1], symbol) == pair:
            joined[-1] += symbol
        else:
            joined.append(symbol)
    return tuple(joined)


def learn_merges(captions: list[str]) -> list[tuple[str, str]]:
    """Most frequent pair first (ties alphabetically), until every word is one symbol."""
    counts = Counter(word for caption in captions for word in re.findall(r"[a-z]+|[^\sa-z]+", caption.lower()))
    words = {word: (*word[:-1], word[-1] + "</w>") for word in counts}
    merges = []
    while any(len(split) > 1 for split in words.values()):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, split in words.items():
            for pair in pairwise(split):
                pairs[pair] += counts[word]
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = {word: join(split, best) for word, split in words.items()}
    return merges


def save_tokenizer(captions: list[str], folder: Path, length: int) -> None:
    """Write vocab.json, merges.txt and the configuration of a CLIPTokenizer."""
    symbols = byte_symbols()
    merges = learn_merges(captions)
    tokens = [*symbols, *(s + "</w>" for s in symbols), *dict.fromkeys(a + b for a, b in merges), START, END]
    tokens = list(dict.fromkeys(tokens))
    write_json(folder / "vocab.json", {token: index for index, token in enumerate(tokens)})
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    write_json(folder / "special_tokens_map.json", special)
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": length, "do_lower_case": True, **special}
    write_json(folder / "tokenizer_config.json", config)
