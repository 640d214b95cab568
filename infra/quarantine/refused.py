"""What failed further down the flow, where no supplier's quarantine has it: what the guard refused, what came too late,
questions that cannot be read. `governance.quarantine` tells of it, and has no copy.

It is worked out anew from what stands behind it, so there is nothing to put back or to drop.
"""

from __future__ import annotations

from typing import Any

from infra.editions import of_each
from infra.quarantine.entries import Filter
from infra.settings import Settings
from infra.topic_table import messages
from schemas.registry import SchemaIds
from schemas.rows import from_value
from stream_processors.quarantine import TOPIC as QUARANTINE
from stream_processors.runtime.records import HEARTBEAT_KEY

_SOURCES = "identified."


def refused(settings: Settings, ids: SchemaIds, meant: Filter) -> list[dict[str, Any]]:
    """One row each, in no order, as `show.entries` has them; `place` is empty, and so is what there is no copy of.

    Raises:
        KafkaException: the broker is away.
    """
    out = []
    for edition, mine in of_each(settings).items():
        if meant.editions and edition.named() not in meant.editions:
            continue
        held: dict[bytes, tuple[bytes, int]] = {}
        for m in messages(mine, QUARANTINE):
            key, value = m.key(), m.value()
            if key is None or key == HEARTBEAT_KEY or key.startswith(_SOURCES.encode()):
                continue
            if value is None:
                held.pop(key, None)
            else:
                held[key] = value, m.timestamp()[1]
        for value, at_ms in held.values():
            row = from_value(QUARANTINE, value, ids)
            found = {
                "place": "",
                "supplier": row["supplier"],
                "edition": edition.named(),
                "dataset": row["topic"],
                "error": row["error"],
                "field": row["field"] or "",
                "record": f"{row['topic']}/{row['partition']}/{row['offset']}",
                "bytes": 0,
                "attempts": 0,
                "at_ms": at_ms,
            }
            if _means(meant, found):
                out.append(found)
    return out


def _means(meant: Filter, row: dict[str, Any]) -> bool:
    return (
        not meant.datasets
        and (not meant.suppliers or row["supplier"] in meant.suppliers)
        and (not meant.errors or row["error"] in meant.errors)
        and (meant.since_ms is None or row["at_ms"] >= meant.since_ms)
        and (meant.until_ms is None or row["at_ms"] < meant.until_ms)
    )
