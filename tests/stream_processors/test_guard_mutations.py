"""Random mutations of research schemas, of the guard's configuration and of records: what would widen disclosure is
refused. Whether a mutation widens is judged here, by code that shares nothing with the guard's."""

from __future__ import annotations

import copy
import datetime
import io
import json
import math
import random
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas import contracts, wire
from schemas.codec import arrow_schema, encode
from schemas.contracts import Contract
from stream_processors.areas import load_areas
from stream_processors.guard import ALLOWED, Guard, Permission, load_allowed
from tests.examples import examples
from tests.stream_processors.tables import REGISTRY, Bench, wide

RESEARCH = contracts.contract("research/person")
CONTRIBUTION = contracts.contract("linkage/contribution")
CODES = load_areas().codes
TOPIC = "linkage.contribution"
SEEDS = st.integers(0, 2**32)


def many(count: int) -> settings:
    return settings(max_examples=examples(count), deadline=None, database=None, suppress_health_check=list(HealthCheck))


# What a contract can let through -------------------------------------------------------------------------------------

Reach = Mapping[str, frozenset[Any] | tuple[float, float, str] | str]
"""By path: the symbols, the range, the name of a closed domain, or `anything`."""


def reach(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for f in record["fields"]:
        path, type_ = prefix + f["name"], f["type"]
        branches = [t for t in type_ if t != "null"] if isinstance(type_, list) else [type_]
        kinds = [b if isinstance(b, str) else b.get("logicalType", b["type"]) for b in branches]
        whole = branches[0] if branches and isinstance(branches[0], dict) else {}
        domain = f.get("domain")
        if len(branches) != 1:
            out[path] = "anything"
        elif kinds[0] == "array" and isinstance(whole["items"], dict) and whole["items"]["type"] == "record":
            out[path] = "items"
            out |= reach(whole["items"], f"{path}.")
        elif kinds[0] == "enum":
            out[path] = frozenset(whole["symbols"])
        elif kinds[0] == "boolean":
            out[path] = frozenset({False, True})
        elif kinds[0] == "date" and domain == "month":
            out[path] = "month"
        elif kinds[0] in ("int", "double") and isinstance(domain, list) and all(map(math.isfinite, domain)):
            out[path] = (domain[0], domain[1], kinds[0])
        elif kinds[0] == "string" and f.get("classification") == "quasi" and domain == "area":
            out[path] = "area"
        elif kinds[0] == "string" and f.get("classification") == "pseudonym" and domain is None:
            out[path] = "pseudonym"
        else:
            out[path] = "anything"
        if f.get("classification") not in ("attribute", "quasi", "pseudonym"):
            out[path] = "anything"
    return out


def widens(new: Reach, old: Reach) -> bool:
    """Whether something could pass under `new` that could not under `old`."""
    for path, values in new.items():
        was = old.get(path)
        if isinstance(values, frozenset) and isinstance(was, frozenset):
            if not values <= was:
                return True
        elif isinstance(values, tuple) and isinstance(was, tuple):
            if values[0] < was[0] or values[1] > was[1] or values[2] != was[2]:
                return True
        elif values != was:
            return True
    return False


# Mutations of schemas and configuration ------------------------------------------------------------------------------

OPEN_TYPES: list[Any] = [
    "string", "bytes", "long", "int", "double", "float",
    {"type": "int", "logicalType": "date"},
    {"type": "long", "logicalType": "timestamp-millis"},
    {"type": "map", "values": "string"},
    {"type": "array", "items": "string"},
    {"type": "enum", "name": "Added", "symbols": ["Anna", "Smith"]},
]  # fmt: skip
NAMES = ["forename", "note", "UPN", "date_of_birth", "postcode", "subject_ref", "token"]
CLASSES = ["identifier", "token", "reference", "technical", "attribute", "quasi", "pseudonym", "public", None]


def some_fields(rng: random.Random, schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The fields of the record, or those of one of its items or parts."""
    nested = [schema["fields"]]
    for f in schema["fields"]:
        types = f["type"] if isinstance(f["type"], list) else [f["type"]]
        for t in types:
            inner = t.get("items", t) if isinstance(t, dict) else {}
            if isinstance(inner, dict) and inner.get("type") == "record":
                nested.append(inner["fields"])
    return rng.choice(nested)


def mutate_schema(rng: random.Random, schema: dict[str, Any]) -> None:
    fields = some_fields(rng, schema)
    f = rng.choice(fields)
    match rng.randrange(9):
        case 0:
            added = {"name": rng.choice(NAMES), "type": rng.choice(OPEN_TYPES), "classification": rng.choice(CLASSES)}
            fields.insert(rng.randrange(len(fields) + 1), added)
        case 1:
            f["name"] = rng.choice(NAMES)
        case 2:
            f["type"] = rng.choice(OPEN_TYPES)
        case 3:
            f["type"] = ["null", rng.choice(OPEN_TYPES)]
        case 4:
            f.pop("domain", None)
        case 5:
            f["domain"] = rng.choice(["day", "free", "area", "month", None, [0, 10**10], [-(10**9), 10**9]])
        case 6:
            f["classification"] = rng.choice(CLASSES)
        case 7:
            types = f["type"] if isinstance(f["type"], list) else [f["type"]]
            enums = [t for t in types if isinstance(t, dict) and t.get("type") == "enum"]
            for t in enums:
                t["symbols"] = [*t["symbols"], rng.choice(["Anna", "other2", "AB123456C"])][rng.randrange(2) :]
        case _:
            if isinstance(f.get("domain"), list):
                f["domain"] = [f["domain"][0] + rng.choice([-100, 0, 1]), f["domain"][1] + rng.choice([100, 0, -1])]


def mutated(rng: random.Random, contract: Contract) -> Contract:
    schema = copy.deepcopy(contract.json)
    for _ in range(rng.choice([1, 1, 2])):
        mutate_schema(rng, schema)
    return Contract(contract.name, json.dumps(schema))


def accepted(make: Callable[[], Any]) -> bool:
    try:
        make()
    except Exception:  # whatever it is, publish does not start
        return False
    return True


@many(175)
@given(SEEDS)
def test_a_research_contract_that_lets_more_through_stops_the_start(seed: int) -> None:
    research = mutated(random.Random(seed), RESEARCH)
    if accepted(lambda: Guard(research, CODES)):
        assert not widens(reach(research.json), reach(RESEARCH.json))


@many(75)
@given(SEEDS)
def test_a_contribution_that_would_carry_more_stops_the_start(seed: int) -> None:
    contribution = mutated(random.Random(seed), CONTRIBUTION)

    def carried(contract: Contract) -> Reach:
        out: dict[str, Any] = {}
        for f in contract.json["fields"]:
            part = f["type"][-1] if isinstance(f["type"], list) else f["type"]
            if isinstance(part, dict) and part.get("type") == "record":
                out |= reach(part, f"{f['name']}.")
            elif f["name"] not in ("dataset", "supplier", "expires_on"):
                out[f["name"]] = "anything"
        out.pop("person.family_ref", None)
        return out

    if accepted(lambda: Guard(RESEARCH, CODES, contribution=contribution)):
        assert not widens(carried(contribution), carried(CONTRIBUTION))


@many(75)
@given(SEEDS)
def test_a_configuration_that_allows_more_than_the_contract_stops_the_start(seed: int) -> None:
    rng = random.Random(seed)
    raw = yaml.safe_load(ALLOWED.read_text())
    name = rng.choice(list(raw))
    entry = raw[name]
    match rng.randrange(6):
        case 0:
            raw[rng.choice(NAMES)] = {"class": rng.choice(CLASSES), "type": rng.choice(["string", "int", "boolean"])}
        case 1:
            raw[rng.choice(NAMES)] = raw.pop(name)
        case 2:
            entry["type"] = rng.choice(["string", "long", "bytes", "date", "int", "map", "record"])
        case 3:
            entry["domain"] = rng.choice(
                ["day", "free", "pseudonym", [0, 10**10], [0], "month", None, [-(10**6), 10**6]]
            )
        case 4:
            entry["of"] = [*entry.get("of", []), rng.choice(["Anna", "AB123456C", 7])]
        case _:
            entry["class"] = rng.choice(CLASSES)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "guard.yaml")
        path.write_text(yaml.safe_dump(raw))
        if accepted(lambda: Guard(RESEARCH, CODES, load_allowed(path))):
            assert load_allowed(path) == load_allowed(), "only what is as it was starts"


@many(50)
@given(SEEDS)
def test_an_open_domain_stops_the_start_even_if_contract_contribution_and_configuration_agree(seed: int) -> None:
    research = mutated(random.Random(seed), RESEARCH)
    try:
        leaves = research.leaves
    except ValueError:
        return
    allowed = {leaf.path: Permission.of(leaf) for leaf in leaves}
    if accepted(lambda: Guard(research, CODES, allowed)):
        found = reach(research.json)
        assert "anything" not in found.values()
        ranges = [v for v in found.values() if isinstance(v, tuple)]
        assert all(high - low < 10_000 for low, high, _ in ranges)


# Mutations of records ------------------------------------------------------------------------------------------------

PARTS = {
    f["name"]: f["type"][1]["fields"]
    for f in CONTRIBUTION.json["fields"]
    if isinstance(f["type"], list) and isinstance(f["type"][1], dict) and "fields" in f["type"][1]
}
DATASETS = [name for name in PARTS if name != "person"]
HOSTILE = [
    "Anna Smith",
    "AB123456C",
    "A123456789012",
    "9434765919",
    "SE13 7AB",
    "2001-03-04",
    "a@example.org",
    "07700900123",
]


def valid(rng: random.Random, fields: list[dict[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for f in fields:
        type_ = f["type"][-1] if isinstance(f["type"], list) else f["type"]
        kind = type_ if isinstance(type_, str) else type_.get("logicalType", type_["type"])
        match kind:
            case "enum":
                value: Any = rng.choice(type_["symbols"])
            case "date":
                value = datetime.date(rng.randint(1990, 2020), rng.randint(1, 12), 1)
            case "boolean":
                value = rng.random() < 0.5
            case "int":
                value = rng.randint(*f["domain"])
            case "double":
                value = rng.uniform(*f["domain"])
            case _:
                value = "northam" if f.get("domain") == "area" else wide("f1")
        out[f["name"]] = None if isinstance(f["type"], list) and rng.random() < 0.2 else value
    return out


def outside(rng: random.Random, f: dict[str, Any]) -> Any:
    """A value of the field's Avro type that its domain does not have; None if there is none."""
    type_ = f["type"][-1] if isinstance(f["type"], list) else f["type"]
    kind = type_ if isinstance(type_, str) else type_.get("logicalType", type_["type"])
    match kind:
        case "date":
            return datetime.date(rng.randint(1950, 2020), rng.randint(1, 12), rng.randint(2, 28))
        case "int":
            low, high = f["domain"]
            return rng.choice([low - 1, high + 1, -(2**31), 2**31 - 1, 943_476_591])
        case "double":
            return rng.choice([-0.5, 1e9, math.nan, math.inf, -math.inf, 9434765919.0])
        case "string" if f.get("domain") == "area":
            return rng.choice([*HOSTILE, "southam", "E01", "", "northam\n", "E0900002", "e09000023"])
    return None


def published(body: bytes) -> tuple[dict[str, Any] | None, list[str]]:
    """What publish makes of a contribution beside a harmless one of the cohort: the research record, and refusals."""
    bench = Bench("publish")
    cohort = {"programme_status": "comparison", "area": "northam"}
    harmless = {
        "dataset": "person",
        "supplier": "council-northam",
        "expires_on": datetime.date(2030, 1, 1),
        "person": cohort,
    }
    head = wire.header(REGISTRY.schema_id(TOPIC))
    (first,) = encode(pa.RecordBatch.from_pylist([harmless], schema=arrow_schema(CONTRIBUTION)), CONTRIBUTION)
    key = f"{wide('p')}|{wide('0')}".encode()
    said = bench.take([(TOPIC, [(key, head + first), (f"{wide('p')}|{wide('r')}".encode(), head + body)])])
    values = {s.topic: s.value for s in said}
    assert all(s.headers == [] for s in said)
    record = values.get("research.person")
    row = None
    if record is not None:
        stream = io.BytesIO(record[wire.HEADER_BYTES :])
        row = fastavro.schemaless_reader(stream, RESEARCH.parsed, None)
        assert stream.read() == b"", "nothing after the record"
    return row, [s.topic for s in said if s.topic == "governance.quarantine"]


def faults(record: Mapping[str, Any], fields: list[dict[str, Any]]) -> list[str]:
    """Names of fields of a research record whose value no domain has: the judge."""
    out = []
    for f in fields:
        value = record[f["name"]]
        type_ = f["type"][-1] if isinstance(f["type"], list) else f["type"]
        if value is None:
            continue
        if isinstance(type_, dict) and type_["type"] == "array":
            for item in value:
                out += faults(item, type_["items"]["fields"])
        elif isinstance(type_, dict) and type_["type"] == "enum":
            out += [f["name"]] * (value not in type_["symbols"])
        elif f.get("domain") == "month":
            out += [f["name"]] * (value.day != 1)
        elif isinstance(f.get("domain"), list):
            out += [f["name"]] * (not f["domain"][0] <= value <= f["domain"][1])
        elif f.get("domain") == "area":
            out += [f["name"]] * (value != "northam" and value not in CODES)
        elif type_ == "string":
            out += [f["name"]] * (len(value) != 32 or not set(value) <= set("0123456789abcdef"))
    return out


@many(100)
@given(SEEDS)
def test_a_record_with_a_value_outside_its_domain_is_refused_whole(seed: int) -> None:
    rng = random.Random(seed)
    dataset = rng.choice(list(PARTS))
    f = rng.choice([f for f in PARTS[dataset] if f["name"] != "family_ref"])
    value = outside(rng, f)
    row: dict[str, Any] = {
        "dataset": dataset,
        "supplier": "council-northam",
        "expires_on": datetime.date(2030, 1, 1),
        dataset: valid(rng, PARTS[dataset]),
    }
    fine = encode(pa.RecordBatch.from_pylist([row], schema=arrow_schema(CONTRIBUTION)), CONTRIBUTION)[0]
    record, refused = published(fine)
    assert record is not None
    assert refused == [], "the record is fine as it is"
    if value is None:
        return
    row[dataset][f["name"]] = value
    body = encode(pa.RecordBatch.from_pylist([row], schema=arrow_schema(CONTRIBUTION)), CONTRIBUTION)[0]
    record, refused = published(body)
    assert refused
    assert record is not None
    assert faults(record, RESEARCH.json["fields"]) == []
    assert dataset == "person" or record[dataset] == []


@many(125)
@given(SEEDS)
def test_a_record_with_bytes_changed_is_refused_or_within_its_domains(seed: int) -> None:
    rng = random.Random(seed)
    dataset = rng.choice(list(PARTS))
    row = {
        "dataset": dataset,
        "supplier": "council-northam",
        "expires_on": datetime.date(2030, 1, 1),
        dataset: valid(rng, PARTS[dataset]),
    }
    body = bytearray(encode(pa.RecordBatch.from_pylist([row], schema=arrow_schema(CONTRIBUTION)), CONTRIBUTION)[0])
    for _ in range(rng.choice([1, 1, 2, 5])):
        at = rng.randrange(len(body))
        match rng.randrange(3):
            case 0:
                body[at] = rng.randrange(256)
            case 1:
                del body[at]
            case _:
                body[at:at] = rng.choice(HOSTILE).encode()
    record, refused = published(bytes(body))
    assert record is not None
    assert faults(record, RESEARCH.json["fields"]) == []
    for text in HOSTILE:
        assert text.encode() not in repr(record).encode()
    assert refused or any(record[d] for d in DATASETS) or dataset == "person" or body[0] == 0


def test_the_judge_knows_what_widens() -> None:
    """The tests above would be worth nothing if the judge said no to everything."""
    found = reach(RESEARCH.json)
    assert "anything" not in found.values()
    counted = sum(widens(reach(mutated(random.Random(n), RESEARCH).json), found) for n in range(200))
    assert 50 < counted < 200
    assert not widens(found, found)


@pytest.mark.parametrize("dataset", list(PARTS))
def test_every_kind_of_record_is_mutated(dataset: str) -> None:
    assert any(outside(random.Random(1), f) is not None for f in PARTS[dataset])
