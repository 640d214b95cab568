"""Every contract, read from the `.avsc` files beside this module: one per kind of topic.

A supplier is `council-<code>` (any number of them, one contract for all), `dfe`, `moj`, `dwp` or `health`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

import fastavro

from schemas.classification import ALLOWED, Classification, UnclassifiedFieldError

Zone = Literal["identified", "linkage", "research", "governance"]
Kind = Literal["council", "dfe", "moj", "dwp", "health"]

DATASETS: Mapping[Kind, tuple[str, ...]] = MappingProxyType(
    {
        "council": ("person", "safeguarding"),
        "dfe": ("person", "absence", "exclusion", "attainment"),
        "moj": ("person", "offence"),
        "dwp": ("person", "benefit", "employment"),
        "health": ("person", "contact"),
    }
)
ENQUIRY = "enquiry"
"""Besides its datasets, a council has a topic for enquiries: requests, which are held for an hour and published by no
supplier."""
_COUNCIL = re.compile(r"council-[a-z0-9]+(?:-[a-z0-9]+)*")
_FOLDER = Path(__file__).parent


class UnknownSupplierError(ValueError):
    """No such supplier, or a supplier that has no such dataset."""


@dataclass(frozen=True)
class Field:
    """One field of a record schema. `path` is dotted from the top record; `kind` is the Avro type without `null`."""

    path: str
    kind: str
    nullable: bool
    classification: Classification
    symbols: tuple[str, ...]
    domain: tuple[int, int] | str | None
    doc: str

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.path.rpartition(".")[2]


@dataclass(frozen=True)
class Contract:
    """One Avro schema with what Lethe needs to know of it. `name` is its path, such as `identified/dfe.absence`."""

    name: str
    text: str = field(repr=False)

    @cached_property
    def json(self) -> dict[str, Any]:
        """The schema as parsed JSON, attributes included."""
        loaded: dict[str, Any] = json.loads(self.text)
        return loaded

    @cached_property
    def parsed(self) -> Any:
        """The schema as fastavro wants it."""
        return fastavro.parse_schema(self.json)

    @property
    def zone(self) -> Zone:
        """The zone that the topic lies in."""
        zone = self.name.partition("/")[0]
        assert zone in get_args(Zone)
        return zone  # type: ignore[return-value]

    @property
    def subject_field(self) -> str:
        """Identified contracts: the field with the supplier's own id of the person."""
        return str(self.json["subject_field"])

    @property
    def record_field(self) -> str | None:
        """Identified event contracts: the field with the supplier's own id of the record; None for persons."""
        return self.json.get("record_field")

    @property
    def anchor_field(self) -> str | None:
        """Identified event contracts: the date from which a retention period counts."""
        return self.json.get("anchor_field")

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """Top-level fields, in order.

        Raises:
            UnclassifiedFieldError: a field has no classification, or one that its zone does not allow.
        """
        return tuple(_field(self, "", f) for f in self.json["fields"])

    @cached_property
    def leaves(self) -> tuple[Field, ...]:
        """Every field at every depth, nested records and array items included.

        Raises:
            UnclassifiedFieldError: as for `fields`.
        """
        return tuple(_walk(self, "", self.json))


def _branches(type_: Any) -> tuple[Any, bool]:
    if isinstance(type_, list):
        rest = [t for t in type_ if t != "null"]
        if len(rest) != 1:
            raise ValueError("a field is of one type, or of one type and null")
        return rest[0], "null" in type_
    return type_, False


def _field(contract: Contract, prefix: str, raw: Mapping[str, Any]) -> Field:
    path = prefix + raw["name"]
    classification = raw.get("classification")
    if classification not in get_args(Classification):
        raise UnclassifiedFieldError(f"{contract.name}: field {path} has no known classification")
    if classification not in ALLOWED[contract.name]:
        raise UnclassifiedFieldError(f"{contract.name}: field {path}: {classification} is not allowed in this topic")
    type_, nullable = _branches(raw["type"])
    kind, symbols = type_, ()
    if isinstance(type_, dict):
        kind = type_.get("logicalType", type_["type"])
        symbols = tuple(type_.get("symbols", ()))
    domain = raw.get("domain")
    return Field(
        path,
        kind,
        nullable,
        classification,
        symbols,
        (domain[0], domain[1]) if isinstance(domain, list) else domain,
        raw.get("doc", ""),
    )


def _walk(contract: Contract, prefix: str, record: Mapping[str, Any]) -> list[Field]:
    out: list[Field] = []
    for raw in record["fields"]:
        out.append(_field(contract, prefix, raw))
        type_, _ = _branches(raw["type"])
        if isinstance(type_, dict) and type_["type"] == "array":
            type_ = type_["items"]
        if isinstance(type_, dict) and type_["type"] == "record":
            out += _walk(contract, f"{prefix}{raw['name']}.", type_)
    return out


@cache
def contract(name: str) -> Contract:
    """The contract of that name, such as `linkage/identity` or `identified/dfe.absence`.

    Raises:
        FileNotFoundError: there is none.
    """
    return Contract(name, (_FOLDER / f"{name}.avsc").read_text())


@cache
def names() -> tuple[str, ...]:
    """Names of all contracts, sorted."""
    return tuple(sorted(str(p.relative_to(_FOLDER).with_suffix("")) for p in _FOLDER.glob("*/*.avsc")))


def supplied() -> tuple[str, ...]:
    """Names of the contracts of suppliers' datasets: the identified zone without enquiries."""
    return tuple(f"identified/{kind}.{dataset}" for kind, datasets in DATASETS.items() for dataset in datasets)


def kind_of(supplier: str) -> Kind:
    """Kind of a supplier: `council` for every `council-<code>`.

    Raises:
        UnknownSupplierError: not a supplier's name.
    """
    if _COUNCIL.fullmatch(supplier):
        return "council"
    if supplier in DATASETS and supplier != "council":
        return supplier  # type: ignore[return-value]
    known = ", ".join(["council-<code>", *(k for k in DATASETS if k != "council")])
    raise UnknownSupplierError(f"unknown supplier; known are {known}")


def identified(supplier: str, dataset: str) -> Contract:
    """The contract of a supplier's dataset.

    Raises:
        UnknownSupplierError: no such supplier, or it has no such dataset.
    """
    kind = kind_of(supplier)
    if dataset not in DATASETS[kind]:
        raise UnknownSupplierError(f"{supplier} has no such dataset; it has {', '.join(DATASETS[kind])}")
    return contract(f"identified/{kind}.{dataset}")


def identified_topic(supplier: str, dataset: str) -> str:
    """Topic of a supplier's dataset: `identified.<supplier>.<dataset>`."""
    return f"identified.{supplier}.{dataset}"


def enquiry_topic(council: str) -> str:
    """Topic of a council's enquiries that were let in, inside its own identified zone."""
    return f"identified.{council}.{ENQUIRY}"


def quarantine_topic(supplier: str) -> str:
    """Topic of a supplier's records that failed, inside its own identified zone."""
    return f"identified.{supplier}.quarantine"


def of_topic(topic: str) -> Contract | None:
    """The contract of a topic's values, by its name; None for those without one (quarantine, changelogs).

    Raises:
        UnknownSupplierError: an identified topic of no supplier, or of no dataset of it.
    """
    zone, _, rest = topic.partition(".")
    if zone == "identified":
        supplier, _, dataset = rest.partition(".")
        if dataset == ENQUIRY and kind_of(supplier) == "council":
            return contract(f"identified/council.{ENQUIRY}")
        return None if dataset == "quarantine" else identified(supplier, dataset)
    name = f"{zone}/{rest}"
    return contract(name) if name in names() else None
