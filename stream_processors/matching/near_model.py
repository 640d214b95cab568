"""What near matches go by, as data: `near.yaml`, loaded and checked. `lethe evaluate weights` makes the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

NEAR = Path(__file__).parent / "near.yaml"

_NAMES = ("same", "nearly the same", "very alike", "alike", "a little alike", "different", "exchanged")
LEVELS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "forename": _NAMES,
        "surname": _NAMES,
        "date_of_birth": ("same", "one part nearly", "one part", "two parts", "little", "nothing"),
        "postcode": ("same", "nearly the same", "sector", "district", "area", "different"),
        "middle_names": ("in common", "different"),
        "sex": ("same", "different"),
    }
)
"""How two encodings may agree in each field, in the order of level 1, 2...; level 0 is a field that one of them
lacks."""
FIELDS = tuple(LEVELS)

CUTS: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "forename": (0.8, 0.65, 0.5, 0.3),
        "surname": (0.8, 0.65, 0.5, 0.3),
        "date_of_birth": (0.8, 0.6, 0.42, 0.25),
        "postcode": (0.75, 0.55, 0.42, 0.28),
        "middle_names": (0.6,),
        "sex": (),
    }
)
"""Least Dice coefficient of level 2, 3...; level 1 is equal filters, and below the last is the last level. Of middle
names level 1 is at this or above: one of one, or one of the other's two, in common."""
EXCHANGED = 0.8
"""Least Dice coefficient of the forename of each with the surname of the other, where their own are but a little
alike."""

OTHERS = ("household", "named_after", "namesakes", "strangers")
"""What two persons may be to each other."""

KIN = OTHERS[:2]
"""Of these, those whom a subject meets as often in a small file as in a large one."""

Weights = Mapping[str, tuple[float, ...]]
"""Of each field, the bits of evidence of each level of `LEVELS`."""


class PassWeights(BaseModel):
    """Of one pass.

    against: of each kind of `OTHERS`, the evidence for one person against two of that kind. shares: of each kind among
    pairs of two persons; they sum to 1. threshold: least evidence of a link, in bits. margin: how much less the second
    best person must have. home: whether two who state different homes are never linked without a middle name in
    common: name and date of birth are shared by strangers, and nothing in a pair tells those from a person who moved.
    met: fields by which an earlier pass blocks. Two who are the same there have met before and were found wanting: a
    twin by the date of birth, a father and a son of one name by the home. A later pass knows less of them.
    matches, person, kin: from which learning on other files sets out (`training.adapt`); without them it does not. The
    share of pairs that are one person; among these the share of each level of each field; and of `KIN`, how many
    others of that kind a subject meets in its block.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    number: int = Field(alias="pass", ge=1)
    threshold: float
    home: bool = False
    met: tuple[Literal["date_of_birth", "postcode"], ...] = ()
    margin: Annotated[float, Field(gt=0)]
    shares: Mapping[str, float]
    against: Mapping[str, Weights]
    matches: Annotated[float, Field(gt=0, lt=1)] | None = None
    person: Mapping[str, tuple[Annotated[float, Field(gt=0)], ...]] | None = None
    kin: Mapping[str, Annotated[float, Field(ge=0)]] = {}

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if set(self.against) != set(OTHERS):
            raise ValueError(f"pass {self.number}: against must have {', '.join(OTHERS)}, each once and no others")
        for name in OTHERS:
            found = self.against[name]
            unknown = sorted(found.keys() - LEVELS.keys())
            if unknown:
                raise ValueError(f"pass {self.number}, {name}: no such field: {', '.join(unknown)}")
            for field, levels in LEVELS.items():
                if len(found.get(field, ())) != len(levels):
                    raise ValueError(f"pass {self.number}, {name}, {field}: must have {len(levels)} weights")
        if self.person is not None and {f: len(of) for f, of in self.person.items()} != {
            f: len(of) for f, of in LEVELS.items()
        }:
            raise ValueError(f"pass {self.number}, person: must have a share for each level of each field")
        if (
            set(self.shares) != set(OTHERS)
            or min(self.shares.values()) <= 0
            or abs(sum(self.shares.values()) - 1) > 0.01
        ):
            raise ValueError(f"pass {self.number}: shares must be those of {', '.join(OTHERS)} and sum to 1")
        return self

    @property
    def floor(self) -> float:
        """Evidence below this decides nothing."""
        return self.threshold - self.margin


class NearModel(BaseModel):
    """Weights, thresholds and margins of the passes that have near matches."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str = Field(min_length=1)
    passes: tuple[PassWeights, ...]

    @model_validator(mode="after")
    def _once(self) -> Self:
        numbers = [p.number for p in self.passes]
        if len(set(numbers)) < len(numbers):
            raise ValueError("a pass has its weights once")
        return self

    def of(self, number: int) -> PassWeights | None:
        """Of a pass, or None: it has no near matches."""
        return next((p for p in self.passes if p.number == number), None)


def as_yaml(model: NearModel) -> str:
    """The text that `load_near` reads."""
    rows = json.loads(model.model_dump_json(by_alias=True))
    return str(yaml.safe_dump(rows, sort_keys=False, default_flow_style=None, width=120))


def load_near(path: Path | None = None) -> NearModel:
    """Read and check the model; without a path, the one that comes with Lethe.

    Raises `OSError`, `yaml.YAMLError`, or `pydantic.ValidationError` (a `ValueError`) if weights do not fit the levels.
    """
    return NearModel.model_validate(yaml.safe_load((path or NEAR).read_text(encoding="utf-8")))
