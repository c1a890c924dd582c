"""Suites: a recipe in many settings, run cell by cell, with one results page."""

from copy import deepcopy

import pytest
import yaml

from sfumato.config import RecipeError, is_suite, load_recipe, load_suite, shipped_suites
from sfumato.runs import Run
from tests.tiny_run import EVALUATION, RECIPE

POINTS = [{"kind": "guidance", "schedule": "power", "parameters": {"p": 2}}, {"kind": "lora_scale", "scale": 0.5}]


@pytest.fixture
def suite(world, tmp_path):
    """Writes a suite of two rewards by one degree, and a repeat; `changes` replace its keys."""
    shared = deepcopy({key: value for key, value in RECIPE.items() if key not in ("name", "reward")})
    shared["training"] |= {"steps": 2, "checkpoint_every": 1, "monitor_every": None, "ema_decay": None}
    few = {"prompts": ["a", "b", "d"], "images_per_prompt": 3, "unrelated": None, "points": EVALUATION["points"][:2]}
    shared["evaluation"] = EVALUATION | few | {"features": str(world / "vision")}
    shared["pipeline"] = {"path": str(world / "pipeline")}

    def write(**changes):
        values = {
            "name": "tiny-suite",
            "description": "Two rewards.",
            "recipe": shared,
            "grid": {
                "reward": {"colour": {"reward": "colourfulness"}, "light": {"reward": "brightness"}},
                "degree": {"mild": {"evaluation.points": [EVALUATION["points"][:2], POINTS]}},
            },
            "repeats": {"again": {"of": "light-mild", "changes": {"training.seed": 1}}},
            "short": {"grid.reward": {"light": {"reward": "brightness"}}},
            "run": str(tmp_path / "suite"),
        }
        path = tmp_path / "suite.yaml"
        path.write_text(yaml.safe_dump(values | changes, sort_keys=False))
        return path

    return write


def test_cells_are_all_combinations_and_the_repeats(suite):
    cells = load_suite(suite(), ["training.lr=0.5"]).cells()
    assert list(cells) == ["colour-mild", "light-mild", "again"]
    assert cells["colour-mild"].reward == "colourfulness" and cells["light-mild"].reward == "brightness"
    assert cells["again"].training.seed == 1 and cells["light-mild"].training.seed == 0
    assert all(cell.training.lr == 0.5 and len(cell.evaluation.points) == 4 for cell in cells.values())
    assert [cell.folder.name for cell in cells.values()] == list(cells)


def test_the_short_version_has_a_folder_of_its_own(suite):
    short = load_suite(suite(repeats={}), short=True)
    assert list(short.cells()) == ["light-mild"] and short.folder.name == "suite-short"
    assert load_suite(suite(repeats={}), ["run=elsewhere"], short=True).folder.name == "elsewhere"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grids": {}}, "unknown key 'grids': did you mean 'grid'"),
        ({"grid": {}}, "a suite has an axis at least"),
        ({"grid": {"reward": {"a/b": {}}}, "repeats": {}}, "cannot be named 'a/b'"),
        ({"repeats": {"again": {"of": "nothing", "changes": {}}}}, "`of` is one of colour-mild, light-mild"),
        ({"grid": {"reward": {"a": {"reward": "brightness", "training.stepz": 3}}}, "repeats": {}}, "cell a: .*stepz"),
    ],
)
def test_a_wrong_suite_is_refused_before_any_work(suite, changes, message):
    path = suite(**changes)
    with pytest.raises(RecipeError, match=message):
        load_suite(path).cells()


def test_other_commands_say_that_it_is_a_suite(suite):
    path = suite()
    assert is_suite(path) and not is_suite("emoji64-draft") and not is_suite("nothing")
    with pytest.raises(RecipeError, match="only `sfumato run "):
        load_recipe(path)


@pytest.mark.parametrize("name", shipped_suites())
@pytest.mark.parametrize("short", [False, True])
def test_shipped_suites_have_methods_with_equally_many_points(name, short):
    suite = load_suite(name, short=short)
    for cell in suite.cells().values():
        points = cell.evaluation.points
        interior = 2 if short and name == "paper-emoji" else 3
        assert len({repr(point) for point in points}) == len(points) == 2 + 8 * interior
        assert {"kl" in training for training in cell.trainings if training != "tuned"} == {True}
        assert not set(cell.prompts) & set(cell.evaluation.prompts)
    assert short or len(suite.cells()) > len(load_suite(name, short=True).cells())


def test_a_suite_is_run_cell_by_cell_and_continued(suite, sfumato, tmp_path):
    path = suite()
    first = sfumato("run", path, "--only", "light-*")
    assert first.code == 0, first.err
    page = tmp_path / "suite" / "results.md"
    assert first.out.rstrip().endswith(f"results: {page}")
    assert "1 of 3 cells" in page.read_text() and "Not done yet: colour-mild, again." in page.read_text()
    done = (tmp_path / "suite" / "light-mild" / "report.html").stat().st_mtime_ns
    draws = {path: path.stat().st_mtime_ns for path in (tmp_path / "suite" / "draws").iterdir()}
    assert sfumato("run", tmp_path / "suite").code == 0
    assert draws == {path: path.stat().st_mtime_ns for path in (tmp_path / "suite" / "draws").iterdir()}
    text = page.read_text()
    assert "3 of 3 cells" in text and "Not done" not in text
    assert (tmp_path / "suite" / "light-mild" / "report.html").stat().st_mtime_ns == done
    for name in ("colour-mild", "light-mild", "again"):
        run = Run.load(tmp_path / "suite" / name)
        base = run.frontier()["points"][0]["metrics"]["reward"]["mean"]
        assert f"| {name} | 2 | " in text and f"### {name}" in text and base > 0
    assert len(list((tmp_path / "suite").glob("plane-*.svg"))) == 2
    assert "Claim 1" in text


def test_a_pattern_that_fits_nothing_names_the_cells(suite, sfumato):
    failed = sfumato("run", suite(), "--only", "blue-*")
    assert failed.code == 1 and "there are colour-mild, light-mild, again" in failed.err


def test_only_is_for_suites(sfumato):
    assert sfumato("run", "emoji64-draft", "--only", "x").code == 2
