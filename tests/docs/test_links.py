"""Links work on a plain git host too: files and headings are there, addresses are well formed."""

import re
from urllib.parse import urlsplit

import pytest

from tests.docs.blocks import FENCE, PAGES, ROOT

LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


def anchors(path):
    """The anchors of a Markdown file, as git hosts make them: no punctuation, hyphens for spaces."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower() for title in HEADING.findall(text)]
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in plain}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    path = ROOT / page
    for link in LINK.findall(FENCE.sub("", path.read_text(encoding="utf-8"))):
        parts = urlsplit(link)
        if parts.scheme:
            assert parts.scheme == "https" and re.fullmatch(r"[\w.-]+\.[a-z]+", parts.netloc), f"{page}: {link}"
            continue
        target = (path.parent / parts.path).resolve() if parts.path else path
        assert target.exists(), f"{page}: {link}"
        if parts.fragment:
            assert parts.fragment in anchors(target), f"{page}: {link}"
