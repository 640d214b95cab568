"""What is counted: written as a specification, a table in and numbers per group and month out."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from stream_processors.enclave.report import panel, source
from stream_processors.enclave.report.design import DESIGN
from stream_processors.enclave.report.outcomes import OUTCOMES
from stream_processors.enclave.report.source import TablesUnusableError
from tests.stream_processors.enclave.report.support import PERSONS, enclave, person

BY_NAME = {o.name: o for o in OUTCOMES}
OFFENCES = """
    person_id | offence_month | offence_group | disposal_rank
    nobody    | 2010-01       | theft         |
    nobody    | 2018-12       | theft         |
"""
SPELLS = """
    person_id | benefit_type | start_month | end_month
    nobody    | JSA          | 2009-01     | 2010-01
    nobody    | JSA          | 2018-12     | 2018-12
"""
ABSENCE = """
    person_id | month   | sessions_possible | unauthorised_absence
    nobody    | 2010-07 | 300               | 0
    nobody    | 2018-07 | 300               | 0
"""


def counted(folder: Path, outcome: str, grain: int = 12, **tables: str) -> dict[tuple[str, int], tuple[int, int]]:
    """Events and exposure by group and first month, checked against the sums per family."""
    with enclave(folder, PERSONS, **tables) as opened:
        ready = panel.counted(opened, BY_NAME[outcome], DESIGN)
        by_month, _ = panel.series(opened, ready, grain, 2)
        families, _ = panel.families(opened, ready)
    assert by_month["events"].sum() == families.events.sum()
    assert by_month["exposure"].sum() == families.exposure.sum()
    rows = by_month.select("group", pl.col("from_month").cast(pl.Int64), "events", "exposure").iter_rows()
    return {(group, first): (events, exposure) for group, first, events, exposure in rows}


def offences(*rows: str) -> str:
    return OFFENCES + "\n".join(rows)


def test_an_offence_stands_in_its_month_from_the_start_beside_the_months_at_risk(tmp_path: Path) -> None:
    got = counted(
        tmp_path, "offences", 1,
        offence=offences("anna | 2013-05 | theft | 1", "anna | 2013-06 | theft |", "bob | 2015-01 | drugs |"),
    )  # fmt: skip
    assert got["participant", -1] == (1, 1)
    assert got["participant", 0] == (1, 1)
    assert got["comparison", 19] == (1, 2)  # Bea was ten in the middle of 2012
    assert sum(events for events, _ in got.values()) == 3


@pytest.mark.parametrize(
    ("why", "row"),
    [
        ("before the window", "anna | 2011-05 | theft |"),
        ("after the window", "anna | 2016-06 | theft |"),
        ("before the age of ten", "alf | 2014-05 | theft |"),
        ("without a date", "anna | | theft |"),
        ("of nobody in the cohort", "zoe | 2013-06 | theft |"),
    ],
)
def test_an_offence_outside_does_not_count(tmp_path: Path, why: str, row: str) -> None:
    got = counted(tmp_path, "offences", offence=offences(row))
    assert sum(events for events, _ in got.values()) == 0, why


def test_custody_is_those_offences_that_led_to_it(tmp_path: Path) -> None:
    got = counted(tmp_path, "custody", offence=offences("anna | 2013-07 | theft | 1", "anna | 2013-08 | theft | 7"))
    assert got["participant", 0][0] == 1


def spells(*rows: str) -> str:
    return SPELLS + "\n".join(rows)


@pytest.mark.parametrize(
    ("why", "rows", "before", "after"),
    [
        ("both ends count", ["anna | JSA | 2013-04 | 2013-07"], 2, 2),
        ("without an end: to the end of the window", ["anna | JSA | 2016-01 | "], 0, 5),
        ("without an end: to the next spell", ["anna | JSA | 2013-01 | ", "anna | ESA | 2013-03 | 2013-03"], 3, 0),
        ("overlapping months count once", ["anna | JSA | 2013-01 | 2013-04", "anna | ESA | 2013-02 | 2013-05"], 5, 0),
        ("one inside another", ["anna | JSA | 2013-01 | 2013-05", "anna | ESA | 2013-02 | 2013-03"], 5, 0),
        ("one begins as another ends", ["anna | JSA | 2013-01 | 2013-02", "anna | UC | 2013-02 | 2013-02"], 2, 0),
        ("without a start: not known when", ["anna | JSA |  | 2013-05"], 0, 0),
        ("a default date at the end", ["anna | JSA | 2016-04 | 9999-12"], 0, 2),
        ("a child's does not count", ["alf | JSA | 2013-01 | 2013-05"], 0, 0),
    ],
)  # fmt: skip
def test_months_on_a_benefit(tmp_path: Path, why: str, rows: list[str], before: int, after: int) -> None:
    got = counted(tmp_path, "benefits", benefit=spells(*rows))
    months = {
        side: sum(n for (g, m), (n, _) in got.items() if g == "participant" and (m >= 0) == side)
        for side in (False, True)
    }
    assert (months[False], months[True]) == (before, after), why
    assert sum(exposure for (g, _), (_, exposure) in got.items() if g == "participant") == 60


def absence(*rows: str) -> str:
    return ABSENCE + "\n".join(rows)


@pytest.mark.parametrize(
    ("why", "row", "month"),
    [
        ("a school year before the start", "alf | 2012-07 | 300 | 30", -12),
        ("one before that", "alf | 2011-07 | 300 | 30", -24),
        ("the school year of the start lies on both sides", "alf | 2013-07 | 300 | 30", None),
        ("its autumn term lies before", "alf | 2012-12 | 100 | 30", -12),
        ("the school year after", "alf | 2014-07 | 300 | 30", 0),
        ("a year of which the absence is missing", "alf | 2014-07 | 300 |", None),
        ("too long after", "alf | 2017-07 | 300 | 30", None),
    ],
)
def test_absence_counts_by_school_years_wholly_on_one_side(
    tmp_path: Path, why: str, row: str, month: int | None
) -> None:
    got = counted(tmp_path, "unauthorised_absence", absence=absence(row))
    possible = int(row.split("|")[2])
    assert got == ({} if month is None else {("participant", month): (30, possible)}), why


def test_a_child_without_exclusions_is_at_risk_of_them(tmp_path: Path) -> None:
    rows = """
        person_id | month   | fixed_exclusions
        nobody    | 2010-07 | 1
        nobody    | 2018-07 | 1
        alf       | 2014-07 | 2
    """
    got = counted(tmp_path, "fixed_exclusions", exclusion=rows)
    assert got["participant", 0] == (2, 1)
    assert got["comparison", 0] == (0, 1)
    assert sum(exposure for (group, _), (_, exposure) in got.items() if group == "participant") == 6


def test_who_has_no_start_is_not_compared_and_who_lacks_it_has_the_familys(tmp_path: Path) -> None:
    people = [
        *PERSONS,
        person("al", "a", "participant", 1990, start=None),
        person("cy", "c", "comparison", 1990, start=None),
    ]
    with enclave(tmp_path, people) as opened:
        assert opened.frame("SELECT person_id FROM cohort")["person_id"].sort().to_list() == [
            "al",
            "alf",
            "anna",
            "bea",
            "bob",
        ]


def test_a_series_says_how_many_people_and_who_has_most(tmp_path: Path) -> None:
    rows = offences(*["anna | 2013-07 | theft |"] * 5, "alf | 2014-12 | theft |", "anna | 2014-12 | theft |")
    with enclave(tmp_path, offence=rows) as opened:
        found, _ = panel.series(opened, panel.counted(opened, BY_NAME["offences"], DESIGN), 12, 2)
    first = found.filter(group="participant", from_month="0").to_dicts()[0]
    assert (first["events"], first["persons"], first["largest"], first["persons_without"]) == (5, 1, 5, 0)
    second = found.filter(group="participant", from_month="12").to_dicts()[0]
    assert (second["events"], second["persons"], second["largest"], second["persons_at_risk"]) == (2, 2, 2, 2)


def test_a_folder_without_tables_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TablesUnusableError, match="lethe enclave sync"), source.opened(tmp_path):
        pass
    (tmp_path / "enclave.duckdb").write_bytes(b"not a database" * 100)
    with pytest.raises(TablesUnusableError, match="cannot be opened"), source.opened(tmp_path):
        pass


def test_one_group_alone_cannot_be_compared(tmp_path: Path) -> None:
    with pytest.raises(TablesUnusableError, match="not both"), enclave(tmp_path, PERSONS[:2]):
        pass
