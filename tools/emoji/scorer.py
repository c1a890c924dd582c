"""Trains the scorer: a small CLIPModel on the same pairs; its text tower also starts the pipeline's encoder."""

import os
import shutil

import torch
import torch.nn.functional as F
from tqdm import tqdm
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

from tools.emoji import autoencoder
from tools.emoji.augment import augment
from tools.emoji.captions import Captions, load_tokenizer, tokenize
from tools.emoji.common import (
    ASSETS,
    CACHE,
    SEED,
    Trainee,
    batches,
    cosine,
    read_json,
    replace_folder,
    step_generator,
    write_json,
)
from tools.emoji.data import MAX_TOKENS, SIZE, load

STEPS, BATCH, PEAK = int(os.environ.get("SFUMATO_EMOJI_SCORER_STEPS", 1000)), 64, 1e-3
FOLDER = ASSETS / "scorer"
MEAN = STD = 0.5


def text_config() -> CLIPTextConfig:
    """The text tower, also that of the pipeline."""
    tokenizer = load_tokenizer()
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=160,
        intermediate_size=640,
        projection_dim=128,
        num_hidden_layers=3,
        num_attention_heads=5,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def build() -> CLIPModel:
    """The untrained scorer."""
    torch.manual_seed(SEED)
    vision = CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=512,
        projection_dim=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=SIZE,
        patch_size=8,
    )
    return CLIPModel(
        CLIPConfig(text_config=text_config().to_dict(), vision_config=vision.to_dict(), projection_dim=128)
    )


def normalise(images: torch.Tensor) -> torch.Tensor:
    """Images in [0, 1] as the vision tower expects them."""
    return (images - MEAN) / STD


def loss_of(logits: torch.Tensor, positive: torch.Tensor) -> torch.Tensor:
    """Contrastive loss in which every caption that describes an image is right for it."""
    target = positive.float()
    rows = -(F.log_softmax(logits, 1) * target / target.sum(1, keepdim=True)).sum(1).mean()
    columns = -(F.log_softmax(logits, 0) * target / target.sum(0, keepdim=True)).sum(0).mean()
    return (rows + columns) / 2


def run() -> None:
    """Train (or continue), then write the asset."""
    if (FOLDER / "model.safetensors").exists():
        return
    data = load().pick(held_out=False)
    images = data.floats()
    copies = autoencoder.reconstruct(autoencoder.load_trained(), images)
    captions = Captions(data.rows, empty=False)
    model = build()
    trainee = Trainee(model, CACHE / "scorer.safetensors", PEAK, decay=0.99, weight_decay=0.1)
    trainee.load()
    start = trainee.facts["step"]
    rows = batches(len(images), BATCH, SEED + 1, start)
    for step in (bar := tqdm(range(start, STEPS), desc="scorer", initial=start, total=STEPS, mininterval=5)):
        generator, chosen = step_generator(SEED + 1, step), next(rows)
        drawn = captions.draw(chosen, generator)
        pixels = normalise(augment(images[chosen], copies[chosen], generator))
        output = model(input_ids=captions.tokens[drawn], pixel_values=pixels)
        loss = loss_of(output.logits_per_image, captions.describes[chosen][:, drawn])
        trainee.update(loss, cosine(step, STEPS, PEAK, warmup=100))
        if step % 200 == 199 or step == STEPS - 1:
            trainee.save()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    trainee.copy_average(model)
    save(model)


def save(model: CLIPModel) -> None:
    """Write the scorer in half precision on disk, float32 when loaded, with tokenizer and preprocessing."""
    made = CACHE / "scorer"
    model.half().save_pretrained(made)
    config = read_json(made / "config.json")
    for part in (config, config["text_config"], config["vision_config"]):
        part["dtype"] = "float32"
    write_json(made / "config.json", config)
    for name in ("vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json"):
        shutil.copy(ASSETS / "tokenizer" / name, made / name)
    facts = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"height": SIZE, "width": SIZE},
        "do_center_crop": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [MEAN] * 3,
        "image_std": [STD] * 3,
    }
    write_json(made / "preprocessor_config.json", facts)
    replace_folder(made, FOLDER)


def load_trained() -> CLIPModel:
    """The trained scorer in float32."""
    return CLIPModel.from_pretrained(FOLDER, dtype=torch.float32).eval()


@torch.no_grad()
def scores(model: CLIPModel, images: torch.Tensor, texts: list[str]) -> torch.Tensor:
    """Logits (images, texts)."""
    tokens = tokenize(texts)
    parts = [model(input_ids=tokens, pixel_values=normalise(p)).logits_per_image for p in images.split(64)]
    return torch.cat(parts)


if __name__ == "__main__":
    run()
