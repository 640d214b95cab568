"""Ticks by hand, for demos and tests: whoever drives a simulated clock tells every partition the day."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from confluent_kafka import KafkaError, KafkaException, Producer

from infra.settings import Settings
from infra.topic_table import messages
from schemas.registry import Registry, SchemaIds
from schemas.rows import from_value
from stream_processors.control.clock import KEY, TOPIC, tick_value
from stream_processors.runtime.kafka import producer_config

_CALL_S = 30


def send_ticks(settings: Settings, days: Iterable[date], ids: SchemaIds | None = None) -> int:
    """Tell the days, in order, to every partition of the clock; returns how many records that were.

    Raises:
        KafkaException: the broker does not have them all.
    """
    ids = ids or Registry(settings.registry)
    producer = Producer(producer_config(settings, "lethe.clock"))
    failed: list[KafkaError] = []
    sent = 0
    for day in days:
        value = tick_value(day, ids)
        for partition in range(settings.partitions):
            producer.produce(
                TOPIC, value, KEY, partition, on_delivery=lambda error, _: failed.append(error) if error else None
            )
            sent += 1
    if producer.flush(_CALL_S) or failed:
        raise KafkaException(failed[0] if failed else KafkaError(KafkaError._TIMED_OUT))
    return sent


def last_ticks(settings: Settings, ids: SchemaIds | None = None) -> dict[int, date]:
    """The last day that each partition was told."""
    ids = ids or Registry(settings.registry)
    return {
        m.partition(): from_value(TOPIC, m.value(), ids)["as_of"]
        for m in messages(settings, TOPIC)
        if m.key() == KEY and m.value() is not None
    }
