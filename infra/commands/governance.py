"""`lethe alerts`, `batches`, `audit`, `operations`: what the control plane has said, for operators and suppliers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer
from confluent_kafka import KafkaException

from infra.commands.listing import print_rows
from infra.commands.options import AsJson, away, council_named, known_supplier, shown_ms, up_with_edition
from infra.errors import EXIT_NOT_UP, fail
from infra.settings import Settings

Row = dict[str, Any]


def alerts(as_json: AsJson = False) -> None:
    """Show what an operator has to look at: alerts that are not over, the worst first. Exits 0 either way.

    Example: lethe alerts
    """
    worst = {"critical": 0, "warning": 1, "info": 2}
    rows = _rows("governance.alert", lambda r: (worst[r["severity"]], r["first_seen_ms"]))
    _show(rows, ("severity", "kind", "where", "count", "first_seen_ms", "last_seen_ms"), as_json, "no alerts")


def batches(
    supplier: Annotated[str | None, typer.Option(help="This supplier's only.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Show what became of each batch: read = published + rejected, published = accepted + quarantined.

    A deletion that was followed counts as accepted. What the control plane has seen so far. `lethe reconcile` looks
    anew, and at the whole flow.

    Example: lethe batches --supplier dfe
    """
    from stream_processors.accounting.batches import short_batch

    rows = _rows("governance.reconciliation", lambda r: (r["supplier"], r["dataset"], r["batch_id"]))
    rows = _only(rows, "supplier", supplier)
    if not as_json:  # as `lethe reconcile` and `lethe trace` name it
        rows = [row | {"batch_id": short_batch(row["batch_id"])} for row in rows]
    columns = ("supplier", "dataset", "batch_id", "read", "rejected", "published", "accepted", "quarantined", "state")
    _show(rows, columns, as_json, "no batch was reconciled")


def audit(
    council: Annotated[
        str | None, typer.Option(metavar="CODE", help="This council's only: council-<code>, or its code.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show who asked when whether data is held, and what came of it; a hash, never whom it was about.

    Example: lethe audit --council northam
    """
    name = None if council is None else council_named(council)
    rows = _only(_rows("governance.audit", lambda r: r["asked_ms"]), "council", name)
    columns = ("asked_ms", "council", "decision", "outcome", "reason", "ref_hash")
    _show(rows, columns, as_json, "nobody has asked")


def operations(
    limit: Annotated[int, typer.Option(min=1, help="So many, the latest.")] = 20, as_json: AsJson = False
) -> None:
    """Show what operators did to the flow: who, when, what, why, and how far it got; the latest last.

    Example: lethe operations --limit 100 --json
    """
    rows = _rows("governance.operation", lambda r: (r["begun_ms"], r["operation_id"]))
    earlier, rows = rows[:-limit], [{**row, "what": json.loads(row["what"] or "{}")} for row in rows[-limit:]]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        typer.echo("\n".join(_told(row)))
    if earlier:
        typer.echo(f"{len(earlier):,} earlier ones are not shown: --limit {len(earlier) + limit}")
    elif not rows:
        typer.echo("nobody has done anything yet")


def _told(row: Row) -> list[str]:
    """An operation as a history has it, a few lines each; the id first, since whoever goes on with one needs it."""
    came_of = f"{row['done']:,} done" + (f", {row['skipped']:,} left" if row["skipped"] else "")
    by = f"{shown_ms(row['begun_ms'])} by {row['by']}"
    what = "; ".join(text for text in (_cell(row["what"]), came_of) if text)
    lines = [by + (f": {row['reason']}" if row["reason"] else ""), what]
    return [f"{row['operation_id']} {row['kind'].replace('_', ' ')}, {row['state']}", *(f"  {line}" for line in lines)]


def _rows(topic: str, order: Callable[[Mapping[str, Any]], Any]) -> list[Row]:
    from infra.topic_table import table
    from schemas.registry import Registry, RegistryDownError
    from schemas.rows import from_value

    settings = up_with_edition(Settings())
    registry = Registry(settings.registry, deadline_seconds=10)
    try:
        return sorted((from_value(topic, v, registry) for v in table(settings, topic).values()), key=order)
    except KafkaException as e:
        away(e)
    except RegistryDownError as e:
        fail(str(e), EXIT_NOT_UP)


def _only(rows: list[Row], column: str, supplier: str | None) -> list[Row]:
    """One supplier's rows; if there are none, the command ends where nobody has that name."""
    if supplier is None:
        return rows
    found = [r for r in rows if r[column] == supplier]
    if not found:
        known_supplier(Settings(), supplier)
    return found


def _show(rows: list[Row], columns: tuple[str, ...], as_json: bool, nothing: str) -> None:
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    if not rows:
        typer.echo(nothing)
        return
    print_rows(rows, columns, _cell)


def _cell(value: object) -> str:
    if isinstance(value, dict):  # what was asked for; what was not says nothing
        return ", ".join(f"{name} {_listed(v)}" for name, v in value.items() if v not in (None, "", False, []))
    return str(value)


def _listed(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
