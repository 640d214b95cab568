"""Disclosure control over all outputs of a report at once: what is published of each, and the log for the checkers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import polars as pl

from stream_processors.enclave.disclosure import audit, history, rules
from stream_processors.enclave.disclosure.history import Snapshot
from stream_processors.enclave.disclosure.outputs import Key, Output, Place, Policy, Relation
from stream_processors.enclave.disclosure.rules import Check

Status = Literal["released", "released with blanks", "refused"]


@dataclass(frozen=True)
class LogEntry:
    """One output, what it was made by, what was checked and what came of it; `checkers` is for two people to sign."""

    id: str
    title: str
    statistic: str
    query: str
    status: Status
    refused_by: str | None
    rows: int
    blank_rows: int
    checks: tuple[Check, ...]
    checkers: tuple[str, str] = ("", "")

    def as_json(self, file: str | None, digest: str | None) -> dict[str, Any]:
        """With the file that it was written to and its SHA-256."""
        return {
            "id": self.id,
            "title": self.title,
            "statistic": self.statistic,
            "query": self.query,
            "status": self.status,
            "refused_by": self.refused_by,
            "rows": self.rows,
            "blank_rows": self.blank_rows,
            "checks": [{"rule": c.rule, "passed": c.passed, "rows": c.rows, "says": c.says} for c in self.checks],
            "file": file,
            "sha256": digest,
            "checked_by": [{"name": name, "date": ""} for name in self.checkers],
        }


@dataclass(frozen=True)
class Published:
    """What may leave of one output.

    cells: its keys and its counts, rounded; a suppressed row has blanks. estimates: None where a row is blank.
    """

    id: str
    title: str
    cells: pl.DataFrame
    estimates: pl.DataFrame | None


@dataclass(frozen=True)
class Release:
    """What a report may hold, the log, and what is kept inside the enclave to compare the next one with."""

    published: Mapping[str, Published]
    log: tuple[LogEntry, ...]
    snapshot: Snapshot


@dataclass
class _Judged:
    output: Output
    checks: list[Check]
    blank: set[Key] = field(default_factory=set)
    refused_by: str | None = None


def release(
    outputs: Sequence[Output],
    relations: Sequence[Relation],
    earlier: Sequence[Snapshot],
    cohort: Mapping[str, Mapping[int, int]],
    at: str,
    policy: Policy | None = None,
) -> Release:
    """Hold every output to every rule.

    Args:
        outputs: with ids of their own.
        relations: which numbers of them add up to the same.
        earlier: what was kept of every report that was made before.
        cohort: persons by group and bucket, see `history`.
        at: when this is, for the snapshot.
        policy: the limits; by default those of `Policy`.

    Returns:
        Outputs that pass, with blanks where a row does not. No row below the threshold, and none from which with the
        others one could be told to within less than the threshold. A refused output is in the log only.

    Raises:
        audit.UnsoundRelationError: a relation does not hold.
        ValueError: two outputs have one id, or two rows of one have one key.
    """
    policy = policy or Policy()
    judged = {o.id: _judge(o, policy) for o in outputs}
    if len(judged) != len(outputs):
        raise ValueError("two outputs have the same id")
    _suppress_more(judged, relations, policy)
    _compare(judged, earlier, cohort, policy)
    published = {j.output.id: _published(j, policy) for j in judged.values() if j.refused_by is None}
    kept = {
        j.output.id: history.kept_of(j.output, j.blank, _estimates_text(j, policy))
        for j in judged.values()
        if j.refused_by is None
    }
    return Release(published, tuple(_entry(j) for j in judged.values()), Snapshot(at, cohort, kept))


def _judge(output: Output, policy: Policy) -> _Judged:
    """The rules that need nothing but the output."""
    keys = output.row_keys()
    if len(set(keys)) != len(keys):
        raise ValueError(f"{output.id}: two rows have the same key")
    statistic, freedom = rules.statistic(output), rules.degrees_of_freedom(output, policy)
    out = _Judged(output, [statistic, freedom])
    for check in (statistic, freedom):
        if not check.passed:
            out.refused_by = check.rule
            return out
    for rule, rows, says in (
        ("threshold", rules.below_threshold(output, policy), f"{policy.threshold} or more behind every number"),
        (
            "dominance",
            rules.dominated(output, policy),
            f"the {policy.dominance_n} largest make up {policy.dominance_k:.0%} of a sum at most",
        ),
    ):
        broken = {key for key, bad in zip(keys, rows, strict=True) if bad}
        out.checks.append(Check(rule, len(broken), says))
        out.blank |= broken
        _refuse_if_bare(out, rule)
    return out


def _refuse_if_bare(judged: _Judged, rule: str) -> None:
    """Refuse an output whole if too much of it, or anything that an estimate rests on, is blank."""
    rows = judged.output.cells.height
    bare = len(judged.blank) > rules.MOST_SUPPRESSED * rows or not rows
    rests_on_all = judged.output.estimates is not None and not judged.output.estimates_by_row
    if judged.refused_by is None and (bare or (judged.blank and rests_on_all)):
        judged.refused_by = rule


def _suppress_more(judged: Mapping[str, _Judged], relations: Sequence[Relation], policy: Policy) -> None:
    """Blank what else has to go; an output that is refused over it leaves less to work anything out from."""
    places = {p for r in relations for p in (*r.left, *r.right)}
    true: dict[Place, int] = {}
    shown: dict[Place, int] = {}
    for j in judged.values():
        if not j.output.counts:
            continue
        cells = j.output.cells.select(j.output.counts)
        rounds = cells.select(rules.rounded(pl.all(), policy.base))
        for key, row, near in zip(j.output.row_keys(), cells.iter_rows(named=True), rounds.iter_rows(named=True),
                                  strict=True):  # fmt: skip
            for column in row:
                place = (j.output.id, key, column)
                if place in places:
                    true[place] = row[column]
                    if j.refused_by is None:
                        shown[place] = near[column]
    blank = {(j.output.id, key) for j in judged.values() for key in _all_blank(j)}
    more = audit.secondary(blank, true, shown, relations, policy)
    for j in judged.values():
        mine = {key for id_, key in more if id_ == j.output.id}
        says = f"no blank can be told to within {policy.threshold} from the other numbers"
        j.checks.append(Check("secondary suppression", len(mine), says))
        j.blank |= mine
        _refuse_if_bare(j, "secondary suppression")


def _all_blank(j: _Judged) -> set[Key]:
    return set(j.output.row_keys()) if j.refused_by is not None else j.blank


def _compare(
    judged: Mapping[str, _Judged],
    earlier: Sequence[Snapshot],
    cohort: Mapping[str, Mapping[int, int]],
    policy: Policy,
) -> None:
    """Refuse what differs too little from what an earlier report released."""
    moved = [history.moved(snapshot, cohort) for snapshot in earlier]
    for j in judged.values():
        now = history.kept_of(j.output, _all_blank(j), _estimates_text(j, policy))
        close = 0
        for snapshot, people_moved in zip(earlier, moved, strict=True):
            if j.output.id in snapshot.outputs:
                close += history.too_close(snapshot.outputs[j.output.id], now, people_moved, policy)
        says = f"against {len(earlier)} earlier reports: unchanged, or changed by {policy.threshold} or more"
        j.checks.append(Check("differencing", close, says))
        if close and j.refused_by is None:
            j.refused_by = "differencing"


def _published(judged: _Judged, policy: Policy) -> Published:
    output = judged.output
    blank = pl.Series("blank", [key in judged.blank for key in output.row_keys()], dtype=pl.Boolean)
    cells = output.cells.with_columns(blank).select(
        *output.keys,
        *(pl.when(~pl.col("blank")).then(rules.rounded(pl.col(c), policy.base)).alias(c) for c in output.counts),
    )
    return Published(output.id, output.title, cells, _estimates(judged, policy))


def _estimates(judged: _Judged, policy: Policy) -> pl.DataFrame | None:
    """Estimates as they are published: rounded, and without those of blank rows."""
    output = judged.output
    if output.estimates is None:
        return None
    estimates = output.estimates.with_columns(pl.col(pl.Float64).round(policy.decimals))
    if output.estimates_by_row:
        gone = pl.DataFrame(sorted(judged.blank), schema=dict.fromkeys(output.keys, pl.String), orient="row")
        estimates = estimates.join(gone, on=output.keys, how="anti", maintain_order="left")
    return estimates


def _estimates_text(judged: _Judged, policy: Policy) -> str:
    estimates = _estimates(judged, policy)
    return "" if estimates is None else estimates.write_csv()


def _entry(judged: _Judged) -> LogEntry:
    o = judged.output
    status: Status = "released with blanks" if judged.blank else "released"
    if judged.refused_by is not None:
        status = "refused"
    return LogEntry(
        o.id, o.title, o.statistic, o.query, status, judged.refused_by, o.cells.height, len(judged.blank),
        tuple(judged.checks),
    )  # fmt: skip
