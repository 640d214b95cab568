"""Single entries of quarantine: what is known of them, and, audited, what they are."""

from __future__ import annotations

import heapq
from typing import Any

from infra.operation import Operation, OperationLog, now_ms, whoever
from infra.quarantine.entries import Filter, place_of
from infra.quarantine.reader import Reader
from infra.quarantine.work import quarantines, scan
from infra.settings import Settings
from schemas import contracts, wire
from schemas.registry import Registry, RegistryDownError
from schemas.rows import from_value
from stream_processors.edition import Edition

At = tuple[str, Edition, int, int]
"""Supplier and edition, and partition and offset in that quarantine topic."""


def entries(settings: Settings, meant: Filter, at: At | None, limit: int) -> list[dict[str, Any]]:
    """What is known of the entries that are meant, the latest last; of one, if `at` names it. No key, no value.

    Raises:
        KafkaException: the broker is away.
    """
    found: list[tuple[int, int, dict[str, Any]]] = []
    with Reader(settings) as reader:
        for q in quarantines(reader.topics(), meant):
            for p in range(q.partitions) if at is None else [at[2]] if at[2] < q.partitions else []:
                rows = meant.of(scan(reader, q.topic, p, *reader.ends(q.topic, p), lambda _: None).latest())
                if at is not None:
                    rows = rows.filter(rows["offset"] == at[3])
                for row in rows.tail(limit).to_dicts():
                    shown = {
                        "place": f"{q.name}/{p}/{row['offset']}",
                        "supplier": q.supplier,
                        "edition": q.edition.named(),
                        **{n: row[n] for n in ("dataset", "error", "field")},
                        "record": f"{row['source']}/{row['partition']}/{row['source_offset']}",
                        "bytes": row["size"],
                        "attempts": row["attempts"],
                        "at_ms": row["at_ms"],
                    }
                    found.append((row["at_ms"], len(found), shown))
    return [row for _, _, row in heapq.nsmallest(limit, heapq.nlargest(limit, found))]


def revealed(settings: Settings, at: At, reason: str, by: str | None) -> dict[str, Any]:
    """Key and value of one entry, after `governance.operation` says who sees it and why. A value that cannot be
    decoded is shown in hex.

    Raises:
        KafkaException, RegistryDownError: it could not be audited, and so is not shown.
    """
    supplier, edition, partition, offset = at
    topic = edition.topic(contracts.quarantine_topic(supplier))
    registry = Registry(settings.registry, deadline_seconds=10)
    what = {"topic": topic, "partition": partition, "offset": offset}
    operation = Operation("quarantine_reveal", by or whoever(), reason, what, now_ms(), state="done", done=1)
    OperationLog(settings, registry).write(operation)
    with Reader(settings) as reader:
        for batch in reader.read(topic, partition, offset, offset + 1):
            for m in batch:
                key, value = m.key(), m.value() or b""
                source = place_of(m.headers()).topic
                return {
                    "key": key.partition(b"|")[2].decode(errors="replace"),
                    "value": _decoded(source, value, registry),
                }
    return {}


def _decoded(topic: str, value: bytes, registry: Registry) -> Any:
    try:
        return from_value(topic, value, registry)
    except RegistryDownError:
        raise
    except (ValueError, LookupError, wire.WireError):  # it is here because it could not be read
        return value.hex()
