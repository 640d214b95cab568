"""What the linkage zone holds and what the ledger says was destroyed, read from their topics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import date
from itertools import groupby

import msgpack

from infra.settings import Settings
from infra.topic_table import messages, table
from schemas import contracts, wire
from schemas.codec import CodecError, decode, decode_older
from schemas.registry import Registry
from stream_processors import clock, ledger
from stream_processors.clock import Clock
from stream_processors.envelope import Envelope, envelope
from stream_processors.join import JOIN
from stream_processors.ledger import Chain, Head, Line
from stream_processors.refs import REF_WIDTH
from stream_processors.retention import DECLARATIONS, HEAD_ROW
from stream_processors.retention_policy import RetentionPolicy
from stream_processors.runtime.records import HEARTBEAT_KEY
from stream_processors.unmatched import received_days

_EPOCH = date(1970, 1, 1)


def due(settings: Settings, as_of: date, hard_stop: date) -> dict[tuple[str, str], int]:
    """Records by supplier and dataset (`identity` for those of tokens) that are to be gone by that day.

    Of each record its envelope is read and nothing else. Memory: one envelope for each record that is held.

    Raises:
        KafkaException: the broker is away, or has no such topics.
    """
    last, stop = (as_of - _EPOCH).days, (hard_stop - _EPOCH).days
    counts: Counter[tuple[str, str]] = Counter()
    for kind in DECLARATIONS:
        held: dict[bytes, Envelope] = {}
        topic = f"linkage.{kind}"
        for message in messages(settings.acting_as(DECLARATIONS[kind].name), topic):
            key, value = message.key(), message.value()
            if key is None or key == HEARTBEAT_KEY:
                continue
            if value is None:
                held.pop(key, None)
            else:
                held[key] = envelope(topic, value)
        for found in held.values():
            if min(found.expires_on, stop) <= last:
                counts[found.supplier, found.dataset or kind] += 1
    return dict(counts)


def unmatched(settings: Settings, as_of: date, policy: RetentionPolicy) -> dict[tuple[str, str], int]:
    """Records, as `due` counts them, that are not due by that day, but whose subject's linkage window has ended by it
    and belongs to nobody.

    Of each record its envelope is read, of a department's person record the day of receipt. Memory: as `due`.

    Raises:
        KafkaException: the broker is away, or has no such topics.
        CodecError: a record cannot be read.
    """
    last, stop = (as_of - _EPOCH).days, (policy.hard_stop - _EPOCH).days
    acting = settings.acting_as(JOIN.name)
    linked = {key[:REF_WIDTH] for key, person in _persons(table(acting, "linkage.link")) if person}
    activities = {k: v for k, v in table(acting, "linkage.activity").items() if k[:REF_WIDTH] not in linked}
    received = received_days(activities)
    over = {key[:REF_WIDTH] for key, day in received.items() if day + policy.linkage_window_days <= last}
    counts: Counter[tuple[str, str]] = Counter()
    for key, value in activities.items():
        found = envelope("linkage.activity", value)
        if key[:REF_WIDTH] in over and min(found.expires_on, stop) > last:
            counts[found.supplier, found.dataset or ""] += 1
            if key in received:
                counts[found.supplier, "identity"] += 1
    return dict(counts)


def _persons(links: Mapping[bytes, bytes]) -> Iterator[tuple[bytes, str | None]]:
    """Keys of claims, with the person that each names."""
    if links:
        found = decode([v[wire.HEADER_BYTES :] for v in links.values()], contracts.contract("linkage/link"))
        yield from zip(links, found.column("person_ref").to_pylist(), strict=True)


def ledger_lines(settings: Settings) -> list[Line]:
    """Every line of the ledger, each partition in log order.

    Raises:
        KafkaException: the broker is away, or has no such topic.
        RegistryDownError: the registry is away.
        CodecError: a line cannot be read.
    """
    contract, ids = contracts.contract("governance/ledger"), Registry(settings.registry, deadline_seconds=10)
    values: dict[int, list[bytes]] = {}
    for m in messages(settings, ledger.TOPIC):
        value = m.value()
        if value is not None:
            values.setdefault(m.partition() or 0, []).append(value)
    lines: list[Line] = []
    for p in sorted(values):
        for id_, framed in groupby(values[p], wire.schema_id):  # versions follow each other
            bodies = [v[wire.HEADER_BYTES :] for v in framed]
            if id_ == ids.schema_id(ledger.TOPIC):
                lines += decode(bodies, contract).to_pylist()
                continue
            found = decode_older(bodies, ids.writer(id_), contract)
            if found.bad:
                raise CodecError(f"{ledger.TOPIC}, partition {p}: a line does not fit its schema")
            lines += found.batch.to_pylist()
    return lines


def confirmed_days(settings: Settings) -> dict[tuple[str, int], int]:
    """The confirmed day (days since 1970-01-01) of each partition of the topics that retention reads, as its changelogs
    say; those that were told nothing are left out.

    Raises:
        KafkaException: the broker is away, or has no such topics.
    """
    days: dict[tuple[str, int], int] = {}
    for kind, declaration in DECLARATIONS.items():
        assert declaration.changelog
        for m in messages(settings.acting_as(declaration.name), declaration.changelog):
            if m.key() == clock.ROW and m.value() is not None:
                day = Clock.unpacked(m.value()).confirmed
                if day is not None:
                    days[f"linkage.{kind}", m.partition() or 0] = day
    return days


def ledger_heads(settings: Settings) -> dict[Chain, Head]:
    """Where each chain must end, as the changelogs of retention say: their writer's own memory of it.

    Raises:
        KafkaException: the broker is away, or has no such topics.
    """
    heads: dict[Chain, Head] = {}
    for kind, declaration in DECLARATIONS.items():
        assert declaration.changelog
        for m in messages(settings.acting_as(declaration.name), declaration.changelog):
            value = m.value()
            if m.key() == HEAD_ROW and value is not None:
                heads[kind, m.partition() or 0] = Head(*msgpack.unpackb(value)[1:])
    return heads
