"""The site builds without a warning, asks nothing of the network, and documents every public name."""

import importlib
import pkgutil
import re

import pytest

import sfumato
from tests.docs.blocks import PAGES, ROOT, blocks

mkdocs = pytest.importorskip("mkdocs.commands.build", reason="pip install 'sfumato[docs]'")

LOADED = re.compile(
    r"<(?:script|img|iframe|source)[^>]*\ssrc=[\"']?(https?:)?//|<link[^>]*rel=[\"']?stylesheet[^>]*href=[\"']?https?:"
)
FROM_SFUMATO = re.compile(r"^from (sfumato[\w.]*) import ([\w, ]+)", re.MULTILINE)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the whole site; strict, so that a warning, such as a broken link or anchor, is a failure."""
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    mkdocs.build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True))
    return folder


@pytest.fixture(scope="module")
def documented(site):
    """What the reference pages document, by full name: an object without a docstring is not among it."""
    from mkdocstrings import Inventory

    with (site / "objects.inv").open("rb") as file:
        return set(Inventory.parse_sphinx(file))


def public_names():
    """(package, name) of everything in the `__all__` of sfumato and of its packages; `cli` is a command, not an API."""
    found = pkgutil.walk_packages(sfumato.__path__, "sfumato.")
    modules = [importlib.import_module(each.name) for each in found if each.ispkg and each.name != "sfumato.cli"]
    return [(module.__name__, name) for module in [sfumato, *modules] for name in getattr(module, "__all__", [])]


def home(package, name):
    """Where an object is defined, which is where the reference may have it."""
    target = getattr(importlib.import_module(package), name)
    return f"{getattr(target, '__module__', package)}.{getattr(target, '__qualname__', name)}"


def undocumented(names, documented):
    """Those of the names that are documented neither as they are nor under another name of the same object."""
    known = documented | {home(p, n) for p, n in public_names() if f"{p}.{n}" in documented}
    return [f"{p}.{n}" for p, n in names if not known & {f"{p}.{n}", home(p, n)}]


def test_every_public_name_is_documented(documented):
    names = [pair for pair in public_names() if pair != ("sfumato", "__version__")]
    assert len(names) > 150
    missing = undocumented(names, documented)
    assert not missing, f"give these a docstring, and a place on a page docs/api-*.md: {missing}"


def test_every_name_that_a_page_imports_is_documented(documented):
    code = "\n".join(block.text for page in PAGES for block in blocks(page) if block.language == "python")
    imported = {(module, name.strip()) for module, names in FROM_SFUMATO.findall(code) for name in names.split(",")}
    assert len(imported) > 20
    missing = undocumented(imported, documented)
    assert not missing, f"these are on no page docs/api-*.md: {missing}"


def test_nothing_is_fetched(site):
    for page in site.rglob("*.html"):
        found = LOADED.search(page.read_text(encoding="utf-8"))
        assert not found, f"{page.relative_to(site)} loads {found[0]}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet


def test_names_of_functions_stand_apart_in_formulas():
    from tools.site import mathml

    assert re.search(r"<mspace[^>]*><mi>log</mi><mspace", mathml(r"\beta \log Z", "inline"))


def test_formulas_and_commands_are_drawn(site):
    analytic = (site / "analytic.html").read_text(encoding="utf-8")
    assert analytic.count("<math") > 30 and "arithmatex" not in analytic
    commands = (site / "commands.html").read_text(encoding="utf-8")
    for name in ("train", "preference-check", "tune-schedule"):
        assert f'id="sfumato-{name}"' in commands
