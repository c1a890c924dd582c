"""Learns a preference reward: fits, calibrates and measures it, its ensemble and its learning curve, in one folder.

```
FOLDER/
  preference.json, head.safetensors    the reward; with full training the backbone too; of an ensemble one folder each
  evaluation.json                      how good it is; written last
  training/                            until then: what is needed to go on after an interruption
```
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

from sfumato.config.preference import PreferenceTraining
from sfumato.images import load_image
from sfumato.preferences.calibration import describe_calibration, fit_temperature
from sfumato.preferences.embed import Embedder, ReadImage
from sfumato.preferences.evaluate import PreferenceAccuracy, interval_by_prompt
from sfumato.preferences.fit import PreferenceFit
from sfumato.preferences.pairs import Pair
from sfumato.preferences.split import by_prompt, drawn_again, leaks, smaller
from sfumato.preferences.state import load_state, save_state
from sfumato.rewards import PreferenceReward
from sfumato.rewards.compose import penalised_mean
from sfumato.rewards.preference import save_ensemble
from sfumato.runs import read_json, write_json

EVALUATION, TRAINING, SETTINGS = "evaluation.json", "training", "settings.json"


def train_preference(
    model: str | Path,
    pairs: Sequence[Pair],
    held_out: Sequence[Pair],
    folder: str | Path,
    config: PreferenceTraining | None = None,
    read: ReadImage = load_image,
    test: Sequence[Pair] = (),
    processor: str | Path | None = None,
) -> dict[str, Any]:
    """Learn a preference reward and write the folder that a recipe takes as `{name: preference, model: FOLDER}`.

    Called again with the same arguments it goes on where it was interrupted, or returns what it found before. All
    processes of accelerate that call it take part.

    Args:
        model: folder or hub id of a transformers `CLIPModel` or `SiglipModel`.
        pairs: to learn from.
        held_out: to stop by and to calibrate on.
        folder: gets the head (with full training also the backbone) and `evaluation.json`.
        config: how; the defaults of `PreferenceTraining` unless given.
        read: image (3,H,W) in [0, 1] of a pair's `image_0` or `image_1`; called from several threads.
        test: to report on; the held-out pairs unless given.
        processor: of tokenizer and preprocessing, if they are kept elsewhere.

    Returns:
        What `evaluation.json` holds: accuracy with its 95 % Wilson interval and that over prompts, loss, calibration,
        learning curve, members with all looks at the held-out pairs, numbers of pairs, the configuration.

    Raises:
        ValueError: there are no pairs on one side, or the folder holds a reward learned in another way.
    """
    config, folder = config or PreferenceTraining(), Path(folder)
    accelerator = Accelerator(cpu=not torch.accelerator.is_available())
    settings = {
        "model": str(model),
        "processor": processor and str(processor),
        **config.model_dump(mode="json"),
        **{name: _digest(part) for name, part in (("pairs", pairs), ("held_out", held_out), ("test", test))},
    }
    if (found := _begin(folder, settings)) is None:
        work = _Work(model, processor, [pairs, held_out, test], folder, read, accelerator)
        results = [(job, *work.result(job)) for job in _jobs(pairs, config)]
        found = _evaluation(config, results, held_out, test)
        found |= {"pairs": len(pairs), "leaks": leaks(pairs, test or held_out), "settings": _digest(settings)}
        if accelerator.is_main_process:
            if config.members > 1:
                save_ensemble(folder, [job.name for job, *_ in results if job.kept], config.disagreement)
            write_json(folder / EVALUATION, found)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        shutil.rmtree(folder / TRAINING, ignore_errors=True)
    return found


def _begin(folder: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """Write the settings down, or see that they are those in the folder; the evaluation if it is there."""
    done, asked = folder / EVALUATION, folder / TRAINING / SETTINGS
    found = read_json(done) if done.exists() else None
    before = read_json(asked) if begun(folder) and asked.exists() else settings
    changed = sorted(key for key in settings if before.get(key) != settings[key])
    if changed or (found and found.get("settings") != _digest(settings)):
        raise ValueError(
            f"{folder} holds a reward learned in another way ({', '.join(changed) or 'other pairs or settings'}): "
            "choose another folder, or repeat the call that made it"
        )
    if found is None:
        write_json(asked, settings)
    return found


def begun(folder: Path) -> bool:
    """Whether a training in the folder has left anything that another one would spoil."""
    return (folder / EVALUATION).exists() or any((folder / TRAINING).glob("*.safetensors"))


def _digest(value: Any) -> str:
    plain = [asdict(each) for each in value] if isinstance(value, Sequence) else value
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class _Job:
    """One fit.

    Attributes:
        name: of its folder within the reward's, unless it is the whole reward, and of its files.
        share: of the pairs, of the learning curve; None for a member of an ensemble.
        kept: whether it is the reward, or a member of it.
    """

    name: str
    pairs: list[Pair]
    config: PreferenceTraining
    share: float | None
    kept: bool


def _jobs(pairs: Sequence[Pair], config: PreferenceTraining) -> list[_Job]:
    jobs, together = [], config.members > 1
    for number in range(config.members if together else 0):
        own = config.model_copy(update={"seed": config.seed + number})
        learned = drawn_again(pairs, own.seed) if config.bootstrap else list(pairs)
        jobs.append(_Job(f"member-{number}", learned, own, None, True))
    if not together or config.shares:
        jobs.append(_Job("reward", list(pairs), config, 1.0, not together))
    parts = [(share, smaller(pairs, share, config.seed)) for share in config.shares]
    return jobs + [_Job(f"share-{share:g}", part, config, share, False) for share, part in parts]


class _Work:
    """Does jobs that share pairs, images and, where it is frozen, the backbone with all embeddings."""

    def __init__(
        self,
        model: str | Path,
        processor: str | Path | None,
        parts: Sequence[Sequence[Pair]],
        folder: Path,
        read: ReadImage,
        accelerator: Accelerator,
    ):
        self.model, self.processor, self.parts = model, processor, parts
        self.folder, self.read, self.accelerator = folder, read, accelerator
        self.embedder: Embedder | None = None

    def result(self, job: _Job) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Rewards (N,2) of the pairs to report on, and what is to be known of the fit."""
        path = self.folder / TRAINING / f"{job.name}.result.safetensors"
        if not path.exists():
            self._train(job, path)
        self.accelerator.wait_for_everyone()
        return load_state(path)

    def _train(self, job: _Job, path: Path) -> None:
        state, config = self.folder / TRAINING / f"{job.name}.safetensors", job.config
        reward, (_, held_out, test) = PreferenceReward(self.model, self.processor, self.accelerator.device), self.parts
        if not config.full and self.embedder is None:  # all at once, so that what is done first changes no batch
            self.embedder = Embedder(reward, config, self.read, self.accelerator)
            self.embedder.remember([pair for part in self.parts for pair in part])
        fit = PreferenceFit(reward, job.pairs, held_out, config, self.read, state, self.embedder, self.accelerator)
        self._show(fit, job.name)
        embed = fit.embedder
        held = embed.all_rewards(reward, held_out)
        temperature = fit_temperature(held[:, 0] - held[:, 1], _labels(held_out))
        if config.calibrate:
            reward.rescale(1 / temperature, -held.mean().item() / temperature if reward.head else 0.0)
        rewards = embed.all_rewards(reward, test or held_out)
        if self.accelerator.is_main_process:
            if job.kept:
                reward.save(self.folder / (job.name if config.members > 1 else ""), config.full)
            save_state(path, {"rewards": rewards}, {"looks": fit.looks, "temperature": temperature})
            state.unlink(missing_ok=True)

    def _show(self, fit: PreferenceFit, name: str) -> None:
        """Train with a progress bar on the first process."""
        hidden, shown = not self.accelerator.is_main_process, {}
        with tqdm(total=fit.config.steps, initial=fit.step, desc=name, unit="step", disable=hidden) as bar:
            for record in fit:
                shown["loss"] = f"{record['train_loss']:.3f}"
                if "accuracy" in record:
                    shown |= {"held out": f"{record['loss']:.3f}", "accuracy": f"{record['accuracy']:.1%}"}
                bar.set_postfix(shown, refresh=False)
                bar.update()


Result = tuple[_Job, dict[str, torch.Tensor], dict[str, Any]]


def _evaluation(
    config: PreferenceTraining, results: Sequence[Result], held_out: Sequence[Pair], test: Sequence[Pair]
) -> dict[str, Any]:
    """What all fits together come to, on the pairs to report on."""
    reported = test or held_out
    labels, prompts = _labels(reported), [pair.prompt for pair in reported]
    kept = [result for result in results if result[0].kept]
    members = torch.stack([tensors["rewards"] for _, tensors, _ in kept])
    margins = _margins(penalised_mean(members, config.disagreement) if len(kept) > 1 else members[0])
    curve = sorted((result for result in results if result[0].share), key=lambda result: len(result[0].pairs))
    found = {
        **{key: _best(kept[0])[key] for key in ("step", "train_loss")},
        **asdict(PreferenceAccuracy.from_margins(margins, labels)),
        "by_prompt": list(interval_by_prompt(margins, labels, prompts)),
        "prompts": len(by_prompt(prompts)),
        "reported_on": "test" if test else "held_out",
        "held_out": len(held_out),
        "test": len(test),
        "calibration": describe_calibration(margins, labels),
        "curve": [{"pairs": len(job.pairs), **_accuracy(tensors, labels)} for job, tensors, _ in curve],
        "members": [
            {
                "name": job.name,
                "temperature": facts["temperature"],
                "looks": facts["looks"],
                **_accuracy(tensors, labels),
            }
            for job, tensors, facts in kept
        ],
        "training": config.model_dump(mode="json"),
    }
    if config.calibrate:
        raw = torch.stack([_margins(tensors["rewards"]) * facts["temperature"] for _, tensors, facts in kept]).mean(0)
        found["uncalibrated"] = describe_calibration(raw, labels)
    return found


def _best(result: Result) -> dict[str, Any]:
    """The look with the lowest held-out loss."""
    return min(result[2]["looks"], key=lambda look: look["loss"])


def _accuracy(tensors: dict[str, torch.Tensor], labels: torch.Tensor) -> dict[str, float]:
    return asdict(PreferenceAccuracy.from_margins(_margins(tensors["rewards"]), labels))


def _margins(rewards: torch.Tensor) -> torch.Tensor:
    return rewards[:, 0] - rewards[:, 1]


def _labels(pairs: Sequence[Pair]) -> torch.Tensor:
    return torch.tensor([float(pair.label) for pair in pairs])
