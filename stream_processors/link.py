"""link: claim which subjects of a block are the same person. It sees tokens, and never an attribute.

The cohort is the spine: its subjects that share a strict token in pass 1 are one person, named by the smallest subject
reference. Later passes take the person that the candidate carries.

A department's subject takes the strictest match key that finds anyone: one person and it is linked, several and it is
ambiguous. Of two subjects of one supplier that claim one person the strictly stricter wins; a tie links neither. A
person whom a supplier claimed in an earlier pass is closed to its other subjects. A token that more subjects of one
council share than its match key allows (a default value, a hostel's postcode) is not used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import polars as pl

from schemas import contracts, wire
from schemas.codec import decode, encode
from schemas.registry import SchemaIds
from stream_processors.arrow import one_batch
from stream_processors.matching.catalogue import Catalogue
from stream_processors.matching.tokens import TOKEN_TAIL
from stream_processors.runtime.processor import Declaration
from stream_processors.runtime.records import Inputs, Outputs
from stream_processors.runtime.state import Table, View

LINK = Declaration(
    name="link",
    by="block",
    reads=("linkage.candidate",),
    writes=("linkage.link",),
    keeps=(Table("candidates", "true"), Table("claims", "said")),
)
Row = Mapping[str, Any]
_CANDIDATE = contracts.contract("linkage/candidate")
_LINK = contracts.contract("linkage/link")
_HOME_BYTES = 2
_BLOCKS_AT_ONCE = 1_000  # bounds the memory of a batch that touches many blocks


class Link:
    """Holds after: what is claimed of the subjects of each touched block is `claims` of its live candidates."""

    declaration = LINK

    def __init__(self, catalogue: Catalogue, schema_ids: SchemaIds) -> None:
        self._ids = schema_ids
        self._rules = rules_of(catalogue)

    def absorb(self, view: View, inputs: Sequence[Inputs]) -> set[bytes]:
        """Candidates by block and subject; touched are the blocks in which one differs."""
        touched: set[bytes] = set()
        for batch in inputs:
            latest = batch.latest()
            turned = [_turn(key) for key in latest]
            held = view.get_many("candidates", turned)
            for key, value, old in zip(turned, latest.values(), held, strict=True):
                if value != old:
                    view.put("candidates", key, value)
                if value != old or value is None:
                    touched.add(key.partition(b"|")[0])
        return touched

    def everything(self, view: View) -> set[bytes]:
        """Blocks with a live candidate, and blocks in which something was claimed."""
        return {k.partition(b"|")[0] for table in ("candidates", "claims") for k, _ in view.scan(table, b"")}

    def settle(self, view: View, touched: Iterable[bytes], inputs: Sequence[Inputs]) -> Outputs:  # noqa: ARG002
        """Links that differ from what was claimed before, each to its subject's own partition."""
        out = Outputs()
        blocks = sorted(touched)
        for low in range(0, len(blocks), _BLOCKS_AT_ONCE):
            self._settle(view, blocks[low : low + _BLOCKS_AT_ONCE], out)
        return out

    def _settle(self, view: View, blocks: Sequence[bytes], out: Outputs) -> None:
        prefixes = [b + b"|" for b in blocks]
        rows = [row for group in _scan(view, "candidates", prefixes) for row in group]
        should: dict[bytes, bytes] = {}
        if rows:
            keys = pl.Series([k for k, _ in rows]).cast(pl.String)
            decoded = pl.DataFrame(one_batch(decode([v[wire.HEADER_BYTES :] for _, v in rows], _CANDIDATE)))
            block, subject = keys.str.split_exact("|", 1).struct.unnest()
            found, over = claims(decoded.with_columns(block.alias("block"), subject.alias("subject")), self._rules)
            out.count("tokens_over_their_limit", over)
            values = wire.frame(self._ids.schema_id("linkage.link"), encode(one_batch(found), _LINK))
            homes = found["home"].to_list()
            for (key, _), home, value in zip(rows, homes, values, strict=True):
                should[key] = home.to_bytes(_HOME_BYTES, "big") + value
        said = {k: v for group in _scan(view, "claims", prefixes) for k, v in group}
        changed = [k for k, v in should.items() if said.get(k) != v]
        gone = [k for k in said if k not in should]
        for key in changed:
            view.put("claims", key, should[key])
        for key in gone:
            view.put("claims", key, None)
        out.emit(
            "linkage.link",
            [_home(should[k]) for k in changed],
            [_turn(k) for k in changed],
            [should[k][_HOME_BYTES:] for k in changed],
        )
        # A subject whose records moved to another partition is told so where it was.
        moved = [k for k in changed if k in said and _home(said[k]) != _home(should[k])]
        for keys_ in (gone, moved):
            out.emit(
                "linkage.link",
                [_home(said[k]) for k in keys_],
                [_turn(k) for k in keys_],
                [None] * len(keys_),
            )


def rules_of(catalogue: Catalogue) -> pl.DataFrame:
    """Match keys in force: match_key (String), rank (Int32, 0 the strictest), strict (Boolean), most (Int32: how many
    subjects of one council may share a token)."""
    return pl.DataFrame(
        [(k.id, i, k.strict, k.max_persons) for i, k in enumerate(catalogue.enabled)],
        schema={"match_key": pl.String, "rank": pl.Int32, "strict": pl.Boolean, "most": pl.Int32},
        orient="row",
    )


def last_claims(links: Mapping[str, Row]) -> dict[str, Row]:
    """Subject to what the last pass that it has reached claims of it, from decoded links by `subject|block`."""
    out: dict[str, tuple[int, Row]] = {}
    for key, row in links.items():
        subject, _, block = key.partition("|")
        number = int(block.partition(":")[0])
        if subject not in out or number > out[subject][0]:
            out[subject] = (number, row)
    return {subject: row for subject, (_, row) in out.items()}


def claims(candidates: pl.DataFrame, rules: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """What is claimed of each candidate, by the tokens of its block: same rows, same order.

    Args:
        candidates: columns block, subject, supplier, role, person_ref (String), home (Int32), expires_on (Date),
            tokens (List of `<match key>:<hex>`), claimed (List of String).
        rules: as `rules_of` makes it; tokens of other match keys are not looked at.

    Returns:
        supplier, role, expires_on, home as given; outcome (String), person_ref and match_key (String, null unless
        linked; match_key is `cohort` for the spine), claimed (List of String: of the spine, the suppliers that claim
        the person in this block). And how many tokens were over their limit, and so not used.
    """
    rows = candidates.with_row_index("row")
    tokens = (
        rows.select("row", "block", "subject", "supplier", "role", pl.col("tokens").alias("token"))
        .explode("token")
        .drop_nulls("token")
        .with_columns(match_key=pl.col("token").str.head(-TOKEN_TAIL))
        .join(rules, on="match_key", maintain_order="left")
    )
    spine, over = _within_limits(tokens.filter(pl.col("role") == "cohort"))
    cohort_rows = rows.filter(pl.col("role") == "cohort")
    person = _clusters(cohort_rows, spine.filter("strict"))
    closed = (
        cohort_rows.select("row", "block", supplier="claimed")
        .explode("supplier")
        .drop_nulls("supplier")
        .join(person, on="row")
        .select("block", "person_ref", "supplier")
        .unique()
    )
    finds = spine.join(person, on="row").select("block", "token", "person_ref").unique()
    pairs = (
        tokens.filter(pl.col("role") == "department")
        .select("row", "block", "supplier", "token", "match_key", "rank")
        .join(finds, on=["block", "token"])
        .join(closed, on=["block", "person_ref", "supplier"], how="anti")
    )
    best = (
        pairs.filter(pl.col("rank") == pl.col("rank").min().over("row"))
        .group_by("row")
        .agg(
            pl.col("block", "supplier", "match_key", "rank", "person_ref").first(),
            persons=pl.col("person_ref").n_unique(),
        )
    )
    lone = best.filter(pl.col("persons") == 1)
    group = ["block", "person_ref", "supplier"]
    won = (
        lone.with_columns(least=pl.col("rank").min().over(group))
        .with_columns(ties=(pl.col("rank") == pl.col("least")).sum().over(group))
        .select("row", wins=(pl.col("rank") == pl.col("least")) & (pl.col("ties") == 1))
    )
    claimed = (
        lone.group_by("block", "person_ref")
        .agg(claimed=pl.col("supplier").unique().sort())
        .rename({"person_ref": "self_ref"})
    )
    verdict = best.select("row", "persons", found="person_ref", match_key="match_key").join(won, on="row", how="left")
    decided = (
        rows.drop("claimed", "person_ref")
        .join(verdict, on="row", how="left", maintain_order="left")
        .join(person.rename({"person_ref": "self_ref"}), on="row", how="left", maintain_order="left")
        .join(claimed, on=["block", "self_ref"], how="left", maintain_order="left")
    )
    cohort = pl.col("role") == "cohort"
    outcome = (
        pl.when(cohort | pl.col("wins"))
        .then(pl.lit("linked"))
        .when(pl.col("persons").is_null())
        .then(pl.lit("waiting"))
        .when(pl.col("persons") > 1)
        .then(pl.lit("ambiguous"))
        .otherwise(pl.lit("contested"))
    )
    linked = pl.col("outcome") == "linked"
    made = decided.with_columns(outcome=outcome).select(
        "supplier",
        "role",
        "expires_on",
        "outcome",
        person_ref=pl.when(cohort).then("self_ref").when(linked).then("found"),
        match_key=pl.when(cohort).then(pl.lit("cohort")).when(linked).then("match_key"),
        claimed=pl.coalesce("claimed", pl.lit([], dtype=pl.List(pl.String))),
        home="home",
    )
    return made, over


def _within_limits(spine: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The spine's tokens without those that too many subjects of one council share, and how many those are."""
    crowded = (
        spine.group_by("block", "token", "supplier")
        .agg(shared=pl.len(), most=pl.col("most").first())
        .filter(pl.col("shared") > pl.col("most"))
        .select("block", "token")
        .unique()
    )
    return (spine.join(crowded, on=["block", "token"], how="anti") if len(crowded) else spine), len(crowded)


def _clusters(spine: pl.DataFrame, strict: pl.DataFrame) -> pl.DataFrame:
    """Row and person_ref of each cohort candidate: what it carries, or else the smallest subject among those that
    strict tokens connect.

    Connected components by repeated minimum over shared tokens; a chain of n subjects takes at most n rounds.
    """
    known = spine.filter(pl.col("person_ref").is_not_null()).select("row", "person_ref")
    new = spine.filter(pl.col("person_ref").is_null())
    labels = new.select("row", person_ref="subject")
    shared = strict.join(labels.select("row"), on="row", how="semi")
    shared = shared.filter(pl.len().over("block", "token") > 1).select("row", "block", "token")
    while not shared.is_empty():
        spread = shared.join(labels, on="row").with_columns(least=pl.col("person_ref").min().over("block", "token"))
        least = spread.group_by("row").agg(pl.col("least").min())
        nearer = labels.join(least, on="row", how="left", maintain_order="left").select(
            "row", person_ref=pl.min_horizontal("person_ref", "least")
        )
        if nearer["person_ref"].equals(labels["person_ref"]):
            break
        labels = nearer
    return pl.concat([known, labels])


def _turn(key: bytes) -> bytes:
    """`subject|block` to `block|subject` and back: the topic's key, and the state's, which is scanned by block."""
    first, _, second = key.partition(b"|")
    return second + b"|" + first


def _home(said: bytes) -> int:
    return int.from_bytes(said[:_HOME_BYTES], "big")


def _scan(view: View, table: str, prefixes: Sequence[bytes]) -> list[list[tuple[bytes, bytes]]]:
    by_width: dict[int, list[int]] = {}
    for i, prefix in enumerate(prefixes):
        by_width.setdefault(len(prefix), []).append(i)
    out: list[list[tuple[bytes, bytes]]] = [[] for _ in prefixes]
    for width, where in by_width.items():
        found = view.scan_many(table, [prefixes[i] for i in where], width)
        for i, rows in zip(where, found, strict=True):
            out[i] = rows
    return out
