"""Which editions a cluster holds, which is in use, and the settings to look at each."""

from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from infra.settings import Settings
from infra.topic_table import table
from schemas.registry import SchemaIds
from schemas.rows import from_value, to_value
from stream_processors.access import IN_USE
from stream_processors.edition import Edition, editions_of
from stream_processors.runtime.kafka import client_config, error_of, producer_config
from stream_processors.runtime.partition import partition_of

_CALL_S = 8
_KEY = b"edition"
_FLUSH_S = 30


def topics(settings: Settings) -> dict[str, int]:
    """Every topic but Kafka's own, of whatever edition, with its number of partitions.

    Raises:
        KafkaException: the broker is away.
    """
    found = AdminClient(client_config(settings)).list_topics(timeout=_CALL_S).topics
    return {name: len(t.partitions) for name, t in found.items() if not name.startswith("_")}


def of_each(settings: Settings) -> dict[Edition, Settings]:
    """The settings for each edition that has topics, the plain one first; for the one of these settings, if none has.

    Raises:
        KafkaException: the broker is away.
    """
    found = editions_of(topics(settings)) or [Edition(settings.edition)]
    return {edition: within(settings, edition) for edition in found}


def within(settings: Settings, edition: Edition) -> Settings:
    """The same settings, for an edition."""
    return settings.model_copy(update={"edition": edition.name})


def in_use(settings: Settings, ids: SchemaIds) -> Edition:
    """The edition that was switched to last; the plain one, if nobody has ever switched.

    Raises:
        KafkaException: the broker is away, or whoever asks may not read it.
    """
    try:
        value = table(settings, IN_USE).get(_KEY)
    except KafkaException as e:
        if error_of(e).code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
            return Edition()
        raise
    return Edition(str(from_value(IN_USE, value, ids)["edition"])) if value is not None else Edition()


def use(settings: Settings, edition: Edition, ids: SchemaIds, now_ms: int) -> None:
    """Say which is in use from now on, and return once the broker has it.

    Raises:
        KafkaException: the broker is away, or refuses; nothing was said.
    """
    failed: list[KafkaError | None] = []
    producer = Producer(producer_config(settings, "lethe.rollout") | {"message.timeout.ms": _FLUSH_S * 1000})
    value = to_value(IN_USE, {"edition": edition.name, "switched_ms": now_ms}, ids)
    partition = partition_of(_KEY, settings.partitions)
    producer.produce(IN_USE, value, _KEY, partition, on_delivery=lambda e, _: failed.append(e))
    producer.flush(_FLUSH_S + 5)
    if failed != [None]:
        raise KafkaException(failed[0] if failed and failed[0] else KafkaError(KafkaError._TIMED_OUT))
