"""The tables of `lethe demo` can be read in a terminal of 80 columns, and say what the report has."""

from __future__ import annotations

import io
from datetime import date

import pytest
from rich.console import Console

from infra.demo_tables import Report, show_demo

SUPPLIERS = ("council-febrl", "council-northam", "council-southam", "dfe", "dwp", "health", "moj")
KEYS = [f"k{i:02}" for i in range(1, 32)] + ["p01", "p02", "q01"]


@pytest.fixture
def report() -> Report:
    warnings = {"date_of_birth": {"is a default date": 4}, "postcode": {"is no postcode": 2, "is empty": 1}}
    return Report(
        control_totals=[
            {"supplier": s, "dataset": "safeguarding", "read": 123_456, "published": 123_450, "rejected": 6,
             "warnings": warnings} for s in SUPPLIERS
        ],
        outcomes={
            s: {key: 1_000 * i + n for n, key in enumerate(KEYS)} | {"waiting": 99_000 + i, "ambiguous": 40 + i}
            for i, s in enumerate(SUPPLIERS, start=1)
        },
        quality={"simulated": {"subjects": 18_624, "true matches": 9_323, "linked": 9_077, "precision": 0.99942,
                               "recall": 0.97312}},
        research_records=12_101,
        example={
            "person_id": "248d43f6e805efe4334e06161dfab133",
            "programme_start_month": date(2013, 2, 1),
            "criterion_work": True,
            "area": None,
            "absence": [{"month": date(2012, 7, 1), "sessions_possible": 393, "authorised_absence": None}] * 2,
            "employment": [],
        },
        seconds={"in all": 65.31},
        records_per_second=2_440.4,
        differences=[],
        enclave={"rows": {"persons": 12_101}, "file": "/tmp/enclave.duckdb"},
    )  # fmt: skip


@pytest.fixture
def lines(report: Report) -> list[list[str]]:
    out = io.StringIO()
    show_demo(report, Console(file=out, width=80))
    text = out.getvalue().splitlines()
    assert all(len(line) <= 80 for line in text)
    return [line.split() for line in text]


def test_every_supplier_and_match_key_has_its_count(report: Report, lines: list[list[str]]) -> None:
    for key in KEYS:
        assert [key, *(f"{report.outcomes[s][key]:,}" for s in SUPPLIERS)] in lines
    linked = [sum(report.outcomes[s][key] for key in KEYS) for s in SUPPLIERS]
    assert ["linked", *(f"{n:,}" for n in linked)] in lines
    assert ["waiting", *(f"{report.outcomes[s]['waiting']:,}" for s in SUPPLIERS)] in lines
    assert ["contested"] in lines


def test_warnings_are_counted(lines: list[list[str]]) -> None:
    assert lines.count(["dfe", "safeguarding", "123,456", "123,450", "6", "7"]) == 1


def test_a_record_reads_as_people_write(lines: list[list[str]]) -> None:
    assert ["programme_start_month", "2013-02"] in lines
    assert ["criterion_work", "yes"] in lines
    assert ["absence", "2,", "the", "first:", "month", "2012-07,", "sessions_possible", "393"] in lines
    assert ["employment", "none"] in lines
