"""Reconciliation of a running stack: where its records, groups and ends are read from."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import date

from confluent_kafka import KafkaError, KafkaException

from infra.rest import Flow
from infra.settings import Settings
from infra.topic_table import messages
from schemas.registry import Registry
from stream_processors.accounting.reconcile import Behind, Report, reconcile
from stream_processors.accounting.tables import Record, Source
from stream_processors.retention_policy import load_policy
from stream_processors.runtime.kafka import error_of

_EPOCH = date(1970, 1, 1)
_POLL_S = 0.5


def source_of(settings: Settings) -> Source:
    """The topics of a stack; one that is not there has no records."""

    def records(topic: str) -> Iterator[Record]:
        try:
            for m in messages(settings, topic):
                if m.key() is not None:
                    yield Record(
                        m.partition(),
                        m.offset(),
                        m.key(),
                        m.value(),
                        m.headers() if wanted(topic) else None,
                        m.timestamp()[1],
                    )
        except KafkaException as e:
            if error_of(e).code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise

    def wanted(topic: str) -> bool:
        return topic in ("linkage.identity", "linkage.activity")

    return records


def reconcile_stack(
    settings: Settings, wait_s: float = 0, on_wait: Callable[[list[Behind]], None] = lambda _: None
) -> Report:
    """The report of a stack as it stands; `wait_s`: how long to wait for it to come to rest.

    A flow that moved while it was read is not at rest: then hops are not looked at.

    Raises:
        KafkaException: the broker is away.
        RegistryDownError, SchemaNotRegisteredError: the registry is away, or the stack is not provisioned.
    """
    ids = Registry(settings.registry, deadline_seconds=10)
    stop = (load_policy().hard_stop - _EPOCH).days
    flow, deadline = Flow(settings), time.monotonic() + wait_s
    try:
        while True:
            behind, ends, committed = _standing(flow)
            if behind and time.monotonic() < deadline:
                on_wait(behind)
                time.sleep(_POLL_S)  # Kafka tells nobody that a group has caught up
                continue
            now = time.time_ns() // 1_000_000
            found = reconcile(source_of(settings), ids, behind=behind, committed=committed, stop=stop, now_ms=now)
            if behind:
                return found
            again, after, _ = _standing(flow)
            if after == ends and not again:
                return found
            if time.monotonic() >= deadline:  # it moved: what was read is not of one moment
                moved = again or [Behind("-", "the flow moved while it was read", 0, 0, 0)]
                return reconcile(source_of(settings), ids, behind=moved, committed={}, stop=stop, now_ms=now)
            on_wait(again)
    finally:
        flow.close()


Standing = tuple[list[Behind], dict[tuple[str, int], int], dict[tuple[str, str, int], int]]


def _standing(flow: Flow) -> Standing:
    """Who is behind, where logs end, and how far each processor is."""
    lags = flow.lags()
    behind = [Behind(lag.processor, lag.topic, lag.partition, lag.committed, lag.end) for lag in flow.open(lags)]
    ends = {(lag.topic, lag.partition): lag.end for lag in lags}
    return behind, ends, {(lag.processor, lag.topic, lag.partition): lag.committed for lag in lags}
