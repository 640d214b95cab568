"""What a supplier is told of each batch, as pseudonymise goes on: counted as `lethe reconcile` counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from schemas.contracts import identified_topic
from stream_processors.accounting.batches import State as Found
from stream_processors.accounting.batches import report
from stream_processors.runtime.account import Account

Row = Mapping[str, Any]
State = Literal["pending", "agreed", "differs"]
_STATES: Mapping[Found, State] = {"pending": "pending", "balanced": "agreed", "differs": "differs"}


def reconciled(batch: Row, accounts: Iterable[Account], now_ms: int) -> dict[str, Any]:
    """A row of `governance.reconciliation`.

    Args:
        batch: a row of `governance.batch`.
        accounts: those of pseudonymise for the batch's topic: of all its records, and of the batch's own.
        now_ms: what time it is.
    """
    found = report(batch, accounts, None, now_ms, behind=False)
    return {
        **{k: batch[k] for k in ("supplier", "dataset", "batch_id", "read", "published", "rejected")},
        "accepted": found.accepted + found.deletions + found.refused if found.state == "balanced" else 0,
        "quarantined": found.quarantined,
        "state": _STATES[found.state],
    }


def topic_of(batch: Row) -> str:
    """Where the records of a batch lie."""
    return identified_topic(batch["supplier"], batch["dataset"])
