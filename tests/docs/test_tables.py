"""A table of the documentation has as many cells in each row as in its header: a bar in a cell is written as `\\|`."""

import re

import pytest

from tests.docs.blocks import FENCE, ROOT

FILES = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/*.md", "src/**/*.md", "integrations/**/*.md")
    for path in ROOT.glob(pattern)
)
TABLE = re.compile(r"(?:^\|.*\n)+", re.MULTILINE)


@pytest.mark.parametrize("file", FILES)
def test_rows_are_as_long_as_the_header(file):
    text = FENCE.sub("", (ROOT / file).read_text(encoding="utf-8"))
    for table in TABLE.findall(text):
        header, *rows = table.splitlines()
        bars = len(re.findall(r"(?<!\\)\|", header))
        for row in rows:
            assert len(re.findall(r"(?<!\\)\|", row)) == bars, row
