"""risk: k, l and the singled out, against cases worked out by hand and against a second way of counting."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
from pycanon import anonymity
from typer import Typer
from typer.testing import CliRunner

from infra.commands.risk import risk
from stream_processors.areas import load_areas
from stream_processors.enclave import tables
from stream_processors.enclave.risk import Risk, UnknownColumnError, measure
from stream_processors.enclave.store import Store
from tests.stream_processors.enclave.support import RESEARCH, batch, person_id, record

BLANK: dict[str, Any] = {f.name: [] if f.kind == "array" else None for f in RESEARCH.fields}
AREAS = load_areas()
LSOA, SISTER = next(
    (a, b) for a, (_, m, _) in AREAS.wider.items() for b, (_, n, _) in AREAS.wider.items() if a < b and m == n
)
FAR = next(a for a, (_, m, _) in AREAS.wider.items() if m != AREAS.wider[LSOA][1])


def of(text: str, contacts: str = "") -> duckdb.DuckDBPyConnection:
    """Tables of persons: name, year, sex, area, status in columns; `contacts`: names of those with a contact."""
    rows = []
    for line in text.strip().splitlines():
        name, year, sex, area, status = (cell.strip() or None for cell in line.split("|"))
        who = {"person_id": name, "birth_year": int(year) if year else None, "sex": sex, "area": area}
        contact = [{"month": None, "contact_type": "emergency", "months_from_start": None}]
        rows.append(
            {**BLANK, **who, "programme_status": status, "contact": contact if name in contacts.split() else []}
        )
    connection = duckdb.connect()
    tables.fill(connection, [batch(rows)])
    return connection


def held(connection: duckdb.DuckDBPyConnection) -> Risk:
    return measure(connection)[0]


TWO_CLASSES = """
    p1 | 2001 | F | northam | participant
    p2 | 2001 | F | northam | comparison
    p3 | 2001 | F | northam | comparison
    p4 | 2002 | M | northam | participant
    p5 | 2002 | M | northam | participant
"""


def test_k_is_the_smallest_class() -> None:
    found = held(of(TWO_CLASSES))
    assert (found.persons, found.classes, found.k, found.alone, found.singled_out) == (5, 2, 2, 0, 0.0)
    assert found.below == {3: 2, 5: 5, 10: 5}


def test_l_is_the_fewest_values_of_a_sensitive_attribute_in_a_class() -> None:
    found = held(of(TWO_CLASSES, contacts="p1 p4"))
    assert found.l["programme_status"] == 1, "p4 and p5 both took part"
    assert found.l["any_contact"] == 2, "in each class one has a contact and one has not"
    assert found.l["any_offence"] == 1
    assert found.l_diversity == 1
    assert (
        held(of(TWO_CLASSES.replace("p5 | 2002 | M | northam | participant", "p5 | 2002 | M | northam |"))).l[
            "programme_status"
        ]
        == 2
    ), "a missing value is a value"


def test_who_is_alone_is_singled_out() -> None:
    found = held(of(TWO_CLASSES + "    p6 | 1950 | X | northam | comparison\n"))
    assert (found.k, found.alone) == (1, 1)
    assert found.singled_out == pytest.approx(1 / 6)


def test_a_missing_value_is_a_value_like_any_other() -> None:
    assert held(of("p1 | | F | northam | comparison\np2 | | F | northam | comparison")).k == 2
    assert held(of("p1 | | F | northam | comparison\np2 | 2001 | F | northam | comparison")).k == 1


def test_a_wider_area_joins_classes() -> None:
    text = "\n".join(f"p{i} | 2001 | F | {area} | comparison" for i, area in enumerate((LSOA, SISTER, FAR, "northam")))
    lsoa, msoa, authority = measure(of(text), AREAS)
    assert [(r.level, r.classes, r.k, r.alone) for r in (lsoa, msoa, authority)] == [
        ("as held", 4, 1, 4),
        ("msoa", 3, 1, 2),
        ("authority", 2, 1, 1),
    ]


def test_an_empty_file_has_no_classes() -> None:
    found = held(of(""))
    assert (found.persons, found.classes, found.k, found.singled_out, found.l_diversity) == (0, 0, 0, 0.0, 0)


def test_a_column_that_is_not_there_is_named() -> None:
    with pytest.raises(UnknownColumnError, match="postcode"):
        measure(of(TWO_CLASSES), quasi=("postcode",))


@pytest.mark.parametrize("quasi", [("birth_year", "sex", "area"), ("sex",), ("birth_year", "family_id"), ()])
def test_random_people_counted_a_second_way(quasi: tuple[str, ...]) -> None:
    rng = random.Random(4)
    rows = [record(rng, person_id(i)) | {"area": rng.choice(["a", "b", None])} for i in range(400)]
    connection = duckdb.connect()
    tables.fill(connection, [batch(rows)])
    classes: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        classes[tuple(row[q] for q in quasi)].append(row)
    found = measure(connection, quasi=quasi)[0]
    sizes = [len(c) for c in classes.values()]
    assert (found.k, found.classes, found.alone) == (min(sizes), len(sizes), sizes.count(1))
    assert found.below == {n: sum(s for s in sizes if s < n) for n in (3, 5, 10)}
    assert found.l["programme_status"] == min(len({r["programme_status"] for r in c}) for c in classes.values())
    assert found.l["any_offence"] == min(len({bool(r["offence"]) for r in c}) for c in classes.values())


@pytest.mark.parametrize("quasi", [("birth_year", "sex", "area"), ("sex",), ("birth_year", "area")])
@pytest.mark.parametrize("seed", range(3))
def test_pycanon_finds_the_same(quasi: tuple[str, ...], seed: int) -> None:
    """The reference: k-anonymity and distinct l-diversity as pycanon counts them, missing values as values."""
    rng = random.Random(seed)
    rows = [record(rng, person_id(i)) | {"area": rng.choice(["a", "b", None])} for i in range(300)]
    crowded = [r | {"birth_year": 2000 + i % 3} for i, r in enumerate(rows)] if seed else rows
    connection = duckdb.connect()
    tables.fill(connection, [batch(crowded)])
    frame = pd.DataFrame(
        {
            **{q: [str(r[q]) for r in crowded] for q in quasi},
            "programme_status": [str(r["programme_status"]) for r in crowded],
            "any_offence": [str(bool(r["offence"])) for r in crowded],
        }
    )
    found = measure(connection, quasi=quasi)[0]
    assert found.k == anonymity.k_anonymity(frame, list(quasi))
    for attribute in ("programme_status", "any_offence"):
        assert found.l[attribute] == anonymity.l_diversity(frame, list(quasi), [attribute])
    assert not seed or found.k > 1, "not only classes of one are compared"


def test_the_command_prints_json_and_fails_below_a_wanted_k(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        rows = [{**BLANK, "person_id": person_id(i), "sex": "F"} for i in range(3)]
        tables.fill(store.connection, [batch(rows)], create_them=False)
    app, runner = Typer(), CliRunner()
    app.command()(risk)
    done = runner.invoke(app, [str(tmp_path), "--json", "--at-least", "3"])
    assert done.exit_code == 0
    assert [(r["level"], r["k"], r["singled_out"]) for r in json.loads(done.stdout)] == [
        ("as held", 3, 0.0),
        ("msoa", 3, 0.0),
        ("authority", 3, 0.0),
    ]
    assert runner.invoke(app, [str(tmp_path), "--at-least", "4"]).exit_code == 1
    assert runner.invoke(app, [str(tmp_path / "none")]).exit_code == 2
    assert runner.invoke(app, [str(tmp_path), "--quasi", "postcode"]).exit_code == 2
