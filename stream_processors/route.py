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
import pyarrow as pa

from schemas import contracts, wire
from schemas.codec import arrow_schema, decode, encode
from schemas.registry import SchemaIds
from stream_processors.arrow import one_batch
from stream_processors.matching.catalogue import Catalogue
from stream_processors.matching.tokens import TOKEN_TAIL
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

    State: `identities` and `links` as they came, `sent_blocks` (subject to its blocks, each with a digest of what
    the candidate was made of).
    """

    declaration = ROUTE
    version = ""

    def __init__(self, catalogue: Catalogue, schema_ids: SchemaIds, partitions: int) -> None:
        self._ids, self._partitions = schema_ids, partitions
        self._keys_of = {
            str(p.number): [key.id for key in catalogue.match_keys if key.pass_number == p.number]
            for p in catalogue.passes
        }

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
        subjects = sorted(touched)
        identities = dict(zip(subjects, view.get_many("identities", subjects), strict=True))
        live = [(s, v) for s, v in identities.items() if v is not None]
        rows, stops_of = self._stops(view, live)
        at = {subject: i for i, (subject, _) in enumerate(live)}
        left: list[tuple[bytes, str]] = []
        who: list[int] = []
        stops: list[Stop] = []
        for subject, packed in zip(subjects, view.get_many("sent_blocks", subjects), strict=True):
            was = dict(part.split("=") for part in packed.decode().split(",")) if packed else {}
            sent: dict[str, str] = {}
            identity = hashlib.blake2b(identities[subject] or b"", digest_size=16).digest()
            for stop in stops_of.get(subject, ()):
                sent[stop.block] = _digest(identity, stop)
                if was.get(stop.block) != sent[stop.block]:
                    who.append(at[subject])
                    stops.append(stop)
            left += [(subject, block) for block in was if block not in sent]
            if sent != was:
                said = ",".join(f"{block}={digest}" for block, digest in sent.items()).encode()
                view.put("sent_blocks", subject, said or None)
        out = Outputs()
        if stops:
            blocks = [stop.block for stop in stops]
            self._emit(out, [live[i][0] for i in who], blocks, self._encoded(rows[who], stops, view.partition))
        self._emit(out, [s for s, _ in left], [block for _, block in left], [None] * len(left))
        out.count("sent", len(stops))
        out.count("left", len(left))
        return out

    def _emit(
        self, out: Outputs, subjects: Sequence[bytes], blocks: Sequence[str], values: Sequence[bytes | None]
    ) -> None:
        keys = [subject + b"|" + block.encode() for subject, block in zip(subjects, blocks, strict=True)]
        out.emit("linkage.candidate", partitions_of(blocks, self._partitions).tolist(), keys, values)

    def _stops(self, view: View, live: Sequence[tuple[bytes, bytes]]) -> tuple[pl.DataFrame, dict[bytes, list[Stop]]]:
        """Decoded identities, and the itinerary of each subject."""
        if not live:
            return pl.DataFrame(), {}
        rows = pl.DataFrame(one_batch(decode([v[wire.HEADER_BYTES :] for _, v in live], _IDENTITY)))
        blocks_of = rows["blocks"].to_list()
        claims = self._claims(view, [s for s, _ in live], blocks_of)
        return rows, {
            subject: itinerary(subject.decode(), role, blocks, claims.get(subject, {}))
            for (subject, _), role, blocks in zip(live, rows["role"].to_list(), blocks_of, strict=True)
        }

    def _encoded(self, identities: pl.DataFrame, stops: Sequence[Stop], home: int) -> list[bytes]:
        placed = [_index(blocks, s.block) for blocks, s in zip(identities["blocks"].to_list(), stops, strict=True)]
        made = identities.with_columns(pl.Series("at", placed, dtype=pl.Int64)).with_columns(
            pl.Series("block", [s.block for s in stops], dtype=pl.String),
            pl.Series("person_ref", [s.person_ref for s in stops], dtype=pl.String),
            # Of nested lists, pyarrow makes an array ten times faster than polars a series.
            pl.Series("claimed", pa.array([s.claimed for s in stops], pa.list_(pa.string()))),
            pl.lit(home, pl.Int32).alias("home"),
            statement=_of_block("statements"),
            encoding=_of_block("encodings"),
        )
        made = self._with_tokens_of_the_pass(made).select(arrow_schema(_CANDIDATE).names)
        return wire.frame(self._ids.schema_id("linkage.candidate"), encode(one_batch(made), _CANDIDATE))

    def _with_tokens_of_the_pass(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Leave each candidate the tokens of its block's pass alone: no block learns more than it needs."""
        number = pl.col("block").str.extract(r"^(\d+):")
        tokens = pl.lit([], dtype=pl.List(pl.String))
        for name, match_keys in self._keys_of.items():
            own = pl.element().filter(pl.element().str.head(-TOKEN_TAIL).is_in(match_keys))
            tokens = pl.when(number == name).then(pl.col("tokens").list.eval(own)).otherwise(tokens)
        return rows.with_columns(tokens=tokens)

    def _claims(
        self, view: View, subjects: Sequence[bytes], blocks_of: Sequence[Sequence[str]]
    ) -> dict[bytes, dict[str, Claim]]:
        """Subject to block to what is claimed there, for the blocks that it may be in."""
        asked = [(s, b) for s, blocks in zip(subjects, blocks_of, strict=True) for b in (*blocks, f"0:{s.decode()}")]
        held = view.get_many("links", [s + b"|" + b.encode() for s, b in asked])
        found = [(s, b, v[wire.HEADER_BYTES :]) for (s, b), v in zip(asked, held, strict=True) if v is not None]
        if not found:
            return {}
        links = decode([v for _, _, v in found], _LINK)
        columns: list[list[Any]] = [links.column(n).to_pylist() for n in ("outcome", "person_ref", "claimed")]
        out: dict[bytes, dict[str, Claim]] = {}
        for (subject, block, _), outcome, person, claimed in zip(found, *columns, strict=True):
            out.setdefault(subject, {})[block] = Claim(outcome, person, tuple(claimed))
        return out


def _index(blocks: Sequence[str], block: str) -> int | None:
    return blocks.index(block) if block in blocks else None


def _of_block(name: str) -> pl.Expr:
    """The item of a list beside `blocks` that stands where the candidate's block does; none for a block of its own."""
    at = pl.col("at")
    item = pl.when(at.is_not_null() & (pl.col(name).list.len() > 0)).then(pl.col(name).list.get(at, null_on_oob=True))
    return item.fill_null("")


def _digest(identity: bytes, stop: Stop) -> str:
    """What a candidate is made of, so that one that was sent before need not be made again to see that it was."""
    carried = f"|{stop.person_ref}|{','.join(stop.claimed)}".encode()
    return hashlib.blake2b(identity + carried, digest_size=_DIGEST_BYTES).hexdigest()
