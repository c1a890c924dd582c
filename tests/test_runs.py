"""The run folder: written in one step or not at all, continued only by the same recipe."""

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.runs import Run, append_jsonl, atomic_path, read_json, read_jsonl, write_json, write_jsonl, write_text

RECIPE = {"name": "demo", "training": {"lr": 1e-4, "steps": 40, "betas": [0.9, 0.999]}, "points": ["base", "tuned"]}


def test_a_write_that_fails_half_way_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"was": 1})
    with pytest.raises(OSError, match="full"), atomic_path(path) as temporary:
        temporary.write_text("{hal")
        raise OSError("disk full")
    assert read_json(path) == {"was": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("fails", ["sfumato.runs.flush", "sfumato.runs.os.replace"])
def test_a_disk_that_fails_leaves_the_earlier_file(tmp_path, monkeypatch, fails):
    path = tmp_path / "a.json"
    write_json(path, {"was": 1})

    def broken(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fails, broken)
    with pytest.raises(OSError, match="No space"):
        write_json(path, {"is": 2})
    assert read_json(path) == {"was": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_written_where_there_was_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "new" / "a.json") as temporary:
        assert temporary.suffix == ".json" and temporary.parent == tmp_path / "new"
        raise ZeroDivisionError
    assert list((tmp_path / "new").iterdir()) == []


def test_files_are_readable_by_those_who_may_read_any_other(tmp_path):
    (tmp_path / "plain").touch()
    with atomic_path(tmp_path / "a") as temporary:
        temporary.unlink()
        os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


words = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=5)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=4,
)
records = st.lists(st.dictionaries(words, json_values, max_size=3), max_size=4)


@settings(max_examples=30)
@given(first=records, second=records)
def test_records_come_back_as_they_were(first, second, tmp_path_factory):
    path = tmp_path_factory.mktemp("records") / "deep" / "a.jsonl"
    assert read_jsonl(path) == []
    append_jsonl(path, first)
    append_jsonl(path, second)
    assert read_jsonl(path) == first + second
    write_jsonl(path, second)
    assert read_jsonl(path) == second


@settings(max_examples=30)
@given(data=st.data())
def test_a_last_line_cut_short_is_forgotten_and_written_over(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("cut") / "a.jsonl"
    written = [{"prompt": "Früchte 🍇", "seed": i} for i in range(3)]
    append_jsonl(path, written)
    whole = path.read_bytes()
    size = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:size])
    kept = whole[:size].count(b"\n")
    assert read_jsonl(path) == written[:kept]
    append_jsonl(path, [{"seed": 9}])
    assert read_jsonl(path) == [*written[:kept], {"seed": 9}]


def test_a_damaged_line_in_the_middle_is_not_passed_over(tmp_path):
    write_text(tmp_path / "a.jsonl", '{"a": 1}\n{"b"\n{"c": 3}\n')
    with pytest.raises(ValueError, match=r"line 2 of .*a\.jsonl is damaged .* repair or delete that line"):
        read_jsonl(tmp_path / "a.jsonl")


def test_a_damaged_file_is_named(tmp_path):
    write_text(tmp_path / "a.json", "{")
    with pytest.raises(ValueError, match=r"a\.json is damaged"):
        read_json(tmp_path / "a.json")


def test_a_run_explains_itself(tmp_path):
    run = Run.create(tmp_path / "run", RECIPE, name="demo")
    loaded = Run.load(str(tmp_path / "run"))
    assert loaded == run
    assert loaded.recipe == RECIPE
    assert loaded.info["name"] == "demo"
    assert {"sfumato", "python", "torch", "diffusers", "peft"} <= loaded.info["versions"].keys()
    assert loaded.trainings == [] and loaded.images() == [] and loaded.training_metrics() == []
    for name in ("kl", "tuned", "early"):
        append_jsonl(loaded.training(name) / "metrics.jsonl", [{"update": 1, "name": name}])
    assert loaded.trainings == ["tuned", "early", "kl"]
    assert loaded.training_metrics("kl") == [{"update": 1, "name": "kl"}]


def test_the_same_recipe_continues_a_run(tmp_path):
    created = Run.create(tmp_path, RECIPE, name="demo").info
    again = Run.create(tmp_path, json.loads(json.dumps(RECIPE)), name="other")
    assert again.info == created


def test_a_run_killed_between_its_first_two_files_is_started_again(tmp_path):
    run = Run.create(tmp_path, RECIPE, name="demo")
    run.recipe_path.unlink()
    assert Run.create(tmp_path, RECIPE, name="again").info["name"] == "again"
    assert run.recipe == RECIPE


def test_another_recipe_is_refused_with_the_keys_that_differ(tmp_path):
    Run.create(tmp_path, RECIPE, name="demo")
    other = {**RECIPE, "training": {**RECIPE["training"], "lr": 1e-3}, "seed": 4}
    with pytest.raises(ValueError, match=r"another recipe \(different: seed, training.lr\).*run=DIR"):
        Run.create(tmp_path, other, name="demo")
    assert Run.load(tmp_path).recipe == RECIPE


def test_harmless_changes_continue_a_run_and_are_written_down(tmp_path):
    Run.create(tmp_path, RECIPE, name="demo")
    longer = {**RECIPE, "training": {**RECIPE["training"], "steps": 80}}
    run = Run.create(tmp_path, longer, name="demo", harmless=["training.steps"])
    assert run.recipe == longer
    with pytest.raises(ValueError, match=r"different: name\)"):
        Run.create(tmp_path, {**RECIPE, "name": "x"}, name="demo", harmless=["training.steps"])


@settings(max_examples=8)
@given(recipe=st.dictionaries(words, json_values | st.tuples(st.integers(), words), max_size=4))
def test_any_recipe_continues_itself(recipe, tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    Run.create(path, recipe, name="a")
    Run.create(path, recipe, name="a")
    assert json.dumps(Run.load(path).recipe) == json.dumps(recipe)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"not a run folder: it has no run.json"):
        Run.load(tmp_path)
    run = Run.create(tmp_path, RECIPE, name="demo")
    with pytest.raises(FileNotFoundError, match="has no evaluation yet: run `sfumato evaluate"):
        run.frontier()
    write_json(run.evaluation / "frontier.json", {"points": []})
    assert run.frontier() == {"points": []}
