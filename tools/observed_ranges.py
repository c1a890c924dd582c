"""Measure what rewards give on pictures of emoji-64, for `sfumato rewards list`: `python -m tools.observed_ranges`.

A minute. With HF_HUB_OFFLINE=1 rewards whose weights are not on this machine are left out, and the reason is printed.
"""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path

import torch

from sfumato import emoji64
from sfumato.pipelines.rollout import rollout
from sfumato.rewards import RewardInfo, build_reward, check_prompts, list_rewards, score
from sfumato.rewards.info import BUNDLED

MODULE = Path(__file__).parents[1] / "src" / "sfumato" / "rewards" / "observed.py"
IMAGES, BATCH, STEPS, GUIDANCE = 128, 16, 20, 3.0
CALL = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE}


def pictures() -> tuple[torch.Tensor, list[str]]:
    """Images (128,3,64,64) of the base model, with 128 prompts at even distances among those that it knows."""
    names, pipe = emoji64.prompt_names(), emoji64.demo_pipeline()
    prompts = [names[i * len(names) // IMAGES] for i in range(IMAGES)]
    seeds = range(IMAGES)
    drawn = [
        rollout(pipe, prompt=prompts[start : start + BATCH], seeds=seeds[start : start + BATCH], **CALL).images
        for start in range(0, IMAGES, BATCH)
    ]
    return (torch.cat(drawn) * 255).round() / 255, prompts


def observed(info: RewardInfo, images: torch.Tensor, prompts: list[str]) -> str:
    """From the 5 % to the 95 % quantile, in words; raises what building or scoring raises."""
    parameters = inspect.signature(info.build).parameters.values()
    needed = {parameter.name for parameter in parameters if parameter.default is inspect.Parameter.empty}
    bundled = dict.fromkeys(needed & {"model", "weights"}, BUNDLED)
    reward = build_reward({"name": info.name, **bundled})
    check_prompts(reward, prompts)
    with torch.no_grad():
        scores = torch.cat([score(reward, *each) for each in zip(images.split(BATCH), _split(prompts), strict=True)])
    low, high = scores.double().quantile(torch.tensor([0.05, 0.95], dtype=torch.float64)).tolist()
    return f"{_rounded(low)} to {_rounded(high)} on emoji-64's pictures"


def _rounded(value: float) -> str:
    return f"{float(f'{value:.3g}'):g}"


def _split(prompts: list[str]) -> list[list[str]]:
    return [prompts[start : start + BATCH] for start in range(0, len(prompts), BATCH)]


def main() -> None:
    images, prompts = pictures()
    found: dict[str, str] = {}
    for info in list_rewards():
        try:
            found[info.name] = observed(info, images, prompts)
        except (ValueError, OSError, ImportError) as error:
            print(f"{info.name}: left out ({str(error).partition(chr(10))[0]})", file=sys.stderr)
    entries = "".join(f"    {json.dumps(name)}: {json.dumps(words)},\n" for name, words in found.items())
    text = '"""From the 5 % to the 95 % quantile; `python -m tools.observed_ranges` writes this."""\n\n'
    MODULE.write_text(f"{text}OBSERVED: dict[str, str] = {{\n{entries}}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
