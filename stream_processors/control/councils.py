"""Which councils are suppliers: those that `lethe supplier add`, or `lethe up`, has made topics for."""

from __future__ import annotations

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from infra.settings import Settings
from schemas.contracts import enquiry_topic
from stream_processors.edition import Edition
from stream_processors.runtime.kafka import client_config

_ASK_S = 5


class Councils:
    """Asks the broker once for each council that is one. Blocks for as long as that takes, at most 5 s.

    A broker that does not answer knows of no further council: the enquiry is refused, and can be asked again.
    """

    def __init__(self, settings: Settings) -> None:
        self._admin = AdminClient(client_config(settings))
        self._edition = Edition(settings.edition)
        self._topics: frozenset[str] = frozenset()

    def __call__(self, council: str) -> bool:
        """Whether a question of that council's has a topic to go to."""
        topic = self._edition.topic(enquiry_topic(council))
        if topic not in self._topics:
            try:
                self._topics = frozenset(self._admin.list_topics(timeout=_ASK_S).topics)
            except KafkaException:
                return False
        return topic in self._topics
