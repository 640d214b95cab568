"""Every field of every contract is classified, and no topic holds a kind of field that it may not."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any, get_args

import pytest

from schemas import contracts
from schemas.classification import ALLOWED, Classification, UnclassifiedFieldError
from schemas.contracts import Contract

NAMES = contracts.names()


def raw_fields(node: Any) -> Iterator[dict[str, Any]]:
    """Every field of every record below a node, found without the code under test."""
    if isinstance(node, list):
        for item in node:
            yield from raw_fields(item)
    elif isinstance(node, dict):
        for field in node.get("fields", ()):
            yield field
            yield from raw_fields(field["type"])
        for below in ("items", "values", "type"):
            if isinstance(node.get(below), dict | list):
                yield from raw_fields(node[below])


def mutated(name: str, index: int, **change: Any) -> Contract:
    """The contract with an attribute of its n-th field set, or taken away where the value is None."""
    schema = copy.deepcopy(contracts.contract(name).json)
    field = list(raw_fields(schema))[index]
    for key, value in change.items():
        field.pop(key, None)
        if value is not None:
            field[key] = value
    return Contract(name, json.dumps(schema))


def test_there_is_a_contract_for_every_dataset_and_no_other() -> None:
    expected = {f"identified/{kind}.{d}" for kind, datasets in contracts.DATASETS.items() for d in datasets}
    assert set(contracts.supplied()) == expected
    assert {n for n in NAMES if n.startswith("identified/")} == expected | {"identified/council.enquiry"}
    assert {n for n in NAMES if not n.startswith("identified/")} == set(ALLOWED)


def test_released_copies_are_not_taken_for_contracts() -> None:
    assert not [n for n in NAMES if n.startswith("released")]


@pytest.mark.parametrize("name", NAMES)
def test_every_field_at_every_depth_has_a_classification_that_its_topic_allows(name: str) -> None:
    contract = contracts.contract(name)
    fields = list(raw_fields(contract.json))
    assert [leaf.name for leaf in contract.leaves] == [f["name"] for f in fields]
    assert {f["classification"] for f in fields} <= ALLOWED[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_field_without_a_classification_is_refused_wherever_it_is(name: str) -> None:
    for index in range(len(list(raw_fields(contracts.contract(name).json)))):
        with pytest.raises(UnclassifiedFieldError):
            _ = mutated(name, index, classification=None).leaves
        with pytest.raises(UnclassifiedFieldError):
            _ = mutated(name, index, classification="harmless").leaves


@pytest.mark.parametrize("name", NAMES)
def test_a_classification_that_the_topic_may_not_hold_is_refused_wherever_it_is(name: str) -> None:
    for forbidden in set(get_args(Classification)) - ALLOWED[name]:
        for index in range(len(list(raw_fields(contracts.contract(name).json)))):
            with pytest.raises(UnclassifiedFieldError):
                _ = mutated(name, index, classification=forbidden).leaves


def test_the_zones_are_separate() -> None:
    for name in NAMES:
        held = {leaf.classification for leaf in contracts.contract(name).leaves}
        assert not {"token", "attribute"} <= held, f"{name}: a token beside an attribute"
        if not name.startswith("identified/"):
            assert "identifier" not in held
        if name.startswith("research/"):
            assert held <= ({"technical"} if name == "research/edition" else {"pseudonym", "quasi", "attribute"})


def test_an_unknown_topic_may_hold_nothing() -> None:
    assert ALLOWED["elsewhere/person"] == frozenset()


@pytest.mark.parametrize("name", contracts.supplied())
def test_identified_contracts_say_whose_record_it_is_and_from_when_it_counts(name: str) -> None:
    contract = contracts.contract(name)
    kinds = {f.name: f for f in contract.fields}
    assert kinds[contract.subject_field].classification == "identifier"
    assert (contract.record_field is None) == name.endswith(".person")
    assert (contract.anchor_field is None) == name.endswith(".person")
    if contract.record_field and contract.anchor_field:
        assert kinds[contract.record_field].classification == "identifier"
        assert kinds[contract.anchor_field].kind == "date"


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("research/") and n != "research/edition"])
def test_a_research_field_is_of_a_closed_kind(name: str) -> None:
    """No free text: a string is a pseudonym, or has a named domain that the guard checks. The name of the edition in
    use is nobody's."""
    for leaf in contracts.contract(name).leaves:
        assert leaf.kind != "string" or leaf.classification == "pseudonym" or isinstance(leaf.domain, str)


@pytest.mark.parametrize(
    ("topic", "name"),
    [
        ("identified.council-hackney.safeguarding", "identified/council.safeguarding"),
        ("identified.dfe.absence", "identified/dfe.absence"),
        ("identified.dfe.quarantine", None),
        ("identified.council-hackney.enquiry", "identified/council.enquiry"),
        ("linkage.link", "linkage/link"),
        ("research.person", "research/person"),
        ("governance.quarantine", "governance/quarantine"),
        ("state.join", None),
    ],
)
def test_a_topic_has_the_contract_of_its_name(topic: str, name: str | None) -> None:
    found = contracts.of_topic(topic)
    assert (found.name if found else None) == name


@pytest.mark.parametrize(
    "topic", ["identified.council.person", "identified.dfe.offence", "identified.x.person", "identified.dfe.enquiry"]
)
def test_an_identified_topic_of_nobody_is_refused(topic: str) -> None:
    with pytest.raises(contracts.UnknownSupplierError):
        contracts.of_topic(topic)
