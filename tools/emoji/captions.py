"""Caption ids for training: which captions describe a row, how often each is drawn, their token ids."""

import torch
from transformers import CLIPTokenizer

from tools.emoji.common import ASSETS
from tools.emoji.data import MAX_TOKENS, all_captions, captions_of


class Captions:
    """All captions as token ids, and per row of the data set the chance of each of its captions."""

    def __init__(self, rows: list[dict], empty: bool = True):
        """``empty`` keeps the empty caption that classifier-free guidance needs."""
        texts = all_captions()
        index = {text: i for i, text in enumerate(texts)}
        self.tokens = tokenize(texts)
        width = max(len(captions_of(row)[0]) for row in rows)
        self.ids = torch.zeros(len(rows), width, dtype=torch.long)
        self.weights = torch.zeros(len(rows), width)
        self.describes = torch.zeros(len(rows), len(texts), dtype=torch.bool)
        for i, row in enumerate(rows):
            choices, weights = captions_of(row)
            ids = torch.tensor([index[text] for text in choices])
            self.ids[i, : len(ids)] = ids
            self.weights[i, : len(ids)] = torch.tensor(weights)
            self.describes[i, ids] = True
        if not empty:
            self.weights[:, 0] = 0.0
            self.describes[:, 0] = False

    def draw(self, rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """One caption id for each row."""
        column = torch.multinomial(self.weights[rows], 1, generator=generator)
        return self.ids[rows].gather(1, column).squeeze(1)


def load_tokenizer() -> CLIPTokenizer:
    """The tokenizer that all models share."""
    return CLIPTokenizer.from_pretrained(ASSETS / "tokenizer")


def tokenize(texts: list[str]) -> torch.Tensor:
    """Token ids (N, MAX_TOKENS), padded as the pipeline pads them."""
    encoded = load_tokenizer()(texts, padding="max_length", max_length=MAX_TOKENS, truncation=True)
    return torch.tensor(encoded["input_ids"])
