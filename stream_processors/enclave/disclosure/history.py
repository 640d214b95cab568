"""Two reports of a cohort that changed by a few people must not tell, by their difference, what is true of those few.

What is kept of each report is counts only, before rounding, and never leaves the enclave: the released rows, and how
many persons of each group fall into each of some thousand buckets of their pseudonyms' hashes. The buckets show how
many came and went even where as many came as went.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stream_processors.enclave.disclosure.outputs import Key, Output, Policy

BUCKETS = 4096


@dataclass(frozen=True)
class Kept:
    """Released rows of one output: numbers (counts and contributors) by key, and which keys are an interval.

    estimates: as published, so no secret; text, to compare.
    """

    rows: Mapping[Key, Mapping[str, int]]
    span: tuple[int, int] | None
    estimates: str = ""


@dataclass(frozen=True)
class Snapshot:
    """What is kept of one report. at: when it was made; cohort: persons by group and bucket."""

    at: str
    cohort: Mapping[str, Mapping[int, int]]
    outputs: Mapping[str, Kept]

    def as_json(self) -> dict[str, Any]:
        """For `from_json`."""
        return {
            "at": self.at,
            "cohort": {group: {str(b): n for b, n in buckets.items()} for group, buckets in self.cohort.items()},
            "outputs": {
                id_: {
                    "span": kept.span,
                    "rows": [{"key": list(k), "numbers": dict(n)} for k, n in kept.rows.items()],
                    "estimates": kept.estimates,
                }
                for id_, kept in self.outputs.items()
            },
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Snapshot:
        """What `as_json` gave.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        return cls(
            str(value["at"]),
            {group: {int(b): int(n) for b, n in buckets.items()} for group, buckets in dict(value["cohort"]).items()},
            {
                id_: Kept(
                    {tuple(r["key"]): {c: int(n) for c, n in r["numbers"].items()} for r in kept["rows"]},
                    None if kept["span"] is None else (int(kept["span"][0]), int(kept["span"][1])),
                    str(kept["estimates"]),
                )
                for id_, kept in dict(value["outputs"]).items()
            },
        )


def kept_of(output: Output, without: set[Key], estimates: str = "") -> Kept:
    """The rows of an output that are released, as they are kept; `estimates` as they are published."""
    columns = list(dict.fromkeys((*output.counts, *output.contributors)))
    numbers = output.cells.select(columns).iter_rows()
    rows = {
        key: {c: int(v) for c, v in zip(columns, row, strict=True)}
        for key, row in zip(output.row_keys(), numbers, strict=True)
        if key not in without
    }
    span = None
    if output.span:
        span = output.keys.index(output.span[0]), output.keys.index(output.span[1])
    return Kept(rows, span, estimates)


def moved(earlier: Snapshot, now: Mapping[str, Mapping[int, int]]) -> int:
    """Persons who came, went or changed group, at least: the sum of the buckets' differences."""
    groups = earlier.cohort.keys() | now.keys()
    return sum(
        abs(now.get(g, {}).get(b, 0) - earlier.cohort.get(g, {}).get(b, 0))
        for g in groups
        for b in now.get(g, {}).keys() | earlier.cohort.get(g, {}).keys()
    )


def too_close(earlier: Kept, now: Kept, people_moved: int, policy: Policy) -> int:
    """Rows whose numbers differ from an earlier report's, but by less than the threshold.

    Where few people moved, any difference is theirs, however large: one person may have many sessions. So is any
    difference of estimates, and where nobody moved and no count differs it is that of few records.
    Rows that are intervals of months are also compared with the earlier report's rows inside them, and the other way.
    """
    bad, apart = 0, people_moved >= policy.threshold
    few_moved = 0 < people_moved < policy.threshold
    for one, other in (*_pairs(earlier, now), *_nested(earlier, now), *_nested(now, earlier)):
        differences = [abs(one[c] - other[c]) for c in one.keys() & other.keys()]
        bad += any(0 < d < policy.threshold or (few_moved and d > 0) for d in differences)
        apart |= any(differences)
    return bad + (earlier.estimates != now.estimates and (few_moved or not apart))


def _pairs(earlier: Kept, now: Kept) -> Iterator[tuple[Mapping[str, int], Mapping[str, int]]]:
    for key in earlier.rows.keys() & now.rows.keys():
        yield earlier.rows[key], now.rows[key]


def _nested(coarse: Kept, fine: Kept) -> Iterator[tuple[Mapping[str, int], Mapping[str, int]]]:
    """Rows of `coarse` beside the sums of those rows of `fine` that make up the same months."""
    if coarse.span is None or fine.span is None:
        return
    by_rest: dict[Key, list[tuple[int, int, Mapping[str, int]]]] = {}
    for key, numbers in fine.rows.items():
        rest = tuple(k for i, k in enumerate(key) if i not in fine.span)
        by_rest.setdefault(rest, []).append((int(key[fine.span[0]]), int(key[fine.span[1]]), numbers))
    for key, numbers in coarse.rows.items():
        if key in fine.rows:
            continue
        first, last = (int(key[i]) for i in coarse.span)
        rest = tuple(k for i, k in enumerate(key) if i not in coarse.span)
        inside = [(a, b, n) for a, b, n in by_rest.get(rest, ()) if a >= first and b <= last]
        if sum(b - a for a, b, _ in inside) == last - first:
            summed = {c: sum(n[c] for _, _, n in inside) for c in numbers.keys() & _columns(inside)}
            yield numbers, summed


def _columns(rows: Sequence[tuple[int, int, Mapping[str, int]]]) -> set[str]:
    """Columns that add up over months: numbers of persons do not, one person may be in several."""
    return {c for _, _, n in rows for c in n if not c.startswith("persons")}
