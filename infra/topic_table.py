"""A compacted topic as the table it stands for, read committed from the beginning to the end."""

from __future__ import annotations

from collections.abc import Iterator

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from infra.settings import Settings
from stream_processors.runtime.kafka import consumer_config
from stream_processors.runtime.records import HEARTBEAT_KEY


def table(settings: Settings, topic: str) -> dict[bytes, bytes]:
    """Last value of each key that has one. Held in memory: for demos, tests and small topics."""
    rows: dict[bytes, bytes] = {}
    for message in messages(settings, topic):
        key, value = message.key(), message.value()
        if key is None or key == HEARTBEAT_KEY:
            continue
        if value is None:
            rows.pop(key, None)
        else:
            rows[key] = value
    return rows


def messages(settings: Settings, topic: str) -> Iterator[Message]:
    """Every committed record of a topic, each partition in order, up to its end as of now.

    Raises:
        KafkaException: no such topic, or the broker is away.
    """
    consumer = Consumer(consumer_config(settings, f"lethe.{settings.principal}.table"))
    try:
        found = consumer.list_topics(topic, timeout=30).topics[topic]
        if found.error is not None:
            raise KafkaException(found.error)
        left = set(found.partitions)
        consumer.assign([TopicPartition(topic, p, 0) for p in left])
        while left:
            for message in consumer.consume(10_000, 0.05):
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    left.discard(message.partition())
                else:
                    raise KafkaException(error)
    finally:
        consumer.close()
