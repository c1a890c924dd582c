"""The closed loop of benchmarks/study_loop.py on tiny models: votes become a reward, a tuned model, and votes again."""

import math

import pytest
from benchmarks.study_loop import Plan, close, recovered, steps

from sfumato.preferences import load_pairs
from sfumato.runs import read_json
from tests.report.synthetic import make_run
from tests.rewards.tiny_clip import save_tiny_clip
from tests.tiny_run import EVALUATION, write_recipe


@pytest.fixture
def plan(world, tmp_path):
    make_run(tmp_path / "start", ["fruit", "a bird", "boat", "rose"], list(range(6)))
    evaluation = {
        **EVALUATION,
        "features": str(world / "vision"),
        "points": [
            {"kind": "base"},
            {"kind": "tuned"},
            {"kind": "guidance", "schedule": "power", "parameters": {"p": 2}},
        ],
    }
    recipe = write_recipe(tmp_path / "recipe.yaml", world, reward={"name": "preference"}, evaluation=evaluation)
    return Plan(
        folder=tmp_path / "loop",
        start=tmp_path / "start",
        shown=("base", "tuned", "kl"),
        first=("questions=[{kind: pair, repeats: 4}]", "votes_per_item=2"),
        raters=8,
        measures=("reward", "reward"),
        learning=(
            f"model={save_tiny_clip(tmp_path / 'clip')}",
            "held_out=0.25",
            "training.steps=20",
            "training.lr=0.02",
        ),
        recipe=(str(recipe),),
        second=("questions=[{kind: pair}, {kind: variety, set_size: 3}]", "votes_per_item=4", "check_every=null"),
    )


def test_the_loop_closes_and_an_interrupted_one_goes_on(plan, sfumato):
    ran = []

    def run(command):
        done = sfumato(*command)
        assert done.code == 0, (command, done.err)
        ran.append(command[:2])
        if len(ran) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        close(plan, run)
    close(plan, run)
    assert ran == [step.command[:2] for step in steps(plan)], "no step was done twice"
    pairs = load_pairs(plan.folder / "pairs.jsonl")
    votes = read_json(plan.folder / "first" / "analysis" / "analysis.json")["votes"]
    assert len(pairs) == votes > 40
    assert read_json(plan.folder / "reward" / "evaluation.json")["held_out"] > 0
    found = recovered(plan)
    assert [(row["question"], row["a"], row["b"]) for row in found] == [
        (question, a, b)
        for question in ("pair", "variety")
        for a, b in (("base", "tuned"), ("base", "aig-power-2"), ("tuned", "aig-power-2"))
    ]
    assert all(0 < row["share"] < 1 and math.isfinite(row["p_adjusted"]) for row in found)
