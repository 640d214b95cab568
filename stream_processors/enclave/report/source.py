"""The enclave's DuckDB file, opened to be read, and who is compared.

`cohort` has one row per person who can be compared: integers for person, family, month of start and year of birth.
Months are numbered from January of year 0, so that they subtract.
"""

# ruff: noqa: S608  (names in the SQL are this package's, and never of a record)

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import polars as pl

from stream_processors.enclave import tables

FILE = "enclave.duckdb"
CRITERIA = ("crime", "education", "children", "work", "abuse", "health")
_CATALOGUE = "enclave"

COHORT = f"""
CREATE TEMP TABLE cohort AS
WITH known AS (
    SELECT p.person_id,
           coalesce(p.family_id, 'alone ' || p.person_id) AS family_id,
           p.programme_status = 'participant' AS participant,
           coalesce(p.programme_start_month, f.programme_start_month) AS start_month,
           p.birth_year, p.sex, p.area,
           {", ".join(f"coalesce(p.criterion_{c}, false) AS {c}" for c in CRITERIA)}
    FROM persons p LEFT JOIN families f USING (family_id)
    WHERE p.programme_status IS NOT NULL
)
SELECT person_id,
       row_number() OVER (ORDER BY person_id)::INTEGER AS person,
       dense_rank() OVER (ORDER BY family_id)::INTEGER AS family,
       participant,
       (year(start_month) * 12 + month(start_month) - 1)::INTEGER AS start,
       birth_year::INTEGER AS born,
       sex, area, {", ".join(CRITERIA)}
FROM known WHERE start_month IS NOT NULL
"""


class TablesUnusableError(RuntimeError):
    """There is no enclave file, or it lacks tables; the message says what to do."""


@dataclass(frozen=True)
class Source:
    """An open enclave file with the temporary table `cohort`."""

    connection: duckdb.DuckDBPyConnection

    def frame(self, query: str) -> pl.DataFrame:
        """The rows that a query gives."""
        found = pl.from_arrow(self.connection.sql(query).to_arrow_table())
        assert isinstance(found, pl.DataFrame)
        return found

    def persons(self) -> int:
        """Rows of `cohort`."""
        return int(self.frame("SELECT count(*) AS n FROM cohort").item())


@contextmanager
def opened(folder: Path, memory_mb: int = 2048, threads: int | None = None) -> Iterator[Source]:
    """The file in `folder`, read-only: a sync may not write it meanwhile.

    Raises:
        TablesUnusableError: no such file, in use by a writer, not an enclave file, or nobody in it to compare.
    """
    path = folder / FILE
    if not path.is_file():
        raise TablesUnusableError(f"{path}: no such file; `lethe enclave sync --to {folder}` makes it")
    # In memory, with the file attached: temporary tables then lie nowhere on disk but in DuckDB's spill folder.
    with duckdb.connect(":memory:", config={"memory_limit": f"{memory_mb}MB"}) as connection:
        if threads:
            connection.execute(f"SET threads = {threads}")
        try:
            connection.execute(f"ATTACH {_text(str(path))} AS {_CATALOGUE} (READ_ONLY)")
        except duckdb.Error as e:
            raise TablesUnusableError(f"{path}: cannot be opened ({type(e).__name__}); does a sync write it?") from e
        connection.execute(f"USE {_CATALOGUE}")
        yield _prepared(connection, path)


def _prepared(connection: duckdb.DuckDBPyConnection, path: Path) -> Source:
    _check(connection, path)
    connection.execute(COHORT)
    source = Source(connection)
    groups = source.frame("SELECT count(DISTINCT participant) AS n FROM cohort").item()
    if groups != 2:
        raise TablesUnusableError(f"{path}: holds not both participants and comparison families with a start month")
    return source


def _check(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Whether every table and column is there that the research contract has."""
    found = set(
        connection.execute(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_catalog = ?", [_CATALOGUE]
        ).fetchall()
    )
    missing = [f"{t.name}.{c.name}" for t in tables.tables() for c in t.columns if (t.name, c.name) not in found]
    missing += [tables.FAMILIES] if not any(table == tables.FAMILIES for table, _ in found) else []
    if missing:
        raise TablesUnusableError(f"{path}: lacks {', '.join(missing[:3])}; `lethe enclave sync` rebuilds it")


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
