"""What the site needs beyond mkdocs: files outside docs/ that are linked to, help of commands, formulas as MathML."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path, PurePosixPath
from typing import Any
from unicodedata import lookup

from latex2mathml.converter import convert

ROOT = Path(__file__).resolve().parent.parent
OUTSIDE = "repository"
COMMANDS = "<!-- commands -->"

LINK = re.compile(r"(!?\[(?:[^\[\]]|\[[^\]]*\])*\]\()(?!\w+:|#)([^)\s#]+)(#[^)\s]*)?\)")
FORMULA = re.compile(r"\\([(\[])(.*?)\\[)\]]", re.DOTALL)
FUNCTION = re.compile(r"\\(?:log|ln)\b")
LETTER = re.compile(r'<mi mathvariant="(script|double-struck)">([A-Z])</mi>')
NOTEBOOK = re.compile(r"<(pre|script|style)\b.*?</\1>|\$\$(.+?)\$\$|\$(.+?)\$", re.DOTALL)
ARITHMATEX = re.compile(r'<(span|div) class="arithmatex">(.*?)</\1>', re.DOTALL)


def on_files(files: Any, config: Any) -> Any:
    """Add what pages link to outside docs/: Markdown as a page, pictures as they are, code as a page with the code."""
    from mkdocs.structure.files import File

    waiting = [repository_path(f.src_uri) for f in files.documentation_pages() if f.src_uri.endswith(".md")]
    seen = set(waiting)
    while waiting:
        page = waiting.pop()
        for target in targets(page):
            if target in seen or target.startswith("docs/") or not (ROOT / target).is_file():
                continue
            seen.add(target)
            files.append(File.generated(config, site_path(target), content=content(target)))
            if target.endswith(".md"):
                waiting.append(target)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Point links where the site has their targets; write the help of every command where a page asks for it."""
    here = page.file.src_uri
    if COMMANDS in markdown:
        markdown = markdown.replace(COMMANDS, "\n".join(command_help()))

    def moved(link: re.Match[str]) -> str:
        target = site_path(resolved(repository_path(here), link[2]))
        start = f"[{title(target, files)}](" if link[1] == f"[{link[2]}](" else link[1]
        return f"{start}{os.path.relpath(target, PurePosixPath(here).parent)}{link[3] or ''})"

    return LINK.sub(moved, markdown)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Turn formulas into MathML, which browsers draw without a script or a font of ours."""

    def drawn(match: re.Match[str]) -> str:
        formula = FORMULA.search(unescape(match[2]))
        return mathml(formula[2], "block" if formula[1] == "[" else "inline") if formula else match[0]

    def drawn_in_notebook(match: re.Match[str]) -> str:
        formula = match[2] or match[3]
        return mathml(unescape(formula), "block" if match[2] else "inline") if formula else match[0]

    if page.file.src_uri.endswith(".ipynb"):
        return NOTEBOOK.sub(drawn_in_notebook, html)
    return ARITHMATEX.sub(drawn, html)


def title(target: str, files: Any) -> str:
    """What the navigation calls a page: the text of links that name their file, as is right in the repository."""
    file = files.get_file_from_path(target)
    return file.page.title if file and file.page and file.page.title else target


def mathml(formula: str, display: str) -> str:
    """A formula in LaTeX as MathML Core, which has no `mathvariant`: such letters become characters of their own."""
    known = formula.strip().replace(r"\arg", r"\text{arg}\,").replace(r"\operatorname", r"\text")
    known = FUNCTION.sub(r"\,\g<0>\,", known)
    markup = convert(known, display=display)
    if "\\" in markup:
        raise ValueError(f"this cannot be drawn: {formula}")
    return LETTER.sub(lambda match: letter(match[2], match[1]), markup)


def letter(name: str, style: str) -> str:
    """A capital letter in script or double-struck style."""
    full = f"{style.upper()} CAPITAL {name}"
    try:
        return f"<mi>{lookup(f'MATHEMATICAL {full}')}</mi>"
    except KeyError:  # the few that were in Unicode before the others came
        return f"<mi>{lookup(full)}</mi>"


def targets(page: str) -> Iterator[str]:
    """Repository paths of what a Markdown file links to."""
    for link in LINK.finditer((ROOT / page).read_text(encoding="utf-8")):
        yield resolved(page, link[2])


def resolved(page: str, link: str) -> str:
    """The repository path of a link; of a folder, its README."""
    target = os.path.normpath(PurePosixPath(page).parent / link)
    return f"{target}/README.md" if (ROOT / target).is_dir() else target


def repository_path(src_uri: str) -> str:
    return (
        src_uri.removeprefix(f"{OUTSIDE}/").removesuffix(".code.md")
        if src_uri.startswith(OUTSIDE)
        else f"docs/{src_uri}"
    )


def site_path(target: str) -> str:
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    as_it_is = target.endswith((".md", ".png", ".webp", ".svg"))
    return f"{OUTSIDE}/{target}" if as_it_is else f"{OUTSIDE}/{target}.code.md"


def content(target: str) -> str | bytes:
    if not site_path(target).endswith(".code.md"):
        return (ROOT / target).read_bytes()
    language = PurePosixPath(target).suffix.removeprefix(".") or "text"
    code = (ROOT / target).read_text(encoding="utf-8")
    return f"---\nsearch: {{exclude: true}}\n---\n# {target}\n\n````{language}\n{code}\n````\n"


def command_help() -> Iterator[str]:
    """A heading and the help text of every command of `sfumato`."""
    from typer.main import get_command

    from sfumato.cli.shared import app

    def walk(command: Any, context: Any) -> Iterator[str]:
        inner = getattr(command, "commands", {})
        if not inner:
            yield f"## {context.command_path}\n\n```text\n{context.get_help()}\n```\n"
        for name, each in inner.items():
            yield from walk(each, each.context_class(each, info_name=name, parent=context))

    root = get_command(app)
    yield from walk(root, root.context_class(root, info_name="sfumato", terminal_width=100, max_content_width=100))
