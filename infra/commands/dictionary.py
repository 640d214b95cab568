"""`lethe dictionary`: what every field of the research record is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from infra.errors import EXIT_ERROR, fail


def dictionary(
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it there; by default it is printed.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 if FILE is not what would be written.")
    ] = False,
) -> None:
    """Render the data dictionary from the contract, the rules of generalisation and the guard.

    Example: lethe dictionary --out docs/data-dictionary.md
    """
    from stream_processors.dictionary import render

    text = render()
    if out is None:
        typer.echo(text, nl=False)
    elif not check:
        out.write_text(text)
    elif not out.is_file() or out.read_text() != text:
        fail(f"{out} is out of date; `lethe dictionary --out {out}` writes it anew", EXIT_ERROR)
