"""How long the bytes of a deleted record may stay on disk, from the settings of the cluster.

An active segment is never cleaned; it rolls at the first append after `max.compaction.lag.ms` (a heartbeat, if nothing
else comes). Then the cleaner must take it: it looks every `log.cleaner.backoff.ms`, writes the segment anew, and the
old file goes after `file.delete.delay.ms`. The tombstone, with its key, stays for `delete.retention.ms` after that and
goes the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from infra.settings import Settings
from stream_processors.runtime.kafka import client_config

CLEANING_MS = 30_000
"""What the cleaner may take for its work, and for those that are before it in its queue."""
_CALL_S = 30


@dataclass(frozen=True)
class Bound:
    """Milliseconds from a deletion until no byte of the value, and none of the key, is on disk any more."""

    value_ms: int
    key_ms: int


def bound(topic: Mapping[str, str], backoff_ms: int, heartbeat_ms: int) -> Bound:
    """The bound of a topic with these settings. `backoff_ms`: the broker's `log.cleaner.backoff.ms`."""
    roll = min(int(topic["segment.ms"]), int(topic["max.compaction.lag.ms"]))
    wait = max(roll, int(topic["max.compaction.lag.ms"])) + heartbeat_ms
    value = wait + 2 * backoff_ms + CLEANING_MS + int(topic["file.delete.delay.ms"])
    return Bound(value, 2 * value + int(topic["delete.retention.ms"]))


def state_bound_ms(settings: Settings) -> int:
    """Milliseconds until no deleted byte is in a state directory: the time between two sweeps, and the sweep."""
    return int(settings.sweep_seconds * 1000) + CLEANING_MS


def bounds(settings: Settings, topics: list[str]) -> dict[str, Bound]:
    """The bound of each topic, as its cluster is set now.

    Raises:
        KafkaException: the broker is away, or has no such topic.
    """
    admin = AdminClient(client_config(settings))
    brokers = admin.list_topics(timeout=_CALL_S).brokers
    asked = [ConfigResource(ResourceType.BROKER, str(b)) for b in brokers]
    backoff = max(
        int(f.result(timeout=_CALL_S)["log.cleaner.backoff.ms"].value) for f in admin.describe_configs(asked).values()
    )
    resources = {ConfigResource(ResourceType.TOPIC, t): t for t in topics}
    out = {}
    for resource, future in (admin.describe_configs(list(resources)) if resources else {}).items():
        entries = {name: entry.value for name, entry in future.result(timeout=_CALL_S).items()}
        out[resources[resource]] = bound(entries, backoff, int(settings.heartbeat_seconds * 1000))
    return out
