"""`lethe keys`: the key files."""

from __future__ import annotations

import typer

from infra.keys import init_keys
from infra.settings import Settings

keys_app = typer.Typer(help="Key files: one for pseudonymise, one for publish.", no_args_is_help=True)


@keys_app.callback()
def _group() -> None:
    """Keep `init` a command of its own."""


@keys_app.command()
def init() -> None:
    """Make the key files that are missing. What exists is never written to."""
    for key in init_keys(Settings()):
        typer.echo(f"made {key.path}" if key.made else f"kept {key.path}: it is there already")
