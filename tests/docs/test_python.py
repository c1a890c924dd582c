"""Every Python block of the documentation runs, a page's in one namespace, with small models in place of large ones.

What stands in for what is in `conftest.stand_ins`; nothing else of the library is replaced.
"""

import pytest

from sfumato.metrics import build_extractor
from sfumato.rewards import build_reward
from tests import tiny
from tests.docs.blocks import PAGES, blocks

WITH_PYTHON = [page for page in PAGES if any(block.language == "python" for block in blocks(page))]


def taken_for_granted(page: str) -> dict:
    """The names that a page says the reader has."""
    if page == "docs/guidance.md":
        return {"pipe": tiny.pipeline("sd")}
    if page == "docs/choosing.md":
        measures = {"reward": build_reward("colourfulness"), "features": build_extractor("judge", device="cpu")}
        return {"pipe": tiny.pipeline("sd", lora=True), "prompts": ["a", "b"], "others": ["c", "d"], **measures}
    return {}


@pytest.mark.parametrize("page", WITH_PYTHON)
def test_python_runs(page, stand_ins, desk):
    space = {"__name__": "documentation", **taken_for_granted(page)}
    for block in blocks(page):
        if block.language == "python" and not block.excuse:
            name = block.text.split("\n")[0].removeprefix("# ")
            if name.endswith(".py"):
                (desk / name).write_text(block.text)
            exec(compile("\n" * (block.line - 1) + block.text, block.page, "exec"), space)
