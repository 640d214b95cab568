"""Records in the outputs of processors that nothing stands behind: no replay says them again, and none takes them back.

What removes them is a tombstone where they lie, so that all that was made of them goes the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from confluent_kafka import KafkaError, KafkaException, Producer

from infra.operation import Operation, OperationLog, now_ms
from infra.reading import records
from infra.settings import Settings
from stream_processors.accounting.hops import Finding
from stream_processors.accounting.reconcile import Report
from stream_processors.edition import Edition
from stream_processors.runtime.kafka import producer_config

_CALL_S = 30.0


def strays(found: Report) -> list[Finding]:
    """Those that a report names, each place once: some of each kind, so ask again after they are removed."""
    places = {(f.topic, f.partition, f.offset): f for f in found.findings if f.is_stray}
    return [places[place] for place in sorted(places)]


def remove(settings: Settings, found: Sequence[Finding], operation: Operation, log: OperationLog) -> int:
    """Write a tombstone over each that is still the last record of its key; how many. The audit comes first.

    Raises:
        KafkaException: the broker is away, or refuses. Safe to repeat.
    """
    log.write(operation)
    done = 0
    for processor in sorted({f.processor for f in found}):
        mine = [f for f in found if f.processor == processor]
        done += _tombstones(settings.acting_as(processor), settings, mine)
    log.write(operation.now(now_ms(), state="done", done=done, skipped=len(found) - done))
    return done


def _tombstones(writer: Settings, reader: Settings, found: Iterable[Finding]) -> int:
    failed: list[KafkaError] = []
    producer = Producer(producer_config(writer, "lethe.strays"))
    wanted: dict[str, set[tuple[int, int]]] = {}
    for f in found:
        wanted.setdefault(f.topic, set()).add((f.partition, f.offset))
    done = 0
    for topic, places in wanted.items():
        last = {(r.partition, r.key): r for r in records(reader, topic)}
        for r in last.values():
            if (r.partition, r.offset) in places and r.value is not None:
                producer.produce(
                    Edition(writer.edition).topic(topic), None, r.key, r.partition,
                    on_delivery=lambda e, _: failed.append(e) if e is not None else None,
                )  # fmt: skip
                done += 1
    if producer.flush(_CALL_S) or failed:
        raise KafkaException(failed[0] if failed else KafkaError(KafkaError._TIMED_OUT))
    return done
