from pathlib import Path

import numpy as np
import pytest

from sfumato.frontier.measured import read_measured
from sfumato.frontier.small_n import vendi_corrected
from sfumato.metrics import mean_pairwise_distance, recall, vendi_score
from sfumato.runs import Run, read_jsonl, write_jsonl

PROMPTS = [f"a thing {i}" for i in range(6)]
SEEDS = range(8)
RECIPE = {"neighbours": 2, "further_features": {"clip": "hub/clip", "lpips": "lpips:alex.safetensors"}}


def make_run(folder: Path, points: tuple[str, ...] = ("reference", "base", "tuned")) -> Run:
    """An evaluated run whose tuned model draws one thing per prompt; rows in falling order of the seeds."""
    run = Run.create(folder, {"evaluation": RECIPE}, "made up")
    random = np.random.default_rng(0)
    rows, features = [], []
    for point in points:
        for group, prompts in (("main", PROMPTS), ("unrelated", ["far away"])):
            for prompt in prompts:
                for seed in reversed(SEEDS):
                    gain = 2.0 * (point == "tuned") + 0.1 * PROMPTS.index(prompt) if group == "main" else 99.0
                    labels = {"style": "noto" if point == "tuned" else f"style {seed % 3}"}
                    scores = {"reward": gain + random.normal(), "gold": random.normal()}
                    rows.append({"point": point, "prompt": prompt, "seed": seed, "group": group, "scores": scores})
                    rows[-1] |= {"labels": labels, "forwards": 10.0 + 5 * (point == "tuned")}
                    features.append(np.ones(4) + (0.02 if point == "tuned" else 1.0) * random.normal(size=4))
    write_jsonl(run.evaluation / "images.jsonl", rows)
    found = {"features": np.array(features, dtype=np.float32)}
    run.write_features(found | {name: found["features"][:, :2].copy() for name in ("clip", "lpips")})
    return run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path / "run")


def place(run: Run, point: str, prompt: str) -> list[int]:
    """Rows of a point's images of a prompt in rising order of the seeds."""
    rows = run.images()
    found = [i for i, row in enumerate(rows) if (row["point"], row["prompt"]) == (point, prompt)]
    return sorted(found, key=lambda i: rows[i]["seed"])


def test_scores_come_by_prompt_in_the_order_of_seeds(run: Run) -> None:
    found = read_measured(run, "reward", ["base", "tuned"])
    assert len(found.samples["base"]) == len(PROMPTS)
    (values,) = found.samples["tuned"][2]
    assert values.tolist() == [run.images()[i]["scores"]["reward"] for i in place(run, "tuned", PROMPTS[2])]
    assert found.measure(values) == pytest.approx(values.mean())
    assert found.forwards == 25


def test_measures_of_a_set(run: Run) -> None:
    import torch

    for metric, name in (("vendi", "features"), ("vendi_clip", "clip")):
        found = read_measured(run, metric, ["base"])
        own = torch.from_numpy(run.features(name)[place(run, "base", PROMPTS[1])])
        assert found.measure(*found.samples["base"][1]) == vendi_score(own)
    found = read_measured(run, "style_entropy", ["base", "tuned"])
    assert found.measure(*found.samples["tuned"][0]) == 0 < found.measure(*found.samples["base"][0])


def test_every_measure_of_features_is_the_one_that_the_evaluation_takes(run: Run) -> None:
    import torch

    own = {name: run.features(name)[place(run, "base", PROMPTS[1])] for name in ("features", "clip", "lpips")}
    expected = {
        "vendi_corrected": vendi_corrected(own["features"]),
        "distance": mean_pairwise_distance(torch.from_numpy(own["features"])),
        "distance_clip": mean_pairwise_distance(torch.from_numpy(own["clip"])),
        "distance_lpips": mean_pairwise_distance(torch.from_numpy(own["lpips"]), "squared"),
    }
    for metric, value in expected.items():
        found = read_measured(run, metric, ["base"])
        assert found.measure(*found.samples["base"][1]) == pytest.approx(value), metric


def test_the_share_of_labels_that_a_point_reaches(run: Run) -> None:
    found = read_measured(run, "style_coverage", ["base", "tuned"])
    assert [found.measure(*found.samples[point][0]) for point in ("base", "tuned")] == [1, 0]
    assert (found.least, found.forwards) == (1, 35)


def test_prompts_are_paired_by_name_whatever_the_order_of_the_rows(run: Run) -> None:
    """Rows of a point that is no longer planned are sorted by prompt, not as the recipe has them."""
    rows = run.images()
    before = read_measured(run, "gold", ["base", "tuned"]).samples["tuned"]
    moved = sorted((row for row in rows if row["point"] == "tuned"), key=lambda row: row["prompt"], reverse=True)
    write_jsonl(run.evaluation / "images.jsonl", [row for row in rows if row["point"] != "tuned"] + moved)
    after = read_measured(run, "gold", ["base", "tuned"]).samples["tuned"]
    assert [values.tolist() for (values,) in after] == [values.tolist() for (values,) in before]


def test_a_prompt_that_only_the_second_point_has_is_refused(run: Run) -> None:
    rows = [row for row in run.images() if (row["point"], row["prompt"]) != ("base", PROMPTS[5])]
    write_jsonl(run.evaluation / "images.jsonl", rows)
    with pytest.raises(ValueError, match='"base" and "tuned" have different seeds for the prompt "a thing 5"'):
        read_measured(run, "gold", ["base", "tuned"])


def test_rows_without_labels_have_no_measure_of_them(run: Run) -> None:
    rows = [{key: value for key, value in row.items() if key != "labels"} for row in run.images()]
    write_jsonl(run.evaluation / "images.jsonl", rows)
    assert len(read_measured(run, "gold", ["base"]).samples["base"]) == len(PROMPTS)
    with pytest.raises(ValueError, match='no metric "style_entropy" to plan for'):
        read_measured(run, "style_entropy", ["base"])


@pytest.mark.parametrize("metric", ["beauty", "vendi_typo", "vendi_lpips", "distance_typo", "vendi_"])
def test_what_was_not_measured_is_refused_with_what_was(run: Run, metric: str) -> None:
    with pytest.raises(ValueError, match=f'no metric "{metric}" to plan for, only reward, gold, vendi, .*vendi_clip'):
        read_measured(run, metric, ["base"])


def test_measures_against_the_reference_bring_it_and_its_price(run: Run) -> None:
    import torch

    found = read_measured(run, "recall", ["base", "tuned"])
    own, reference = (torch.from_numpy(run.features()[place(run, name, PROMPTS[3])]) for name in ("tuned", "reference"))
    assert found.measure(*found.samples["tuned"][3]) == recall(reference, own, k=2)
    assert (found.least, found.forwards) == (3, 35)


def test_refuses(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'no metric "beauty" to plan for, only reward, gold, vendi.*style_entropy'):
        read_measured(run, "beauty", ["base"])
    with pytest.raises(ValueError, match='no point "aig", only reference, base, tuned'):
        read_measured(run, "reward", ["base", "aig"])
    path = run.evaluation / "images.jsonl"
    write_jsonl(path, read_jsonl(path)[:-20])
    with pytest.raises(ValueError, match='"base" and "tuned" have different seeds for the prompt "a thing 4"'):
        read_measured(run, "reward", ["base", "tuned"])
    path.unlink()
    with pytest.raises(FileNotFoundError, match="no evaluation yet: run `sfumato evaluate"):
        read_measured(run, "reward", ["base"])
    with pytest.raises(ValueError, match='no point "reference"'):
        read_measured(make_run(tmp_path / "other", ("base", "tuned")), "recall", ["base"])
