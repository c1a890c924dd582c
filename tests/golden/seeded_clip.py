"""Small CLIPs and a SigLIP with seeded weights, the same in the packages' environment and in ours."""

import json
import math
from pathlib import Path

import torch
from tests.golden import seeded
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer, PreTrainedTokenizerFast, SiglipConfig, SiglipModel

ALPHABET = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324))]
MERGES = ["c a", "ca t</w>", "s u", "su n</w>", "t h", "th e</w>"]
"""Of byte-pair encoding: the 256 characters that stand for bytes, in CLIP's order, and what grows together."""
WORDS = [*ALPHABET, *(letter + "</w>" for letter in ALPHABET), *(merge.replace(" ", "") for merge in MERGES)]
WORDS += ["<|startoftext|>", "<|endoftext|>"]
PROMPTS = ["A cat on 3 mats!", "the   Sun, it's rising", "a café by the sea, " * 8]
"""Capitals, digits, spaces, an apostrophe and an accent; the last is longer than any context."""
CONTEXT = 77
SQUARE = 224
"""Edge of what the small HPSv2 sees."""
EDGE = 32
"""Edge of what the other models see."""
EMBEDDING = 32
LAYERS = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def tokenizer(folder: Path) -> None:
    """Write CLIP's tokenizer with few words."""
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(WORDS)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(MERGES))
    files = str(folder / "vocab.json"), str(folder / "merges.txt")
    CLIPTokenizer(*files, model_max_length=CONTEXT).save_pretrained(folder)


def open_clip() -> dict[str, torch.Tensor]:
    """The state of open_clip's ViT-H/14 in small: its layout and its 80 and 64 numbers a head, with patches of 56."""
    vision, text, patch = 160, 128, 56
    shapes = {
        "positional_embedding": (CONTEXT, text),
        "text_projection": (text, EMBEDDING),
        "token_embedding.weight": (len(WORDS), text),
        "visual.class_embedding": (vision,),
        "visual.positional_embedding": (1 + (SQUARE // patch) ** 2, vision),
        "visual.proj": (vision, EMBEDDING),
        "visual.conv1.weight": (vision, 3, patch, patch),
    }
    for norm, width in (("visual.ln_pre", vision), ("visual.ln_post", vision), ("ln_final", text)):
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    for tower, width in (("visual.transformer", vision), ("transformer", text)):
        for layer in range(2):
            start = f"{tower}.resblocks.{layer}."
            shapes |= {f"{start}{norm}.{part}": (width,) for norm in ("ln_1", "ln_2") for part in ("weight", "bias")}
            shapes |= {f"{start}attn.in_proj_weight": (3 * width, width), f"{start}attn.in_proj_bias": (3 * width,)}
            linear = {"attn.out_proj": (width, width), "mlp.c_fc": (4 * width, width), "mlp.c_proj": (width, 4 * width)}
            for name, shape in linear.items():
                shapes |= {f"{start}{name}.weight": shape, f"{start}{name}.bias": shape[:1]}
    state = {name: seeded.tensor(f"hps {name}", shape) for name, shape in shapes.items()}
    return state | {"logit_scale": torch.tensor(math.log(100))}


def clip(folder: Path) -> None:
    """Write a `CLIPModel` with tokenizer and preprocessing."""
    text = {"hidden_size": 32, "vocab_size": len(WORDS), "max_position_embeddings": CONTEXT, **LAYERS}
    text |= {"bos_token_id": len(WORDS) - 2, "eos_token_id": len(WORDS) - 1, "pad_token_id": len(WORDS) - 1}
    vision = {"hidden_size": 32, "image_size": EDGE, "patch_size": 8, **LAYERS}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=EMBEDDING))
    state = seeded.fill(model.state_dict()) | {"logit_scale": torch.tensor(math.log(100))}
    model.load_state_dict(state, strict=False)
    model.save_pretrained(folder)
    tokenizer(folder)
    _preprocessor(folder, "CLIPImageProcessor", {"do_center_crop": True, "crop_size": EDGE})


def siglip(folder: Path) -> None:
    """Write a `SiglipModel` with preprocessing, and a tokenizer that knows small letters only."""
    length = 24
    letters = ["</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyz"]
    text = {"hidden_size": 32, "vocab_size": len(letters), "max_position_embeddings": length, **LAYERS}
    vision = {"hidden_size": 32, "image_size": EDGE, "patch_size": 8, **LAYERS}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    learned = {"logit_scale": torch.tensor([math.log(100)]), "logit_bias": torch.tensor([-10.0])}
    model.load_state_dict(seeded.fill(model.state_dict()) | learned, strict=False)
    model.save_pretrained(folder)
    spelling = Tokenizer(models.BPE({word: number for number, word in enumerate(letters)}, [], unk_token="<unk>"))
    spelling.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    spelling.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    special = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=spelling, model_max_length=length, **special).save_pretrained(folder)
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    _preprocessor(folder, "SiglipImageProcessor", {"size": {"height": EDGE, "width": EDGE}, **half})


def aesthetic() -> dict[str, torch.Tensor]:
    """The five layers of the aesthetic predictor, on narrow embeddings."""
    widths = (EMBEDDING, 1024, 128, 64, 16, 1)
    shapes = {}
    for number, inputs, outputs in zip((0, 2, 4, 6, 7), widths[:-1], widths[1:], strict=True):
        shapes |= {f"layers.{number}.weight": (outputs, inputs), f"layers.{number}.bias": (outputs,)}
    return {name: seeded.tensor(name, shape) for name, shape in shapes.items()}


def _preprocessor(folder: Path, kind: str, more: dict) -> None:
    config = {"image_processor_type": kind, "do_resize": True, "size": {"shortest_edge": EDGE}, "resample": 3}
    config |= {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "do_convert_rgb": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(config | more))
