"""Ask people: make a user study, serve it, and take the votes out."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfumato.cli.shared import app

if TYPE_CHECKING:
    from sfumato.study.store import Store

study = typer.Typer(no_args_is_help=True, help="Ask people which images they prefer.")
app.add_typer(study, name="study")

Folder = Annotated[Path, typer.Argument(metavar="STUDY", help="A study folder.")]
Database = Annotated[
    str | None,
    typer.Option(
        envvar="SFUMATO_STUDY_DATABASE",
        help="Where the votes are, such as postgresql://user@host/name. [default: votes.sqlite3 in the folder]",
        show_default=False,
    ),
]


@study.command()
def create(
    configuration: Annotated[
        list[str],
        typer.Argument(metavar="[YAML] KEY=VALUE...", help="A YAML file, if any; then settings, such as folder=OUT."),
    ],
) -> None:
    """Make a study folder from run folders or folders of images.

    Example: sfumato study create name=mine points.tuned.run=runs/mine points.aig-power-2.run=runs/mine
    """
    from sfumato.study import create_study, load_study_config

    made = create_study(load_study_config(configuration))
    items, checks = len(made.items) - len(made.checks), len(made.checks)
    print(f"{items} items and {checks} attention checks", file=sys.stderr)
    print(made.path)


@study.command()
def serve(
    folder: Folder,
    database: Database = None,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, help="Server processes.")] = 1,
    root_path: Annotated[str, typer.Option(help="Where a reverse proxy shows it, such as /study.")] = "",
    proxies: Annotated[
        str, typer.Option(help="Addresses of reverse proxies whose X-Forwarded headers are believed.")
    ] = "127.0.0.1",
) -> None:
    """Serve a study: pages for raters, and an admin page whose token is printed the first time.

    Example: sfumato study serve studies/mine --port 8000
    """
    with open_store(folder, database) as store:
        token = store.first_admin_token()
    if token:
        print(f"admin token (it is not shown again): {token}", file=sys.stderr)
    from sfumato.study.server.run import run_server

    root, here = root_path.rstrip("/"), f"http://{host}:{port}"
    where = f"   at the proxy of {here}" if root else ""
    print(f"raters: {root or here}/   admin: {root or here}/admin{where}", file=sys.stderr)
    run_server(folder, database, host=host, port=port, workers=workers, root_path=root, proxies=proxies)


@study.command()
def admin(folder: Folder, database: Database = None) -> None:
    """Print a new token for the admin page; the old one is worth nothing any more.

    Example: sfumato study admin studies/mine
    """
    with open_store(folder, database) as store:
        print(store.renew_admin_token())


@study.command()
def export(
    folder: Folder,
    database: Database = None,
    pairs: Annotated[
        Path | None, typer.Option(help="Write pairs for `sfumato preference train` to this file, and no votes.")
    ] = None,
) -> None:
    """Print the votes as JSON lines, or write the pairs that a reward can be learned from.

    Example: sfumato study export studies/mine --pairs pairs.jsonl
    """
    with open_store(folder, database) as store:
        from sfumato.study.export import vote_rows, write_pairs

        with store.read() as connection:
            rows = vote_rows(connection, store.study)
    if pairs:
        print(f"{write_pairs(pairs, store.study, rows)} pairs", file=sys.stderr)
        print(pairs)
    else:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))


@contextmanager
def open_store(folder: Path, database: str | None) -> Iterator[Store]:
    """The votes of a study folder."""
    from sfumato.study import Study

    study = Study.load(folder)
    try:
        from sfumato.study.store import Store
    except ModuleNotFoundError as error:
        raise ImportError(f"{error}: a study needs pip install 'sfumato[study]'") from None
    store = Store(study, database)
    try:
        yield store
    finally:
        store.close()
