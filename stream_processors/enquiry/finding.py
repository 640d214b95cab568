"""In join: how many records of whom an enquiry is about lie in one partition, by supplier and dataset. Counts only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from schemas import contracts, wire
from schemas.codec import decode
from schemas.registry import SchemaIds
from schemas.rows import from_value, to_value
from stream_processors.refs import REF_WIDTH, ref_hash
from stream_processors.runtime.partition import partition_of
from stream_processors.runtime.records import Inputs, Outputs
from stream_processors.runtime.state import View

READS, WRITES, FOUND = "linkage.sought", "governance.finding", "linkage.found"
_ACTIVITY = contracts.contract("linkage/activity")


@dataclass(frozen=True)
class Holding:
    """Records of one dataset of one supplier. since: day of receipt of the first, if known; until: expiry of the
    last."""

    supplier: str
    dataset: str
    records: int
    since: date | None
    until: date


class Finder:
    """Holds after: each enquiry of a batch has a finding of this partition, and each order's has its references."""

    def __init__(self, schema_ids: SchemaIds, partitions: int) -> None:
        self._ids, self._partitions = schema_ids, partitions

    def take(self, view: View, batch: Inputs, out: Outputs) -> None:
        """Sought persons, against the activities and links of the partition."""
        for key, value in batch.latest().items():
            if value is None:
                continue
            sought = from_value(READS, value, self._ids)
            outcome: str = sought["outcome"]
            holdings: tuple[Holding, ...] = ()
            if outcome == "found":
                outcome, holdings = find(view, sought["person_ref"], sought["subjects"])
            if sought["erases"]:
                subjects = subjects_of(view, sought["person_ref"], sought["subjects"]) if outcome == "found" else ()
                found = {"outcome": outcome, "subjects": list(subjects)}
                out.emit(FOUND, batch.partition, [key], [to_value(FOUND, found, self._ids)])
            ref = sought["person_ref"] or min(sought["subjects"], default=None)
            row = {
                "outcome": outcome,
                "ref_hash": ref_hash(ref) if ref else None,
                "holdings": [vars(h) for h in holdings],
            }
            name = key.decode()
            out.emit(
                WRITES,
                partition_of(name, self._partitions),
                [f"{name}|{batch.partition}".encode()],
                [to_value(WRITES, row, self._ids)],
            )


def find(view: View, person_ref: str | None, subjects: Sequence[str]) -> tuple[str, tuple[Holding, ...]]:
    """`found` with what this partition holds of a person and of subjects found directly; or `ambiguous` and nothing,
    where such a subject is linked to somebody else."""
    direct = [s.encode() for s in subjects]
    person = person_ref.encode() if person_ref else None
    for linked_to in view.get_many("person_of", direct):
        if linked_to is not None and linked_to != person:
            return "ambiguous", ()
    rows = [row for s in subjects_of(view, person_ref, subjects) for row in view.scan("activities", s.encode() + b"|")]
    if not rows:
        return "found", ()
    records = decode([v[wire.HEADER_BYTES :] for _, v in rows], _ACTIVITY)
    columns = ("supplier", "dataset", "received_on", "expires_on")
    return "found", merged([_holding(r) for r in records.select(columns).to_pylist()])


def subjects_of(view: View, person_ref: str | None, subjects: Sequence[str]) -> tuple[str, ...]:
    """References of subjects found directly, and of those of this partition that are linked to a person."""
    person = person_ref.encode() if person_ref else None
    known = {k[REF_WIDTH + 1 :].decode() for k, _ in view.scan("subjects_of", person + b"|")} if person else set()
    return tuple(sorted({*subjects, *known}))


def merged(holdings: Sequence[Holding]) -> tuple[Holding, ...]:
    """One for each supplier and dataset, in that order: records added up, the first day and the last."""
    groups: dict[tuple[str, str], list[Holding]] = {}
    for h in holdings:
        groups.setdefault((h.supplier, h.dataset), []).append(h)
    return tuple(
        Holding(
            supplier,
            dataset,
            sum(h.records for h in group),
            min((h.since for h in group if h.since is not None), default=None),
            max(h.until for h in group),
        )
        for (supplier, dataset), group in sorted(groups.items())
    )


def _holding(row: Mapping[str, Any]) -> Holding:
    return Holding(row["supplier"], row["dataset"], 1, row["received_on"], row["expires_on"])
