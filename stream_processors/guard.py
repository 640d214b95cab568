"""The guard before the research zone: what is not allowed by name, type and domain does not pass.

What is allowed stands in `guard.yaml`, by hand and beside the contract: a research field passes only as both have it,
so that no single change of either widens what the enclave sees. Whatever both say, a domain is closed: an enum, a short
range, whole months, a pseudonym, an area of the postcode directory or the council's own code. Anything else stops
start-up.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from schemas import contracts
from schemas.classification import UnclassifiedFieldError
from schemas.contracts import Contract, Field

ALLOWED = Path(__file__).with_name("guard.yaml")
WIDEST_RANGE = 10_000
"""Whole numbers that one field may take: an NHS number needs 10**9."""
REFUSED, EXPIRED = "RefusedByGuard", "Expired"

_SYMBOL = re.compile(r"[A-Za-z][A-Za-z_]*[0-9]?$")
_COUNCIL = r"^[a-z0-9]+(?:-[a-z0-9]+)*$"
_ENVELOPE = MappingProxyType(
    {
        "dataset": "enum",
        "supplier": "string",
        "expires_on": "date",
        "received_on": "date",
        "person": "record",
        "person.family_ref": "string",
    }
)
"""Fields of a contribution that do not go on; the family's reference becomes a pseudonym."""


class GuardError(UnclassifiedFieldError):
    """The guard is missing, allows what it must not, or differs from the research contract."""


@dataclass(frozen=True)
class Permission:
    """One field of the research record, as it may be."""

    path: str
    classification: str
    kind: str
    symbols: tuple[str, ...] = ()
    domain: tuple[float, float] | str | None = None

    @classmethod
    def of(cls, leaf: Field) -> Permission:
        """What a contract's field would need."""
        domain = "pseudonym" if leaf.classification == "pseudonym" and leaf.domain is None else leaf.domain
        return cls(leaf.path, leaf.classification, leaf.kind, leaf.symbols, domain)

    @property
    def closed(self) -> bool:
        """Whether its values are few enough, and none can be anybody's name or number."""
        match self.kind:
            case "array":
                return self.classification == "attribute" and self.domain is None and not self.symbols
            case "boolean":
                return self.domain is None and not self.symbols
            case "enum":
                named = all(_SYMBOL.match(s) for s in self.symbols)
                return self.domain is None and named and 0 < len(self.symbols) == len(set(self.symbols))
            case "date":
                return self.domain == "month" and not self.symbols
            case "int" | "double" if isinstance(self.domain, tuple):
                low, high = self.domain
                return math.isfinite(low) and math.isfinite(high) and 0 <= high - low < WIDEST_RANGE
            case "string":
                pair = (self.classification, self.domain)
                return pair in {("pseudonym", "pseudonym"), ("quasi", "area")} and not self.symbols
        return False


def load_allowed(path: Path = ALLOWED) -> Mapping[str, Permission]:
    """The permissions by path.

    Raises:
        GuardError: there is no such file, or it is not a list of permissions.
    """
    try:
        raw = yaml.safe_load(path.read_text())
    except OSError as e:
        raise GuardError(f"{path}: the guard cannot be read ({e.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise GuardError(f"{path}: the guard is no YAML") from None
    if not isinstance(raw, dict) or not raw:
        raise GuardError(f"{path}: the guard allows nothing")
    return {str(name): _permission(path, str(name), entry) for name, entry in raw.items()}


def _permission(path: Path, name: str, entry: Any) -> Permission:
    if (
        not isinstance(entry, dict)
        or set(entry) - {"class", "type", "domain", "of"}
        or not {"class", "type"} <= set(entry)
    ):
        raise GuardError(f"{path}: {name} needs class and type, and may have domain or of")
    domain, symbols = entry.get("domain"), entry.get("of") or []
    if isinstance(domain, list):
        if len(domain) != 2 or not all(isinstance(n, int | float) and not isinstance(n, bool) for n in domain):
            raise GuardError(f"{path}: {name} has a range that is not two numbers")
        domain = (domain[0], domain[1])
    if not isinstance(symbols, list) or not all(isinstance(s, str) for s in symbols):
        raise GuardError(f"{path}: {name} has symbols that are not a list of texts")
    return Permission(name, str(entry["class"]), str(entry["type"]), tuple(symbols), domain)


class Guard:
    """Made once at start-up; then asked of each batch."""

    def __init__(
        self,
        research: Contract,
        areas: frozenset[str],
        allowed: Mapping[str, Permission] | None = None,
        contribution: Contract | None = None,
    ) -> None:
        """Hold the research contract to what is allowed, and the contribution's fields to the research contract's.

        Args:
            research: the contract of research records.
            areas: codes of the postcode directory.
            allowed: instead of `guard.yaml`.
            contribution: instead of the contract of contributions.

        Raises:
            GuardError: a permission is missing, too wide, or differs from the contract; there are no areas; a
                contribution has a field that the research record may not have.
            UnclassifiedFieldError: a field has no classification.
        """
        allowed = load_allowed() if allowed is None else allowed
        if not areas:
            raise GuardError("the guard has no areas: which codes of places may pass is not known")
        self._areas = pa.array(sorted(areas), pa.string())
        leaves = {leaf.path: leaf for leaf in research.leaves}
        _hold(leaves, allowed)
        self._checks = _checks(leaves, contribution or contracts.contract("linkage/contribution"))

    def refusals(self, batch: pa.RecordBatch, as_of: date | None = None) -> list[str | None]:
        """Of each row of decoded contributions: why it is refused, or None if every value lies within its domain.

        `as_of`: the day that the clock says; what expires on it or before is refused. None: no clock has ticked yet.
        """
        verdicts = [self._dataset(batch, top, leaves) for top, leaves in self._checks.items()]
        tops = [pc.cast(batch.column(t).is_valid(), pa.int8()) for t in self._checks]
        one = pc.equal(functools.reduce(pc.add, tops), 1)
        passes = pc.fill_null(functools.reduce(pc.and_, verdicts, one), False)
        out = [None if ok else REFUSED for ok in passes.to_pylist()]
        if as_of is None:
            return out
        live = pc.fill_null(pc.greater(batch.column("expires_on"), pa.scalar(as_of)), False).to_pylist()
        return [error or (None if ok else EXPIRED) for error, ok in zip(out, live, strict=True)]

    def _dataset(self, batch: pa.RecordBatch, top: str, leaves: list[Field]) -> pa.Array:
        column = batch.column(top)
        named = pc.equal(batch.column("dataset"), top)
        verdict = pc.equal(named, column.is_valid())
        if column.null_count == len(column):
            return verdict
        for leaf in leaves:
            values = pc.struct_field(column, leaf.name)
            check = self._area(values, batch) if leaf.domain == "area" else _within(values, leaf)
            if check is not None:
                # A null is a missing value where the field may be missing, or a row of another dataset.
                unset = True if leaf.nullable else pc.is_null(column)
                verdict = pc.and_(verdict, pc.if_else(pc.is_null(check), unset, check))
        return verdict

    def _area(self, values: pa.Array, batch: pa.RecordBatch) -> pa.Array:
        """A code of the directory, or the code of the council that supplied the record."""
        supplier = batch.column("supplier")
        own = pc.and_(
            pc.equal(supplier, pc.binary_join_element_wise("council", values, "-")),
            pc.match_substring_regex(values, _COUNCIL),
        )
        return pc.or_(pc.and_(values.is_valid(), pc.is_in(values, value_set=self._areas)), own)


def _hold(leaves: Mapping[str, Field], allowed: Mapping[str, Permission]) -> None:
    for path in sorted(allowed.keys() - leaves.keys()):
        raise GuardError(f"the guard allows {path}, which research/person does not have")
    for path, leaf in leaves.items():
        permission = allowed.get(path)
        if permission is None:
            raise GuardError(f"research/person: {path} is not allowed by the guard")
        if permission != Permission.of(leaf):
            raise GuardError(f"research/person: {path} is not of the class, type and domain that the guard allows")
        if not permission.closed:
            raise GuardError(f"research/person: {path} has a domain that is not closed")
        if leaf.kind == "array" and not any(other.startswith(f"{path}.") for other in leaves):
            raise GuardError(f"research/person: {path} is a list of something else than records")


def _checks(allowed: Mapping[str, Field], contribution: Contract) -> dict[str, list[Field]]:
    """Fields to check, by dataset."""
    out: dict[str, list[Field]] = {}
    kinds = {leaf.path: leaf.kind for leaf in contribution.leaves}
    if {path: kinds.get(path) for path in _ENVELOPE} != _ENVELOPE:
        raise GuardError(f"linkage/contribution: {', '.join(_ENVELOPE)} are not as publish reads them")
    for leaf in contribution.leaves:
        if leaf.path in _ENVELOPE or (leaf.kind == "record" and leaf.path in allowed):
            continue
        target = allowed.get(leaf.path.removeprefix("person."))
        if target is None:
            raise GuardError(f"linkage/contribution: {leaf.path} is nothing that research/person has")
        if (target.kind, target.symbols, target.domain, target.classification) != (
            leaf.kind,
            leaf.symbols,
            leaf.domain,
            leaf.classification,
        ):
            raise GuardError(f"linkage/contribution: {leaf.path} is not as research/person has it")
        out.setdefault(leaf.path.partition(".")[0], []).append(leaf)
    return out


def _within(values: pa.Array, leaf: Field) -> pa.Array | None:
    if leaf.symbols:
        return pc.if_else(values.is_valid(), pc.is_in(values, value_set=pa.array(leaf.symbols)), None)
    if leaf.domain == "month":
        return pc.equal(pc.day(values), 1)
    if isinstance(leaf.domain, tuple):
        low, high = leaf.domain
        return pc.and_(pc.greater_equal(values, low), pc.less_equal(values, high))
    return None
