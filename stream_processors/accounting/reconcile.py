"""Whether every record is accounted for, from what lies on the topics: batches, accounts and hops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import polars as pl

from schemas.contracts import identified_topic
from schemas.registry import SchemaIds
from schemas.rows import from_value
from stream_processors import clock, ledger
from stream_processors.accounting import hops
from stream_processors.accounting.batches import BatchReport, State, outcome_of, report, short_batch
from stream_processors.accounting.hops import Finding
from stream_processors.accounting.tables import Held, Source, held
from stream_processors.clock import Clock
from stream_processors.runtime.account import SKIPPED, Account
from stream_processors.runtime.account import TOPIC as ACCOUNTS
from stream_processors.runtime.records import HEARTBEAT_KEY

BATCHES = "governance.batch"
STALLED_MS = 300_000
"""After so long without a commit a processor that is behind counts as stalled."""


@dataclass(frozen=True)
class Behind:
    """A partition that a processor has not taken in to its end."""

    processor: str
    topic: str
    partition: int
    committed: int
    end: int


@dataclass(frozen=True)
class DatasetReport:
    """Everything of one dataset of a supplier. `outcomes`: of what is held; `ended`: of what was destroyed, by why."""

    supplier: str
    dataset: str
    read: int
    accepted: int
    deletions: int
    quarantined: int
    held: int
    outcomes: Mapping[str, int]
    ended: Mapping[str, int]
    replaced: int
    deleted: int


@dataclass(frozen=True)
class Report:
    """The whole. `state` is balanced if nothing was found and the flow is at rest."""

    state: State
    findings: Sequence[Finding]
    behind: Sequence[Behind]
    batches: Sequence[BatchReport]
    datasets: Sequence[DatasetReport]
    notes: Sequence[str] = ()

    def of(self, supplier: str | None, batch: str | None) -> Report:
        """What concerns one supplier, or one batch (its id or the start of it). The state is that of its batches."""
        if supplier is None and batch is None:
            return self
        batches = [b for b in self.batches if supplier in (None, b.supplier) and b.batch_id.startswith(batch or "")]
        datasets = [d for d in self.datasets if supplier in (None, d.supplier)] if batch is None else []
        states = {b.state for b in batches}
        state: State = "differs" if "differs" in states else "pending" if "pending" in states else "balanced"
        own = [f for b in batches for f in b.findings]
        return Report(state, own, self.behind if state == "pending" else (), batches, datasets, self.notes)

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        found = asdict(self)
        for of, row in zip(self.batches, found["batches"], strict=True):
            row["match_rate"] = round(of.match_rate, 4) if of.match_rate is not None else None
        return found


@dataclass
class _Read:
    """What is read besides the tables."""

    accounts: list[Account] = field(default_factory=list)
    batches: list[dict[str, Any]] = field(default_factory=list)
    confirmed: dict[tuple[str, int], int] = field(default_factory=dict)
    ended: Counter[tuple[str, str, str]] = field(default_factory=Counter)


def reconcile(
    source: Source,
    ids: SchemaIds,
    partitions: int,
    *,
    behind: Sequence[Behind] = (),
    committed: Mapping[tuple[str, str, int], int] | None = None,
    stop: int | None = None,
    now_ms: int = 0,
) -> Report:
    """Read everything and hold it together.

    Args:
        source: the topics.
        ids: schemas by topic.
        partitions: how many each topic has.
        behind: where processors are not at the end of their inputs; hops are looked at only at rest.
        committed: the next offset of each processor, topic and partition.
        stop: the day (since 1970) from which nothing may be held.
        now_ms: what time it is, for what is open or stands still for too long.
    """
    read = _read(source, ids)
    tables, offsets = held(source), committed or {}
    return judged(
        read.accounts, read.batches, tables, partitions, read.confirmed, read.ended, behind, offsets, stop, now_ms
    )


def judged(
    accounts: Sequence[Account],
    batches: Sequence[Mapping[str, Any]],
    tables: Held,
    partitions: int,
    confirmed: dict[tuple[str, int], int],
    ended: Mapping[tuple[str, str, str], int],
    behind: Sequence[Behind],
    committed: Mapping[tuple[str, str, int], int],
    stop: int | None,
    now_ms: int,
) -> Report:
    """The judgement, on what was read."""
    resting = not behind
    live = outcome_of(tables["linkage.activity"], hops.outcomes_of(tables["linkage.link"]))
    mine = [a for a in accounts if a.processor == "pseudonymise"]
    belonging: dict[tuple[str, str], list[Account]] = {}
    for a in mine:
        belonging.setdefault((a.topic, a.batch), []).append(a)
    reports = []
    for batch in batches:
        topic = identified_topic(batch["supplier"], batch["dataset"])
        of = [a for b in {"", batch["publication"]} for a in belonging.get((topic, b), ())]
        reports.append(report(batch, of, live, now_ms, not resting))
    reports.sort(key=lambda b: (b.supplier, b.dataset, b.batch_id))
    findings = [*_kept(accounts), *_offsets(accounts, committed), *_stalled(accounts, behind, now_ms)]
    if resting:
        findings += hops.check(tables, partitions, confirmed, stop)
        findings += _comings_and_goings(accounts, tables)
    findings += [*_told_twice(batches), *(f for b in reports for f in b.findings)]
    pending = bool(behind) or any(b.state == "pending" for b in reports)
    notes = [] if accounts else ["no processor keeps accounts: LETHE_ACCOUNTS is false, or none has run"]
    return Report(
        "differs" if findings else "pending" if pending else "balanced",
        findings,
        behind,
        reports,
        _datasets(accounts, live, ended),
        notes,
    )


def _kept(accounts: Iterable[Account]) -> Iterable[Finding]:
    """What the processors have found themselves, transaction by transaction."""
    for account in accounts:
        for i in account.imbalances:
            for r in i.ranges:
                yield Finding(
                    account.processor, i.rule, r.topic, account.partition, r.since, r.next, i.expected, i.found
                )


def _offsets(accounts: Iterable[Account], committed: Mapping[tuple[str, str, int], int]) -> Iterable[Finding]:
    """Accounts are committed with the offsets, so the two are one."""
    for a in accounts:
        offset = committed.get((a.processor, a.topic, a.partition))
        if a.topic and not a.batch and offset is not None and a.next < offset:
            yield Finding(a.processor, SKIPPED, a.topic, a.partition, a.next, offset, offset - a.next, 0)


def _told_twice(batches: Iterable[Mapping[str, Any]]) -> Iterable[Finding]:
    """Records that two batches claim: both would balance."""
    of: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for batch in batches:
        if batch["publication"] and not batch["open"]:
            topic = identified_topic(batch["supplier"], batch["dataset"])
            of.setdefault((topic, batch["publication"]), []).append(batch)
    for (topic, _), told in sorted(of.items()):
        if len(told) > 1:
            rule = (
                f"what is published is announced once ({', '.join(sorted(short_batch(b['batch_id']) for b in told))})"
            )
            spans = list(zip(told[0]["starts"], told[0]["ends"], strict=True))
            first = next((p for p, (since, end) in enumerate(spans) if end > since), 0)
            since, end = spans[first] if spans else (0, 0)
            yield Finding("publisher", rule, topic, first, since, end, 1, len(told))


def _stalled(accounts: Iterable[Account], behind: Iterable[Behind], now_ms: int) -> Iterable[Finding]:
    last = {(a.processor, a.topic, a.partition): a.at_ms for a in accounts if not a.batch}
    for b in behind:
        at = last.get((b.processor, b.topic, b.partition), 0)
        if now_ms - at > STALLED_MS:
            rule = "a partition is read to its end"
            yield Finding(b.processor, rule, b.topic, b.partition, b.committed, b.end, b.end - b.committed, 0)


def _comings_and_goings(accounts: Iterable[Account], tables: Held) -> Iterable[Finding]:
    """What retention saw come, and not go, is held."""
    for a in accounts:
        if not a.processor.startswith("retention.") or a.batch or a.topic not in tables.tables:
            continue
        rows = tables[a.topic].filter(pl.col("partition") == a.partition)
        name = pl.concat_str("supplier", pl.col("dataset").fill_null(a.topic.partition(".")[2]), separator="|")
        here = dict(rows.group_by(name.alias("name")).len().iter_rows())
        balance: Counter[str] = Counter()
        for said, n in a.counts.items():
            whose, _, what = said.rpartition(" ")
            balance[whose] += {"new": n, "deleted": -n, "destroyed": -n}.get(what, 0)
        for whose in sorted(balance.keys() | here.keys()):
            if balance[whose] != here.get(whose, 0):
                rule = f"what came of {whose.replace('|', '.')} and did not go is held"
                yield Finding(
                    a.processor, rule, a.topic, a.partition, a.since, a.next, balance[whose], here.get(whose, 0)
                )


def _datasets(
    accounts: Iterable[Account], live: pl.DataFrame, ended: Mapping[tuple[str, str, str], int]
) -> list[DatasetReport]:
    counts: dict[str, Counter[str]] = {}
    for a in accounts:
        of_a_supplier = a.topic.startswith("identified.") and not a.topic.endswith(".enquiry")
        if a.processor == "pseudonymise" and of_a_supplier and not a.batch:
            of = counts.setdefault(a.topic, Counter())
            of.update(a.counts)
            of["read"] += a.read - a.heartbeats
        elif a.processor == "retention.activity":
            for said, n in a.counts.items():
                whose, _, what = said.rpartition(" ")
                if whose.count("|") == 1:
                    counts.setdefault(identified_topic(*whose.split("|")), Counter())[what] += n
    out = []
    for topic, of in sorted(counts.items()):
        _, supplier, dataset = topic.split(".")
        rows = live.filter((pl.col("supplier") == supplier) & (pl.col("dataset") == dataset))
        out.append(
            DatasetReport(
                supplier,
                dataset,
                of["read"],
                of["accepted"],
                of["deletions"],
                of["quarantined"],
                rows.height,
                dict(rows.group_by("found").len().sort("found").iter_rows()),
                {why: n for (s, d, why), n in sorted(ended.items()) if (s, d) == (supplier, dataset)},
                of["replaced"],
                of["deleted"],
            )
        )
    return out


def _read(source: Source, ids: SchemaIds) -> _Read:
    out = _Read()
    out.accounts = [Account.of_row(row) for row in _rows(source, ACCOUNTS, ids).values()]
    out.batches = list(_rows(source, BATCHES, ids).values())
    for kind in ("identity", "activity"):
        for r in source(f"state.retention.{kind}"):
            day = Clock.unpacked(r.value).confirmed if r.key == clock.ROW else None
            if day is not None:
                out.confirmed[f"linkage.{kind}", r.partition] = day
    for line in _rows(source, ledger.TOPIC, ids).values():
        if line["kind"] == "activity" and line["tombstone"] is None:  # the others are among what was deleted
            out.ended[line["supplier"], line["dataset"], line["why"]] += 1
    return out


def _rows(source: Source, topic: str, ids: SchemaIds) -> dict[tuple[int, bytes], dict[str, Any]]:
    """A governance topic as rows, by partition and key."""
    values: dict[tuple[int, bytes], bytes] = {}
    for r in source(topic):
        if r.key == HEARTBEAT_KEY:
            continue
        if r.value is None:
            values.pop((r.partition, r.key), None)
        else:
            values[r.partition, r.key] = r.value
    return {key: from_value(topic, value, ids) for key, value in values.items()}
