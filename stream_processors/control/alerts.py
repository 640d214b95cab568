"""What an operator has to look at: from observations to alerts, and from alerts to what has changed of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

Kind = Literal["overdue_destruction", "token_frequency", "quarantine_ratio", "hanging_transaction", "clock_withheld"]
Severity = Literal["info", "warning", "critical"]
SAY_AGAIN_MS = 600_000


@dataclass(frozen=True)
class Observed:
    """Something that is wrong now. `where` is a topic, topic-partition, supplier or match key; never a value."""

    kind: Kind
    where: str
    severity: Severity
    count: int

    @property
    def alert_id(self) -> str:
        """The key of its alert."""
        return f"{self.kind}|{self.where}"


@dataclass(frozen=True)
class Alert:
    """A row of `governance.alert`."""

    kind: Kind
    severity: Severity
    where: str
    count: int
    first_seen_ms: int
    last_seen_ms: int

    @property
    def row(self) -> dict[str, Any]:
        """As the contract has it."""
        return dict(vars(self))


Changes = dict[str, Alert | None]


def changes(known: Mapping[str, Alert], observed: Iterable[Observed], kinds: Collection[Kind], now_ms: int) -> Changes:
    """What is to be said of alerts of these kinds, by id; None where one is over.

    One that goes on is said again when its count or severity changes, and every ten minutes besides.
    """
    out: Changes = {}
    seen = {o.alert_id: o for o in observed}
    for id_, o in seen.items():
        old = known.get(id_)
        new = Alert(o.kind, o.severity, o.where, o.count, old.first_seen_ms if old else now_ms, now_ms)
        same = old is not None and replace(new, last_seen_ms=old.last_seen_ms) == old
        if old is None or not same or now_ms - old.last_seen_ms >= SAY_AGAIN_MS:
            out[id_] = new
    out.update({id_: None for id_, a in known.items() if a.kind in kinds and id_ not in seen})
    return out


@dataclass(frozen=True)
class Stable:
    """A last stable offset below the end of the log, and since when (ms) it has been there."""

    offset: int
    since_ms: int


def hanging(
    before: Mapping[str, Stable], ends: Mapping[str, tuple[int, int]], now_ms: int, bound_ms: int
) -> tuple[dict[str, Stable], list[Observed]]:
    """Partitions whose last stable offset has stood below the high watermark for longer than a transaction may last.

    An open transaction holds back readers, and the cleaner with them: nothing behind it is erased. `ends` has the last
    stable offset and the high watermark of each `topic-partition`. Found as `kafka-transactions find-hanging` does
    (KIP-664), from the outside.
    """
    now: dict[str, Stable] = {}
    out: list[Observed] = []
    for where, (stable, high) in ends.items():
        if stable >= high:
            continue
        old = before.get(where)
        now[where] = held = old if old is not None and old.offset == stable else Stable(stable, now_ms)
        if now_ms - held.since_ms > bound_ms:
            out.append(Observed("hanging_transaction", where, "critical", high - stable))
    return now, out


def overdue(waiting: Mapping[str, tuple[int, int]], now_ms: int, bound_ms: int) -> list[Observed]:
    """Partitions of the clock on which `retention` has left a tick lying: how many ticks, and since when (ms) the
    oldest."""
    return [
        Observed("overdue_destruction", where, "critical", ticks)
        for where, (ticks, oldest_ms) in waiting.items()
        if ticks and now_ms - oldest_ms > bound_ms
    ]


def quarantined(
    published: Mapping[str, int], failed: Mapping[str, int], warn: float = 0.01, least: int = 10
) -> list[Observed]:
    """Datasets (`supplier.dataset`) of which more than a hundredth is in quarantine; a tenth is critical."""
    out = []
    for where, count in failed.items():
        ratio = count / max(published.get(where, 0), count)
        if count >= least and ratio > warn:
            out.append(Observed("quarantine_ratio", where, "critical" if ratio > 10 * warn else "warning", count))
    return out
