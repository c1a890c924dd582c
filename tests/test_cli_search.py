"""`sfumato tune-schedule` from end to end on a tiny run."""

import json
import re
from xml.etree import ElementTree

import pytest
import yaml

from sfumato.config import load_recipe
from sfumato.frontier import search_images
from sfumato.runs import read_json, read_jsonl

PROMPTS = ["e", "f", "g"]
HELD_OUT = ["a", "b", "d"]
OPTIONS = ["--images", 2, "--budget", 60]


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(PROMPTS))
    return path


@pytest.fixture
def sampled(monkeypatch):
    """(prompt, seeds) of every rollout of a search."""
    calls = []
    rollout = search_images.rollout

    def counted(pipe, *, prompt, seeds, **arguments):
        calls.append((prompt, *seeds))
        return rollout(pipe, prompt=prompt, seeds=seeds, **arguments)

    monkeypatch.setattr(search_images, "rollout", counted)
    return calls


def test_a_schedule_is_found_kept_and_continued(run, sfumato, prompts, sampled):
    command = ["tune-schedule", run.path, "--keep", "diversity=0.5", "--prompts", prompts, *OPTIONS]
    outcome = sfumato(*command)
    assert outcome.code == 0, outcome.err
    folder = run.path / "search" / "diversity-0.5"
    found = read_json(folder / "search.json")
    trials = found["trials"]
    assert [trial["label"] for trial in trials[:3]] == ["base", "tuned", "constant 0.25, weights"] and len(trials) >= 9
    rows = read_jsonl(run.path / "search" / "images.jsonl")
    assert len({row["key"] for row in rows}) == len(rows)
    assert sum(len(call) - 1 for call in sampled) == sum(len(row["seeds"]) for row in rows)
    assert all((run.path / "search" / row["file"]).exists() and len(row["scores"]["reward"]) >= 2 for row in rows)

    best = max((t for t in trials if t["valid"]), key=lambda t: t["reward"])
    assert trials[found["found"]] == best
    assert best["reward"] >= max(t["reward"] for t in trials if t["fixed"] and t["valid"])
    assert found["held_out"]["prompts"] == HELD_OUT
    difference = found["held_out"]["difference"]["reward"]
    points = found["held_out"]["points"]
    assert difference["mean"] == pytest.approx(points["found"]["reward"]["mean"] - points["fixed"]["reward"]["mean"])
    assert difference["low"] <= difference["mean"] <= difference["high"]
    assert best["label"] in outcome.out and found["python"] in outcome.out

    before, pictures = sampled.copy(), {p: p.read_bytes() for p in run.path.rglob("search/**/*") if p.is_file()}
    sampled.clear()
    assert sfumato(*command).out == outcome.out
    assert sampled == []
    assert {p: p.read_bytes() for p in pictures} == pictures

    table = run.path / "search" / "images.jsonl"
    lines = table.read_bytes().splitlines(keepends=True)
    table.write_bytes(b"".join(lines[:10]) + lines[10][:20])
    assert sfumato(*command).out == outcome.out
    assert sampled == before[10:]
    assert table.read_bytes() == b"".join(lines)
    assert {p: p.read_bytes() for p in pictures} == pictures


def test_what_is_printed_can_be_used(run, sfumato, prompts, tmp_path):
    outcome = sfumato("tune-schedule", run.path, "--keep", "reward=0.1", "--prompts", prompts, *OPTIONS)
    assert outcome.code == 0, outcome.err
    snippet = re.search(r"^  - (\{.*\})$", outcome.out, re.M).group(1)
    folder = run.path / "search" / "reward-0.1"
    assert (folder / "point.yaml").read_text() == snippet + "\n"
    points = [{"kind": "base"}, {"kind": "tuned"}, yaml.safe_load(snippet)]
    recipe = load_recipe(run.path, [f"evaluation.points={json.dumps(points)}"])
    definition = recipe.evaluation.points[-1].model_dump(mode="json", exclude_none=True)
    assert definition == read_json(folder / "search.json")["point"]
    svg = ElementTree.fromstring((folder / "search.svg").read_text(encoding="utf-8"))
    trials = read_json(folder / "search.json")["trials"]
    titles = [title.text for title in svg.iter("{http://www.w3.org/2000/svg}title")]
    assert sorted(title.split(";")[0] for title in titles) == sorted(trial["label"] for trial in trials)


def test_another_goal_begins_with_what_is_known(run, sfumato, prompts, sampled):
    command = ["tune-schedule", run.path, "--prompts", prompts, *OPTIONS]
    assert sfumato(*command, "--keep", "diversity=0.9").code == 0
    sampled.clear()
    assert sfumato(*command, "--keep", "diversity=0.2").code == 0
    assert len(sampled) < 9 * len(PROMPTS)


def test_bad_input_says_what_to_do(run, sfumato, prompts, tmp_path):
    def refused(*arguments):
        outcome = sfumato("tune-schedule", *arguments)
        assert outcome.code == 1 and outcome.out == ""
        return outcome.err.splitlines()[-1]

    assert "is not a run folder" in refused(tmp_path / "nowhere")
    assert "unknown constraint 'variety': keep diversity or reward" in refused(run.path, "--keep", "variety=0.9")
    assert "write diversity=0.9" in refused(run.path, "--keep", "diversity")
    assert "at most 1, not 2" in refused(run.path, "--keep", "diversity=2")
    small = refused(run.path, "--prompts", prompts, "--images", 2, "--budget", 53)
    assert "take 54" in small
    assert "1 of the training prompts are not held out" in refused(run.path)
    assert "at least 2 images" in refused(run.path, "--prompts", prompts, "--images", 1)
    prompts.write_text("a\ne\nb\n")
    assert "held-out prompts cannot be searched on: take 'a', 'b' off" in refused(run.path, "--prompts", prompts)
    assert "there is no prompt file" in refused(run.path, "--prompts", tmp_path / "none.txt")
    (run.training() / "pytorch_lora_weights.safetensors").unlink()
    assert "sfumato train" in refused(run.path)
