"""The guard before the research zone: what is not allowed by name, type and domain does not pass.

The names and types are the research contract's; the domains are its enums, its ranges, whole months, and for an area
the
form of a code. A field of a contribution that the research contract lacks stops start-up.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from schemas import contracts
from schemas.classification import UnclassifiedFieldError
from schemas.contracts import Contract, Field

_AREA = r"^(?:[EWSN][0-9]{8}|[a-z0-9]+(?:-[a-z0-9]+)*)$"


class Guard:
    """Made once at start-up; then asked of each batch."""

    def __init__(self, research: Contract) -> None:
        """Hold the contribution's fields to the research contract's.

        Raises:
            UnclassifiedFieldError: a contribution has a field that the research record may not have.
        """
        allowed: Mapping[str, Field] = {leaf.path: leaf for leaf in research.leaves}
        envelope = {"dataset", "supplier", "expires_on", "received_on", "person", "person.family_ref"}
        self._checks: dict[str, list[Field]] = {}
        for leaf in contracts.contract("linkage/contribution").leaves:
            if leaf.path in envelope or (leaf.path in allowed and leaf.kind == "record"):
                continue
            target = allowed.get(leaf.path.removeprefix("person."))
            if target is None or target.symbols != leaf.symbols or target.domain != leaf.domain:
                raise UnclassifiedFieldError(f"research/person does not allow {leaf.path} as it is")
            if target.kind == "date" and target.domain != "month":
                raise UnclassifiedFieldError(f"research/person: {target.path} is a date that is not a month")
            if target.kind == "string" and target.domain != "area":
                raise UnclassifiedFieldError(f"research/person: {target.path} is free text")
            top = leaf.path.partition(".")[0]
            self._checks.setdefault(top, []).append(leaf)

    def allowed(self, batch: pa.RecordBatch) -> list[bool]:
        """One verdict per row of decoded contributions: every value that is set lies within its domain."""
        verdicts = [self._dataset(batch, top, leaves) for top, leaves in self._checks.items()]
        tops = [pc.cast(batch.column(t).is_valid(), pa.int8()) for t in self._checks]
        one = pc.equal(functools.reduce(pc.add, tops), 1)
        out: list[bool] = functools.reduce(pc.and_, verdicts, one).to_pylist()
        return out

    def _dataset(self, batch: pa.RecordBatch, top: str, leaves: list[Field]) -> pa.Array:
        column = batch.column(top)
        named = pc.equal(batch.column("dataset"), top)
        verdict = pc.equal(named, column.is_valid())
        if column.null_count == len(column):
            return verdict
        for leaf in leaves:
            values = pc.struct_field(column, leaf.name)
            check = _within(values, leaf)
            if check is not None:
                # A null is a missing value where the field may be missing, or a row of another dataset.
                unset = True if leaf.nullable else pc.is_null(column)
                verdict = pc.and_(verdict, pc.if_else(pc.is_null(check), unset, check))
        return verdict


def _within(values: pa.Array, leaf: Field) -> pa.Array | None:
    if leaf.symbols:
        return pc.if_else(values.is_valid(), pc.is_in(values, value_set=pa.array(leaf.symbols)), None)
    if leaf.domain == "month":
        return pc.equal(pc.day(values), 1)
    if leaf.domain == "area":
        return pc.match_substring_regex(values, _AREA)
    if isinstance(leaf.domain, tuple):
        low, high = leaf.domain
        return pc.and_(pc.greater_equal(values, low), pc.less_equal(values, high))
    return None
