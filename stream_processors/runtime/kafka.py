"""Settings of the Kafka clients, in one place, each with its reason."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable

from confluent_kafka import Consumer, KafkaError, KafkaException

from infra.keys import CA_CERTIFICATE, credential_of
from infra.settings import Settings
from schemas.contracts import DATASETS, ENQUIRY

_MEET_S = 30.0
Config = dict[str, str | int | float | bool]

PASSING = frozenset(
    {
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
)
"""What a broker answers for a moment after topics were made."""


def client_config(settings: Settings) -> Config:
    """What every client needs: where the brokers are, and the certificate of the principal that it acts for.

    Raises:
        KeyFileError: the credential is missing or may not be used, or plaintext would leave this machine.
    """
    # Its own words, a line for each attempt to reach a broker, stay out: we say what is waited for.
    config: Config = {"bootstrap.servers": settings.bootstrap, "log_level": 2}
    credential = credential_of(settings)
    if credential is not None:
        config |= {
            "security.protocol": "ssl",
            "ssl.ca.location": str(settings.access / CA_CERTIFICATE),
            "ssl.certificate.location": str(credential),
            "ssl.key.location": str(credential),
            "ssl.endpoint.identification.algorithm": "https",
        }
    return config


def ssl_context(settings: Settings) -> ssl.SSLContext | None:
    """The same for clients that take Python's own TLS; None for plaintext. Raises as `client_config`."""
    credential = credential_of(settings)
    if credential is None:
        return None
    context = ssl.create_default_context(cafile=str(settings.access / CA_CERTIFICATE))
    context.load_cert_chain(credential)
    return context


def producer_config(settings: Settings, client: str, transactional_id: str | None = None) -> Config:
    """An idempotent producer; a transactional one with an id. Raises as `client_config`."""
    config: Config = {
        **client_config(settings),
        "client.id": client,
        "enable.idempotence": True,
        "acks": "all",
        "partitioner": "murmur2_random",  # librdkafka's own default would not meet Java's keys
        "compression.type": "lz4",
        "linger.ms": 20,
        # Few large requests. An idempotent producer has five under way; with a sixth that is ready, the client's thread
        # does not sleep until an answer comes, it spins: a third of all processor time, on a core the broker needs.
        "batch.size": 4 * 1024 * 1024,
        "batch.num.messages": 100_000,
        "message.max.bytes": 10 * 1024 * 1024,
        "queue.buffering.max.messages": 400_000,
        "queue.buffering.max.kbytes": 128 * 1024,
    }
    if transactional_id:
        config |= {
            "transactional.id": transactional_id,
            "transaction.timeout.ms": settings.transaction_timeout_ms,
        }
    return config


def consumer_config(settings: Settings, group: str, member: str | None = None) -> Config:
    """Read committed, offsets by hand, one member takes the same partition number of every topic (`range`).

    Raises as `client_config`.
    """
    config: Config = {
        **client_config(settings),
        "client.id": member or group,
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
        "partition.assignment.strategy": "range",  # cooperative-sticky does not keep co-partitioned topics together
        "enable.partition.eof": True,  # the only sure sign of the end: compacted tails and markers have offsets too
        "session.timeout.ms": settings.session_timeout_ms,
        "heartbeat.interval.ms": max(1_000, settings.session_timeout_ms // 5),
        "max.poll.interval.ms": 900_000,  # a rebuild polls in between; this is for a machine that stalls
        "topic.metadata.refresh.interval.ms": 5_000,  # a new supplier's topics join a pattern this soon
        "fetch.wait.max.ms": 50,
        "fetch.message.max.bytes": 4 * 1024 * 1024,
        "queued.max.messages.kbytes": 32 * 1024,
        "queued.min.messages": 20_000,
        "fetch.queue.backoff.ms": 5,  # a partition whose queue is full is fetched again this soon; the default is 1 s
    }
    if member:
        config["group.instance.id"] = member  # static membership: a restart within the timeout moves no partition
    return config


def reader_config(settings: Settings, group: str) -> Config:
    """As `consumer_config`, for reading to the ends of partitions: an end is told with an answer that has nothing in
    it, before which the broker waits for something to come.

    Raises as `client_config`.
    """
    return consumer_config(settings, group) | {"fetch.wait.max.ms": 5}


def meet(consumer: Consumer, topics: Iterable[str], met: set[str]) -> None:
    """Have a consumer know topics before it reads them; `met` holds those that it knows.

    What librdkafka has not heard of it looks for on a timer of a second, one topic after the other. Asked for, all of
    them are told in milliseconds.

    Raises:
        KafkaException: the broker is away.
    """
    if not met.issuperset(topics := set(topics)):
        consumer.list_topics(timeout=_MEET_S)
        met |= topics


def subscription(reads: tuple[str, ...]) -> list[str]:
    """A declaration's patterns as librdkafka takes them: a leading ^ marks a (POSIX extended) regular expression."""
    datasets = "|".join(sorted({d for ds in DATASETS.values() for d in ds}))
    suppliers = "|".join(["council-[a-z0-9-]+", *(k for k in DATASETS if k != "council")])
    identified = f"^identified\\.(({suppliers})\\.({datasets})|council-[a-z0-9-]+\\.{ENQUIRY})$"
    return [identified if r == "identified.*" else r for r in reads]


def matches(reads: tuple[str, ...], topic: str) -> bool:
    """Whether a declaration reads a topic."""
    return any(re.search(p, topic) is not None if p.startswith("^") else p == topic for p in subscription(reads))


def error_of(exception: KafkaException) -> KafkaError:
    """The error that an exception carries."""
    error = exception.args[0]
    assert isinstance(error, KafkaError)
    return error


def describe(error: KafkaError) -> str:
    """The name of an error: its text can repeat a record's key."""
    name: str = error.name()
    return name
