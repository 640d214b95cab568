"""How long each kind of record is held, as `infra/retention.yaml` says, and the function that applies it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import date
from functools import cache
from pathlib import Path
from typing import Literal

import polars as pl
import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

import infra
from schemas import contracts
from schemas.contracts import Contract

FILE = Path(infra.__file__).with_name("retention.yaml")
EARLIEST = date(1950, 1, 1)
"""An anchor before this is a default date such as 1900-01-01, and counts as missing."""


class PolicyMissingError(LookupError):
    """A contract has no retention period: nothing may start."""


class Period(BaseModel):
    """Days after an event (the contract's anchor field) or after receipt."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    after: Literal["event", "receipt"]
    days: int = Field(ge=0, le=36_525)


class RetentionPolicy(BaseModel):
    """Every period by `<kind>.<dataset>`, what no period may pass, and how long the unmatched wait."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hard_stop: date
    linkage_window_days: int = Field(ge=0, le=36_525)
    periods: Mapping[str, Period]

    @model_validator(mode="after")
    def _of_contracts(self) -> RetentionPolicy:
        for name, period in self.periods.items():
            full = f"identified/{name}"
            if full not in contracts.names():
                raise ValueError(f"there is no contract {full}")
            if period.after == "event" and contracts.contract(full).anchor_field is None:
                raise ValueError(f"{full} has no anchor_field to count from: say `after: receipt`")
        return self

    @property
    def digest(self) -> str:
        """Short name of what it says: another policy has another. 16 hex digits."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def period(self, contract: Contract) -> Period:
        """The period of an identified contract.

        Raises:
            PolicyMissingError: it has none.
        """
        found = self.periods.get(contract.name.removeprefix("identified/"))
        if found is None:
            raise PolicyMissingError(f"{contract.name} has no retention period; give it one in {FILE.name}")
        return found


@cache
def load_policy(path: Path = FILE) -> RetentionPolicy:
    """The policy in the file, complete.

    Raises:
        PolicyMissingError: an identified contract has no period.
        ValueError: the file is not as it should be (pydantic says where).
    """
    policy = RetentionPolicy.model_validate(yaml.safe_load(path.read_text()))
    for name in contracts.supplied():
        policy.period(contracts.contract(name))
    return policy


def expires_on(policy: RetentionPolicy, contract: Contract, received: pl.Expr | pl.Series) -> pl.Expr:
    """First day on which a record may no longer be held (Date), for rows of an identified contract.

    The earlier of the hard stop and anchor + days; where it is missing or before 1950, receipt + days.
    The anchor's own day is day 0: with 30 days, a record of 1 March is held on 30 March, expires on 31 March.
    A clock tick as of that day or later destroys it; so does one as of the hard stop.

    `received` is the day of receipt (Date), a column or a series as long as the frame.

    Raises:
        PolicyMissingError: the contract has no period.
    """
    period = policy.period(contract)
    start = _expression(received)
    if period.after == "event":
        assert contract.anchor_field is not None
        anchor = pl.col(contract.anchor_field)
        start = pl.when(anchor >= EARLIEST).then(anchor).otherwise(start)
    return _after(start, period.days, policy)


def waits_until(policy: RetentionPolicy, received: pl.Expr | pl.Series) -> pl.Expr:
    """First day on which a subject that matches nobody may no longer wait (Date); see `expires_on`."""
    return _after(_expression(received), policy.linkage_window_days, policy)


def _expression(received: pl.Expr | pl.Series) -> pl.Expr:
    return received if isinstance(received, pl.Expr) else pl.lit(received)


def _after(start: pl.Expr, days: int, policy: RetentionPolicy) -> pl.Expr:
    stop = pl.lit(policy.hard_stop, pl.Date)
    # The start is bounded first: a date at the end of the type's range must not wrap round to the past.
    return pl.min_horizontal(pl.min_horizontal(start, stop) + pl.duration(days=days), stop)
