"""The enclave's tables of a simulated cohort, as if every subject were linked rightly: to judge the report by itself.

The files are generalised by the code that `pseudonymise` uses; who is who is read from the simulator's truth. Where
the linkage is to be part of what is judged, tests fill the tables from the oracle instead.
"""

from __future__ import annotations

import tempfile
from datetime import date
from pathlib import Path

import duckdb
import polars as pl

from producers.rows import convert
from producers.simulator import simulate_to
from schemas.contracts import DATASETS, identified, kind_of
from stream_processors.enclave import tables
from stream_processors.enclave.report.source import FILE
from stream_processors.generalise import generalise

_TODAY = date(2026, 1, 1)
"""Dates in the simulator's files are earlier."""


def simulated_enclave(folder: Path, families: int, seed: int) -> Path:
    """Make `folder`/enclave.duckdb from so many simulated families; the file."""
    with tempfile.TemporaryDirectory(prefix="lethe-simulated-") as files:
        simulate_to(Path(files, "files"), families, seed)
        return write(folder, research_tables(Path(files, "files")))


def research_tables(files: Path) -> dict[str, pl.DataFrame]:
    """The tables by name, with the columns that the enclave's have, from the folder that the simulator wrote."""
    subjects = pl.read_csv(files / "truth" / "subjects.csv", infer_schema=False)
    family = pl.read_csv(files / "truth" / "persons.csv", infer_schema=False).select("person_id", "family_id")
    cohort = subjects.filter(in_cohort="true").select("supplier", "subject_id", "person_id")
    found: dict[str, list[pl.DataFrame]] = {}
    for supplier in cohort["supplier"].unique().sort():
        own = cohort.filter(supplier=supplier).select("subject_id", "person_id")
        for dataset in DATASETS[kind_of(supplier)]:
            if dataset == "person" and kind_of(supplier) != "council":
                continue
            rows = _generalised(files, supplier, dataset).join(own, on="subject_id").drop("subject_id")
            if dataset == "person":
                rows = rows.with_columns(area=pl.lit(supplier.removeprefix("council-")))
            found.setdefault(dataset, []).append(rows)
    persons = pl.concat(found.pop("person")).unique("person_id", keep="first", maintain_order=True)
    made = {name: pl.concat(parts) for name, parts in found.items()}
    return {"persons": persons.join(family, on="person_id"), **made}


def write(folder: Path, made: dict[str, pl.DataFrame]) -> Path:
    """Make `folder`/enclave.duckdb of tables; columns that they lack are missing in every row."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    path.unlink(missing_ok=True)
    with duckdb.connect(str(path)) as connection:
        tables.create(connection)
        for table in tables.tables():
            rows = made.get(table.name)
            if rows is not None and rows.height:
                names = [c.name for c in table.columns if c.name in rows.columns]
                connection.register("rows", rows.select(names).to_arrow())
                listed = ", ".join(map(tables.quoted, names))
                connection.execute(f"INSERT INTO {tables.quoted(table.name)} ({listed}) SELECT * FROM rows")  # noqa: S608
                connection.unregister("rows")
    return path


def _generalised(files: Path, supplier: str, dataset: str) -> pl.DataFrame:
    contract = identified(supplier, dataset)
    cells = pl.read_csv(files / supplier / f"{dataset}.csv", infer_schema=False)
    lines = pl.Series("line", range(cells.height), dtype=pl.Int64)
    rows = pl.DataFrame(convert(cells, lines, contract, _TODAY).batch)
    return generalise(contract, rows).with_columns(subject_id=rows[contract.subject_field])
