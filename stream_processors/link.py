"""link: claim which subjects of a block are the same person. It sees tokens, and never an attribute.

The cohort is the spine: its subjects that share a strict token are one person, named by the smallest subject reference.
A department's subject takes the strictest match key that finds anyone: one person and it is linked, several and it is
ambiguous. Of two subjects of one supplier that claim one person the strictly stricter wins; a tie links neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import polars as pl

from schemas import contracts, wire
from schemas.codec import decode, encode
from schemas.registry import SchemaIds
from stream_processors.arrow import one_batch
from stream_processors.matching.catalogue import Catalogue
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
_CANDIDATE = contracts.contract("linkage/candidate")
_LINK = contracts.contract("linkage/link")
_HOME_BYTES = 2
_TOKEN_TAIL = 33  # a colon and 32 hex digits follow the match key


class Link:
    """Holds after: what is claimed of the subjects of each touched block is `claims` of its live candidates."""

    declaration = LINK

    def __init__(self, catalogue: Catalogue, schema_ids: SchemaIds) -> None:
        self._ids = schema_ids
        enabled = catalogue.enabled
        self._ranks = {k.id: i for i, k in enumerate(enabled)}
        self._strict = [k.id for k in enabled if k.strict]

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
        prefixes = [b + b"|" for b in blocks]
        rows = [row for group in _scan(view, "candidates", prefixes) for row in group]
        should: dict[bytes, bytes] = {}
        if rows:
            keys = pl.Series([k for k, _ in rows]).cast(pl.String)
            decoded = pl.DataFrame(one_batch(decode([v[wire.HEADER_BYTES :] for _, v in rows], _CANDIDATE)))
            block, subject = keys.str.split_exact("|", 1).struct.unnest()
            found = claims(
                decoded.with_columns(block.alias("block"), subject.alias("subject")),
                self._ranks,
                self._strict,
            )
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
        return out


def claims(candidates: pl.DataFrame, ranks: dict[str, int], strict: Sequence[str]) -> pl.DataFrame:
    """What is claimed of each candidate, by the tokens of its block: same rows, same order.

    Args:
        candidates: columns block, subject, supplier, role (String), home (Int32), expires_on (Date),
            tokens (List of `<match key>:<hex>`).
        ranks: rank of each match key in force, 0 for the strictest; tokens of others are not looked at.
        strict: match keys that make two cohort subjects one person.

    Returns:
        supplier, role, expires_on, home as given; outcome (String), person_ref and match_key (String, null unless
        linked; match_key is `cohort` for the spine).
    """
    rows = candidates.with_row_index("row")
    tokens = (
        rows.select("row", "block", "subject", "supplier", "role", pl.col("tokens").alias("token"))
        .explode("token")
        .drop_nulls("token")
        .with_columns(match_key=pl.col("token").str.head(-_TOKEN_TAIL))
        .with_columns(rank=pl.col("match_key").replace_strict(ranks, default=None, return_dtype=pl.Int32))
        .drop_nulls("rank")
    )
    spine = tokens.filter(pl.col("role") == "cohort")
    person = _clusters(rows.filter(pl.col("role") == "cohort"), spine.filter(pl.col("match_key").is_in(list(strict))))
    finds = (
        spine.join(person, on="row")
        .group_by("block", "token")
        .agg(persons=pl.col("person_ref").n_unique(), person_ref=pl.col("person_ref").first())
    )
    best = (
        tokens.filter(pl.col("role") == "department")
        .join(finds, on=["block", "token"])
        .sort("rank")
        .unique("row", keep="first", maintain_order=True)
    )
    lone = best.filter(pl.col("persons") == 1)
    group = ["block", "person_ref", "supplier"]
    won = (
        lone.with_columns(least=pl.col("rank").min().over(group))
        .with_columns(ties=(pl.col("rank") == pl.col("least")).sum().over(group))
        .select("row", wins=(pl.col("rank") == pl.col("least")) & (pl.col("ties") == 1))
    )
    verdict = best.select("row", "persons", "person_ref", "match_key").join(won, on="row", how="left")
    decided = rows.join(verdict, on="row", how="left", maintain_order="left").join(
        person.rename({"person_ref": "self_ref"}), on="row", how="left", maintain_order="left"
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
    return decided.with_columns(outcome=outcome).select(
        "supplier",
        "role",
        "expires_on",
        "outcome",
        person_ref=pl.when(cohort).then("self_ref").when(linked).then("person_ref"),
        match_key=pl.when(cohort).then(pl.lit("cohort")).when(linked).then("match_key"),
        home="home",
    )


def _clusters(spine: pl.DataFrame, strict: pl.DataFrame) -> pl.DataFrame:
    """Row and person_ref of each cohort candidate: the smallest subject among those that strict tokens connect.

    Connected components by repeated minimum over shared tokens; a chain of n subjects takes at most n rounds.
    """
    labels = spine.select("row", person_ref="subject")
    shared = strict.filter(pl.len().over("block", "token") > 1).select("row", "block", "token")
    if shared.is_empty():
        return labels
    while True:
        spread = shared.join(labels, on="row").with_columns(least=pl.col("person_ref").min().over("block", "token"))
        least = spread.group_by("row").agg(pl.col("least").min())
        nearer = labels.join(least, on="row", how="left", maintain_order="left").select(
            "row", person_ref=pl.min_horizontal("person_ref", "least")
        )
        if nearer["person_ref"].equals(labels["person_ref"]):
            return labels
        labels = nearer


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
