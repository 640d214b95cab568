"""What a proof says: what was found that should be gone, what is within its bound, what was looked at, and what was
not. Places and counts, never a value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from stream_processors.ledger import Head, Line

Mode = Literal["kept to the ledger", "nothing left"]
Kind = Literal[
    "ledger",  # a line is not as it was written
    "live",  # a record that the ledger says was destroyed, or what was made of it
    "overdue",  # a record that has expired by the confirmed day
    "ungrounded",  # a record downstream that no record upstream stands behind
    "bytes",  # a dead value that is on disk for longer than its bound
    "needle",  # a text that is to be nowhere
    "state",  # a state directory that was not swept in time, or that nobody sweeps
    "enclave",  # an enclave that has not said that it has forgotten
    "left",  # anything at all, where nothing may be
    "at rest",  # the flow is still moving: what is found may be passing
    "unreadable",  # something that had to be looked at and could not be read
]
_MOST = 1_000


@dataclass(frozen=True)
class Finding:
    """Something that stands against the proof. `where`: topic-partition@offset, or a file."""

    kind: Kind
    where: str
    count: int = 1
    what: str = ""


@dataclass(frozen=True)
class Pending:
    """Dead bytes that are on disk, and have until a time (ms since 1970) to go."""

    where: str
    count: int
    since_ms: int
    until_ms: int


@dataclass
class Proof:
    """The outcome. It is proved if nothing was found and nothing is pending that has to be gone."""

    mode: Mode
    at_ms: int
    findings: list[Finding] = field(default_factory=list)
    pending: list[Pending] = field(default_factory=list)
    checked: dict[str, int] = field(default_factory=dict)
    unchecked: list[str] = field(default_factory=list)
    bounds_ms: dict[str, int] = field(default_factory=dict)
    ledger: dict[str, Any] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    """Records that live, by topic: what is not destroyed yet."""

    @property
    def proved(self) -> bool:
        """Whether nothing stands against it."""
        return not self.findings

    def find(self, kind: Kind, where: str, count: int = 1, what: str = "") -> None:
        """Note a finding; after a thousand of a kind their number alone."""
        if sum(f.kind == kind for f in self.findings) < _MOST:
            self.findings.append(Finding(kind, where, count, what))
        else:
            last = Finding(kind, "further places", 0, "")
            self.findings = [f for f in self.findings if (f.kind, f.where) != (kind, last.where)] + [
                Finding(kind, last.where, count + sum(f.count for f in self.findings if f.where == last.where), "")
            ]

    def saw(self, what: str, count: int) -> None:
        """Count something that was looked at."""
        self.checked[what] = self.checked.get(what, 0) + count

    def pending_by_topic(self) -> dict[str, Pending]:
        """What is pending by topic: how many values, since the first came, until the last must go."""
        out: dict[str, Pending] = {}
        for p in self.pending:
            topic = p.where.rpartition("-")[0]
            o = out.get(topic, Pending(topic, 0, p.since_ms, p.until_ms))
            out[topic] = Pending(topic, o.count + p.count, min(o.since_ms, p.since_ms), max(o.until_ms, p.until_ms))
        return out

    def as_json(self) -> dict[str, Any]:
        """For `--json` and the certificate."""
        return {"proved": self.proved, **asdict(self)}


def ledger_summary(lines: Iterable[Line], heads: Mapping[tuple[str, int], Head]) -> dict[str, Any]:
    """Lines by supplier, dataset and reason, and the end of each chain."""
    counts = Counter((line["supplier"], line["dataset"] or line["kind"], line["why"]) for line in lines)
    return {
        "lines": sum(counts.values()),
        "destroyed": [
            {"supplier": s, "dataset": d, "reason": w, "records": n} for (s, d, w), n in sorted(counts.items())
        ],
        "heads": [
            {"chain": f"{kind}-{partition}", "lines": head.sequence, "digest": head.digest}
            for (kind, partition), head in sorted(heads.items())
        ],
    }


def heads_of(lines: Iterable[Line]) -> dict[tuple[str, int], Head]:
    """Where each chain ends, by its lines in log order."""
    return {(line["kind"], line["partition"]): Head(line["sequence"] + 1, line["digest"]) for line in lines}
