"""Simulated raters: they vote as people do, by a preference that is known, and are called simulated in every vote.

For trying a study out before it meets people, and for finding out whether the analysis says what is true. A rater's
liking of an option is its value + the rater's own taste for the operating point + something for the first place on the
page + noise. Of two options the better liked one is chosen, or neither if they are liked about alike; the noise of one
is Gumbel's, so that a difference of 1 is odds of e (Luce 1959). Careless raters look at nothing.
"""

from __future__ import annotations

import functools
import math
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from sfumato.runs import write_json
from sfumato.study import voting
from sfumato.study.analysis.automatic import Automatic, read_automatic
from sfumato.study.analysis.votes import SIMULATED, is_simulated
from sfumato.study.answers import Answer
from sfumato.study.config import Question
from sfumato.study.folder import Item, Study
from sfumato.study.models import Rater
from sfumato.study.store import Store

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(31)


@dataclass(frozen=True)
class Preference:
    """What simulated raters like, in log-odds.

    Attributes:
        measure: score of pictures that they like by, as the run has it.
        diversity: measure that they call sets more varied by.
        values: by operating point, in place of both.
        sharpness: of a standard deviation of the measure over what the study shows.
        ties: two options that are liked with less difference are alike.
        taste: standard deviation of a rater's own liking of an operating point.
        first_place: what the first place on the page adds.
        careless: share of raters who do not look: half of them press anything, half always the first place.
    """

    measure: str = "gold"
    diversity: str = "vendi"
    values: Mapping[str, float] = field(default_factory=dict)
    sharpness: float = 1.5
    ties: float = 0.4
    taste: float = 0.3
    first_place: float = 0.0
    careless: float = 0.1

    def share(self, gap: float, ties: bool = True) -> float:
        """The share of careful votes, ties as half, for the first of two options whose values differ by `gap`.

        Over all raters, and with either option first on the page equally often.
        """
        gaps = gap + math.sqrt(2) * self.taste * NODES[:, None] + self.first_place * np.array([1, -1])
        band = self.ties if ties else 0.0
        wins = (1 / (1 + np.exp(band - gaps)) + 1 / (1 + np.exp(-band - gaps))) / 2
        return float((WEIGHTS @ wins).mean() / WEIGHTS.sum())


def simulate_votes(store: Store, raters: int, preference: Preference | None = None, seed: int = 0) -> int:
    """Let simulated raters take part, and write what was true into `simulation.json` of the study folder.

    Args:
        store: of a study in which no person takes part.
        raters: how many; those who find nothing left to answer give no votes.
        preference: what they like.
        seed: of the raters. Which items they get is the store's chance.

    Returns:
        The number of votes.

    Raises:
        ValueError: people take part in the study, or the runs lack the measure.
    """
    preference, study = preference or Preference(), store.study
    with store.read() as connection:
        labels = connection.execute(sa.select(Rater.label)).scalars().all()
    if not all(map(is_simulated, labels)):
        raise ValueError(f"people take part in {study.path}: simulate raters in a study of its own")
    values = _values(study, preference)
    votes = 0
    for number in range(len(labels) + 1, len(labels) + raters + 1):
        simulated = _SimulatedRater(study, preference, values, np.random.default_rng([seed, number]))
        label = f"{SIMULATED}{number:04d}"
        votes += store.write(functools.partial(simulated.take_part, label=label))
    told = {"raters": len(labels) + raters, "seed": seed, "preference": asdict(preference)}
    write_json(study.path / "simulation.json", {**told, "expected": expected_shares(study, preference, values)})
    return votes


def expected_shares(study: Study, preference: Preference, values: Mapping[Any, float]) -> list[dict[str, Any]]:
    """What careful raters would say on average about every two points of every question with two options."""
    found = []
    for question in study.config.questions:
        if question.kind not in ("pair", "variety"):
            continue
        shares: dict[tuple[str, str], list[float]] = {pair: [] for pair in combinations(study.config.points, 2)}
        for item in study.items.values():
            if item.question == question.label and item.check is None:
                own = {option.point: _value(values, question, item, i) for i, option in enumerate(item.options)}
                a, b = (name for name in study.config.points if name in own)
                shares[a, b].append(preference.share(own[a] - own[b], question.ties))
        found += [
            {"question": question.label, "a": a, "b": b, "share": float(np.mean(own))}
            for (a, b), own in shares.items()
            if own
        ]
    return found


def _values(study: Study, preference: Preference) -> dict[Any, float]:
    """What every option is worth: pictures by their file, sets by point and prompt."""
    if preference.values:
        if missing := [name for name in study.config.points if name not in preference.values]:
            raise ValueError(f"give the values of all operating points: {', '.join(missing)} is missing")
        return dict(preference.values)
    automatic = read_automatic(study)
    kinds = {question.kind for question in study.config.questions}
    values: dict[Any, float] = {}
    if kinds - {"variety"}:
        values |= _standardised(_scores(study, automatic, preference.measure), preference.sharpness)
    if "variety" in kinds:
        values |= _standardised(_diversity(study, automatic, preference.diversity), preference.sharpness)
    return values


def _scores(study: Study, automatic: Automatic, measure: str) -> dict[Any, float]:
    shown = {
        option.images[0]
        for item in study.items.values()
        if item.check is None and study.question(item).pictures == 1
        for option in item.options
    }
    return {name: _known(automatic.pictures.get(f"images/{name}", {}), measure) for name in shown}


def _diversity(study: Study, automatic: Automatic, measure: str) -> dict[Any, float]:
    shown = {
        (option.point, item.prompt)
        for item in study.items.values()
        if item.check is None and study.question(item).kind == "variety"
        for option in item.options
    }
    return {key: _known(automatic.sets.get((str(key[0]), key[1]), {}), measure) for key in shown}


def _known(measures: Mapping[str, float], name: str) -> float:
    if name not in measures:
        there = f"there are {', '.join(measures)}" if measures else "it has none"
        raise ValueError(
            f"something that the study shows has no {name!r} in its run ({there}): name another measure, or give "
            "values of the operating points"
        )
    return measures[name]


def _standardised(values: dict[Any, float], scale: float) -> dict[Any, float]:
    numbers = np.array(list(values.values()))
    spread = float(numbers.std()) or 1.0
    return {key: scale * (value - float(numbers.mean())) / spread for key, value in values.items()}


def _value(values: Mapping[Any, float], question: Question, item: Item, option: int) -> float:
    own = item.options[option]
    if own.point in values:
        return values[own.point]
    return values[(own.point, item.prompt) if question.kind == "variety" else own.images[0]]


class _SimulatedRater:
    """One rater, who answers all that the study gives out."""

    def __init__(
        self, study: Study, preference: Preference, values: Mapping[Any, float], dice: np.random.Generator
    ) -> None:
        self._study, self._preference, self._values, self._dice = study, preference, values, dice
        tastes = preference.taste * dice.standard_normal(len(study.config.points))
        self._tastes = dict(zip(study.config.points, tastes, strict=True))
        self._careless = dice.random() < preference.careless
        self._presses_first = dice.random() < 0.5

    def take_part(self, connection: sa.Connection, label: str) -> int:
        """Join under a label, answer until nothing is left, and count the votes; inside a transaction."""
        rater = self._dice.bytes(16).hex()
        voting.join(connection, rater)
        connection.execute(sa.update(Rater).where(Rater.id == rater).values(label=label))
        held, count = voting.give(connection, self._study, rater), 0
        while held:
            answer = self._answer(self._study.items[held[0].item], held[0].turn)
            seconds = float(self._dice.lognormal(*((-0.9, 0.3) if self._careless else (1.5, 0.5))))
            key = secrets.token_hex(16)
            held = voting.vote(connection, self._study, rater, held[0].assignment, key, answer, seconds)
            count += 1
        return count

    def _answer(self, item: Item, turn: int) -> Answer:
        question, order = self._study.question(item), item.order(turn)
        if self._careless:
            liking = np.zeros(len(order)) if self._presses_first else self._dice.random(len(order))
            liking[order[0]] += self._presses_first
            return self._chosen(question, liking, 0.0)
        if item.check is not None:
            liking = self._dice.random(len(order))
            liking[item.check] -= 10.0
            return self._chosen(question, liking, 0.0)
        liking = np.array([self._liking(question, item, option) for option in range(len(order))])
        liking[order[0]] += self._preference.first_place * (len(order) > 1)
        return self._chosen(question, liking + self._dice.gumbel(size=len(order)), self._preference.ties)

    def _liking(self, question: Question, item: Item, option: int) -> float:
        return _value(self._values, question, item, option) + self._tastes[str(item.options[option].point)]

    def _chosen(self, question: Question, liking: NDArray[np.float64], band: float) -> Answer:
        """The answer that likings of the options make."""
        best_first = np.argsort(-liking, kind="stable").tolist()
        if question.kind == "rating":
            return 1 + min(question.scale - 1, int(question.scale / (1 + math.exp(-liking[0]))))
        if question.kind == "rank":
            return best_first
        alike = question.kind != "best_of" and question.ties and liking[best_first[0]] - liking[best_first[1]] < band
        return None if alike else best_first[0]
