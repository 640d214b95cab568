"""In link: whom an enquiry is about, by the very rules that link a department's subject to the cohort.

The enquiry is put among the candidates of its block as one more department's subject that has strict tokens only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from schemas import contracts, wire
from schemas.codec import decode
from schemas.registry import SchemaIds
from schemas.rows import from_value, to_value
from stream_processors.arrow import one_batch
from stream_processors.claims import NO_NEAR, Rules, claims
from stream_processors.matching.tokens import TOKEN_TAIL
from stream_processors.runtime.records import Inputs, Outputs
from stream_processors.runtime.state import View

READS, WRITES = "linkage.enquiry", "linkage.sought"
Outcome = Literal["found", "nobody", "ambiguous", "insufficient", "unreadable"]
_CANDIDATE = contracts.contract("linkage/candidate")
_ENQUIRER = "enquiry"  # no supplier has this name


@dataclass(frozen=True)
class Sought:
    """Whom an enquiry is about. person_ref: of the cohort; subjects: of departments, by direct comparison."""

    outcome: Outcome
    person_ref: str | None = None
    subjects: tuple[str, ...] = ()


class Seeker:
    """Holds after: each enquiry of a batch is in every partition of `linkage.sought`."""

    def __init__(self, rules: Rules, schema_ids: SchemaIds, partitions: int) -> None:
        self._rules, self._ids, self._partitions = rules, schema_ids, partitions

    def take(self, view: View, batch: Inputs, out: Outputs) -> None:
        """Enquiries of one partition, against the candidates of their blocks."""
        for key, value in batch.latest().items():
            if value is None:
                continue
            asked = from_value(READS, value, self._ids)
            if asked["fault"]:
                found = Sought(asked["fault"])
            else:
                rows = view.scan("candidates", asked["block"].encode() + b"|")
                found = seek(_frame(rows, asked["block"]), asked["tokens"], self._rules)
            row = {
                "outcome": found.outcome,
                "person_ref": found.person_ref,
                "subjects": list(found.subjects),
                "erases": asked["erases"],
            }
            every = list(range(self._partitions))
            out.emit(WRITES, every, [key] * len(every), [to_value(WRITES, row, self._ids)] * len(every))


def seek(candidates: pl.DataFrame, tokens: Sequence[str], rules: Rules) -> Sought:
    """Whom of one block's candidates (as `claims` takes them) somebody with these strict tokens is.

    Of the cohort: the person of the strictest match key that finds anyone. Of each department: the one subject of the
    strictest match key that finds any. Several anywhere, or a token that too many share: ambiguous.
    """
    if not len(candidates):
        return Sought("nobody")
    ranks = {name: i for i, name in enumerate(rules.ids) if rules.strict[i]}
    wanted = [t for t in tokens if t[:-TOKEN_TAIL] in ranks]
    sharing = (
        candidates.select("subject", "supplier", "role", pl.col("tokens").alias("token"))
        .explode("token")
        .filter(pl.col("token").is_in(wanted))
        .with_columns(rank=pl.col("token").str.head(-TOKEN_TAIL).replace_strict(ranks, return_dtype=pl.Int64))
    )
    if not len(sharing):
        return Sought("nobody")
    departments = (
        sharing.filter(pl.col("role") == "department")
        .filter(pl.col("rank") == pl.col("rank").min().over("supplier"))
        .select("supplier", "subject")
        .unique()
        .sort("subject")
    )
    if departments["supplier"].is_duplicated().any():
        return Sought("ambiguous")
    person: str | None = None
    if (sharing["role"] == "cohort").any():
        spine = candidates.filter(pl.col("role") == "cohort")
        verdict = claims(pl.concat([spine, _enquirer(spine, wanted)]), rules, NO_NEAR).rows.tail(1)
        if verdict["outcome"][0] != "linked":
            return Sought("ambiguous")  # several persons, or a token that too many share
        person = verdict["person_ref"][0]
    return Sought("found", person, tuple(departments["subject"]))


def _enquirer(candidates: pl.DataFrame, tokens: Sequence[str]) -> pl.DataFrame:
    """One more candidate of the same block."""
    return candidates.head(1).with_columns(
        subject=pl.lit(_ENQUIRER),
        supplier=pl.lit(_ENQUIRER),
        role=pl.lit("department"),
        tokens=pl.lit(pl.Series([list(tokens)], dtype=pl.List(pl.String))),
        person_ref=pl.lit(None, pl.String),
        claimed=pl.lit(pl.Series([[]], dtype=pl.List(pl.String))),
        statement=pl.lit(""),
        encoding=pl.lit(""),
    )


def _frame(rows: Sequence[tuple[bytes, bytes]], block: str) -> pl.DataFrame:
    if not rows:
        return pl.DataFrame()
    decoded = pl.DataFrame(one_batch(decode([v[wire.HEADER_BYTES :] for _, v in rows], _CANDIDATE)))
    subjects = [k.partition(b"|")[2].decode() for k, _ in rows]
    return decoded.with_columns(block=pl.lit(block), subject=pl.Series(subjects, dtype=pl.String))
