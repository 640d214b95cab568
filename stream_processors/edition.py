"""Editions: the flow beside itself. All that processors write lies in topics of an edition; what suppliers write, and
the clock, is shared. So another catalogue of match keys or another contract can be worked out beside the one in use.

The edition without a name has the plain names; edition `v2` has `research.person.v2`, `state.join.v2`, and so on, and
groups and transactional ids to match. A processor knows nothing of it: names are turned at the border to Kafka.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from schemas.contracts import Contract
from schemas.registry import SchemaIds
from stream_processors.runtime.account import TOPIC as ACCOUNTS
from stream_processors.topology import TOPOLOGY

NAME = r"[a-z][a-z0-9]{0,11}"
_WRITTEN = frozenset(
    {ACCOUNTS, *(t for d in TOPOLOGY for t in (*d.writes, d.changelog) if t is not None and "*" not in t)}
)
_QUARANTINE = re.compile(r"identified\.[a-z0-9-]+\.quarantine")
_PLAIN = "research.person"


def is_written(topic: str) -> bool:
    """Whether processors write a topic, by its plain name."""
    return topic in _WRITTEN or _QUARANTINE.fullmatch(topic) is not None


@dataclass(frozen=True)
class Edition:
    """One edition; the name is empty for the plain one."""

    name: str = ""

    @cached_property
    def _tail(self) -> str:
        return f".{self.name}" if self.name else ""

    def topic(self, plain: str) -> str:
        """The name of a topic in this edition."""
        return plain + self._tail if self.name and is_written(plain) else plain

    def plain(self, topic: str) -> str:
        """The plain name of a topic of this edition, or of one that is shared; others' names stay as they are."""
        if self.name and topic.endswith(self._tail) and is_written(topic.removesuffix(self._tail)):
            return topic.removesuffix(self._tail)
        return topic

    def holds(self, topic: str) -> bool:
        """Whether a topic is this edition's own."""
        return self.topic(self.plain(topic)) == topic and is_written(self.plain(topic))

    def group(self, processor: str) -> str:
        """The consumer group of a processor."""
        return f"lethe.{processor}{self._tail}"

    def transactional_id(self, processor: str, member: str) -> str:
        """Of one instance of a processor."""
        return f"lethe.{processor}{self._tail}.{member}"

    def folder(self, processor: str) -> str:
        """The folder of a processor's state, below that of all."""
        return f"{processor}@{self.name}" if self.name else processor

    def named(self) -> str:
        """The name, for people."""
        return self.name or "plain"


def edition_of(process: str) -> tuple[str, Edition]:
    """A processor and its edition, from the name of its folder: `join@v2`."""
    name, _, edition = process.partition("@")
    return name, Edition(edition)


def editions_of(topics: Iterable[str]) -> list[Edition]:
    """The editions that have topics, the plain one first."""
    found = {t.removeprefix(f"{_PLAIN}.") if t != _PLAIN else "" for t in topics if f"{t}.".startswith(f"{_PLAIN}.")}
    return [Edition(name) for name in sorted(found)]


class EditionSchemas:
    """A registry, asked by plain names for what is registered for an edition's topics."""

    def __init__(self, schema_ids: SchemaIds, edition: Edition) -> None:
        self._ids, self._edition = schema_ids, edition

    def schema_id(self, topic: str) -> int:
        """See `SchemaIds`."""
        return self._ids.schema_id(self._edition.topic(topic))

    def check(self, topic: str, contract: Contract) -> int:
        """See `SchemaIds`."""
        return self._ids.check(self._edition.topic(topic), contract)

    def writer(self, schema_id: int) -> Any:
        """See `SchemaIds`."""
        return self._ids.writer(schema_id)
