"""From what each partition found to what the council is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, model_validator

import infra
from schemas import contracts
from schemas.contracts import kind_of
from stream_processors.enquiry.finding import Holding, merged

FILE = Path(infra.__file__).with_name("purposes.yaml")
Row = Mapping[str, Any]
_NEEDS_CHECKING = {
    "ambiguous": "the details fit more than one person, or a record that is linked to other details",
    "insufficient": "forename, surname, date of birth and postcode are needed",
    "changing": "the records are being changed: ask again in a moment",
}


class Purposes(BaseModel):
    """What people are told besides counts: `infra/purposes.yaml`, complete."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    how_to_object: str
    purposes: Mapping[str, str]

    @model_validator(mode="after")
    def _of_contracts(self) -> Purposes:
        wanted = {name.removeprefix("identified/") for name in contracts.supplied()}
        if set(self.purposes) != wanted:
            raise ValueError(f"a purpose for each dataset and no other: {sorted(wanted ^ set(self.purposes))}")
        return self

    def of(self, supplier: str, dataset: str) -> str:
        """What a dataset is held for."""
        return self.purposes[f"{kind_of(supplier)}.{dataset}"]


@cache
def load_purposes(path: Path = FILE) -> Purposes:
    """The file.

    Raises:
        ValueError: a dataset has no purpose, or one is named that does not exist.
    """
    return Purposes.model_validate(yaml.safe_load(path.read_text()))


@dataclass
class Gathering:
    """Findings by enquiry and partition, until there is one of each partition."""

    partitions: int
    parts: dict[str, dict[int, Row]] = field(default_factory=dict)

    def add(self, enquiry_id: str, partition: int, finding: Row) -> list[Row] | None:
        """Take one in (again, if it was there); all findings once they are complete."""
        parts = self.parts.setdefault(enquiry_id, {})
        parts[partition] = finding
        return [parts[p] for p in sorted(parts)] if set(parts) >= set(range(self.partitions)) else None

    def done(self, enquiry_id: str) -> None:
        """Forget an enquiry that is answered."""
        self.parts.pop(enquiry_id, None)

    def only(self, wanted: Callable[[str], bool]) -> None:
        """Forget enquiries that are not wanted."""
        self.parts = {k: v for k, v in self.parts.items() if wanted(k)}


def answer(council: str, findings: list[Row], purposes: Purposes, now_ms: int) -> dict[str, Any]:
    """A row of `governance.answer` from one finding of each partition.

    What needs checking, and what is refused, shows no counts: they could be another person's.
    """
    outcomes = {f["outcome"] for f in findings}
    rows = [Holding(**h) for f in findings for h in f["holdings"]]
    outcome, reason = "not_held", None
    if "unreadable" in outcomes:
        outcome, reason = "refused", "the details do not open: they were sealed with another key"
    elif outcomes & {"ambiguous", "insufficient"}:
        outcome, reason = "needs_checking", _NEEDS_CHECKING[min(outcomes & {"ambiguous", "insufficient"})]
    elif "found" in outcomes and not rows:
        outcome, reason = "needs_checking", _NEEDS_CHECKING["changing"]
    elif rows:
        outcome = "held"
    holdings = merged(rows) if outcome == "held" else ()
    return {
        "council": council,
        "outcome": outcome,
        "reason": reason,
        "answered_ms": now_ms,
        "holdings": [{**vars(h), "purpose": purposes.of(h.supplier, h.dataset)} for h in holdings],
        "how_to_object": purposes.how_to_object,
    }
