"""A batch end to end: published = accepted + deletions + quarantined, and accepted by what has become of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import polars as pl

from schemas.contracts import identified_topic
from stream_processors.accounting.hops import Finding
from stream_processors.balance import TAKEN
from stream_processors.runtime.account import REQUEUED, Account

ABANDONED_MS = 600_000
"""After so long without its end a batch that is open counts as half published."""
State = Literal["pending", "balanced", "differs"]
Row = Mapping[str, Any]
"""A decoded record of `governance.batch`."""
_NONE = pl.DataFrame(schema={"batch": pl.String, "found": pl.String})
NO_PERSON = "no person record"
"""The outcome of an event whose subject has no person record."""


@dataclass(frozen=True)
class BatchReport:
    """What became of a batch. Holds if `state` is balanced: `published` = `accepted` + `deletions` + `quarantined` +
    `refused`, and `accepted` = `replaced_at_once` + the sum of `outcomes` + `no_longer_held`."""

    supplier: str
    dataset: str
    batch_id: str
    publication: str
    state: State
    read: int
    rejected: int
    published: int
    duplicates: int
    warnings: int
    accepted: int = 0
    deletions: int = 0
    quarantined: int = 0
    superseded: int = 0
    """Gone from the log before they were read: a later record has the same key."""
    replaced_at_once: int = 0
    outcomes: Mapping[str, int] = field(default_factory=dict)
    no_longer_held: int = 0
    """Replaced, deleted, expired or erased since."""
    findings: Sequence[Finding] = ()
    notes: Sequence[str] = ()
    refused: int = 0
    """Of somebody whom an order has erased."""
    requeued: int = 0
    """Went back from quarantine. They are counted once: where they ended."""

    @property
    def match_rate(self) -> float | None:
        """Of what is held, the share that belongs to a person of the cohort."""
        held = sum(self.outcomes.values())
        return sum(n for name, n in self.outcomes.items() if name.startswith("linked")) / held if held else None


def short_batch(batch_id: str) -> str:
    """As tables and messages name a batch; `lethe reconcile --batch` takes it."""
    return batch_id[:8]


def outcome_of(activities: pl.DataFrame, outcomes: pl.DataFrame) -> pl.DataFrame:
    """Live activities with `found`: what has become of each, `linked by <match key>` or the outcome of its subject."""
    joined = activities.with_columns(subject=pl.col("key").str.head(32)).join(
        outcomes.select("subject", "outcome", "match_key"), on="subject", how="left"
    )
    linked = pl.format("linked by {}", "match_key")
    return joined.with_columns(
        found=pl.when(pl.col("outcome") == "linked").then(linked).otherwise(pl.col("outcome").fill_null(NO_PERSON))
    )


def report(
    batch: Row, accounts: Iterable[Account], live: pl.DataFrame | None, now_ms: int, behind: bool
) -> BatchReport:
    """What became of one batch.

    Args:
        batch: a record of `governance.batch`.
        accounts: those of pseudonymise, of any topic.
        live: `outcome_of` all live activities; None where only what pseudonymise did is asked for.
        behind: whether the flow is not at rest, so that outcomes are still to come.
    """
    topic = identified_topic(batch["supplier"], batch["dataset"])
    of = [a for a in accounts if a.topic == topic]
    mine = {a.partition: a for a in of if a.batch == batch["publication"] and a.batch}
    whole = {a.partition: a for a in of if not a.batch}
    findings: list[Finding] = []
    notes: list[str] = []
    pending = behind
    if batch["open"]:
        if now_ms - batch["published_ms"] < ABANDONED_MS:
            pending = True
            notes.append("it is being published")
        else:
            findings += _half(batch, topic, mine)
            notes.append("its publisher has ended before its time: publish the file again")
    elif not batch["publication"]:
        notes.append("it was published by an older version, whose records do not say what they belong to")
    missing = superseded = 0
    partial = False
    for partition, count in enumerate(batch["counts"]):
        account, all_of = mine.get(partition), whole.get(partition)
        since, end = batch["starts"][partition], batch["ends"][partition]
        if count and (all_of is None or all_of.next < end):
            pending = True
            continue
        if all_of is not None and account is not None and all_of.since > since:
            partial = True
            continue
        read = account.read if account is not None else 0
        if count and all_of is not None and all_of.since > since:
            partial = True
            continue
        holes = (all_of.next - all_of.since - all_of.read) if all_of is not None else 0
        lost = count - read
        if lost > 0 and lost <= holes:
            superseded += lost
            continue
        missing += max(lost, 0)
        if lost:
            first, last = (account.since, account.next) if account is not None and lost < 0 else (since, end)
            rule = "what was published is read"
            findings.append(Finding("pseudonymise", rule, topic, partition, first, last, count, read))
        elif account is not None and count and f"{account.digest:016x}" != batch["digests"][partition]:
            rule = "what is read is what was published, to the byte (digest)"
            findings.append(Finding("pseudonymise", rule, topic, partition, account.since, account.next, count, read))
    for partition, account in sorted(mine.items()):
        told, taken = sum(account.count(name) for name in TAKEN), account.read + account.count(REQUEUED)
        if told != taken:
            rule = "what is read is accepted, a deletion, refused or quarantined"
            findings.append(Finding("pseudonymise", rule, topic, partition, account.since, account.next, taken, told))
    if not batch["open"] and batch["read"] != batch["published"] + batch["rejected"]:
        rule = "what the publisher read is published or rejected"
        told = batch["published"] + batch["rejected"]
        findings.append(Finding("publisher", rule, topic, 0, 0, 0, batch["read"], told))
    if batch["counts"] and sum(batch["counts"]) != batch["published"]:
        rule = "what was published is in the partitions"
        total = sum(batch["counts"])
        findings.append(Finding("publisher", rule, topic, 0, 0, 0, batch["published"], total))
    if partial:
        notes.append("part of it was read before accounts were kept, or is read again: not compared")
    accepted, deletions, quarantined, replaced, refused, requeued = (
        sum(a.count(name) for a in mine.values())
        for name in ("accepted", "deletions", "quarantined", "replaced", "refused", REQUEUED)
    )
    # What went back was quarantined once before; or, read anew, was good then or is no longer in the log.
    back = requeued - min(requeued, quarantined)
    quarantined -= requeued - back
    superseded, back = max(superseded - back, 0), max(back - superseded, 0)
    accepted, replaced = accepted - back, max(replaced - back, 0)
    held = (live if live is not None else _NONE).filter(
        (pl.col("batch") == batch["publication"]) & (pl.col("batch") != "")
    )
    outcomes = dict(held.group_by("found").len().sort("found").iter_rows())
    gone = accepted - replaced - held.height
    if gone < 0 and not pending and not partial:
        rule = "what is held of a batch was accepted"
        first = held.sort("partition", "offset").row(0, named=True)
        findings.append(
            Finding(
                "pseudonymise", rule, "linkage.activity", first["partition"], first["offset"], first["offset"] + 1,
                accepted - replaced, held.height,
            )
        )  # fmt: skip
    return BatchReport(
        batch["supplier"],
        batch["dataset"],
        batch["batch_id"],
        batch["publication"],
        "differs" if findings else "pending" if pending else "balanced",
        batch["read"],
        batch["rejected"],
        batch["published"],
        batch["duplicates"],
        batch["warnings"],
        accepted,
        deletions,
        quarantined,
        superseded,
        replaced,
        outcomes,
        max(gone, 0),
        tuple(findings),
        tuple(notes),
        refused,
        requeued,
    )


def _half(batch: Row, topic: str, mine: Mapping[int, Account]) -> Iterable[Finding]:
    rule = "a batch that has begun is published to its end"
    for partition, account in sorted(mine.items()):
        yield Finding("publisher", rule, topic, partition, account.since, account.next, 0, account.read)
    if not mine:
        yield Finding("publisher", rule, topic, 0, batch["starts"][0] if batch["starts"] else 0, 0, 0, 0)
