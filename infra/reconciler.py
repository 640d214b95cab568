"""Reconciliation of a running stack: where its records, groups and ends are read from."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import date

from infra.policy import configured_policy
from infra.reading import records
from infra.rest import Flow, Lag
from infra.settings import Settings
from schemas.registry import Registry
from stream_processors.accounting.reconcile import Behind, Report, reconcile
from stream_processors.accounting.tables import Source

_EPOCH = date(1970, 1, 1)
_POLL_S = 0.5


def source_of(settings: Settings) -> Source:
    """The topics of a stack; one that is not there has no records."""
    carry = ("linkage.identity", "linkage.activity")
    return lambda topic: records(settings, topic, headers=topic in carry)


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
    stop = (configured_policy(settings).hard_stop - _EPOCH).days
    flow, deadline = Flow(settings), time.monotonic() + wait_s
    try:
        while True:
            behind, ends, committed = _standing(settings, flow)
            if behind and time.monotonic() < deadline:
                on_wait(behind)
                time.sleep(_POLL_S)  # Kafka tells nobody that a group has caught up
                continue
            now = time.time_ns() // 1_000_000
            found = reconcile(
                source_of(settings), ids, settings.partitions, behind=behind, committed=committed, stop=stop, now_ms=now
            )
            if behind:
                return found
            again, after, _ = _standing(settings, flow)
            if after == ends and not again:
                return found
            if time.monotonic() >= deadline:  # it moved: what was read is not of one moment
                moved = again or [Behind("-", "the flow moved while it was read", 0, 0, 0)]
                return reconcile(
                    source_of(settings), ids, settings.partitions, behind=moved, committed={}, stop=stop, now_ms=now
                )
            on_wait(again)
    finally:
        flow.close()


Standing = tuple[list[Behind], dict[tuple[str, int], int], dict[tuple[str, str, int], int]]


def _standing(settings: Settings, flow: Flow) -> Standing:
    """Who is behind, or says all anew and is not through; where logs end, and how far each processor is."""
    lags = flow.lags()
    late = [*_open(settings, lags), *flow.replays()]
    behind = [Behind(lag.processor, lag.topic, lag.partition, lag.committed, lag.end) for lag in late]
    ends = {(lag.topic, lag.partition): lag.end for lag in lags}
    return behind, ends, {(lag.processor, lag.topic, lag.partition): lag.committed for lag in lags}


def _open(settings: Settings, lags: list[Lag]) -> list[Lag]:
    """Those behind which a record lies, as far as each processor itself may see."""
    out: list[Lag] = []
    for processor in sorted({lag.processor for lag in lags if lag.committed < lag.end}):
        own = Flow(settings.acting_as(processor))
        try:
            out += own.open(lag for lag in lags if lag.processor == processor)
        finally:
            own.close()
    return out
