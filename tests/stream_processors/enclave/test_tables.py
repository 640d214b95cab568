"""The enclave's tables: laid out as the contract says, filled row for row, with its descriptions as comments."""

from __future__ import annotations

import random
from datetime import date

import duckdb
import pytest

from stream_processors.enclave import tables
from tests.stream_processors.enclave.support import RESEARCH, batch, held, ordered, person_id, record


@pytest.fixture
def connection() -> duckdb.DuckDBPyConnection:
    return duckdb.connect()


def some(n: int, seed: int = 1) -> list[dict[str, object]]:
    rng = random.Random(seed)
    return [record(rng, person_id(i)) for i in range(n)]


def test_there_is_one_table_per_array_of_the_contract_and_one_of_persons() -> None:
    layout = {t.name: [c.name for c in t.columns] for t in tables.tables()}
    arrays = {f["name"]: f["type"]["items"]["fields"] for f in RESEARCH.json["fields"] if f["name"] in layout}
    assert list(layout) == ["persons", *(f.name for f in RESEARCH.fields if f.kind == "array")]
    assert layout["persons"] == [f.name for f in RESEARCH.fields if f.kind != "array"]
    for name, fields in arrays.items():
        assert layout[name] == ["person_id", *(f["name"] for f in fields)]


def test_records_come_back_out_of_the_tables_as_they_went_in(connection: duckdb.DuckDBPyConnection) -> None:
    rows = some(300)
    tables.fill(connection, [batch(rows[:100]), batch(rows[100:])])
    assert held(connection) == {str(r["person_id"]): ordered(r) for r in rows}


def test_the_last_record_of_a_person_holds_within_a_batch_and_over_batches(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    old, new, newest = (some(20, seed) for seed in (1, 2, 3))
    tables.fill(connection, [batch(old + new), batch(newest[:5])])
    assert held(connection) == {str(r["person_id"]): ordered(r) for r in newest[:5] + new[5:]}


def test_a_deleted_person_is_in_no_table(connection: duckdb.DuckDBPyConnection) -> None:
    rows = some(50)
    tables.fill(connection, [batch(rows)])
    assert tables.apply(connection, tables.empty(), [person_id(3), person_id(999)]) == 1
    assert person_id(3) not in held(connection)
    for table in tables.tables():
        found = connection.execute(f'SELECT count(*) FROM "{table.name}" WHERE person_id = ?', [person_id(3)])
        assert found.fetchone() == (0,)


def test_families_are_counted_from_their_persons(connection: duckdb.DuckDBPyConnection) -> None:
    blank = record(random.Random(1), "")
    people = [
        ("p1", "f1", "comparison", date(2014, 5, 1)),
        ("p2", "f1", "participant", date(2014, 3, 1)),
        ("p3", "f2", "comparison", None),
        ("p4", None, "participant", date(2014, 1, 1)),
    ]
    names = ("person_id", "family_id", "programme_status", "programme_start_month")
    tables.fill(connection, [batch(blank | dict(zip(names, p, strict=True)) for p in people)])
    assert connection.execute("SELECT * FROM families ORDER BY family_id").fetchall() == [
        ("f1", "participant", date(2014, 3, 1), 2),
        ("f2", "comparison", None, 1),
    ]
    tables.apply(connection, tables.empty(), ["p3"])
    assert connection.execute("SELECT family_id FROM families").fetchall() == [("f1",)]


def test_the_contracts_descriptions_are_the_comments(connection: duckdb.DuckDBPyConnection) -> None:
    tables.create(connection)
    docs = {leaf.path: leaf.doc for leaf in RESEARCH.leaves}
    found = connection.execute(
        "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE NOT internal"
    ).fetchall()
    assert {t for t, _, _ in found} == {*(t.name for t in tables.tables()), "families"}
    for table, column, comment in found:
        assert comment
        if table != "families":
            path = column if table == "persons" or column == "person_id" else f"{table}.{column}"
            assert comment == docs[path]
    described = connection.execute("SELECT comment FROM duckdb_tables() WHERE NOT internal").fetchall()
    assert all(comment for (comment,) in described)
