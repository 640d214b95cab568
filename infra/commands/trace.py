"""`lethe trace`: one record through every topic, and why it is where it is."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column

from infra.commands.options import AsJson, asking, shown_ms, up_with_edition
from infra.errors import EXIT_ERROR, fail
from infra.settings import Settings
from infra.tables import listing


def trace(
    supplier: Annotated[str, typer.Option(help="Whose record: council-<code>, dfe, moj, dwp or health.")],
    subject: Annotated[str, typer.Option(metavar="ID", help="The supplier's own id of the person.")],
    record: Annotated[
        str | None, typer.Option(metavar="ID", help="The supplier's own id of an event.", show_default=False)
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="The event's dataset, where the supplier has several.", show_default=False),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why you look; this goes into the audit.")] = "",
    by: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who looks; else the machine's user.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Follow one record through every topic: offsets, times, what was decided and why, and what to do next.

    Without --record it is the supplier's person record. Shows no value of any record. Needs the token key, by which
    references are made, so it runs where pseudonymise does, and each look is audited (`governance.operation`).

    \b
    Examples:
      lethe trace --supplier dfe --subject A123 --reason "the school asks"
      lethe trace --supplier dfe --subject A123 --record 7 --dataset absence --json
    \b
    Exit codes:
      0  the record is in the research topic
      1  it is not, and the answer says why; or the key cannot be used
      2  the command line is wrong
      3  the stack is not up
    """
    from infra.keys import KeyFileError
    from infra.tracer import NoSuchDatasetError, trace_stack
    from schemas.contracts import UnknownSupplierError

    try:
        with asking():
            found = trace_stack(up_with_edition(Settings()), supplier, subject, record, dataset, reason, by)
    except (KeyFileError, UnknownSupplierError, NoSuchDatasetError) as e:
        fail(str(e), EXIT_ERROR)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=1))
    else:
        console = Console()
        table = listing("when", Column("lies at", no_wrap=True), "what")
        for s in found.steps:
            table.add_row(shown_ms(s.at_ms), f"{s.topic}/{s.partition}/{s.offset}", s.what)
        if found.steps:
            console.print(table)
        for line in (found.answer, f"What to do: {found.advice}"):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        if found.events:
            held = ", ".join(f"{name} {n:,}" for name, n in found.events.items())
            console.print(f"Held of this subject: {held}", markup=False, highlight=False)
    raise typer.Exit(0 if found.published else EXIT_ERROR)
