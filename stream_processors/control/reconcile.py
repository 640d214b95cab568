"""Supplier reconciliation: for each batch, published = accepted + quarantined, by where its records lie."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from schemas.contracts import identified_topic

Row = Mapping[str, Any]
State = Literal["pending", "agreed", "differs"]


def reconciled(batch: Row, quarantined_at: Iterable[tuple[int, int]], committed: Sequence[int]) -> dict[str, Any]:
    """A row of `governance.reconciliation`.

    Args:
        batch: a row of `governance.batch`.
        quarantined_at: partition and offset of each record of the batch's topic that is in quarantine.
        committed: how far pseudonymise has read each partition of it.

    Records of another publisher that lie among those of the batch count as quarantined here if they failed; then the
    totals may differ, and say so.
    """
    spans = list(zip(batch["starts"], batch["ends"], strict=True))
    failed = len({(p, o) for p, o in quarantined_at if p < len(spans) and spans[p][0] <= o < spans[p][1]})
    done = all(
        committed[p] >= end for p, (start, end) in enumerate(spans) if end > start and p < len(committed)
    ) and len(committed) >= len(spans)
    state: State = "pending"
    fewer = sum(end - start for start, end in spans) < batch["published"]
    if batch["read"] != batch["published"] + batch["rejected"] or failed > batch["published"] or fewer:
        state = "differs"
    elif done:
        state = "agreed"
    return {
        **{k: batch[k] for k in ("supplier", "dataset", "batch_id", "read", "published", "rejected")},
        "accepted": batch["published"] - failed if state == "agreed" else 0,
        "quarantined": failed,
        "state": state,
    }


def topic_of(batch: Row) -> str:
    """Where the records of a batch lie."""
    return identified_topic(batch["supplier"], batch["dataset"])
