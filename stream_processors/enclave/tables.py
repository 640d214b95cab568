"""The enclave's tables, as the research contract says: `persons`, one table per array field, and `families` over them.

`persons` has a column for each scalar field. A table named as an array field has `person_id` and the item's fields.
`families` is a view over `persons`, so it cannot be out of step with it. The contract's descriptions are the comments.
"""

# ruff: noqa: S608  (names in the SQL are the contract's, and never of a record)

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from schemas import contracts
from schemas.codec import arrow_schema
from schemas.contracts import Contract, Field

KEY = "person_id"
PERSONS = "persons"
FAMILIES = "families"
RESEARCH = contracts.contract("research/person")

_TYPES = {
    "string": "VARCHAR",
    "enum": "VARCHAR",
    "boolean": "BOOLEAN",
    "int": "INTEGER",
    "long": "BIGINT",
    "float": "FLOAT",
    "double": "DOUBLE",
    "date": "DATE",
}
_FAMILIES = f"""
    CREATE VIEW {FAMILIES} AS
    SELECT family_id,
           max(programme_status) AS programme_status,
           min(programme_start_month) AS programme_start_month,
           count(*)::INTEGER AS persons
    FROM {PERSONS} WHERE family_id IS NOT NULL GROUP BY family_id
"""
"""`participant` sorts after `comparison`: a family with one participant took part."""
_FAMILY_COMMENTS = {
    "family_id": "The family, under the research key only",
    "programme_status": "participant if any of its persons took part, else comparison",
    "programme_start_month": "Earliest month in which the programme (or wait) of one of its persons started",
    "persons": "Number of its persons in the table persons",
}


@dataclass(frozen=True)
class Column:
    """One column: its SQL type and the contract's description."""

    name: str
    type: str
    nullable: bool
    comment: str


@dataclass(frozen=True)
class Table:
    """One table; `field` is the array field of the contract that it holds, None for `persons`."""

    name: str
    field: str | None
    columns: tuple[Column, ...]
    comment: str


@cache
def tables(contract: Contract = RESEARCH) -> tuple[Table, ...]:
    """`persons`, then one table per array field, in the contract's order.

    Raises:
        ValueError: a field is of a type that a table cannot have.
    """
    key = next(_column(f) for f in contract.fields if f.name == KEY)
    scalars = tuple(_column(f) for f in contract.fields if f.kind != "array")
    out = [Table(PERSONS, None, scalars, str(contract.json.get("doc", "")))]
    for array in (f for f in contract.fields if f.kind == "array"):
        prefix = f"{array.name}."
        items = tuple(_column(leaf) for leaf in contract.leaves if leaf.path.startswith(prefix))
        out.append(Table(array.name, array.name, (key, *items), array.doc))
    return tuple(out)


def _column(field: Field) -> Column:
    if field.kind not in _TYPES:
        raise ValueError(f"{field.path}: a column cannot be of type {field.kind}")
    return Column(field.name, _TYPES[field.kind], field.nullable, field.doc)


def create(connection: duckdb.DuckDBPyConnection, contract: Contract = RESEARCH, catalog: str | None = None) -> None:
    """Make the empty tables with their comments, in an attached database if one is named."""
    if catalog:
        before = str(connection.sql("SELECT current_catalog()").fetchall()[0][0])
        connection.execute(f"USE {quoted(catalog)}")
    for table in tables(contract):
        columns = (f"{quoted(c.name)} {c.type}{'' if c.nullable else ' NOT NULL'}" for c in table.columns)
        connection.execute(f"CREATE TABLE {quoted(table.name)} ({', '.join(columns)})")
        connection.execute(f"COMMENT ON TABLE {quoted(table.name)} IS {_text(table.comment)}")
        for c in table.columns:
            connection.execute(f"COMMENT ON COLUMN {quoted(table.name)}.{quoted(c.name)} IS {_text(c.comment)}")
    connection.execute(_FAMILIES)
    connection.execute(f"COMMENT ON VIEW {FAMILIES} IS 'Families with at least one person, derived from persons'")
    for name, comment in _FAMILY_COMMENTS.items():
        connection.execute(f"COMMENT ON COLUMN {FAMILIES}.{name} IS {_text(comment)}")
    if catalog:
        connection.execute(f"USE {quoted(before)}")


def fill(connection: duckdb.DuckDBPyConnection, batches: Iterable[pa.RecordBatch], create_them: bool = True) -> None:
    """Put decoded research records into the tables: what a sync does, without Kafka.

    Args:
        connection: a DuckDB database; the tables are made unless `create_them` is false.
        batches: columns as `schemas.codec.arrow_schema` has them for `research/person`; the last of a person holds.
    """
    if create_them:
        create(connection)
    for batch in batches:
        connection.execute("BEGIN")
        last = {person: row for row, person in enumerate(batch.column(KEY).to_pylist())}
        apply(connection, batch.take(pa.array(last.values(), pa.int64())), [])
        connection.execute("COMMIT")


def apply(
    connection: duckdb.DuckDBPyConnection,
    upserts: pa.RecordBatch,
    gone: Sequence[str],
    contract: Contract = RESEARCH,
) -> int:
    """Replace the persons of `upserts` and delete those of `gone`, inside the caller's transaction.

    Args:
        connection: with the tables.
        upserts: decoded research records, one per person, columns as in `arrow_schema`.
        gone: person ids, none of them in `upserts`.
        contract: what the tables were made from.

    Returns:
        Number of persons whose earlier rows were removed.
    """
    changed = pa.concat_arrays([upserts.column(KEY), pa.array(gone, pa.string())])
    removed = _remove(connection, pa.table({KEY: changed}), contract)
    if upserts.num_rows:
        for table in tables(contract):
            rows = rows_of(table, upserts)
            if rows.num_rows:
                with _registered(connection, rows):
                    connection.execute(f"INSERT INTO {quoted(table.name)} SELECT * FROM lethe_rows")
    return removed


def _remove(connection: duckdb.DuckDBPyConnection, changed: pa.Table, contract: Contract) -> int:
    """Delete every row of those persons that are there; one pass over `persons` finds whether any are."""
    with _registered(connection, changed):
        known = connection.sql(f"SELECT {KEY} FROM {PERSONS} WHERE {KEY} IN (SELECT {KEY} FROM lethe_rows)")
        rows: pa.Table = known.to_arrow_table()
    if rows.num_rows:
        with _registered(connection, rows):
            for table in tables(contract):
                connection.execute(f"DELETE FROM {quoted(table.name)} WHERE {KEY} IN (SELECT {KEY} FROM lethe_rows)")
    return int(rows.num_rows)


@contextmanager
def _registered(connection: duckdb.DuckDBPyConnection, rows: pa.Table) -> Iterator[None]:
    """Arrow rows that SQL reads as lethe_rows, without a copy."""
    connection.register("lethe_rows", rows)
    try:
        yield
    finally:
        connection.unregister("lethe_rows")


def rows_of(table: Table, records: pa.RecordBatch) -> pa.Table:
    """The rows of one table that some research records make: the items of an array, each beside its person."""
    if table.field is None:
        return pa.table({c.name: records.column(c.name) for c in table.columns})
    items = records.column(table.field)
    flat = pc.list_flatten(items)
    people = records.column(KEY).take(pc.list_parent_indices(items))
    fields = {f.name: column for f, column in zip(flat.type, flat.flatten(), strict=True)}
    return pa.table({c.name: people if c.name == KEY else fields[c.name] for c in table.columns})


def texts(connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
    """Every distinct text of every column, for a scan."""
    for table in tables():
        for c in table.columns:
            if c.type == "VARCHAR":
                rows = connection.execute(f"SELECT DISTINCT {quoted(c.name)} FROM {quoted(table.name)}").fetchall()
                yield from (text for (text,) in rows if text is not None)


def empty() -> pa.RecordBatch:
    """No research records."""
    return pa.RecordBatch.from_pylist([], schema=arrow_schema(RESEARCH))


def quoted(name: str) -> str:
    """A name as SQL takes it: every one of ours is of the contract or this module, never of a record."""
    return '"' + name.replace('"', '""') + '"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
