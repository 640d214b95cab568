from __future__ import annotations

import dataclasses

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_processors.enclave.disclosure import Output, Policy, release, rules
from tests.stream_processors.enclave.disclosure.support import POLICY, entry, frequencies

ENOUGH = 40


def sums(events: int = ENOUGH, persons: int = ENOUGH, without: int = ENOUGH, largest: int = 2) -> Output:
    """Two rows; the second always passes."""
    cells = pl.DataFrame(
        {
            "group": ["looked at", "fine"],
            "events": [events, 1000],
            "persons": [persons, 900],
            "persons_without": [without, 900],
            "largest": [largest, 2],
        }
    )
    contributors = ("persons", "persons_without")
    return Output(
        "sums", "Sums", "rate", "SELECT 1", cells, ("group",), ("events",), contributors, {"events": "largest"}
    )


@pytest.mark.parametrize(
    ("what", "row", "rule"),
    [
        ("ten persons are enough", {"persons": 10}, None),
        ("nine are not", {"persons": 9}, "threshold"),
        ("nobody is not", {"persons": 0, "events": 0, "largest": 0}, "threshold"),
        ("nine events of nine persons", {"persons": 9, "events": 9}, "threshold"),
        ("all but nine: the group's secret is out", {"without": 9}, "threshold"),
        ("two persons with nine events of ten", {"events": 100, "largest": 90}, None),
        ("two persons with more than that", {"events": 100, "largest": 91}, "dominance"),
    ],
)
def test_a_row_that_breaks_a_rule_is_blank(what: str, row: dict[str, int], rule: str | None) -> None:
    released = release([sums(**row)], [], [], {}, "now")
    blank = released.published["sums"].cells["events"].is_null().to_list()
    assert blank == [rule is not None, False], what
    broken = {c.rule for c in entry(released, "sums").checks if not c.passed}
    assert broken == (set() if rule is None else {rule})


@pytest.mark.parametrize("statistic", ["minimum", "maximum", "median", "list"])
def test_a_statistic_that_is_one_persons_value_is_refused(statistic: str) -> None:
    released = release([dataclasses.replace(sums(), statistic=statistic)], [], [], {}, "now")
    assert not released.published
    assert entry(released, "sums").refused_by == "statistic"


def test_a_regression_with_few_degrees_of_freedom_is_refused() -> None:
    estimates = pl.DataFrame({"ratio": [0.7]})
    for freedom, refused in ((10, None), (9, "degrees of freedom")):
        output = dataclasses.replace(sums(), estimates=estimates, degrees_of_freedom=freedom)
        assert entry(release([output], [], [], {}, "now"), "sums").refused_by == refused


def test_an_estimate_falls_with_a_row_that_it_rests_on() -> None:
    estimates = pl.DataFrame({"ratio": [0.7123]})
    released = release([dataclasses.replace(sums(), estimates=estimates)], [], [], {}, "now")
    assert released.published["sums"].estimates is not None
    assert released.published["sums"].estimates["ratio"].to_list() == [0.71]
    released = release([dataclasses.replace(sums(persons=3), estimates=estimates)], [], [], {}, "now")
    assert "sums" not in released.published
    assert entry(released, "sums").refused_by == "threshold"


def test_an_estimate_of_a_row_falls_with_that_row_alone() -> None:
    estimates = pl.DataFrame({"group": ["looked at", "fine"], "difference": [0.1, 0.2]})
    released = release([dataclasses.replace(sums(persons=3), estimates=estimates)], [], [], {}, "now")
    found = released.published["sums"].estimates
    assert found is not None
    assert found["group"].to_list() == ["fine"]


def test_a_table_that_would_be_mostly_blank_is_refused() -> None:
    released = release([frequencies("t", {"a": 3, "b": 4, "c": 500})], [], [], {}, "now")
    assert entry(released, "t").refused_by == "threshold"
    assert not released.published


def test_contributors_that_are_not_to_be_published_are_not() -> None:
    released = release([sums()], [], [], {}, "now")
    assert released.published["sums"].cells.columns == ["group", "events"]


@given(st.integers(10, 10**7))
def test_rounding_goes_to_the_nearest_multiple_of_five(n: int) -> None:
    got = pl.select(rules.rounded(pl.lit(n), 5)).item()
    assert got % 5 == 0
    assert abs(got - n) <= 2
    low, high = rules.bounds(got, POLICY)
    assert low <= n <= high


@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(0, 3000), min_size=1, max_size=12))
def test_published_counts_are_rounded_and_their_totals_are_sums_of_them(counts: dict[str, int]) -> None:
    released = release([frequencies("t", counts)], [], [], {}, "now")
    for p in released.published.values():
        for group, n in p.cells.iter_rows():
            assert n is None or (n % 5 == 0 and abs(n - counts[group]) <= 2 and counts[group] >= 10)
        assert p.cells["persons"].sum() % 5 == 0


@pytest.mark.parametrize("limits", [{"threshold": 1}, {"base": 4}, {"base": 0}, {"dominance_k": 0.0}])
def test_limits_that_protect_nobody_are_not_taken(limits: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="threshold"):
        Policy(**limits)  # type: ignore[arg-type]


def test_the_log_has_the_query_the_checks_and_room_for_two_checkers() -> None:
    logged = entry(release([sums()], [], [], {}, "now"), "sums").as_json("tables/sums.csv", "abc")
    assert logged["query"] == "SELECT 1"
    assert {c["rule"] for c in logged["checks"]} == {
        "statistic", "degrees of freedom", "threshold", "dominance", "secondary suppression", "differencing",
    }  # fmt: skip
    assert logged["checked_by"] == [{"name": "", "date": ""}, {"name": "", "date": ""}]
    assert logged["status"] == "released"


def test_two_outputs_or_rows_of_one_name_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="same id"):
        release([sums(), sums()], [], [], {}, "now")
    twice = sums()
    twice = dataclasses.replace(twice, cells=pl.concat([twice.cells, twice.cells]))
    with pytest.raises(ValueError, match="same key"):
        release([twice], [], [], {}, "now")
