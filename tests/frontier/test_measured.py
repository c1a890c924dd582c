from pathlib import Path

import numpy as np
import pytest

from sfumato.frontier.measured import read_measured
from sfumato.metrics import recall, vendi_score
from sfumato.runs import Run, read_jsonl, write_jsonl

PROMPTS = [f"a thing {i}" for i in range(6)]
SEEDS = range(8)


def make_run(folder: Path, points: tuple[str, ...] = ("reference", "base", "tuned")) -> Run:
    """An evaluated run whose tuned model draws one thing per prompt; rows in falling order of the seeds."""
    run = Run.create(folder, {"evaluation": {"neighbours": 2}}, "made up")
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
    run.write_features(found | {"clip": found["features"][:, :2].copy()})
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
