"""Everything that is compared between a point and the base."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sfumato.diagnosis import measures
from sfumato.diagnosis.samples import Samples
from sfumato.diagnosis.significance import Quantity

Array = NDArray[np.float64]

RARE = 0.01
"""Quantile of the base's nearest distances below which two images are near-duplicates."""
NOTHING = 1e-9


def quantities(base: Samples, point: Samples, again: Samples, k: int) -> dict[str, Quantity]:
    """Everything that is compared, by key, as far as the images allow it; what the base has none of is left out.

    `score/NAME` and `pixel/NAME` are means, in units of the base's spread within a prompt. `vendi` (less 1),
    `distance`, `recall`, `separation`, `kinds/LABEL` (effective number of kinds, less 1) and `match/LABEL` (share of
    images with the prompt's label) are shares of the base's value. `copies` and `echoes` are the shares of images with
    a near-duplicate in the same prompt, and in another.

    Args:
        base: images of the base model.
        point: of the point that is examined.
        again: of the base with other seeds.
        k: neighbours of recall, less than the images of a prompt.
    """
    found = {}
    for kind in ("score", "pixel"):
        values = [samples.scores if kind == "score" else samples.pixels for samples in (base, point, again)]
        for name in [name for name in values[0] if all(name in own for own in values)]:
            unit = float(np.sqrt(values[0][name].var(axis=1).mean()))
            if unit > NOTHING:
                found[f"{kind}/{name}"] = Quantity(*(own[name].mean(1) for own in values), unit=unit)
    kept = {**_of_features(base, point, again, k), **_of_labels(base, point, again)}
    for key, q in kept.items():
        if q.base.mean() > NOTHING:
            found[key] = Quantity(q.base, q.point, q.again, unit=float(q.base.mean()))
    return found | _duplicates(base, point, again)


def _of_features(base: Samples, point: Samples, again: Samples, k: int) -> dict[str, Quantity]:
    """Recall is that of the base's other samples; its noise is seen with the two sets of base samples exchanged."""
    sets = [samples.features for samples in (base, point, again) if samples.features is not None]
    raw = [samples.raw for samples in (base, point, again) if samples.raw is not None]
    if len(sets) < 3:
        return {}
    real, fakes = (raw[2], raw[2], raw[0]), (raw[0], raw[1], raw[2])
    return {
        "vendi": Quantity(*(measures.vendi(features) - 1 for features in sets)),
        "distance": Quantity(*map(measures.distance, sets)),
        "recall": Quantity(*(measures.recall(a, b, k) for a, b in zip(real, fakes, strict=True))),
        "separation": Quantity(*map(measures.separation, raw)),
    }


def _of_labels(base: Samples, point: Samples, again: Samples) -> dict[str, Quantity]:
    """`match/LABEL` of the labels that follow the prompt, `kinds/LABEL` of the others.

    The right label of a prompt is the one that the base draws most often with other seeds.
    """
    found = {}
    for name in [name for name in base.labels if name in point.labels and name in again.labels]:
        sets = [samples.labels[name] for samples in (base, point, again)]
        if measures.follows_prompt(np.concatenate([sets[0], sets[2]], axis=1)):
            right, other = (measures.commonest(labels)[:, None] for labels in (sets[2], sets[0]))
            pairs = zip(sets, (right, right, other), strict=True)
            found[f"match/{name}"] = Quantity(*((labels == own).mean(1) for labels, own in pairs))
        else:
            found[f"kinds/{name}"] = Quantity(*(measures.effective_kinds(labels) - 1 for labels in sets))
    return found


def _duplicates(base: Samples, point: Samples, again: Samples) -> dict[str, Quantity]:
    """Shares of images closer to another than the `RARE` ones of the base, within a prompt and between prompts."""
    tables = [samples.nearest[0] for samples in (base, point, again) if samples.nearest is not None]
    if len(tables) < 3:
        return {}
    limits = np.quantile(np.concatenate([tables[0], tables[2]], axis=2), RARE, axis=(1, 2))
    return {
        key: Quantity(*((table[kind] < limits[kind]).mean(1) for table in tables))
        for kind, key in enumerate(("copies", "echoes"))
    }
