"""The reconciliation of a supplier's batches as one page: no script, font or picture from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import jinja2

from producers.rejected import Rejected
from stream_processors.accounting.batches import BatchReport
from stream_processors.accounting.reconcile import Report

_WORDS = {
    "balanced": "balanced: every record is accounted for",
    "pending": "pending: not everything has been taken in",
    "differs": "does not balance",
}


def page(report: Report, rejects: Mapping[str, Sequence[Rejected]], now_ms: int, supplier: str | None = None) -> str:
    """HTML. `rejects`: lines of rejects files by batch id."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("page.html.j2").render(
        title=f"Reconciliation: {supplier or 'all suppliers'}",
        report=report,
        rejects=rejects,
        words=_WORDS,
        rows=rows,
        as_of=datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def rows(batch: BatchReport) -> list[tuple[str, int]]:
    """Name and number of every total of a batch, in the order in which they add up."""
    out = [
        ("rows read", batch.read),
        ("= rejected before they were published", batch.rejected),
        ("+ published", batch.published),
        ("of which accepted", batch.accepted),
        ("+ deletions", batch.deletions),
        ("+ in quarantine", batch.quarantined),
    ]
    if batch.refused:
        out.append(("+ refused: of people whom an order has erased", batch.refused))
    if batch.superseded:
        out.append(("+ replaced by a later record before they were read", batch.superseded))
    out += [(f"accepted: {name}", n) for name, n in batch.outcomes.items()]
    if batch.replaced_at_once:
        out.append(("accepted: replaced by a later record at once", batch.replaced_at_once))
    if batch.no_longer_held:
        out.append(("accepted: no longer held (replaced, deleted, expired or erased)", batch.no_longer_held))
    if batch.duplicates:
        out.append(("rows whose key an earlier row of the file has", batch.duplicates))
    if batch.warnings:
        out.append(("bad values published as missing", batch.warnings))
    return out
