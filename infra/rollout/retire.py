"""What of an edition is removed when another has taken its place: topics, groups, schemas' subjects, state."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from infra.settings import Settings
from stream_processors.edition import Edition
from stream_processors.ledger import TOPIC as LEDGER
from stream_processors.runtime.instance import running
from stream_processors.runtime.kafka import client_config, error_of
from stream_processors.topology import NAMES

_CALL_S = 30


@dataclass(frozen=True)
class Remains:
    """What an edition still holds. `live`: processors of it that run, by group or on this machine."""

    topics: tuple[str, ...]
    groups: tuple[str, ...]
    state: tuple[Path, ...]
    live: tuple[str, ...]


def removable(edition: Edition, topics: Iterable[str]) -> list[str]:
    """Topics that go with an edition: its own, but for the ledger, which says what was destroyed."""
    return sorted(t for t in topics if edition.holds(t) and edition.plain(t) != LEDGER)


class Retirement:
    """Looks at what is left of an edition, and removes it."""

    def __init__(self, settings: Settings, edition: Edition) -> None:
        self._settings = settings.model_copy(update={"edition": edition.name})
        self._edition = edition
        self._admin = AdminClient(client_config(settings))

    def remains(self) -> Remains:
        """What there is.

        Raises:
            KafkaException: the broker is away.
        """
        topics = removable(self._edition, self._admin.list_topics(timeout=8).topics)
        known = {g.group_id for g in self._admin.list_consumer_groups(request_timeout=_CALL_S).result().valid}
        groups = [g for g in map(self._edition.group, NAMES) if g in known]
        described = self._admin.describe_consumer_groups(groups, request_timeout=_CALL_S) if groups else {}
        live = {g for g, found in described.items() if found.result().members}
        folders = {self._edition.folder(n): self._settings.state / self._edition.folder(n) for n in NAMES}
        live |= {f"{r.processor}, pid {r.pid}" for r in running(self._settings.state) if r.processor in folders}
        state = tuple(path for path in folders.values() if path.exists())
        return Remains(tuple(topics), tuple(groups), state, tuple(sorted(live)))

    def remove(self, found: Remains) -> None:
        """Remove it: groups, then topics, then the state on this machine. Safe to repeat.

        Raises:
            KafkaException: the broker is away, or refuses.
        """
        if found.groups:
            for future in self._admin.delete_consumer_groups(list(found.groups), request_timeout=_CALL_S).values():
                _unless_gone(future.exception())
        if found.topics:
            for future in self._admin.delete_topics(list(found.topics), operation_timeout=_CALL_S).values():
                _unless_gone(future.exception())
        for folder in found.state:
            shutil.rmtree(folder, ignore_errors=True)


_GONE = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.GROUP_ID_NOT_FOUND}


def _unless_gone(error: BaseException | None) -> None:
    if error is None:
        return
    if not (isinstance(error, KafkaException) and error_of(error).code() in _GONE):
        raise error
