"""`lethe reconcile`: is every record accounted for?"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Column

from infra.commands.options import AsJson, By, Execute, Reason, asking, up_with_edition
from infra.errors import EXIT_ERROR, EXIT_PENDING, EXIT_USAGE, fail
from infra.settings import Settings
from infra.tables import listing

if TYPE_CHECKING:
    from producers.rejected import Rejected
    from stream_processors.accounting.reconcile import Report

_COUNTS = ("read", "rejected", "published", "accepted", "deletions", "refused", "quarantined")
_ALWAYS = frozenset({"read", "published", "accepted"})
_REJECTS = 20
_SETTLE_S = 30.0  # what was made of a stray goes after it


def reconcile(
    supplier: Annotated[str | None, typer.Option(help="This supplier's batches only.", show_default=False)] = None,
    batch: Annotated[
        str | None, typer.Option(metavar="ID", help="This batch only; the start of its id will do.", show_default=False)
    ] = None,
    as_json: AsJson = False,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the batches as a page that needs nothing else.", show_default=False),
    ] = None,
    wait: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long to wait for the flow to come to rest.")
    ] = 0,
    remove_strays: Annotated[
        bool,
        typer.Option("--remove-strays", help="Delete records of outputs that nothing stands behind; see --execute."),
    ] = False,
    reason: Reason = None,
    by: By = None,
    execute: Execute = False,
) -> None:
    """Balance every batch end to end, and every hop of the flow record by record; name what does not balance.

    Of each batch: read = rejected + published; published = accepted + deletions + refused + quarantined; accepted by
    what became of it. Of each processor: what it read, said and left standing, by partition and offsets. Reads counts,
    references and the outcomes of links; decodes no value. With --supplier or --batch it is the supplier's own report.

    What is lost, a replay says again. What is said too much, --remove-strays takes back: with --execute and --reason.

    \b
    Examples:
      lethe reconcile --wait 60
      lethe reconcile --supplier dfe --html dfe.html
      lethe reconcile --batch 3f2a --json
      lethe reconcile --remove-strays --reason "join said a record twice" --execute
    \b
    Exit codes:
      0  balanced
      1  something does not balance; each imbalance is named
      3  the stack is not up
      5  pending: the flow is not at rest, and nothing is wrong so far
    """
    from infra.reconciler import reconcile_stack
    from producers.rejected import rejected_of
    from stream_processors.accounting.page import page

    if execute and not (remove_strays and (reason or "").strip()):
        fail("--execute is for --remove-strays, and needs a --reason", EXIT_USAGE)
    settings, console = up_with_edition(Settings()), Console(stderr=True)
    with asking(), console.status("reading") if console.is_terminal else nullcontext():
        whole = reconcile_stack(settings, wait)
        if remove_strays:
            whole = _removed(settings, whole, wait, execute, reason, by)
    found = whole.of(supplier, batch)
    if batch is not None and not found.batches:
        fail(f"no batch starts with {batch}; `lethe batches` lists them", EXIT_ERROR)
    if supplier is not None and not found.batches:
        there = ", ".join(sorted({b.supplier for b in whole.batches})) or "nobody"
        fail(f"no batch of {supplier} was announced; there are batches of {there}", EXIT_ERROR)
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
        _show(found, rejects if supplier or batch else {}, Console(), detailed=batch is not None)
    raise typer.Exit({"balanced": 0, "pending": EXIT_PENDING, "differs": EXIT_ERROR}[found.state])


def _removed(
    settings: Settings, found: Report, wait: float, execute: bool, reason: str | None, by: str | None
) -> Report:
    """The report after strays were removed; they are named some at a time."""
    from infra.operation import Operation, OperationLog, now_ms, whoever
    from infra.reconciler import reconcile_stack
    from infra.strays import remove, strays
    from schemas.registry import Registry

    log = OperationLog(settings, Registry(settings.registry, deadline_seconds=10))
    while there := strays(found):
        for f in there:
            typer.echo(f"{f.topic}-{f.partition} offset {f.offset}, of {f.processor}", err=True)
        if not execute:
            typer.echo(f"{len(there)} would be removed: repeat with --execute and --reason", err=True)
            return found
        what = {"places": [f"{f.topic}-{f.partition}@{f.offset}" for f in there]}
        done = remove(settings, there, Operation("remove_strays", by or whoever(), reason, what, now_ms()), log)
        typer.echo(f"{done} removed", err=True)
        found = reconcile_stack(settings, max(wait, _SETTLE_S))
        if not done:
            break
    return found


def _json(found: Report, rejects: Mapping[str, Sequence[Rejected]]) -> dict[str, Any]:
    whole = found.as_json()
    for row in whole["batches"]:
        row["rejects"] = [vars(r) for r in rejects.get(row["batch_id"], ())]
    return whole


def _show(found: Report, rejects: Mapping[str, Sequence[Rejected]], console: Console, *, detailed: bool) -> None:
    from stream_processors.accounting.batches import short_batch
    from stream_processors.accounting.page import rows

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    if found.batches:
        counts = [c for c in _COUNTS if c in _ALWAYS or any(getattr(b, c) for b in found.batches)]
        names = ("batch", "of", *(() if found.state == "balanced" else ("state",)))
        whole = (Column(name, no_wrap=True) for name in names)
        numbers = (Column(name, justify="right", overflow="fold") for name in counts)
        table = listing(*whole, *numbers)
        for b in found.batches:
            told = (short_batch(b.batch_id), f"{b.supplier} {b.dataset}", b.state)[: len(names)]
            table.add_row(*told, *(f"{getattr(b, name):,}" for name in counts))
        console.print(table)
        if detailed:
            for b in found.batches:
                for name, n in rows(b):
                    say(f"{n:>12,}  {name}")
                if b.match_rate is not None:
                    say(f"{b.match_rate:>12.1%}  of what is held belongs to somebody of the cohort")
    if found.datasets:
        table = listing("supplier", "dataset", Column("held", justify="right"), "what became of it", "gone")
        for d in found.datasets:
            outcomes = ", ".join(f"{name} {n:,}" for name, n in d.outcomes.items())
            gone = {"replaced": d.replaced, "deleted": d.deleted, **d.ended}
            table.add_row(
                d.supplier, d.dataset, f"{d.held:,}", outcomes, ", ".join(f"{k} {n:,}" for k, n in gone.items() if n)
            )
        console.print(table)
    for note in [*found.notes, *(f"{short_batch(b.batch_id)}: {n}" for b in found.batches for n in b.notes)]:
        say(f"note: {note}")
    for at in found.behind[:20]:
        say(f"behind: {at.processor}, {at.topic}-{at.partition} at offset {at.committed} of {at.end}")
    for batch_id, lines in rejects.items():
        for r in lines[:_REJECTS]:
            say(f"{short_batch(batch_id)}: rejected line {r.line}, {r.field or 'the row'}: {r.reason}")
        if len(lines) > _REJECTS:
            say(f"{short_batch(batch_id)}: and {len(lines) - _REJECTS:,} more; --html and --json have them all")
    for finding in found.findings:
        say(f"imbalance: {finding.text}")
    said = {
        "balanced": "balanced: every record is accounted for",
        "pending": "pending: the flow is not at rest; nothing is wrong so far (--wait SECONDS waits for it)",
        "differs": f"does not balance: {len(found.findings)} findings; start with the first processor of the flow",
    }
    say(said[found.state])
