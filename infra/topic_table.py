"""A compacted topic as the table it stands for, read committed from the beginning to the end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from infra.settings import Settings
from stream_processors.edition import Edition
from stream_processors.runtime.kafka import reader_config
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


def messages(settings: Settings, topic: str, partitions: Sequence[int] | None = None) -> Iterator[Message]:
    """Every committed record of a topic, or of some partitions of it, each in order, up to its end as of now.

    Raises:
        KafkaException: no such topic, or the broker is away.
    """
    return messages_of(settings, [topic], partitions)


def messages_of(
    settings: Settings, topics: Iterable[str], partitions: Sequence[int] | None = None
) -> Iterator[Message]:
    """The same of several topics at once: one client, and the records of different partitions in any order.

    Raises:
        KafkaException: no such topic, or the broker is away.
    """
    consumer = Consumer(reader_config(settings, f"lethe.{settings.principal}.table"))
    try:
        left: set[tuple[str, int]] = set()
        wanted = [Edition(settings.edition).topic(t) for t in topics]
        known = consumer.list_topics(wanted[0] if len(wanted) == 1 else None, timeout=30).topics
        for topic in wanted:
            if topic not in known:
                raise KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
            if known[topic].error is not None:
                raise KafkaException(known[topic].error)
            left |= {(topic, p) for p in (known[topic].partitions if partitions is None else partitions)}
        consumer.assign([TopicPartition(topic, p, 0) for topic, p in sorted(left)])
        while left:
            for message in consumer.consume(10_000, 0.05):
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    left.discard((message.topic(), message.partition()))
                else:
                    raise KafkaException(error)
    finally:
        consumer.close()
