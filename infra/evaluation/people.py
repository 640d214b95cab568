"""Who is evaluated: persons and the truth about them, read from files, simulated, or of a public set."""

from __future__ import annotations

import tempfile
from pathlib import Path

import polars as pl

from infra.errors import EXIT_ERROR, fail
from producers import readers
from producers.csv_files import read as read_csv
from producers.header import Columns, UnusableFileError
from schemas.contracts import identified

COHORT, DEPARTMENT = "council-evaluated", "health"
_NAMES = ("forename", "surname", "date_of_birth", "sex", "postcode")
PERSON = Columns(("subject_id", *_NAMES, "middle_names"), ("subject_id", *_NAMES), lenient=True)
TRUTH = Columns(*[("department_subject_id", "cohort_subject_id")] * 2, lenient=True)
_SEXES = {"F": "F", "FEMALE": "F", "M": "M", "MALE": "M", "X": "X"}
_LONGEST_CELL = 10_000
"""Characters kept of a cell: matching looks at far fewer, and a record longer than a message would be refused."""


def _read(path: Path, columns: Columns) -> pl.DataFrame:
    """All rows of a file as trimmed text, blank cells null, with the column `line`; ends the command on a bad one."""
    try:
        readers.check(path)
        if path.suffix.lower() != ".csv":
            fail(f"{path}: is not CSV")
        parts: list[pl.DataFrame] = []
        with path.open("rb") as file:
            for chunk in read_csv(file, columns):
                for broken in chunk.broken:
                    fail(f"{path}, line {broken.line}: {broken.reason}")
                known = [name for name in chunk.cells.columns if not name.startswith("?")]
                parts.append(chunk.cells.select(known).with_columns(chunk.lines.alias("line")))
    except UnusableFileError as e:
        fail(f"{path}: {e}")
    except OSError as e:
        fail(f"{path}: cannot be read ({e.strerror or type(e).__name__})")
    if not sum(part.height for part in parts):
        fail(f"{path}: has a header and no rows")
    text = pl.col(pl.String).str.strip_chars()
    return pl.concat(parts).with_columns(pl.when(text != "").then(text).name.keep())


def read_persons(path: Path) -> pl.DataFrame:
    """Rows of text of a file of persons, each with a subject_id of its own."""
    rows = _read(path, PERSON)
    _refuse(path, rows.filter(pl.col("subject_id").is_null()), "subject_id", "is blank")
    first = rows.with_columns(first=pl.col("line").first().over("subject_id")).filter(pl.col("line") != pl.col("first"))
    if first.height:
        _refuse(path, first, "subject_id", f"is the same as in line {first['first'][0]}")
    return rows


def read_truth(
    path: Path, cohort: pl.DataFrame, department: pl.DataFrame, cohort_path: Path, department_path: Path
) -> pl.DataFrame:
    """The truth as `link` wants it: supplier, subject_id, cohort_supplier, cohort_id."""
    rows = _read(path, TRUTH)
    subject, person = (pl.col(name) for name in TRUTH.names)
    _refuse(path, rows.filter(subject.is_null()), TRUTH.names[0], "is blank")
    for column, of, known in ((subject, department_path, department), (person, cohort_path, cohort)):
        stray = rows.filter(column.is_not_null() & ~column.is_in(known["subject_id"].implode()))
        _refuse(path, stray, column.meta.output_name(), f"is nobody in {of}")
    torn = rows.filter(person.is_null() & person.is_not_null().any().over(subject))
    _refuse(path, torn, TRUTH.names[1], "is blank, and not in another line of the same subject")
    return rows.select(
        supplier=pl.lit(DEPARTMENT), subject_id=subject, cohort_supplier=pl.lit(COHORT), cohort_id=person
    )


def _refuse(path: Path, bad: pl.DataFrame, field: str, reason: str) -> None:
    """End the command if there are bad rows, naming the first by its line."""
    if bad.height:
        more = f" (and {bad.height - 1:,} more such lines)" if bad.height > 1 else ""
        fail(f"{path}, line {bad['line'][0]}, {field}: {reason}{more}", EXIT_ERROR)


def _table(path: Path) -> pl.DataFrame:
    return pl.read_csv(path, infer_schema=False)


def _supplied(path: Path, supplier: str) -> pl.DataFrame:
    """`typed` rows of a simulated supplier's file, and the supplier."""
    rows = _table(path).rename({identified(supplier, "person").subject_field: "subject_id"})
    return typed(rows).with_columns(supplier=pl.lit(supplier))


def typed(rows: pl.DataFrame) -> pl.DataFrame:
    """Persons as contracts have them, from columns of text: subject_id, and what matching reads.

    What means nothing is null: a date that no calendar has, a sex that is none of F, M, X, female and male. Names and
    postcodes stay as they are; `normalise` judges them.
    """
    if "middle_names" not in rows.columns:
        rows = rows.with_columns(middle_names=pl.lit(None, pl.String))
    iso = (
        pl.col("date_of_birth")
        .str.strip_chars()
        .str.replace(r"[T ]00:00(:00(\.0+)?)?Z?$", "")
        .str.replace(r"^([0-9]{1,2})[-/. ]([0-9]{1,2})[-/. ]([0-9]{4})$", "${3}-${2}-${1}")
        .str.replace(r"^([0-9]{4})[/. ]([0-9]{1,2})[/. ]([0-9]{1,2})$", "${1}-${2}-${3}")
        .str.replace(r"^([0-9]{4})([0-9]{2})([0-9]{2})(\.0+)?$", "${1}-${2}-${3}")
    )
    born = pl.when(iso.str.contains(r"^[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}$") & ~iso.str.starts_with("0000")).then(iso)
    sex = pl.col("sex").str.strip_chars().str.to_uppercase()
    return rows.select(
        "subject_id",
        pl.col("forename", "middle_names", "surname", "postcode").str.slice(0, _LONGEST_CELL),
        date_of_birth=born.str.to_date("%Y-%m-%d", strict=False),
        sex=sex.replace_strict(_SEXES, default=None, return_dtype=pl.String),
    )


def simulated_people(families: int, seed: int) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Simulated subjects as `typed` gives them, who each truly is, and the decoys."""
    from producers.simulator import simulate_to

    with tempfile.TemporaryDirectory(prefix="lethe-evaluate-") as folder:
        out = Path(folder, "files")
        simulate_to(out, families, seed)
        named = _table(out / "truth" / "subjects.csv").select("supplier", "subject_id", "person_id")
        people = pl.concat(
            _supplied(out / supplier / "person.csv", supplier) for supplier in named["supplier"].unique().sort()
        )
        return people, named, _table(out / "truth" / "decoys.csv")


def departments_of(named: pl.DataFrame) -> pl.DataFrame:
    """Of rows with a supplier, those of departments: those that are linked to the councils' cohort."""
    return named.filter(~pl.col("supplier").str.starts_with("council-"))


def same_person(named: pl.DataFrame) -> pl.DataFrame:
    """The truth as `link` wants it, from supplier, subject_id and person_id of every subject."""
    cohort = named.filter(pl.col("supplier").str.starts_with("council-"))
    return (
        departments_of(named)
        .join(
            cohort.select("person_id", cohort_supplier="supplier", cohort_id="subject_id"), on="person_id", how="left"
        )
        .drop("person_id")
    )


def about_departments(decoys: pl.DataFrame, named: pl.DataFrame) -> pl.DataFrame:
    """Decoys with the department subjects that they are about: decoy, kind, supplier, subject_id (null: nobody).

    A mistake in a department's record is about that subject. One in a council's is about all department subjects of
    the person, and what makes two persons alike about those of both.
    """
    numbered = decoys.with_row_index("decoy")
    its_own = pl.col("supplier").is_not_null() & ~pl.col("supplier").str.starts_with("council-")
    persons = pl.concat(
        [
            numbered.filter(~its_own).select("decoy", "kind", person_id=column)
            for column in ("person_id", "other_person_id")
        ]
    )
    return pl.concat(
        [
            numbered.filter(its_own).select("decoy", "kind", "supplier", "subject_id"),
            persons.join(departments_of(named), on="person_id", how="left").drop("person_id"),
        ]
    )
