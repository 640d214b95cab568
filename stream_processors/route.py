"""route: send each subject's identity to the blocks that it belongs to, and take it back from those that it leaves.

Passes are a chain. Every subject goes to its block of pass 1. A department's subject goes on to the next pass while it
waits; a cohort subject goes to every pass, with its person and with who has claimed that person so far. So `route`
reads what `link` claims, and an answer that changes in an early pass moves everything after it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from schemas import contracts, wire
from schemas.codec import arrow_schema, decode, encode
from schemas.registry import SchemaIds
from stream_processors.arrow import one_batch
from stream_processors.matching.catalogue import Catalogue
from stream_processors.refs import REF_WIDTH
from stream_processors.runtime.partition import partitions_of
from stream_processors.runtime.processor import Declaration
from stream_processors.runtime.records import Inputs, Outputs
from stream_processors.runtime.state import Table, View

ROUTE = Declaration(
    name="route",
    by="subject",
    reads=("linkage.identity", "linkage.link"),
    writes=("linkage.candidate",),
    keeps=(Table("identities", "true"), Table("links", "true"), Table("sent_blocks", "said")),
)
_IDENTITY = contracts.contract("linkage/identity")
_CANDIDATE = contracts.contract("linkage/candidate")
_LINK = contracts.contract("linkage/link")
_SUBJECT = slice(0, REF_WIDTH)
_DIGEST_BYTES = 8


@dataclass(frozen=True)
class Claim:
    """What `link` says of a subject in one block."""

    outcome: str
    person_ref: str | None
    claimed: tuple[str, ...]


@dataclass(frozen=True)
class Stop:
    """One block that a subject is to be sent to, and what its candidate carries there."""

    block: str
    person_ref: str | None = None
    claimed: tuple[str, ...] = ()


def itinerary(subject: str, role: str, blocks: Sequence[str], claims: Mapping[str, Claim]) -> list[Stop]:
    """The blocks that a subject is to be in, by what is claimed of it so far.

    Args:
        subject: its reference; a cohort subject that cannot enter pass 1, and a subject that can enter no pass, is
            alone in a block of its own, `0:<subject>`: a cohort person is published and a department's subject is
            accounted for as waiting.
        role: cohort or department.
        blocks: `<pass>:<hex>` of each pass that it can enter, in order of passes.
        claims: what is claimed of it, by block; claims of blocks that it has left do no harm.
    """
    own = f"0:{subject}"
    if role == "department":
        stops = []
        for block in blocks or [own]:
            stops.append(Stop(block))
            claim = claims.get(block)
            if claim is None or claim.outcome != "waiting":
                break
        return stops
    first = blocks[0] if blocks and blocks[0].startswith("1:") else own
    stops = [Stop(first)]
    claim, person, claimed = claims.get(first), None, set[str]()
    for block in blocks:
        if block == first:
            continue
        # A later pass waits for the one before it: sent sooner, its person would look free to who has claimed it.
        if claim is None or claim.person_ref is None:
            break
        person = person or claim.person_ref
        claimed |= set(claim.claimed)
        stops.append(Stop(block, person, tuple(sorted(claimed))))
        claim = claims.get(block)
    return stops


class Route:
    """Holds after: every live subject is a candidate in exactly the blocks of its `itinerary`, whatever it was before.

    State: `identities` and `links` as they came, `sent_blocks` (subject to its blocks, each with a digest of the
    candidate that was sent).
    """

    declaration = ROUTE

    def __init__(self, catalogue: Catalogue, schema_ids: SchemaIds, partitions: int) -> None:
        self._ids, self._partitions = schema_ids, partitions
        self._pass_of = {key.id: str(key.pass_number) for key in catalogue.match_keys}

    def absorb(self, view: View, inputs: Sequence[Inputs]) -> set[bytes]:
        """Identities by subject, links by subject and block; touched are the subjects of which one differs."""
        touched: set[bytes] = set()
        for batch in inputs:
            table = "identities" if batch.topic == "linkage.identity" else "links"
            latest = batch.latest()
            held = view.get_many(table, list(latest))
            for (key, value), old in zip(latest.items(), held, strict=True):
                if value != old:
                    view.put(table, key, value)
                if value != old or value is None:  # a tombstone takes back even what only `said` remembers
                    touched.add(key[_SUBJECT])
        return touched

    def everything(self, view: View) -> set[bytes]:
        """Subjects that live, and subjects that were sent somewhere."""
        return {k for table in ("identities", "sent_blocks") for k, _ in view.scan(table, b"")}

    def settle(self, view: View, touched: Iterable[bytes], inputs: Sequence[Inputs]) -> Outputs:  # noqa: ARG002
        """Candidates that differ from those sent before; tombstones for the blocks that a subject has left."""
        out = Outputs()
        subjects = sorted(touched)
        now = self._candidates(view, subjects)
        keys: list[bytes] = []
        values: list[bytes | None] = []
        blocks: list[str] = []
        for subject, packed in zip(subjects, view.get_many("sent_blocks", subjects), strict=True):
            was = dict(part.split("=") for part in packed.decode().split(",")) if packed else {}
            sent: dict[str, str] = {}
            for block, value in now.get(subject, {}).items():
                sent[block] = hashlib.blake2b(value, digest_size=_DIGEST_BYTES).hexdigest()
                if was.get(block) != sent[block]:
                    keys.append(subject + b"|" + block.encode())
                    values.append(value)
                    blocks.append(block)
            for block in was:
                if block not in sent:
                    keys.append(subject + b"|" + block.encode())
                    values.append(None)
                    blocks.append(block)
            if sent != was:
                said = ",".join(f"{block}={digest}" for block, digest in sent.items()).encode()
                view.put("sent_blocks", subject, said or None)
        out.emit("linkage.candidate", partitions_of(blocks, self._partitions).tolist(), keys, values)
        return out

    def _candidates(self, view: View, subjects: Sequence[bytes]) -> dict[bytes, dict[str, bytes]]:
        """Subject to block to encoded candidate, for the live among the subjects."""
        identities = view.get_many("identities", subjects)
        live = [(s, v) for s, v in zip(subjects, identities, strict=True) if v is not None]
        if not live:
            return {}
        names = [s.decode() for s, _ in live]
        rows = pl.DataFrame(one_batch(decode([v[wire.HEADER_BYTES :] for _, v in live], _IDENTITY)))
        claims = self._claims(view, [s for s, _ in live])
        who: list[int] = []
        stops: list[Stop] = []
        for i, (name, role, blocks) in enumerate(zip(names, rows["role"], rows["blocks"].to_list(), strict=True)):
            for stop in itinerary(name, role, blocks, claims.get(name, {})):
                who.append(i)
                stops.append(stop)
        made = rows[who].with_columns(
            pl.Series("block", [s.block for s in stops], dtype=pl.String),
            pl.Series("person_ref", [s.person_ref for s in stops], dtype=pl.String),
            pl.Series("claimed", [list(s.claimed) for s in stops], dtype=pl.List(pl.String)),
            pl.lit(view.partition, pl.Int32).alias("home"),
        )
        made = self._with_tokens_of_the_pass(made).select(arrow_schema(_CANDIDATE).names)
        values = wire.frame(self._ids.schema_id("linkage.candidate"), encode(one_batch(made), _CANDIDATE))
        out: dict[bytes, dict[str, bytes]] = {s: {} for s, _ in live}
        for i, stop, value in zip(who, stops, values, strict=True):
            out[live[i][0]][stop.block] = value
        return out

    def _with_tokens_of_the_pass(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Leave each candidate the tokens of its block's pass alone: no block learns more than it needs."""
        if rows.is_empty():
            return rows
        tokens = (
            rows.with_row_index("row")
            .select("row", "tokens", number=pl.col("block").str.extract(r"^(\d+):"))
            .explode("tokens")
            .drop_nulls("tokens")
            .with_columns(own=pl.col("tokens").str.extract(r"^([^:]+):").replace_strict(self._pass_of, default=None))
            .filter(pl.col("own") == pl.col("number"))
            .group_by("row", maintain_order=True)
            .agg("tokens")
        )
        none = pl.lit([], dtype=pl.List(pl.String))
        return (
            rows.drop("tokens")
            .with_row_index("row")
            .join(tokens, on="row", how="left", maintain_order="left")
            .with_columns(pl.coalesce("tokens", none))
            .drop("row")
        )

    def _claims(self, view: View, subjects: Sequence[bytes]) -> dict[str, dict[str, Claim]]:
        groups = view.scan_many("links", [s + b"|" for s in subjects], REF_WIDTH + 1)
        flat = [(k.decode(), v) for rows in groups for k, v in rows]
        if not flat:
            return {}
        links = decode([v[wire.HEADER_BYTES :] for _, v in flat], _LINK)
        columns: list[list[Any]] = [links.column(n).to_pylist() for n in ("outcome", "person_ref", "claimed")]
        out: dict[str, dict[str, Claim]] = {}
        for (key, _), outcome, person, claimed in zip(flat, *columns, strict=True):
            subject, _, block = key.partition("|")
            out.setdefault(subject, {})[block] = Claim(outcome, person, tuple(claimed))
        return out
