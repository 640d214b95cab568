"""Ticks of `governance.clock`: what day it is, told to every partition."""

from __future__ import annotations

from datetime import date

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from infra.settings import Settings
from schemas.registry import SchemaIds
from stream_processors.clock import KEY, TOPIC
from stream_processors.control.clock import tick_value
from stream_processors.runtime.kafka import producer_config

_CALL_S = 30


def tick(settings: Settings, schema_ids: SchemaIds, as_of: date) -> int:
    """Tell every partition that it is that day. Returns how many there are. What a tick does, `Clock.tick` says.

    Raises:
        KafkaException: the broker is away, or did not take every tick: tell them again, it does no harm.
        SchemaNotRegisteredError: the topic has no schema yet.
    """
    value = tick_value(as_of, schema_ids)
    producer = Producer(producer_config(settings, "lethe.clock") | {"message.timeout.ms": _CALL_S * 1000})
    taken: list[KafkaError | None] = []

    def told(error: KafkaError | None, _: Message) -> None:
        taken.append(error)

    for partition in range(settings.partitions):
        producer.produce(TOPIC, value, KEY, partition, on_delivery=told)
    producer.flush(_CALL_S + 5)
    for error in taken:
        if error is not None:
            raise KafkaException(error)
    return len(taken)
