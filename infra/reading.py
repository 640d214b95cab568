"""Topics of a running stack for who looks at all of it: each as the principal that may read it, so that no credential
opens more than before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from confluent_kafka import KafkaError, KafkaException, Message

from infra.settings import Settings
from infra.topic_table import messages
from stream_processors.access import ENCLAVE, OPERATOR
from stream_processors.accounting.tables import Record
from stream_processors.pseudonymise import PSEUDONYMISE
from stream_processors.runtime.kafka import error_of, matches
from stream_processors.topology import TOPOLOGY

_GONE = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC}


def reader_of(topic: str) -> str:
    """The principal that reads a topic: a processor its inputs and its changelog, the enclave what is published."""
    zone = topic.partition(".")[0]
    if zone == "identified":
        return PSEUDONYMISE.name
    if zone == "state":
        return topic.partition(".")[2]
    if zone == "linkage":
        return next(d.name for d in TOPOLOGY if d is not PSEUDONYMISE and matches(d.reads, topic))
    return ENCLAVE if zone == "research" else OPERATOR


def records(
    settings: Settings, topic: str, partitions: Sequence[int] | None = None, *, headers: bool = True
) -> Iterator[Record]:
    """Committed records of a topic up to its end as of now; none of one that is not there.

    Raises:
        KafkaException: the broker is away.
    """
    found = messages(settings.acting_as(reader_of(topic)), topic, partitions)
    first: Message | None
    try:
        first = next(found, None)
    except KafkaException as e:
        if error_of(e).code() in _GONE:
            return
        raise
    for m in chain([first] if first is not None else [], found):
        key, at = m.key(), m.partition()
        if key is not None:
            yield Record(at or 0, m.offset() or 0, key, m.value(), m.headers() if headers else None, m.timestamp()[1])
