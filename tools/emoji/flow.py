"""Trains the flow-matching transformer on cached latents and text and writes its Stable Diffusion 3 pipeline folder.

Autoencoder and tokenizer are those of emoji-64; the first text encoder is the scorer's text tower, frozen, so that
every caption is encoded once. The layout wants two more: a tiny CLIP with random weights, and a T5 that says nothing.
"""

import os
import shutil

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from tokenizers import Regex, Tokenizer, models, normalizers, processors
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from tools.emoji import scorer
from tools.emoji.autoencoder import encode, load_trained
from tools.emoji.captions import Captions, load_tokenizer
from tools.emoji.common import ASSETS, CACHE, SEED, Trainee, read_json, replace_folder, write_json
from tools.emoji.course import Course
from tools.emoji.data import all_captions, load
from tools.emoji.pictures import FLOW
from tools.emoji.workers import Batch, backward

COURSE = Course(
    model=FLOW,
    steps=int(os.environ.get("SFUMATO_EMOJI_FLOW_STEPS", 6000)),
    batch=16,
    peak=1e-3,
    warmup=200,
    tail=0.35,
    focus=0,
    seed=SEED + 8,
    save=100,
    show=1000,
)
STATE = CACHE / "flow.safetensors"
SPREAD = 1.25  # of the noise levels' logits
WIDTH = 168  # of the text: 160 of the first encoder, 8 of the second
STOCK, EVERY = 256, 40  # a stock call has so many zeros behind the text, not one; so has one of so many updates


def first_encoder() -> CLIPTextModelWithProjection:
    """The scorer's text tower."""
    clip = scorer.load_trained()
    tower = CLIPTextModelWithProjection(clip.config.text_config)
    tower.load_state_dict({key: value for key, value in clip.state_dict().items() if key.startswith("text_")})
    return tower.eval()


def second_encoder() -> CLIPTextModelWithProjection:
    """One layer of width 8 with random weights."""
    torch.manual_seed(SEED)
    tiny = {"hidden_size": 8, "intermediate_size": 8, "projection_dim": 8}
    tiny |= {"num_hidden_layers": 1, "num_attention_heads": 1}
    return CLIPTextModelWithProjection(CLIPTextConfig(**{**scorer.text_config().to_dict(), **tiny})).eval()


def third_encoder() -> tuple[T5EncoderModel, PreTrainedTokenizerFast]:
    """A T5 whose output is zero, and a tokenizer that drops the text, so that nothing is ever too long."""
    words = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2}, unk_token="<unk>"))
    words.normalizer = normalizers.Replace(Regex("(?m).+"), "")
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    config = T5Config(vocab_size=3, d_model=WIDTH, d_kv=8, d_ff=8, num_layers=1, num_heads=1)
    model = T5EncoderModel(config).eval()
    nn.init.zeros_(model.encoder.final_layer_norm.weight)
    return model, PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=512, **special)


def build_transformer() -> SD3Transformer2DModel:
    """The untrained transformer, whose blocks and output start at zero (DiT, arXiv 2212.09748, "adaLN-Zero")."""
    torch.manual_seed(SEED)
    model = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=6,
        attention_head_dim=64,
        num_attention_heads=3,
        caption_projection_dim=192,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=136,
        pos_embed_max_size=8,
        qk_norm="rms_norm",
    )
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or name.startswith("proj_out") or ".linear.weight" in name:
            nn.init.zeros_(parameter)
        elif parameter.ndim == 2:
            nn.init.xavier_uniform_(parameter)
    return model


def build_autoencoder() -> AutoencoderKL:
    """emoji-64's, with the shift of the latents that this layout asks for."""
    vae = load_trained()
    vae.register_to_config(shift_factor=0.0)
    return vae


def build_pipeline(transformer: SD3Transformer2DModel) -> StableDiffusion3Pipeline:
    """The pipeline around a transformer."""
    t5, words = third_encoder()
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=build_autoencoder(),
        text_encoder=first_encoder(),
        tokenizer=load_tokenizer(),
        text_encoder_2=second_encoder(),
        tokenizer_2=load_tokenizer(),
        text_encoder_3=t5,
        tokenizer_3=words,
    )


class Flow(nn.Module):
    """The transformer with every caption as the pipeline encodes it."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = build_transformer()
        with torch.no_grad():
            encoded = build_pipeline(self.transformer).encode_prompt(
                all_captions(), None, None, do_classifier_free_guidance=False, max_sequence_length=1
            )
        self.register_buffer("sequence", encoded[0], persistent=False)
        self.register_buffer("pooled", encoded[2], persistent=False)
        self.zeros = 1

    def forward(self, latents: torch.Tensor, timesteps: torch.Tensor, captions: torch.Tensor) -> torch.Tensor:
        """Predicted velocity for noisy latents (B, 4, 16, 16), with ``zeros`` zero tokens behind the text."""
        text = nn.functional.pad(self.sequence[captions], (0, 0, 0, self.zeros - 1))
        with torch.autocast("cpu", torch.bfloat16):
            return self.transformer(latents, text, self.pooled[captions], timesteps, return_dict=False)[0].float()


def noised(latents: torch.Tensor, captions: torch.Tensor, generator: torch.Generator) -> Batch:
    """Latents on their way to noise, x = (1 - s) x0 + s e, the times 1000 s, the captions and the velocity e - x0.

    The levels s are stratified and logit-normal (arXiv 2403.03206, section 3.1), spread a little wider than there.
    """
    count = len(latents)
    strata = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    level = torch.sigmoid(SPREAD * torch.special.ndtri(strata.clamp(1e-6, 1 - 1e-6)))
    noise = torch.randn(latents.shape, generator=generator)
    share = level[:, None, None, None]
    return torch.lerp(latents, noise, share), 1000 * level, captions, noise - latents


def export(trainee: Trainee) -> None:
    """Write the averaged weights as a Stable Diffusion 3 pipeline folder, half precision on disk."""
    model = Flow()
    trainee.copy_average(model)
    made = CACHE / "flow"
    pipe = build_pipeline(model.transformer)
    nn.ModuleList(part for part in pipe.components.values() if isinstance(part, nn.Module)).half()
    pipe.save_pretrained(made)
    for name in ("text_encoder", "text_encoder_2", "text_encoder_3"):
        config = made / name / "config.json"
        write_json(config, {**read_json(config), "dtype": "float32"})
    for name in ("tokenizer", "tokenizer_2"):
        shutil.rmtree(made / name)
        shutil.copytree(ASSETS / "tokenizer", made / name)
    replace_folder(made, FLOW.folder)


def run() -> None:
    """Train (or continue), writing state, pipeline and preview at intervals."""
    if COURSE.done():
        return
    torch.set_num_threads(1)
    data = load().pick(held_out=False)
    vae = load_trained()
    latents = encode(vae, data.floats()) * vae.config.scaling_factor
    captions = Captions(data.rows)
    model = Flow()
    trainee = Trainee(model, STATE, COURSE.peak, decay=0.998)

    def update(chosen: torch.Tensor, step: int, generator: torch.Generator) -> float:
        model.zeros = STOCK if step % EVERY == EVERY - 1 else 1
        return backward(model, noised(latents[chosen], captions.draw(chosen, generator), generator), 1.0)

    COURSE.run(trainee, data.rows, update, lambda: export(trainee))


if __name__ == "__main__":
    run()
