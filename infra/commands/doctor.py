"""`lethe doctor`: what is not as it should be, and what to do about it."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer
from rich.console import Console

from infra.commands.options import AsJson
from infra.errors import EXIT_ERROR, EXIT_NOT_UP, fail
from infra.settings import Settings
from infra.tables import listing

_STYLE = {"critical": "bold red", "warning": "yellow", "info": ""}


def doctor(
    as_json: AsJson = False,
) -> None:
    """Examine disks, clocks, key files, topics, transactions, schemas, processes, lag, alerts and quarantine.

    Says of each finding what to do. Exits 1 if one is a warning or critical, 3 if the stack is not up.

    Example: lethe doctor
    """
    from confluent_kafka import KafkaException

    from infra.commands.options import away, up
    from infra.commands.stack import data_folders
    from infra.monitoring.doctor import examine
    from stream_processors.access import ADMIN

    settings = up(Settings()).acting_as(ADMIN)  # it reads where a transaction hangs, in whatever topic
    console = Console()
    try:
        with console.status("looking") as status:
            folders = [f.path for f in data_folders(settings)]
            found = examine(settings, folders, lambda what: status.update(f"looking at {what}"))
    except KafkaException as e:
        away(e)
    except ConnectionError as e:
        fail(f"{e}; `lethe up` brings the stack up", EXIT_NOT_UP)
    if as_json:
        typer.echo(json.dumps([asdict(f) for f in found], indent=1))
    elif not found:
        console.print("[green]nothing found[/]")
    else:
        shown = listing("", "check", "where", "what", "what to do")
        for f in found:
            shown.add_row(f.severity, f.check, f.where, f.what, f.advice, style=_STYLE[f.severity], end_section=True)
        console.print(shown)
    if any(f.severity != "info" for f in found):
        raise typer.Exit(EXIT_ERROR)
