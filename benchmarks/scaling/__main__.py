"""What training costs at the size of published models: predicted for all of them, measured for those that fit here.

python -m benchmarks.scaling tables   # memory of the parts, and what fits on a card; a few minutes
python -m benchmarks.scaling sd15     # updates of a randomly initialised SD 1.5, 512x512; 8 GiB
python -m benchmarks.scaling sdxl     # the same of SDXL in bfloat16; 14 GiB
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import torch
import transformers
from benchmarks.scaling import parts
from benchmarks.scaling.costs import draft_peak, tables
from benchmarks.scaling.published import CLIP_G, CLIP_L, MODELS, clip
from tokenizers.pre_tokenizers import ByteLevel

from sfumato.config import SamplingConfig, TrainingConfig
from sfumato.pipelines.adapters import denoiser
from sfumato.training import Draft, Trainer

SIZE, STEPS, RANK = 512, 2, 32
DTYPES = {"sd15": torch.float32, "sdxl": torch.bfloat16}
SAVING = {"decode_singly": True, "decoder_checkpointing": True}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["tables", *DTYPES])
    parser.add_argument("--updates", type=int, default=2)
    options = parser.parse_args()
    if options.what == "tables":
        for line in tables(Path("runs/scaling")):
            print(line, flush=True)
    else:
        measure(options.what, options.updates)


def measure(name: str, updates: int) -> None:
    """Print what DRaFT-1 updates of one image take beside what was predicted."""
    dtype = DTYPES[name]
    denoising = parts.denoiser(MODELS[name], 1, dtype, True, RANK, SIZE)
    predicted = draft_peak(denoising, parts.decoder(MODELS[name], dtype, True, SIZE), last_steps=1)
    config = TrainingConfig.model_validate(
        {
            "steps": updates,
            "batch_size": 1,
            "lora": {"rank": RANK},
            "gradient_checkpointing": True,
            "memory": SAVING,
            "monitor_every": None,
            "prefix": {"merge": False, "dtype": None, "denoiser_every": 1},
        }
    )
    sampling = SamplingConfig(num_inference_steps=STEPS, guidance_scale=7.5, arguments={"height": SIZE, "width": SIZE})
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(PIPELINES[name](dtype), Draft(), brightness, ["a cat"], config, sampling, folder)
        weights = sum(p.nbytes for p in denoiser(trainer.pipe).parameters())
        print(f"{name}: denoiser {gib(weights)}, resident {gib(status('VmRSS'))}, {STEPS} sampling steps", flush=True)
        updates_left = iter(trainer)
        for number in range(1, updates + 1):
            with highest() as found:
                started = time.perf_counter()
                record = next(updates_left)
                seconds = time.perf_counter() - started
            print(
                f"update {number}: {seconds:.0f} s, peak {gib(found.bytes)} over what was resident before, predicted "
                f"{gib(predicted)}; reward {record['reward']:.4f}, gradient {record['grad_norm']:.3g}",
                flush=True,
            )


def brightness(images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
    """A reward that takes no memory."""
    return images.mean(dim=(1, 2, 3))


def sd15(dtype: torch.dtype) -> Any:
    return diffusers.StableDiffusionPipeline(
        **_made("sd15", dtype),
        text_encoder=clip(**CLIP_L).to(dtype).eval(),
        tokenizer=tokenizer(),
        scheduler=diffusers.DDIMScheduler(**BETAS),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl(dtype: torch.dtype) -> Any:
    return diffusers.StableDiffusionXLPipeline(
        **_made("sdxl", dtype),
        text_encoder=clip(**CLIP_L).to(dtype).eval(),
        text_encoder_2=clip(1280, **CLIP_G).to(dtype).eval(),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        scheduler=diffusers.EulerDiscreteScheduler(**BETAS),
        add_watermarker=False,
    )


BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PIPELINES = {"sd15": sd15, "sdxl": sdxl}


def _made(name: str, dtype: torch.dtype) -> dict[str, Any]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # from the beginning, so that there is never a copy in float32
    try:
        torch.manual_seed(0)
        return {"unet": MODELS[name].denoiser().eval(), "vae": MODELS[name].vae().eval()}
    finally:
        torch.set_default_dtype(before)


def tokenizer() -> Any:
    """CLIP's over single bytes, which needs no file."""
    alphabet = sorted(ByteLevel.alphabet())
    words = [*alphabet, *(f"{letter}</w>" for letter in alphabet), "<|startoftext|>", "<|endoftext|>"]
    return transformers.CLIPTokenizer(vocab={w: i for i, w in enumerate(words)}, merges=[], model_max_length=77)


@contextmanager
def highest() -> Iterator[SimpleNamespace]:
    """How many bytes more than at the beginning were resident at once; Linux counts them."""
    Path("/proc/self/clear_refs").write_text("5")
    before, found = status("VmRSS"), SimpleNamespace(bytes=0)
    yield found
    found.bytes = status("VmHWM") - before


def status(name: str) -> int:
    """A size of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"


if __name__ == "__main__":
    main()
