"""Has a training gone too far? A verdict on the looks at held-out prompts in its log, and on nothing else.

A look is a record of the log with what `Monitor` saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sfumato.config import TrainingConfig, WatchConfig

if TYPE_CHECKING:
    from sfumato.training.monitor import Monitor

Look = dict[str, Any]
PROXY = "reward"


@dataclass(frozen=True)
class Verdict:
    """A training has gone too far.

    Attributes:
        update: of the look that shows it.
        why: in words.
        good: update of the last good look: the last with enough diversity, or where the reward that fell was best.
    """

    update: int
    why: str
    good: int


def looks_of(records: Sequence[dict[str, Any]]) -> list[Look]:
    """The looks among the records of a log."""
    return [record for record in records if "eval/scores" in record]


def diversity_kept(look: Look, base: Look) -> float | None:
    """(V - 1) / (V_base - 1) with V the mean Vendi score over prompts; None if the base has no diversity to lose."""
    above = base["eval/vendi"] - 1
    return (look["eval/vendi"] - 1) / above if above > 1e-6 else None


def judge(looks: Sequence[Look], watch: WatchConfig) -> Verdict | None:
    """What the last look says, given those before it: a verdict if the training has gone too far.

    A reward has fallen if the mean difference from its best look, image by image on the same prompts and seeds, exceeds
    `watch.noise` times the standard error of that mean, and the trained reward is higher now than it was there.

    Args:
        looks: from update 0 on.
    """
    now = looks[-1]
    diverse = [look for look in looks if watch.diversity is None or look["eval/kept"] >= watch.diversity]
    broken: list[tuple[int, str]] = []
    if watch.diversity is not None and diverse[-1] is not now:
        text = f"diversity is {now['eval/kept']:.0%} of the base's, less than the {watch.diversity:.0%} it is to keep"
        broken.append((diverse[-1]["update"], text))
    for name in _watched(now, watch):
        best = max(diverse, key=lambda look: look[f"eval/{name}"])
        fall, error = paired_fall(best, now, name)
        if fall > watch.noise * error and now[f"eval/{PROXY}"] > best[f"eval/{PROXY}"]:
            values = f"from {best[f'eval/{name}']:.4g} at update {best['update']} to {now[f'eval/{name}']:.4g}"
            broken.append((best["update"], f"{name} fell {values} while the reward rose"))
    if not broken:
        return None
    return Verdict(now["update"], ", and ".join(text for _, text in broken), min(good for good, _ in broken))


def paired_fall(before: Look, now: Look, name: str) -> tuple[float, float]:
    """By how much a reward fell between two looks, as the mean over images, and the standard error of that mean."""
    then, since = (list(look["eval/scores"][name].values()) for look in (before, now))
    falls = np.subtract(then, since)
    return float(falls.mean()), float(falls.std(ddof=1) / np.sqrt(falls.size))


def _watched(look: Look, watch: WatchConfig) -> list[str]:
    return [name for name in look["eval/scores"] if name != PROXY] if watch.rewards is None else watch.rewards


def seen(looks: Sequence[Look], config: TrainingConfig) -> dict[str, Any]:
    """What the log says beside what the monitor saw at the last look: `eval/kept`, the share of the base's diversity,
    and `watch` if the training has gone too far.

    Raises:
        ValueError: the settings go by diversity and the base model has none.
    """
    kept = diversity_kept(looks[-1], looks[0]) if looks[0]["update"] == 0 else None
    if kept is None and (config.floor or (config.watch and config.watch.diversity is not None)):
        raise ValueError(
            "the base model draws one and the same picture for a prompt, so there is no diversity to keep: set "
            "training.watch.diversity=null and training.floor=null"
        )
    found: dict[str, Any] = {} if kept is None else {"eval/kept": kept}
    verdict = verdict_on([*looks[:-1], looks[-1] | found], config)
    if config.watch and verdict:
        found["watch"] = {"action": config.watch.action, "why": verdict.why, "good": verdict.good}
    return found


def verdict_on(records: Sequence[dict[str, Any]], config: TrainingConfig) -> Verdict | None:
    """The verdict of a log's last look, if the settings ask for one."""
    looks = looks_of(records)
    return judge(looks, config.watch) if config.watch and looks else None


def ended(records: Sequence[dict[str, Any]], config: TrainingConfig) -> bool:
    """Whether a log is that of a training which came to its last update, or was stopped."""
    if not records:
        return False
    stops = config.watch is not None and config.watch.action == "stop"
    return records[-1]["update"] == config.steps or (stops and verdict_on(records, config) is not None)


def result(records: Sequence[dict[str, Any]], config: TrainingConfig) -> int | None:
    """The update whose weights are the training's result because the later ones went too far; None if it is the last
    one."""
    verdict = verdict_on(records, config)
    return verdict.good if config.watch and config.watch.action != "warn" and verdict else None


def check_looks(looks: Sequence[Look], config: TrainingConfig, monitor: Monitor | None) -> None:
    """Raise ValueError unless the looks that a training had before can be compared with those that it will have."""
    if monitor is None or (config.watch is None and config.floor is None):
        return
    names = {PROXY, *((config.watch and config.watch.rewards) or monitor.rewards)}
    wanted = {name: dict.fromkeys(monitor.prompts, monitor.images) for name in names}
    for look in looks:
        scores = look["eval/scores"]
        found = {name: {prompt: len(each) for prompt, each in scores.get(name, {}).items()} for name in names}
        if found != wanted:
            raise ValueError(
                f"the look at update {look['update']} had other prompts, images or rewards than training.watch would "
                "see from now on: restore training.monitor_prompts, training.monitor_images and the evaluation, or set "
                "training.watch=null"
            )
    if not looks or looks[0]["update"] != 0:
        raise ValueError("this training was begun without a look at the base model: set training.watch=null")
