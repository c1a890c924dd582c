"""Evidence as PNG sheets, made of the run's own images."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from sfumato.diagnosis.case import Evidence
from sfumato.runs import atomic_path

TILE = 96  # px
LARGEST = 8 * TILE
GAP, LINE, MARGIN = 4, 22, 84
TEXT, BACKGROUND = "#222222", "#ffffff"


def draw_sheet(evidence: Evidence, folder: Path, path: Path) -> None:
    """Write a sheet: a title over each group, its rows below one another, each with its name on the left.

    Args:
        folder: what the files are relative to.
        path: the PNG.
    """
    rows = [
        (title, name, _row([folder / file for file in files]))
        for title, named in evidence.groups
        for name, files in named
    ]
    margin = MARGIN if any(name for _, name, _ in rows) else GAP
    titles = len(evidence.groups)
    height = sum(row.height + GAP for *_, row in rows) + titles * LINE + GAP
    width = margin + max(row.width for *_, row in rows) + GAP
    sheet = Image.new("RGB", (width, height), BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    y, last = GAP, None
    for title, name, row in rows:
        if title != last:
            draw.text((margin, y + 2), _fit(title, font, width - margin), TEXT, font)
            y, last = y + LINE, title
        draw.text((GAP, y + row.height // 2 - 8), _fit(name, font, margin - 2 * GAP), TEXT, font)
        sheet.paste(row, (margin, y))
        y += row.height + GAP
    with atomic_path(path) as temporary:
        sheet.save(temporary)


def _row(files: list[Path]) -> Image.Image:
    """Pictures side by side as tiles; a single one as it is, made smaller if it is wider than a row."""
    pictures = [_open(file) for file in files]
    if len(pictures) == 1:
        pictures[0].thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
        return pictures[0]
    row = Image.new("RGB", (len(files) * (TILE + GAP) - GAP, TILE), BACKGROUND)
    for place, picture in enumerate(pictures):
        row.paste(ImageOps.pad(picture, (TILE, TILE), Image.Resampling.LANCZOS, BACKGROUND), (place * (TILE + GAP), 0))
    return row


def _open(file: Path) -> Image.Image:
    with Image.open(file) as picture:
        return picture.convert("RGB")


def _fit(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The text, cut to a width in px."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"
