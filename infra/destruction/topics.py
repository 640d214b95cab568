"""What readers get of the topics: each is read from its earliest offset, and held to the ledger and to each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from confluent_kafka import Message

from infra.destruction.named import Destroyed
from infra.destruction.proof import Proof
from stream_processors.envelope import envelope
from stream_processors.ledger import Line
from stream_processors.refs import REF_WIDTH
from stream_processors.runtime.records import HEARTBEAT_KEY

SOURCES = ("linkage.identity", "linkage.activity")
PERSONAL = ("identified", "linkage", "research", "state")
"""Zones whose topics hold personal data. Governance holds none, and is searched for it like the rest."""
KEPT = ("governance.ledger", "governance.acknowledgement")
"""What remains when everything is destroyed: of the ledger, each edition's."""
SUBJECT, _SECOND = slice(0, REF_WIDTH), slice(REF_WIDTH + 1, None)


@dataclass(slots=True)
class Held:
    """A topic as a table: live keys, with partition and offset of each; `expires`: of sources, days since 1970.
    `deleted`: the offset of each partition's last tombstone."""

    at: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    expires: dict[bytes, int] = field(default_factory=dict)
    deleted: dict[int, int] = field(default_factory=dict)
    records: int = 0


def is_kept(topic: str) -> bool:
    """Whether a topic remains when everything is destroyed."""
    return topic in KEPT or topic.startswith(f"{KEPT[0]}.")


def take(tables: Mapping[str, Held], m: Message) -> None:
    """Take a record into its topic's table. Memory: an entry for each key that lives."""
    topic = m.topic()
    found, source = tables[topic], next((s for s in SOURCES if f"{topic}.".startswith(f"{s}.")), None)
    found.records += 1
    key, value, partition, offset = m.key(), m.value(), m.partition(), m.offset()
    if key == HEARTBEAT_KEY and value is None:
        return
    key = key or b""
    if value is None:
        found.at.pop(key, None)
        found.expires.pop(key, None)
        found.deleted[partition] = offset
    else:
        found.at[key] = (partition, offset)
        if source is not None:
            found.expires[key] = envelope(source, value).expires_on


def held(topic: str, messages: Iterable[Message]) -> Held:
    """One topic as a table."""
    table = Held()
    for m in messages:
        take({topic: table}, m)
    return table


def not_live(
    proof: Proof,
    tables: Mapping[str, Held],
    lines: Iterable[Line],
    destroyed: Destroyed,
    name: Callable[[str], str] = str,
) -> None:
    """No record lives that a line says was destroyed, and no key downstream names one. `name`: of a topic by its plain
    name, as it is to be told."""
    ends = {(line["topic"], line["partition"], line["offset"]) for line in lines}
    for topic, table in tables.items():
        for key, (partition, offset) in table.at.items():
            if (topic, partition, offset) in ends or (topic not in SOURCES and destroyed.named_in(key)):
                proof.find("live", f"{name(topic)}-{partition}@{offset}")


def not_overdue(
    proof: Proof,
    tables: Mapping[str, Held],
    confirmed: Mapping[tuple[str, int], int],
    hard_stop: int,
    name: Callable[[str], str] = str,
) -> None:
    """Nothing lives that has expired by the confirmed day of its partition (days since 1970)."""
    for topic in SOURCES:
        table = tables.get(topic, Held())
        for key, expires_on in table.expires.items():
            partition, offset = table.at[key]
            day = confirmed.get((topic, partition))
            if day is not None and min(expires_on, hard_stop) <= day:
                proof.find("overdue", f"{name(topic)}-{partition}@{offset}")


def grounded(proof: Proof, tables: Mapping[str, Held], name: Callable[[str], str] = str) -> None:
    """Nothing lives downstream that nothing upstream stands behind."""
    identities = tables.get("linkage.identity", Held()).at
    subjects = {k[SUBJECT] for k in identities}
    records = {k[_SECOND] for k in tables.get("linkage.activity", Held()).at}
    behind: dict[str, tuple[set[bytes], slice]] = {
        "linkage.candidate": (subjects, SUBJECT),
        "linkage.link": (subjects, SUBJECT),
        "linkage.contribution": (records, _SECOND),
    }
    for topic, (known, part) in behind.items():
        for key, (partition, offset) in tables.get(topic, Held()).at.items():
            if key[part] not in known:
                proof.find("ungrounded", f"{name(topic)}-{partition}@{offset}")
    contributions = tables.get("linkage.contribution", Held()).at
    published = len(tables.get("research.person", Held()).at)
    persons = len({k[SUBJECT] for k in contributions})
    if published > persons:
        proof.find("ungrounded", name("research.person"), published - persons, "more persons than have contributions")
