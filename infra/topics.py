"""The topics that Lethe needs, as `topics.yaml` declares them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from infra.settings import Settings
from schemas import contracts
from schemas.contracts import DATASETS, Contract
from schemas.registry import Compatibility
from stream_processors.edition import Edition

FILE = Path(__file__).with_name("topics.yaml")


@dataclass(frozen=True)
class TopicSpec:
    """One topic as it should be. `contract` and `compatibility` are None where values are raw."""

    name: str
    kind: str
    contract: Contract | None
    compatibility: Compatibility | None
    partitions: int
    replication: int
    config: Mapping[str, str]


class _Kind(BaseModel):
    """One entry under `kinds`. Without a `name`, the kind is the topic's name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str | None = None
    contract: str | None = None
    compatibility: Compatibility | None = None
    config: Mapping[str, str] = Field(default_factory=dict)

    _texts = field_validator("config", mode="before")(lambda raw: _as_text(raw))

    @model_validator(mode="after")
    def _level_with_contract(self) -> _Kind:
        if (self.contract is None) != (self.compatibility is None):
            raise ValueError("a kind has both a contract and a compatibility, or neither")
        return self


class TopicsFile(BaseModel):
    """`topics.yaml`, checked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    replication: int = Field(ge=1)
    suppliers: tuple[str, ...]
    defaults: Mapping[str, str]
    kinds: Mapping[str, _Kind]

    _texts = field_validator("defaults", mode="before")(lambda raw: _as_text(raw))

    @field_validator("suppliers")
    @classmethod
    def _known(cls, suppliers: tuple[str, ...]) -> tuple[str, ...]:
        for supplier in suppliers:
            contracts.kind_of(supplier)
        return suppliers


def _as_text(raw: Any) -> Any:
    if not isinstance(raw, dict):
        return raw
    return {str(k): str(v).lower() if isinstance(v, bool) else str(v) for k, v in raw.items()}


@cache
def load(path: Path = FILE) -> TopicsFile:
    """The file, read once.

    Raises:
        ValueError: it is not as it should be (pydantic says where).
    """
    return TopicsFile.model_validate(yaml.safe_load(path.read_text()))


def topics_of(settings: Settings, suppliers: Iterable[str], file: TopicsFile | None = None) -> list[TopicSpec]:
    """Every topic for these suppliers: theirs first, then those that all share.

    Raises:
        UnknownSupplierError: one is no supplier.
    """
    file = file or load()
    suppliers = tuple(suppliers)
    edition = Edition(settings.edition)
    specs: list[TopicSpec] = []
    for kind, entry in file.kinds.items():
        pattern = entry.name or kind
        for name, contract in _instances(pattern, entry.contract, suppliers):
            specs.append(
                TopicSpec(
                    name=edition.topic(name),
                    kind=kind,
                    contract=contracts.contract(contract) if contract else None,
                    compatibility=entry.compatibility,
                    partitions=settings.partitions,
                    replication=file.replication,
                    config=MappingProxyType({**file.defaults, **entry.config}),
                )
            )
    return specs


def _instances(pattern: str, contract: str | None, suppliers: Iterable[str]) -> list[tuple[str, str | None]]:
    """Names that a pattern stands for, each with its contract's name."""
    if "<" not in pattern:
        return [(pattern, contract)]
    found: list[tuple[str, str | None]] = []
    for supplier in suppliers:
        kind = contracts.kind_of(supplier)
        if "<council>" in pattern:
            if kind == "council":
                found.append((pattern.replace("<council>", supplier), contract))
            continue
        for dataset in DATASETS[kind] if "<dataset>" in pattern else ("",):
            name = pattern.replace("<supplier>", supplier).replace("<dataset>", dataset)
            text = contract and contract.replace("<kind>", kind).replace("<dataset>", dataset)
            found.append((name, text))
    return found
