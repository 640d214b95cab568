"""Enclave tables by hand: persons, and things that happened to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from infra.simulated_enclave import write
from stream_processors.enclave.report import source
from stream_processors.enclave.report.source import Source

START = date(2013, 6, 1)
_MONTHS = ("month", "offence_month", "start_month", "end_month")


def month(text: str) -> date:
    """`2013-06`."""
    year, of_year = text.split("-")
    return date(int(year), int(of_year), 1)


def person(id_: str, family: str, status: str, born: int, start: date | None = START) -> dict[str, Any]:
    return {
        "person_id": id_, "family_id": family, "programme_status": status, "programme_start_month": start,
        "birth_year": born, "sex": "F", "area": "north",
    }  # fmt: skip


PERSONS = [
    person("anna", "a", "participant", 1980),
    person("alf", "a", "participant", 2004),
    person("bob", "b", "comparison", 1975),
    person("bea", "b", "comparison", 2002),
]


@contextmanager
def enclave(folder: Path, persons: Sequence[dict[str, Any]] = PERSONS, **tables: str) -> Iterator[Source]:
    """An open enclave; each table as text: `person_id | column | ...`, blank for missing, months as 2013-06.

    Two rows at the ends of 2010 to 2018 say what each table covers.
    """
    made = {"persons": pl.DataFrame(persons, schema_overrides={"programme_start_month": pl.Date})}
    for name, text in tables.items():
        header, *rows = ([c.strip() for c in line.split("|")] for line in text.strip().splitlines())
        columns = {column: [_cell(column, row[i]) for row in rows] for i, column in enumerate(header)}
        made[name] = pl.DataFrame(columns, strict=False)
    write(folder, made)
    with source.opened(folder) as opened:
        yield opened


def _cell(column: str, text: str) -> Any:
    if text == "":
        return None
    if column in _MONTHS:
        return month(text)
    return int(text) if text.lstrip("-").isdigit() else text
