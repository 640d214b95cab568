"""`lethe reconcile`: is every record accounted for?"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from confluent_kafka import KafkaException
from rich.console import Console
from rich.table import Column, Table

from infra.commands.options import away, up
from infra.errors import EXIT_ERROR, EXIT_NOT_UP, EXIT_PENDING, fail
from infra.settings import Settings

if TYPE_CHECKING:
    from producers.rejected import Rejected
    from stream_processors.accounting.reconcile import Report


def reconcile(
    supplier: Annotated[str | None, typer.Option(help="This supplier's batches only.", show_default=False)] = None,
    batch: Annotated[
        str | None, typer.Option(metavar="ID", help="This batch only; the start of its id will do.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document, for programs.")] = False,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the batches as a page that needs nothing else.", show_default=False),
    ] = None,
    wait: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long to wait for the flow to come to rest.")
    ] = 0,
) -> None:
    """Balance every batch end to end, and every hop of the flow record by record; name what does not balance.

    Of each batch: read = rejected + published; published = accepted + deletions + quarantined; accepted by what became
    of it. Of each processor: what it read, said and left standing, by partition and offsets. Reads counts, references
    and the outcomes of links; decodes no value. With --supplier or --batch it is the supplier's own report.

    \b
    Examples:
      lethe reconcile --wait 60
      lethe reconcile --supplier dfe --html dfe.html
      lethe reconcile --batch 3f2a --json
    \b
    Exit codes:
      0  balanced
      1  something does not balance; each imbalance is named
      3  the stack is not up
      5  pending: the flow is not at rest, and nothing is wrong so far
    """
    from infra.reconciler import reconcile_stack
    from producers.rejected import rejected_of
    from schemas.registry import RegistryDownError, SchemaNotRegisteredError
    from stream_processors.accounting.page import page

    settings, console = up(Settings()), Console(stderr=True)
    try:
        with console.status("reading") if console.is_terminal else _Quiet():
            whole = reconcile_stack(settings, wait)
    except KafkaException as e:
        away(e)
    except RegistryDownError as e:
        fail(str(e), EXIT_NOT_UP)
    except SchemaNotRegisteredError as e:
        fail(f"{e}; `lethe provision` registers what is missing", EXIT_ERROR)
    found = whole.of(supplier, batch)
    if batch is not None and not found.batches:
        fail(f"no batch starts with {batch}; `lethe batches` lists them", EXIT_ERROR)
    rejects = {
        b.batch_id: lines
        for b in found.batches
        if b.rejected and (lines := rejected_of(settings.rejects, b.supplier, b.dataset, b.batch_id)) is not None
    }
    if html is not None:
        html.write_text(page(found, rejects, time.time_ns() // 1_000_000, supplier), encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(_json(found, rejects), indent=1))
    else:
        _show(found, Console())
    raise typer.Exit({"balanced": 0, "pending": EXIT_PENDING, "differs": EXIT_ERROR}[found.state])


class _Quiet:
    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def _json(found: Report, rejects: dict[str, list[Rejected]]) -> dict[str, Any]:
    whole = found.as_json()
    for row in whole["batches"]:
        row["rejects"] = [vars(r) for r in rejects.get(row["batch_id"], ())]
    return whole


def _show(found: Report, console: Console) -> None:
    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    names = (
        "supplier",
        "dataset",
        "batch",
        "read",
        "rejected",
        "published",
        "accepted",
        "deletions",
        "refused",
        "quarantined",
        "state",
    )
    if found.batches:
        table = Table(*(Column(name, overflow="fold") for name in names))
        for b in found.batches:
            numbers = (b.read, b.rejected, b.published, b.accepted, b.deletions, b.refused, b.quarantined)
            table.add_row(b.supplier, b.dataset, b.batch_id[:12], *(f"{n:,}" for n in numbers), b.state)
        console.print(table)
    if found.datasets:
        table = Table("supplier", "dataset", "held", "what became of it", "gone")
        for d in found.datasets:
            outcomes = ", ".join(f"{name} {n:,}" for name, n in d.outcomes.items())
            gone = {"replaced": d.replaced, "deleted": d.deleted, **d.ended}
            table.add_row(
                d.supplier, d.dataset, f"{d.held:,}", outcomes, ", ".join(f"{k} {n:,}" for k, n in gone.items() if n)
            )
        console.print(table)
    for note in [*found.notes, *(f"{b.batch_id[:12]}: {n}" for b in found.batches for n in b.notes)]:
        say(f"note: {note}")
    for at in found.behind[:20]:
        say(f"behind: {at.processor}, {at.topic}-{at.partition} at offset {at.committed} of {at.end}")
    for finding in found.findings:
        say(f"imbalance: {finding.text}")
    said = {
        "balanced": "balanced: every record is accounted for",
        "pending": "pending: the flow is not at rest; nothing is wrong so far (--wait SECONDS waits for it)",
        "differs": f"does not balance: {len(found.findings)} findings; start with the first processor of the flow",
    }
    say(said[found.state])
