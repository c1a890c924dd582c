"""A random CLIPModel of a few thousand weights, saved as a complete folder: weights, tokenizer, preprocessing."""

import json
from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from sfumato.preprocess import Preprocess

CONTEXT = 12
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def save_tiny_clip(folder: Path, seed: int = 0) -> Path:
    """Write the folder and return it."""
    tokens = [*LETTERS, *(letter + "</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=CONTEXT).save_pretrained(
        folder
    )
    layers = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**layers, "vocab_size": len(tokens), "max_position_embeddings": CONTEXT}
    text |= {"bos_token_id": len(tokens) - 2, "eos_token_id": len(tokens) - 1, "pad_token_id": len(tokens) - 1}
    vision = {**layers, "image_size": 16, "patch_size": 8}
    torch.manual_seed(seed)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16, logit_scale_init_value=2.0))
    with torch.no_grad():
        for parameter in model.parameters():  # the default initialisation is so small that all images look alike
            parameter.add_(0.2 * torch.randn_like(parameter) * (parameter.ndim > 1))
    model.save_pretrained(folder)
    Preprocess(size=16, crop=(16, 16)).save_pretrained(folder)
    return folder
