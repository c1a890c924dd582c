"""Blending predictions at less than one forward per model and step, each way with its error bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch

from sfumato.pipelines.models import Forward, LoraModels, Models
from sfumato.pipelines.trees import Batch, Call, batch_of, leaves, mapped, mixed, rows

NEGLIGIBLE = 1e-9
"""A weight of at most this is rounding: such a model is never run."""


@dataclass(frozen=True)
class Savings:
    """How exact a blend of predictions is to be. The default runs every model whose weight is not 0, at every step.

    Write w for the weight of a model in a step (those of base and tuned sum to 1), d = eps_tuned - eps_base, and "main"
    for the model with the larger |w|.

    Attributes:
        tolerance: a model with |w| at most this is not run. The prediction is then wrong by at most tolerance · |d|.
        reuse: d is computed anew every `reuse` scheduler steps. In between only main is run, and the last d stands
            in for the new one: the error is |w| · |d - d_last| with the smaller |w|, in [0, 1/2] for g in [0, 1].
        drift: the interval adapts between 1 and `reuse`: it lasts as long as |d| is expected to have changed by at most
            this share of itself, judged by the last two. Costs one value read by the host at each refresh.
        share_unconditional: in a batch that classifier-free guidance doubled, unconditional rows first, those are
            computed by main alone, from the second scheduler step on. With guidance scale s, the error after guidance
            is (s - 1) |w| · |d_unconditional| with the smaller |w|. Refused where the rows lie otherwise, which the
            host reads off the first step.
        one_forward: all models in one forward with a row of its own for each (peft's mixed batches): the same work and
            result, in fewer and larger calls, with the activations of all models in memory at once.

    Raises:
        ValueError: a value out of range, or `drift` without a `reuse` that bounds the interval.
    """

    tolerance: float = 0.0
    reuse: int = 1
    drift: float | None = None
    share_unconditional: bool = False
    one_forward: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < 0.5:
            raise ValueError(f"savings.tolerance is a weight in [0, 0.5), not {self.tolerance}")
        if self.reuse < 1:
            raise ValueError(f"savings.reuse is a number of steps >= 1, not {self.reuse}")
        if self.drift is not None and (self.drift <= 0 or self.reuse == 1):
            raise ValueError("savings.drift is a share > 0, together with reuse >= 2, the longest interval allowed")

    @property
    def looks_back(self) -> bool:
        """Whether a step depends on earlier ones."""
        return self.reuse > 1 or self.share_unconditional

    def to_dict(self) -> dict[str, Any]:
        """What differs from the default."""
        default = asdict(Savings())
        return {key: value for key, value in asdict(self).items() if value != default[key]}


class Place(NamedTuple):
    """Where in a run a denoiser call stands.

    Attributes:
        position: scheduler steps taken.
        turn: which denoiser call of this step it is, from 0.
        seen: the last prediction that the scheduler was given, after classifier-free guidance; None at first.
    """

    position: int
    turn: int
    seen: torch.Tensor | None


@dataclass
class _Kept:
    """Differences of the models' predictions to that of one of them, from an earlier step on inputs of these shapes."""

    shapes: list[torch.Size]
    position: int
    interval: int
    differences: dict[int, Any]


class Blender:
    """Σ_i w_i eps_i of a set of models, by as few forwards as the savings allow.

    Attributes:
        passes: forwards of whole batches since `reset`.
    """

    def __init__(self, models: Models, savings: Savings):
        self.models = models
        self.savings = savings
        self.reset()

    def reset(self) -> None:
        """A new pipeline call begins."""
        self.passes = 0.0
        self._kept: dict[int, _Kept] = {}
        self._first: torch.Tensor | None = None

    def predict(self, weights: Sequence[float], forward: Forward, call: Call, place: Place) -> Any:
        """The blended prediction.

        Args:
            weights: of model 0 (the base), 1, ...; they sum to 1.
            forward: the pipeline's denoiser.
            call: its arguments.
            place: where in the run it is called.

        Raises:
            ValueError: the unconditional rows are to be shared, and cannot be told in this pipeline.
        """
        result = self._predict(weights, forward, call, place)
        if self.savings.share_unconditional and place.seen is None:
            self._first = leaves(result)[0].detach()
        return result

    def _predict(self, weights: Sequence[float], forward: Forward, call: Call, place: Place) -> Any:
        weights = _without_small(weights, max(self.savings.tolerance, NEGLIGIBLE))
        wanted = [index for index, weight in enumerate(weights) if weight]
        main = max(wanted, key=lambda index: abs(weights[index]))
        if len(wanted) == 1:
            return self._one(main, forward, call)
        kept, shapes = self._kept.get(place.turn), [leaf.shape for leaf in leaves(call)]
        if kept and kept.shapes != shapes:
            kept = None  # classifier-free guidance was stopped on the way
        if kept and place.position - kept.position < kept.interval and kept.differences.keys() >= set(wanted):
            return self._corrected(weights, main, kept, self._one(main, forward, call))
        found = self._all(wanted, main, forward, call, place)
        if self.savings.reuse > 1:
            self._kept[place.turn] = self._keep(found, main, shapes, place.position, kept)
        return mixed([weights[index] for index in wanted], [found[index] for index in wanted])

    def _one(self, index: int, forward: Forward, call: Call) -> Any:
        self.passes += 1
        return self.models.predict(index, forward, call)

    def _all(self, wanted: list[int], main: int, forward: Forward, call: Call, place: Place) -> dict[int, Any]:
        """Every wanted model's prediction for the whole batch."""
        savings = self.savings
        if not (savings.share_unconditional or savings.one_forward):
            return {index: self._one(index, forward, call) for index in wanted}
        batch = batch_of(call)
        shared = self._shared_rows(batch, place)
        everything, conditional = slice(0, batch.size), slice(shared, batch.size)
        parts = {index: everything if index == main else conditional for index in wanted}
        self.passes += sum((part.stop - part.start) / batch.size for part in parts.values())
        if savings.one_forward:
            found = self._in_one_forward(parts, forward, call, batch)
        else:
            found = {i: self.models.predict(i, forward, rows(call, batch, [part])) for i, part in parts.items()}
        if not shared:
            return found
        whole = found[main]
        return {
            index: whole if index == main else mapped(lambda a, b: torch.cat([a[:shared], b]), whole, found[index])
            for index in wanted
        }

    def _shared_rows(self, batch: Batch, place: Place) -> int:
        """How many rows at the beginning of the batch are unconditional and shared."""
        if not self.savings.share_unconditional:
            return 0
        if place.turn or batch.lists:
            raise ValueError(
                "share_unconditional needs a pipeline that runs classifier-free guidance as one doubled batch of "
                "tensors; this one calls its denoiser otherwise: leave it out"
            )
        if place.seen is None or batch.size != 2 * len(place.seen):
            return 0
        if self._first is not None:
            if not unconditional_first(self._first, place.seen):
                raise ValueError(
                    "share_unconditional needs a pipeline that puts the unconditional rows first: leave it out here"
                )
            self._first = None
        return len(place.seen)

    def _in_one_forward(self, parts: dict[int, slice], forward: Forward, call: Call, batch: Batch) -> dict[int, Any]:
        assert isinstance(self.models, LoraModels)
        sizes = [part.stop - part.start for part in parts.values()]
        who = [index for index, size in zip(parts, sizes, strict=True) for _ in range(size)]
        output = self.models.predict_rows(who, forward, rows(call, batch, list(parts.values())))
        found, start = {}, 0
        for index, size in zip(parts, sizes, strict=True):
            found[index] = rows(output, Batch(len(who), batch.lists), [slice(start, start + size)])
            start += size
        return found

    def _keep(
        self, found: dict[int, Any], main: int, shapes: list[torch.Size], position: int, before: _Kept | None
    ) -> _Kept:
        differences = {
            index: mapped(lambda a, b: (a - b).detach(), prediction, found[main]) for index, prediction in found.items()
        }
        interval = self.savings.reuse
        if self.savings.drift is not None:
            interval = 1
            if before and before.differences.keys() == differences.keys():
                rate = _relative_change(before.differences, differences) / (position - before.position)
                interval = max(1, min(self.savings.reuse, int(self.savings.drift / max(rate, 1e-12))))
        return _Kept(shapes, position, interval, differences)

    def _corrected(self, weights: Sequence[float], main: int, kept: _Kept, prediction: Any) -> Any:
        """main's prediction moved by the kept differences: eps_main + Σ_i w_i (d_i - d_main)."""
        others = [index for index, weight in enumerate(weights) if weight and index != main]
        shifts = [kept.differences[index] for index in (main, *others)]

        def shifted(own: torch.Tensor, reference: torch.Tensor, *differences: torch.Tensor) -> torch.Tensor:
            for index, difference in zip(others, differences, strict=True):
                own = torch.add(own, difference - reference, alpha=weights[index])
            return own

        return mapped(shifted, prediction, *shifts)


def _without_small(weights: Sequence[float], tolerance: float) -> list[float]:
    """The weights with small ones given to the largest, so that the sum stays 1."""
    largest = max(range(len(weights)), key=lambda index: abs(weights[index]))
    small = [index for index, weight in enumerate(weights) if index != largest and abs(weight) <= tolerance]
    if len(small) == len(weights) - 1:
        return [float(index == largest) for index in range(len(weights))]
    kept = [0.0 if index in small else weight for index, weight in enumerate(weights)]
    kept[largest] += sum(weights[index] for index in small)
    return kept


def unconditional_first(prediction: torch.Tensor, seen: torch.Tensor) -> bool:
    """Whether the rows of a doubled batch that come first are the unconditional ones.

    What the scheduler has seen is ±(u + s (c - u)) with s > 1. On the way from the first half to the second that lies
    at s if the first is u, and at 1 - s if it is c. Read by the host, once per pipeline call.

    Args:
        prediction: of the denoiser, (2 B, ...).
        seen: of the scheduler, (B, ...).
    """
    first, second = (half[:, : seen.shape[1]].float() for half in prediction.chunk(2))
    if first.shape == seen.shape:
        along = second - first
        fits = []
        for beyond in (seen.float() - first, -seen.float() - first):
            place = (beyond * along).sum() / along.square().sum().clamp_min(1e-30)
            fits.append(torch.stack([(beyond - place * along).square().sum(), place]))
        (error, place), (other_error, other_place) = torch.stack(fits).tolist()
        return (place if error <= other_error else other_place) >= 0.5 or not along.any()
    return False


def _relative_change(old: dict[int, Any], new: dict[int, Any]) -> float:
    """|new - old| / |new| over all models, read by the host."""
    before, after = ([leaf.float() for index in new for leaf in leaves(tree[index])] for tree in (old, new))
    change = torch.stack([(b - a).square().sum() for a, b in zip(before, after, strict=True)]).sum()
    size = torch.stack([b.square().sum() for b in after]).sum()
    return float((change / size.clamp_min(1e-30)).sqrt())
