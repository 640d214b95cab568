"""Which editions a cluster holds, and the settings to look at each."""

from __future__ import annotations

from confluent_kafka.admin import AdminClient

from infra.settings import Settings
from stream_processors.edition import Edition, editions_of
from stream_processors.runtime.kafka import client_config

_CALL_S = 8


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
