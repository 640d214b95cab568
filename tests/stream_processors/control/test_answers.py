"""What a council is told: counts, days and purposes if it is sure; if not, that a human has to look."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas import contracts
from schemas.rows import from_value, to_value
from stream_processors.control.answers import FILE, Gathering, answer, load_purposes
from tests.stream_processors.tables import REGISTRY

PURPOSES = load_purposes()


def finding(outcome: str = "found", *holdings: tuple[str, str, int, date | None, date]) -> dict[str, Any]:
    names = ("supplier", "dataset", "records", "since", "until")
    return {"outcome": outcome, "ref_hash": None, "holdings": [dict(zip(names, h, strict=True)) for h in holdings]}


D1, D2, D3 = date(2020, 1, 1), date(2021, 1, 1), date(2022, 12, 31)


def test_counts_of_all_partitions_are_added_up() -> None:
    said = answer(
        "council-northam",
        [finding("found", ("dfe", "absence", 2, D2, D2)), finding("found", ("dfe", "absence", 1, D1, D3)), finding()],
        PURPOSES,
        7,
    )
    assert said["outcome"] == "held"
    assert said["holdings"] == [
        {
            "supplier": "dfe",
            "dataset": "absence",
            "records": 3,
            "since": D1,
            "until": D3,
            "purpose": PURPOSES.purposes["dfe.absence"],
        }
    ]
    assert "object" in said["how_to_object"]


@pytest.mark.parametrize(
    ("outcomes", "said", "why"),
    [
        (["nobody", "nobody"], "not_held", None),
        (["found", "ambiguous"], "needs_checking", "more than one person"),
        (["insufficient", "insufficient"], "needs_checking", "date of birth"),
        (["unreadable", "unreadable"], "refused", "another key"),
    ],
)
def test_other_outcomes(outcomes: list[str], said: str, why: str | None) -> None:
    held = ("dfe", "absence", 2, D1, D2)
    row = answer("council-northam", [finding(o, *([held] if o == "found" else [])) for o in outcomes], PURPOSES, 7)
    assert row["outcome"] == said
    assert row["holdings"] == [], "counts could be another person's"
    assert row["reason"] is None if why is None else why in row["reason"]


def test_found_without_a_record_is_asked_again() -> None:
    assert answer("council-northam", [finding(), finding()], PURPOSES, 7)["outcome"] == "needs_checking"


def test_an_answer_fits_its_contract() -> None:
    row = answer("council-northam", [finding("found", ("council-northam", "person", 1, None, D3))], PURPOSES, 7)
    assert from_value("governance.answer", to_value("governance.answer", row, REGISTRY), REGISTRY) == row


@given(st.permutations([0, 1, 2, 3]), st.lists(st.integers(0, 3), max_size=8))
def test_findings_come_in_any_order_and_more_than_once(order: list[int], again: list[int]) -> None:
    gathering = Gathering(4)
    complete = None
    for i, p in enumerate([*again, *order]):
        assert complete is None or i > 0
        complete = gathering.add("e", p, finding("nobody") | {"ref_hash": str(p)})
    assert complete is not None
    assert [f["ref_hash"] for f in complete] == ["0", "1", "2", "3"]


def test_an_enquiry_is_not_answered_before_every_partition_has_spoken() -> None:
    gathering = Gathering(3)
    assert gathering.add("e", 0, finding("nobody")) is None
    assert gathering.add("e", 0, finding("nobody")) is None
    assert gathering.add("e", 2, finding("nobody")) is None
    assert gathering.add("e", 1, finding("nobody")) is not None
    gathering.done("e")
    assert gathering.parts == {}


def test_every_dataset_has_a_purpose() -> None:
    assert {f"identified/{name}" for name in PURPOSES.purposes} == set(contracts.supplied())
    assert PURPOSES.of("council-hackney", "person") == PURPOSES.purposes["council.person"]


def test_a_dataset_without_a_purpose_is_refused(tmp_path: Path) -> None:
    found = yaml.safe_load(FILE.read_text())
    del found["purposes"]["moj.offence"]
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(found))
    with pytest.raises(ValidationError, match=r"moj\.offence"):
        load_purposes(tmp_path / "p.yaml")
