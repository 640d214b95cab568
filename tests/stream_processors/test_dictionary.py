"""The data dictionary is what runs, and docs/data-dictionary.md is the data dictionary."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from typer import Typer
from typer.testing import CliRunner

from infra.commands.dictionary import dictionary
from schemas.contracts import Contract
from stream_processors.dictionary import RESEARCH, entries, render

FILE = Path(__file__).parents[2] / "docs" / "data-dictionary.md"


def test_the_file_in_the_docs_is_up_to_date() -> None:
    assert FILE.read_text() == render(), "`lethe dictionary --out docs/data-dictionary.md` writes it anew"


def test_every_field_of_the_research_record_is_in_it_with_everything_said() -> None:
    found = entries()
    fields = {leaf.path for leaf in RESEARCH.leaves if leaf.kind != "array"}
    assert {f"{table}.{e.name}".removeprefix("persons.") for table, of in found.items() for e in of} == fields
    for of in found.values():
        for entry in of:
            assert all(vars(entry).values()), entry.name


@pytest.mark.parametrize(
    ("table", "name", "unit", "domain", "source", "generalised"),
    [
        ("persons", "birth_year", "year", "1880 to 2030", "date_of_birth", "to the year"),
        ("persons", "area", "code", "postcode directory", "postcode", "LSOA"),
        ("persons", "person_id", "code", "32 hex digits", "linkage", "research key"),
        ("absence", "month", "month", "first day of a month", "dfe absence: PeriodEnd", "to the month"),
        ("absence", "sessions_possible", "half-day sessions", "0 to 500", "SessionsPossible_3Term", "as supplied"),
        ("offence", "offence_group", "category", "violence, sexual", "moj offence: offence_group", "as supplied"),
        ("benefit", "months_from_start", "months", "-1200 to 1200", "derived", "two months"),
    ],
)
def test_what_is_said_of_a_field(table: str, name: str, unit: str, domain: str, source: str, generalised: str) -> None:
    entry = next(e for e in entries()[table] if e.name == name)
    assert unit in entry.unit
    assert domain in entry.domain
    assert source in entry.source
    assert generalised in entry.generalised


@pytest.mark.parametrize("change", [{"doc": ""}, {"unit": None}, {"name": "born_in"}])
def test_a_field_that_nobody_describes_is_not_rendered(change: dict[str, Any]) -> None:
    schema = copy.deepcopy(RESEARCH.json)
    field = next(f for f in schema["fields"] if f["name"] == "birth_year")
    field.update(change)
    with pytest.raises((ValueError, LookupError)):
        entries(Contract("research/person", json.dumps(schema)))


def test_the_command_writes_and_checks(tmp_path: Path) -> None:
    app = Typer()
    app.command()(dictionary)
    out, runner = tmp_path / "d.md", CliRunner()
    assert runner.invoke(app, ["--out", str(out), "--check"]).exit_code == 1
    assert runner.invoke(app, ["--out", str(out)]).exit_code == 0
    assert runner.invoke(app, ["--out", str(out), "--check"]).exit_code == 0
    assert runner.invoke(app, []).stdout == out.read_text()
