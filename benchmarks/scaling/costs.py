"""What an update costs: how often the denoiser is run, and the memory at its highest, by method."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from benchmarks.scaling import parts
from benchmarks.scaling.parts import Part
from benchmarks.scaling.published import MODELS, Model, count, pickscore
from diffusers import AutoencoderKLQwenImage
from torch import nn

from sfumato.training.sharding import blocks

RANK = 32
CARDS = (24, 48, 80)
USABLE = 0.9
"""Of a card: the rest is for the context, kernels' workspaces and what the allocator cannot use."""
PROCESSES = 8
"""That a denoiser is shared out among."""


@dataclass(frozen=True)
class Forwards:
    """Rows that run through the denoiser for one image (of DPO: one pair) of an update.

    Attributes:
        plain: without gradient.
        grad: with; each has a backward pass as well, about twice the work of a forward pass.
    """

    plain: int
    grad: int

    @property
    def work(self) -> int:
        """In forward passes."""
        return self.plain + 3 * self.grad


def draft(steps: int, last_steps: int = 1, kl: bool = False, rows: int = 2) -> Forwards:
    """DRaFT-K, and AlignProp for the K that it drew.

    Args:
        steps: of the scheduler.
        last_steps: K.
        kl: whether the base model is compared with at those steps, which takes its gradient in x_t but in the first.
        rows: 2 under classifier-free guidance, else 1; so for all methods.
    """
    return Forwards(rows * (steps - last_steps + kl * last_steps), rows * (last_steps + kl * (last_steps - 1)))


def draft_lv(steps: int, noisings: int = 2, rows: int = 2) -> Forwards:
    return Forwards(rows * (steps - 1), rows * (1 + noisings))


def refl(stop_at: int, rows: int = 2) -> Forwards:
    """ReFL, stopped at a step counted from 0."""
    return Forwards(rows * stop_at, rows)


def policy(steps: int, trained: int, inner_epochs: int = 1, rows: int = 2) -> Forwards:
    """DDPO and Flow-GRPO, of whose stochastic steps some are trained."""
    return Forwards(rows * steps, rows * trained * inner_epochs)


def adjoint_matching(steps: int, chosen: list[int], rows: int = 2) -> Forwards:
    """Adjoint Matching: a backward pass through the base model from the last step to the first that is chosen."""
    return Forwards(rows * (steps - 1), rows * (1 + steps - min(chosen) + len(chosen)))


def dpo() -> Forwards:
    """Diffusion-DPO on a given pair, without guidance."""
    return Forwards(2, 2)


@dataclass(frozen=True)
class Parts:
    """Memory of the parts of an update at one image, in bytes."""

    denoiser: int
    vae: int
    encoders: int
    reward_weights: int
    shared: int
    lora: int
    step: Part
    step_saving: Part
    step_unlean: Part
    decoding: Part
    decoding_unlean: Part
    decoding_saving: Part
    reward: Part

    def static(self, saving: bool, shard: bool = False) -> int:
        """Weights, and the LoRA in float32 with its gradient and the two moments of AdamW."""
        kept = (self.shared if shard else self.denoiser) + self.vae + 16 * self.lora
        return kept if saving else kept + self.encoders + self.reward_weights


def step_of(model: Model, call: Part) -> Part:
    """A scheduler step, which may take several calls of the denoiser."""
    return Part(model.calls * call.held, (model.calls - 1) * call.held + call.peak, call.plain)


def draft_peak(step: Part, decoding: Part, last_steps: int) -> int:
    """The highest memory beyond weights of an update that back-propagates through sampling steps and the decoder."""
    return max(last_steps * step.held + decoding.peak, (last_steps - 1) * step.held + step.peak)


def peak_of_draft(found: Parts, model: Model, images: int, last_steps: int, saving: bool, shard: bool = False) -> int:
    """DRaFT-K, and with K = 1 DRaFT-LV and ReFL; AlignProp at its largest K."""
    step = step_of(model, found.step_saving if saving else found.step)
    graph = images * last_steps * step.held
    if saving:  # one image is decoded at a time, and the reward is here while it is needed
        scored = graph + found.reward_weights + images * found.reward.peak
        decoded = graph + found.decoding_saving.peak
    else:
        scored = graph + images * (found.decoding.held + found.reward.peak)
        decoded = graph + images * found.decoding.peak
    denoised = images * ((last_steps - 1) * step.held + step.peak)
    return found.static(saving, shard) + max(scored, decoded, denoised)


def peak_of_policy(found: Parts, model: Model, images: int, saving: bool, shard: bool = False) -> int:
    """DDPO, Flow-GRPO and, one pair in the place of two rows, Diffusion-DPO: one step at a time."""
    step = step_of(model, found.step_saving if saving else found.step)
    scored = found.reward_weights * saving + images * found.reward.plain
    return found.static(saving, shard) + max(images * step.peak, images * found.decoding.plain, scored)


def largest(peak, card: int) -> int:
    """The largest number up to 256 whose `peak(number)` fits on a card of so many GB."""
    number = 0
    while number < 256 and peak(number + 1) <= USABLE * card * 1e9:
        number += 1
    return number


def measured_parts(model: Model) -> dict[str, Part]:
    """The parts of a model in bfloat16, the reward in float32."""
    half = torch.bfloat16
    whole = parts.decoder(model, half, False)
    blockwise = parts.decoder(model, half, True) if model.vae is not AutoencoderKLQwenImage else whole
    return {
        "step": parts.denoiser(model, 1, half, False, RANK),
        "step_saving": parts.denoiser(model, 1, half, True, RANK),
        "step_unlean": parts.denoiser(model, 1, half, False, RANK, lean=False),
        "decoding": whole,
        "decoding_unlean": parts.decoder(model, half, False, lean=False),
        "decoding_saving": blockwise,
        "reward": parts.reward(),
    }


def weights(model: Model) -> dict[str, int]:
    """Bytes of a model's weights in bfloat16 and of the reward's in float32, and the LoRA's parameters."""
    with torch.device("meta"):
        module = model.denoiser()
        whole = sum(p.numel() for p in module.parameters())
        shared = whole // PROCESSES + 2 * largest_group(module)  # one is used while the next is gathered
        return {
            "denoiser": 2 * whole,
            "shared": 2 * shared,
            "vae": 2 * count(model.vae),
            "encoders": 2 * sum(count(make) for make in model.encoders),
            "reward_weights": 4 * count(pickscore),
            "lora": parts.with_lora(module, RANK),
        }


def largest_group(module: nn.Module) -> int:
    """Parameters of the largest group that FSDP gathers at once."""
    seen: set[int] = set()
    sizes = []
    for part in [*blocks(module), module]:
        own = {id(p): p.numel() for p in part.parameters() if id(p) not in seen}
        seen |= own.keys()
        sizes.append(sum(own.values()))
    return max(sizes)


def all_parts(folder: Path) -> dict[str, Parts]:
    """The parts of all models, kept in files."""
    found = {}
    for name, model in MODELS.items():
        file = folder / f"{name}.json"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps({key: asdict(part) for key, part in measured_parts(model).items()}))
        values = {key: Part(**value) for key, value in json.loads(file.read_text()).items()}
        found[name] = Parts(**weights(model), **values)
    return found


def tables(folder: Path) -> Iterator[str]:
    """The tables of docs/scaling.md."""
    everything = all_parts(folder)
    yield (
        "| model, pixels | denoiser | VAE | text encoders | LoRA of rank 32 | step: kept, highest | without `lean` | "
        "with gradient checkpointing | decoding: kept, highest | without `lean` | with `decoder_checkpointing` |"
    )
    for name, found in everything.items():
        model = MODELS[name]
        steps = [_pair(step_of(model, part)) for part in (found.step, found.step_unlean, found.step_saving)]
        decoding = [_pair(part) for part in (found.decoding, found.decoding_unlean, found.decoding_saving)]
        sizes = [_gb(size) for size in (found.denoiser, found.vae, found.encoders)]
        row = [f"{model.name}, {model.size}²", *sizes, f"{found.lora / 1e6:.1f} M", *steps, *decoding]
        yield "| " + " | ".join(row) + " |"
    yield f"reward: weights {_gb(found.reward_weights)}, kept and highest {_pair(found.reward)}"
    for name, found in everything.items():
        for card in CARDS:
            row = [f"{MODELS[name].name}, {card} GB", *(str(n) if n else "-" for n in _fits(found, MODELS[name], card))]
            yield "| " + " | ".join(row) + " |"


def _fits(found: Parts, model: Model, card: int) -> Iterator[int]:
    """Images at a time of DRaFT-1 plain, with all savings, and shared out; K for one image; of policy gradients."""
    for saving, shard in ((False, False), (True, False), (True, True)):
        yield largest(lambda n, s=saving, h=shard: peak_of_draft(found, model, n, 1, s, h), card)
    yield largest(lambda k: peak_of_draft(found, model, 1, k, True), card)
    for saving, shard in ((False, False), (True, False), (True, True)):
        yield largest(lambda n, s=saving, h=shard: peak_of_policy(found, model, n, s, h), card)


def _pair(part: Part) -> str:
    return f"{_gb(part.held)}, {_gb(part.peak)}"


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f}"
