import numpy as np
import pytest

from sfumato.report import repeats
from sfumato.report.images import Strips

SEEDS = list(range(20))


def rows(points, prompts=("p", "q"), seeds=SEEDS):
    return [{"point": x, "prompt": p, "seed": s, "group": "main"} for x in points for p in prompts for s in seeds]


def strips(prompts=("p", "q"), seeds=SEEDS):
    shown = dict.fromkeys(prompts, seeds)
    return Strips(list(prompts), shown, records={("x", p): [None] * len(seeds) for p in prompts})


def directions(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 8)).astype(np.float32)


def test_the_base_repeats_itself_at_chance_and_copies_are_found(monkeypatch):
    monkeypatch.setattr(repeats, "CHUNK", 7)
    base, tuned = directions(40), directions(40, 1)
    tuned[3], tuned[25] = 2 * tuned[0], tuned[1]  # the same seed's copy within "p", and one of "p" within "q"
    found = repeats.find_repeats(rows(["base", "tuned"]), np.concatenate([base, tuned]), strips(), ["base", "tuned"])
    unit = base / np.linalg.norm(base, axis=1, keepdims=True)
    pairs = [1 - unit[a] @ unit[b] for half in (range(20), range(20, 40)) for a in half for b in half if a < b]
    assert found["threshold"] == pytest.approx(np.percentile(pairs, 1), abs=1e-6)
    own = {point["name"]: point for point in found["points"]}
    assert 0 < own["base"]["within"] < 0.3
    assert {tuple(sorted(pair[:2])) for pair in own["tuned"]["pairs"][:2]} == {(0, 3), (1, 25)}
    assert own["tuned"]["pairs"][0][2] == pytest.approx(0, abs=1e-6)
    assert own["tuned"]["within"] >= 2 / 40 and own["tuned"]["across"] >= 2 / 40


def test_neighbours_are_the_nearest_by_brute_force():
    features = directions(80)
    found = repeats.find_repeats(rows(["base", "tuned"]), features, strips(), ["base", "tuned"])
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    tuned = found["points"][1]["near"]
    for kind, against in (("own", unit[40:]), ("base", unit[:40])):
        distances = 1 - unit[40:] @ against.T
        if kind == "own":
            np.fill_diagonal(distances, 9)
        expected = np.argsort(distances, axis=1)[:, :4]
        assert np.array(tuned[kind][0]).reshape(40, 4).tolist() == expected.tolist()
        near = np.take_along_axis(distances, expected, axis=1)
        assert np.array(tuned[kind][1]).reshape(40, 4) == pytest.approx(1e4 * near, abs=1)
    assert set(found["points"][0]["near"]["base"][0]) == {-1}


def test_unrelated_prompts_and_images_that_are_not_shown_are_left_out():
    records = rows(["base"]) + [{"point": "base", "prompt": "r", "seed": s, "group": "unrelated"} for s in SEEDS]
    features = np.concatenate([directions(40), np.ones((20, 8), dtype=np.float32)])
    found = repeats.find_repeats(records, features, strips(seeds=SEEDS[:5]), ["base"])["points"][0]
    assert len(found["near"]["own"][0]) == 2 * 5 * 4 and max(found["near"]["own"][0]) < 10
    assert found["across"] < 0.5 and all(max(a, b) < 10 for a, b, _ in found["pairs"])


def test_one_image_per_prompt_has_nobody_to_repeat():
    found = repeats.find_repeats(rows(["base"], seeds=[1]), directions(2), strips(seeds=[1]), ["base"])
    assert found["threshold"] == 0 and found["points"][0]["within"] == 0


def test_without_the_base_there_is_no_yardstick():
    assert repeats.find_repeats(rows(["tuned"]), directions(40), strips(), ["tuned"]) == {}
