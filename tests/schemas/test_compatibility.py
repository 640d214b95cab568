"""The contracts still fit every version that was released, and a change that does not fit is caught."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.topics import load
from schemas import contracts, released
from schemas.contracts import Contract
from schemas.registry import Compatibility

RELEASED = [(v, old) for v in released.versions() for old in released.released(v)]


def level_of(name: str) -> Compatibility:
    """The level that `topics.yaml` sets for topics of a contract."""
    kind = "identified" if name.startswith("identified/") else name.replace("/", ".")
    level = load().kinds[kind].compatibility
    assert level is not None
    return level


def test_something_is_released() -> None:
    assert "0.1.0" in released.versions()


@pytest.mark.parametrize(("version", "old"), RELEASED, ids=[f"{v}/{old.name}" for v, old in RELEASED])
def test_the_contract_of_today_fits_what_was_released(version: str, old: Contract) -> None:
    assert old.name in contracts.names(), f"{old.name} of {version} is gone: topics still hold its records"
    assert released.faults(contracts.contract(old.name), old, level_of(old.name)) == []


def changed(name: str, change: Callable[[dict[str, Any]], None]) -> Contract:
    schema = copy.deepcopy(contracts.contract(name).json)
    change(schema)
    return Contract(name, json.dumps(schema))


def add_without_default(schema: dict[str, Any]) -> None:
    schema["fields"].append({"name": "added", "type": "string", "classification": "attribute"})


def add_with_default(schema: dict[str, Any]) -> None:
    added = {"name": "added", "type": ["null", "string"], "default": None, "classification": "attribute"}
    schema["fields"].append(added)


def drop_first(schema: dict[str, Any]) -> None:
    del schema["fields"][0]


def text_to_number(schema: dict[str, Any]) -> None:
    schema["fields"][0]["type"] = "long"


def lose_a_symbol(schema: dict[str, Any]) -> None:
    field = next(f for f in schema["fields"] if f["name"] == "programme_status")
    type_ = field["type"][1] if isinstance(field["type"], list) else field["type"]
    type_["symbols"].pop()


@pytest.mark.parametrize("name", ["identified/council.person", "research/person"])
@pytest.mark.parametrize("change", [add_without_default, text_to_number, lose_a_symbol])
def test_a_change_that_makes_old_records_unreadable_is_caught(
    name: str, change: Callable[[dict[str, Any]], None]
) -> None:
    assert released.faults(changed(name, change), contracts.contract(name), level_of(name))


def test_the_enclave_keeps_reading_what_is_new() -> None:
    """Dropping a field without a default suits our own readers, not the enclave's older ones."""
    for name, allowed in {"identified/council.person": True, "research/person": False}.items():
        found = released.faults(changed(name, drop_first), contracts.contract(name), level_of(name))
        assert (found == []) is allowed


@pytest.mark.parametrize("name", ["identified/council.person", "research/person"])
def test_an_optional_field_may_be_added(name: str) -> None:
    assert released.faults(changed(name, add_with_default), contracts.contract(name), level_of(name)) == []


def test_a_release_is_a_copy_and_is_made_once(tmp_path: Path) -> None:
    released.release("1.0.0", tmp_path)
    released.release("0.9.0", tmp_path)
    released.release("0.10.0", tmp_path)
    assert released.versions(tmp_path) == ("0.9.0", "0.10.0", "1.0.0")
    assert [c.name for c in released.released("1.0.0", tmp_path)] == list(contracts.names())
    assert all(c.text == contracts.contract(c.name).text for c in released.released("1.0.0", tmp_path))
    with pytest.raises(FileExistsError):
        released.release("1.0.0", tmp_path)
