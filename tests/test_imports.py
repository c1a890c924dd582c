"""Who may import whom, read from the source; and what stays light to import."""

import ast
import functools
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(importlib.util.find_spec("sfumato").origin).parent

LAYERS = [
    {
        "_version",
        "change",
        "grids",
        "schedules",
        "runs",
        "values",
        "config",
        "judge",
        "emoji64",
        "images",
        "preprocess",
        "trained",
        "weights",
    },
    {"rewards", "metrics", "pipelines"},
    {"preferences"},
    {"training", "analytic"},
    {"frontier"},
    {"diagnosis"},
    {"report"},
    {"study"},
]
"""A package imports from layers below its own; the ground layer's modules also from one another. What is not listed
here stands above them all: nothing listed may import it."""
READERS = {"report", "study"}
"""They see run folders only, so that they work where no model can be loaded."""
ARITHMETIC = ("sfumato.frontier.statistics", "sfumato.frontier.student")
"""Intervals and quantiles, which readers may use too."""
KNOW_DIFFUSERS = {"pipelines", "emoji64", "analytic", "cli"}
"""The command line, to silence its messages."""
LIGHT = ["sfumato", "sfumato.grids", "sfumato.schedules", "sfumato.runs", "sfumato.config", "sfumato.cli"]
LIGHT += ["sfumato.report", "sfumato.report.build", "sfumato.frontier", "sfumato.diagnosis", "sfumato.study"]
LIGHT += ["sfumato.study.create", "sfumato.study.store", "sfumato.study.export", "sfumato.study.server.app"]
LIGHT += ["sfumato.study.analysis", "sfumato.study.simulate"]
LIGHT += ["sfumato.paper.choice", "sfumato.paper.comparison", "sfumato.paper.figure", "sfumato.paper.tables"]
HEAVY = {"torch", "diffusers", "transformers", "peft", "accelerate", "kornia"}


def layer(part):
    return next((level for level, parts in enumerate(LAYERS) if part in parts), len(LAYERS))


@functools.cache
def imports():
    """(file, part of sfumato it belongs to, full name of a module it imports), wherever in the file the import is."""
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        part = path.relative_to(ROOT).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: imports are absolute"
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            found += [(str(path.relative_to(ROOT)), part, name) for name in names]
    return found


def inner_imports(beside=()):
    """(file, importing part, imported part) where both are parts of sfumato and differ; `beside` are left out."""
    for path, part, name in imports():
        if name.startswith("sfumato.") and part != "__init__" and not name.startswith(beside):
            imported = name.split(".")[1]
            if imported != part:
                yield path, part, imported


def test_the_source_is_read():
    found = set(imports())
    assert ("pipelines/guidance.py", "pipelines", "sfumato.schedules.Schedule") in found
    assert ("emoji64.py", "emoji64", "diffusers.DiffusionPipeline") in found


def test_imports_point_downwards():
    wrong = [
        f"{path} imports {imported}"
        for path, part, imported in inner_imports()
        if layer(part) < len(LAYERS) and layer(imported) >= max(layer(part), 1)
    ]
    assert wrong == []


def test_reports_and_studies_see_run_folders_only():
    allowed = {"_version", "change", "config", "runs", "values", *READERS}
    assert [
        (path, imported)
        for path, part, imported in inner_imports(beside=ARITHMETIC)
        if part in READERS and imported not in allowed
    ] == []
    assert [(path, name) for path, part, name in imports() if part in READERS and name.split(".")[0] in HEAVY] == []


def test_only_pipelines_know_diffusers_and_peft():
    knowing = {(path, part) for path, part, name in imports() if name.split(".")[0] in ("diffusers", "peft")}
    assert {path for path, part in knowing if part not in KNOW_DIFFUSERS} == set()


def test_pickles_are_read_in_one_place_only_and_as_plain_tensors():
    calls = {
        (path.relative_to(ROOT).as_posix(), ast.unparse(node))
        for path in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "pickle.load", "pickle.loads")
    }
    assert calls == {("weights.py", "torch.load(path, map_location='cpu', weights_only=True)")}


def test_light_modules_load_no_model_library():
    present = [name for name in LIGHT if _exists(name)]
    assert {"sfumato", "sfumato.schedules", "sfumato.runs"} <= set(present)
    program = f"import sys, {', '.join(present)}; print(*sorted({HEAVY} & sys.modules.keys()))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert loaded == []


def _exists(name):
    folder = ROOT.joinpath(*name.split(".")[1:])
    return folder.with_suffix(".py").exists() or (folder / "__init__.py").exists()


def test_public_names_are_found_where_they_live():
    import sfumato

    for name in sfumato.__all__:
        assert getattr(sfumato, name) is not None
    assert set(sfumato.__all__) <= set(dir(sfumato))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = sfumato.nonsense
