"""The catalogue of match keys: `catalogue.yaml`, loaded and checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from stream_processors.matching.components import COMPONENTS
from stream_processors.matching.near_model import NearModel, load_near

CATALOGUE = Path(__file__).parent / "catalogue.yaml"

Names = Annotated[tuple[str, ...], Field(min_length=1)]


class Pass(BaseModel):
    """A round of linkage: all that may match in it share the block components, and so meet in one place."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int = Field(alias="pass", ge=1)
    block: Names


class MatchKey(BaseModel):
    """A list of components on which two records of one person may agree."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[a-z][a-z0-9]{1,15}$")
    components: Names
    strict: bool
    pass_number: int = Field(alias="pass", ge=1)
    max_persons: int = Field(ge=1)
    why: str = Field(min_length=1)
    without_near: bool = False
    enabled: bool = True


class Catalogue(BaseModel):
    """Match keys, strictest first, the passes in which they are used, and what near matches go by; near None: none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str = Field(min_length=1)
    passes: Annotated[tuple[Pass, ...], Field(min_length=1)]
    match_keys: Annotated[tuple[MatchKey, ...], Field(min_length=1)]
    near: NearModel | None = None
    off: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        numbers = [p.number for p in self.passes]
        if numbers != list(range(1, len(numbers) + 1)):
            raise ValueError(f"passes must be numbered 1, 2, 3... in order, not {numbers}")
        repeated = [name for name, count in Counter(key.id for key in self.match_keys).items() if count > 1]
        if repeated:
            raise ValueError(f"match keys named more than once: {', '.join(repeated)}")
        for owner, names in [
            *((f"pass {p.number}", p.block) for p in self.passes),
            *((f"match key {key.id}", key.components) for key in self.match_keys),
        ]:
            unknown = [name for name in names if name not in COMPONENTS]
            if unknown:
                raise ValueError(f"{owner}: no such component: {', '.join(unknown)}")
            if len(set(names)) < len(names):
                raise ValueError(f"{owner}: a component is repeated")
        blocks = {p.number: p.block for p in self.passes}
        for key in self.match_keys:
            if key.pass_number not in blocks:
                raise ValueError(f"match key {key.id}: there is no pass {key.pass_number}")
            lacking = [name for name in blocks[key.pass_number] if name not in key.components]
            if lacking:
                raise ValueError(f"match key {key.id}: lacks its block's {', '.join(lacking)}")
        late = [key.id for key in self.match_keys if key.strict and key.pass_number > 1]
        if late:
            raise ValueError(f"match keys that make cohort subjects one person must be of pass 1: {', '.join(late)}")
        beyond = [p.number for p in self.near.passes if p.number not in blocks] if self.near else []
        if beyond:
            raise ValueError(f"near matches: there is no pass {beyond[0]}")
        passes = [key.pass_number for key in self.match_keys]
        if passes != sorted(passes):
            raise ValueError("match keys of an earlier pass must come before those of a later one")
        return self

    @cached_property
    def enabled(self) -> tuple[MatchKey, ...]:
        """Match keys that make tokens, strictest first. Those that near matches do better are not among them if there
        are near matches."""
        return tuple(key for key in self.match_keys if key.enabled and not (self.near and key.without_near))

    @cached_property
    def by_id(self) -> dict[str, MatchKey]:
        """Every match key, enabled or not, by its id."""
        return {key.id: key for key in self.match_keys}

    @cached_property
    def ranks(self) -> dict[str, int]:
        """Rank of each match key by its id: its place in the catalogue, 1 the strictest."""
        return {key.id: i for i, key in enumerate(self.match_keys, start=1)}

    @property
    def label(self) -> str:
        """Version of the match keys, those that are switched off besides, and the version of near matches."""
        near = f"near {self.near.version}" if self.near else "no near matches"
        off = "".join(f", without {key}" for key in self.off)
        return f"{self.version}{off}, {near}"

    def configured(self, off: Sequence[str] = (), near: bool = True) -> Catalogue:
        """With match keys switched off besides, and near matches or not.

        Raises:
            ValueError: there is no such match key.
        """
        unknown = [key for key in off if key not in self.by_id]
        if unknown:
            raise ValueError(f"no such match key: {', '.join(unknown)}")
        keys = tuple(k.model_copy(update={"enabled": k.enabled and k.id not in off}) for k in self.match_keys)
        return Catalogue(
            version=self.version,
            passes=self.passes,
            match_keys=keys,
            near=self.near if near else None,
            off=tuple(sorted(off)),
        )

    def with_near(self, near: NearModel) -> Catalogue:
        """With other weights of near matches."""
        return Catalogue(version=self.version, passes=self.passes, match_keys=self.match_keys, near=near, off=self.off)

    @cached_property
    def labels(self) -> dict[str, int]:
        """What may stand as a link's match key, strictest first, and its pass: enabled match keys, then near
        matches."""
        near = {near_label(p.number): p.number for p in self.near.passes} if self.near else {}
        return {key.id: key.pass_number for key in self.enabled} | near

    @cached_property
    def strict(self) -> frozenset[str]:
        """Ids of the enabled strict match keys."""
        return frozenset(key.id for key in self.enabled if key.strict)


def near_label(number: int) -> str:
    """What stands in the place of a match key in a link by near matches of a pass."""
    return f"near{number}"


def load_catalogue(path: Path | None = None) -> Catalogue:
    """Read and check a catalogue and its near matches; without a path, those that come with Lethe.

    Raises `OSError` if it cannot be read, `yaml.YAMLError` if it is not YAML and `pydantic.ValidationError`
    (a `ValueError`) if it says something impossible: repeated ids, unknown components, a key without its
    block, keys of a later pass before those of an earlier.
    """
    stated = yaml.safe_load((path or CATALOGUE).read_text(encoding="utf-8"))
    return Catalogue.model_validate({**stated, "near": load_near()})
