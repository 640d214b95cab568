"""Two reports of a cohort that changed by a few people do not tell what is true of those few."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_processors.enclave.disclosure import Output, Release, Snapshot, release
from tests.stream_processors.enclave.disclosure.support import entry, frequencies

People = list[tuple[int, str]]
"""Number and area of each person."""


def report(people: People, *before: Release) -> Release:
    """A report of people by area, compared with earlier ones."""
    counts = pl.DataFrame(people, schema={"n": pl.Int64, "area": pl.String}, orient="row")["area"].value_counts()
    output = frequencies("area", dict(sorted(counts.iter_rows())))
    buckets: dict[int, int] = {}
    for n, _ in people:
        buckets[n % 97] = buckets.get(n % 97, 0) + 1
    return release([output], [], [b.snapshot for b in before], {"all": buckets}, "now")


def refused(released: Release) -> str | None:
    found = entry(released, "area").refused_by
    assert found is None or isinstance(found, str)
    return found


COHORT: People = [(n, "north" if n % 3 else "south") for n in range(600)]


def test_the_same_people_give_the_same_report_again() -> None:
    first = report(COHORT)
    again = report(COHORT, first)
    assert refused(again) is None
    assert again.published["area"].cells.equals(first.published["area"].cells)


@pytest.mark.parametrize(("fewer", "rule"), [(1, "differencing"), (9, "differencing"), (40, None)])
def test_a_few_people_who_left_are_not_told_by_the_difference(fewer: int, rule: str | None) -> None:
    assert refused(report([p for p in COHORT if p[0] % 3 == 0 or p[0] >= fewer * 3 // 2 + 1], report(COHORT))) == rule


def test_as_many_who_came_as_went_are_noticed_where_they_differ() -> None:
    """Three from the south replaced by three from the north: each number moves by three."""
    swapped = [p for p in COHORT if p[0] not in (0, 3, 6)] + [(n, "north") for n in (1000, 1001, 1003)]
    assert refused(report(swapped, report(COHORT))) == "differencing"


def test_a_large_difference_that_few_people_made_is_theirs() -> None:
    """One person left, who alone had thirty events."""

    def made(persons: int, events: int, *before: Release) -> Release:
        cells = pl.DataFrame({"group": ["all"], "events": [events], "persons": [400]})
        output = Output("e", "e", "rate", "q", cells, ("group",), ("events",), ("persons",))
        return release([output], [], [b.snapshot for b in before], {"all": {0: persons}}, "now")

    first = made(500, 900)
    assert entry(made(499, 870, first), "e").refused_by == "differencing"
    assert entry(made(450, 870, first), "e").refused_by is None


def test_every_earlier_report_is_compared_not_the_last_alone() -> None:
    first = report(COHORT)
    second = report(COHORT[40:], first)
    third = COHORT[3:]
    assert refused(second) is None
    assert refused(report(third, second)) is None
    assert refused(report(third, first, second)) == "differencing"


def test_what_was_refused_earlier_is_nothing_to_compare_with() -> None:
    first = report(COHORT)
    second = report(COHORT[3:], first)
    assert refused(second) == "differencing"
    assert "area" not in second.snapshot.outputs


@settings(max_examples=60, deadline=None)
@given(gone=st.sets(st.integers(0, 599), max_size=15), come=st.lists(st.sampled_from(["north", "south"]), max_size=15))
def test_a_number_that_is_released_twice_is_unchanged_or_far(gone: set[int], come: Sequence[str]) -> None:
    after = [p for p in COHORT if p[0] not in gone] + [(2000 + i, area) for i, area in enumerate(come)]
    first = report(COHORT)
    second = report(after, first)
    true = [{a: sum(area == a for _, area in people) for a in ("north", "south")} for people in (COHORT, after)]
    if "area" in second.published:
        assert all(abs(true[0][a] - true[1][a]) in (0, *range(10, 700)) for a in ("north", "south"))
    changed = any(0 < abs(true[0][a] - true[1][a]) < 10 for a in ("north", "south"))
    assert (refused(second) == "differencing") >= changed


@pytest.mark.parametrize(
    ("people", "ratio", "rule"),
    [(500, 0.7, None), (499, 0.71, "differencing"), (500, 0.71, "differencing"), (480, 0.71, None)],
)
def test_an_estimate_that_few_people_or_records_moved_is_theirs(people: int, ratio: float, rule: str | None) -> None:
    def made(people: int, ratio: float, *before: Release) -> Release:
        output = frequencies("e", {"all": 400})
        output = dataclasses.replace(output, estimates=pl.DataFrame({"ratio": [ratio]}), degrees_of_freedom=100)
        return release([output], [], [b.snapshot for b in before], {"all": {0: people}}, "now")

    assert entry(made(people, ratio, made(500, 0.7)), "e").refused_by == rule


def series(rows: dict[tuple[int, int], int]) -> Output:
    cells = pl.DataFrame(
        [("all", str(a), str(b), n) for (a, b), n in rows.items()],
        schema={"group": pl.String, "from_month": pl.String, "to_month": pl.String, "events": pl.Int64},
        orient="row",
    )
    return Output(
        "s", "s", "rate", "q", cells, ("group", "from_month", "to_month"), ("events",), ("events",),
        span=("from_month", "to_month"),
    )  # fmt: skip


@pytest.mark.parametrize(("quarter", "rule"), [(63, None), (65, "differencing"), (80, None)])
def test_months_that_were_published_are_compared_with_the_quarter_they_make_up(quarter: int, rule: str | None) -> None:
    months = series({(0, 1): 20, (1, 2): 21, (2, 3): 22})
    coarse = series({(0, 3): quarter})
    first = release([months], [], [], {}, "now")
    assert entry(release([coarse], [], [first.snapshot], {}, "now"), "s").refused_by == rule
    first = release([coarse], [], [], {}, "now")
    assert entry(release([months], [], [first.snapshot], {}, "now"), "s").refused_by == rule


def test_what_is_kept_is_counts_and_survives_being_written() -> None:
    kept = report(COHORT).snapshot
    text = json.dumps(kept.as_json())
    assert Snapshot.from_json(json.loads(text)) == kept
    names = {
        "at",
        "cohort",
        "estimates",
        "outputs",
        "span",
        "rows",
        "key",
        "numbers",
        "all",
        "area",
        "persons",
        "north",
        "south",
    }
    words = {w for w in text.replace('"', " ").replace(",", " ").replace(":", " ").split() if w.isalpha()}
    assert words <= names | {"null", "now"}


def test_a_snapshot_is_not_changed_by_comparing() -> None:
    first = report(COHORT)
    before = dataclasses.replace(first.snapshot)
    report(COHORT[:-20], first)
    assert first.snapshot == before
