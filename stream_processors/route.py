"""route: send each subject's identity to the blocks that it belongs to, and take it back from those that it leaves.

Passes are a chain. Every subject goes to its block of pass 1. A department's subject goes on to the next pass while it
waits; a cohort subject goes to every pass, with its person and with who has claimed that person so far. So `route`
reads what `link` claims, and an answer that changes in an early pass moves everything after it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

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

Ints = npt.NDArray[np.int64]

ROUTE = Declaration(
    name="route",
    by="subject",
    reads=("linkage.identity", "linkage.link"),
    writes=("linkage.candidate",),
    keeps=(Table("identities", "true"), Table("heard", "true"), Table("sent_blocks", "said")),
    form="2",
)
_IDENTITY = contracts.contract("linkage/identity")
_CANDIDATE = contracts.contract("linkage/candidate")
_LINK = contracts.contract("linkage/link")
_SUBJECT, _BLOCK = slice(0, REF_WIDTH), slice(REF_WIDTH + 1, None)
_DIGEST_BYTES = 8
WAITING = b"waiting"


class Stop(NamedTuple):
    """One block that a subject is to be sent to, and what its candidate carries there."""

    block: str
    person_ref: str | None = None
    claimed: tuple[str, ...] = ()
    row: int = 0
    """Of the identities in hand: a subject has one for each key epoch."""


def chain(subject: str, role: str, blocks: Sequence[str]) -> Sequence[str]:
    """The blocks that a subject may come to, in order, each after what is claimed of it in the one before.

    A cohort subject that cannot enter pass 1, and a subject that can enter no pass, is alone in a block of its own
    first, `0:<subject>`: a cohort person is published and a department's subject is accounted for as waiting.

    Args:
        subject: its reference.
        role: cohort or department.
        blocks: `<pass>:<hex>` of each pass that it can enter, in order of passes.
    """
    if not blocks or (role == "cohort" and not blocks[0].startswith("1:")):
        return [f"0:{subject}", *blocks]
    return blocks


def itinerary(role: str, blocks: Sequence[str], heard: Sequence[bytes | None], row: int = 0) -> list[Stop]:
    """The blocks that a subject is to be in, by what is claimed of it so far.

    Args:
        role: cohort or department.
        blocks: its `chain`.
        heard: what `told_of` makes of the claim in each of the blocks but the last, on which nothing depends.
        row: of the identities in hand.
    """
    stops = [Stop(blocks[0], row=row)]
    person, claimed = "", set[str]()
    for told, block in zip(heard, blocks[1:], strict=True):
        # A later pass waits for the one before it: sent sooner, its person would look free to who has claimed it.
        if told is None or (told == WAITING) != (role == "department"):
            break
        if role == "department":
            stops.append(Stop(block, row=row))
            continue
        who, _, names = told.decode().partition("|")
        person = person or who
        claimed.update(names.split(",") if names else ())
        stops.append(Stop(block, person, tuple(sorted(claimed)), row))
    return stops


def told_of(links: pa.RecordBatch) -> list[bytes | None]:
    """Of each claim of `linkage.link`, as far as a subject's way depends on it: that a department's subject waits, or
    a cohort subject's person and who has claimed it, `<person>|<supplier>,<supplier>...`; None for any other."""
    told = pl.when(pl.col("outcome") == "waiting").then(pl.lit(WAITING.decode()))
    person = pl.concat_str("person_ref", pl.col("claimed").list.join(","), separator="|")
    made = pl.DataFrame(one_batch(links)).select(told.when(pl.col("role") == "cohort").then(person))
    out: list[bytes | None] = made.to_series().cast(pl.Binary).to_list()
    return out


class Route:
    """Holds after: every live subject is a candidate in exactly the blocks of its `itinerary`, whatever it was before.

    State: `identities` as they came, `heard` (subject and block to what `told_of` makes of the claim there),
    `sent_blocks` (subject to its blocks, each with a digest of what the candidate was made of).
    """

    declaration = ROUTE
    version = ""

    def __init__(self, catalogue: Catalogue, schema_ids: SchemaIds, partitions: int) -> None:
        self._ids, self._partitions = schema_ids, partitions
        self._match_keys = pa.array([key.id for key in catalogue.match_keys], pa.binary())
        self._pass_of = np.array([*(key.pass_number for key in catalogue.match_keys), -1], np.int64)
        self._last = f"{max(p.number for p in catalogue.passes)}:".encode()

    def absorb(self, view: View, inputs: Sequence[Inputs]) -> set[bytes]:
        """Identities by subject, what is heard of links by subject and block; touched are the subjects whose way may
        have changed."""
        touched: set[bytes] = set()
        for batch in inputs:
            (self._identities if batch.topic == "linkage.identity" else self._links)(view, batch, touched)
        return touched

    def _identities(self, view: View, batch: Inputs, touched: set[bytes]) -> None:
        latest = batch.latest()
        held = view.get_many("identities", list(latest))
        for (key, value), old in zip(latest.items(), held, strict=True):
            if value != old:
                view.put("identities", key, value)
            if value != old or value is None:  # a tombstone takes back even what only `said` remembers
                touched.add(key[_SUBJECT])

    def _links(self, view: View, batch: Inputs, touched: set[bytes]) -> None:
        """Most claims change nobody's way, and a subject is settled for those that do: not for one of the last pass,
        nor for a department's subject that no longer waits where it was not known to wait."""
        latest = batch.latest()
        bodies = {key: value[wire.HEADER_BYTES :] for key, value in latest.items() if value is not None}
        told = dict(zip(bodies, told_of(decode(list(bodies.values()), _LINK)), strict=True)) if bodies else {}
        silent = []
        for key, old in zip(latest, view.get_many("heard", list(latest)), strict=True):
            new = told.get(key)
            if new != old:
                view.put("heard", key, new)
            if key.startswith(self._last, _BLOCK.start):
                continue
            if new != old:
                touched.add(key[_SUBJECT])
            elif new is None:
                silent.append(key)
        # What was heard before a rebuild may have been compacted away: only `said` remembers what it led to.
        for key, sent in zip(silent, view.get_many("sent_blocks", [k[_SUBJECT] for k in silent]), strict=True):
            if sent is not None and not sent.rpartition(b",")[2].startswith(key[_BLOCK] + b"="):
                touched.add(key[_SUBJECT])

    def everything(self, view: View) -> set[bytes]:
        """Subjects that live, and subjects that were sent somewhere."""
        return {k for table in ("identities", "sent_blocks") for k, _ in view.scan(table, b"")}

    def settle(self, view: View, touched: Iterable[bytes], inputs: Sequence[Inputs]) -> Outputs:  # noqa: ARG002
        """Candidates that differ from those sent before; tombstones for the blocks that a subject has left."""
        subjects = sorted(touched)
        identities = dict(zip(subjects, view.get_many("identities", subjects), strict=True))
        live = [s for s, v in identities.items() if v is not None]
        rows = decode([identities[s][wire.HEADER_BYTES :] for s in live], _IDENTITY) if live else None  # type: ignore[index]
        ways: dict[bytes, list[Stop]] = {}
        if rows is not None:
            rows, owners = _by_epoch(rows, live)
            ways = self._ways(view, owners, rows)
        left: list[tuple[bytes, str]] = []
        who: list[bytes] = []
        stops: list[Stop] = []
        for subject, packed in zip(subjects, view.get_many("sent_blocks", subjects), strict=True):
            was = dict([part.split("=") for part in packed.decode().split(",")]) if packed else {}
            sent: dict[str, str] = {}
            value = identities[subject]
            if value is not None:
                identity = hashlib.blake2b(value, digest_size=16).digest()
                for stop in ways[subject]:
                    sent[stop.block] = digest = _digest(identity, stop)
                    if was.get(stop.block) != digest:
                        who.append(subject)
                        stops.append(stop)
            if sent != was:
                left += [(subject, block) for block in was if block not in sent]
                said = ",".join([f"{block}={digest}" for block, digest in sent.items()]).encode()
                view.put("sent_blocks", subject, said or None)
        out = Outputs()
        if rows is not None and stops:
            blocks = [stop.block for stop in stops]
            values = self._encoded(rows.take(pa.array([stop.row for stop in stops])), stops, view.partition)
            self._emit(out, who, blocks, values)
        self._emit(out, [s for s, _ in left], [block for _, block in left], [None] * len(left))
        out.count("sent", len(stops))
        out.count("left", len(left))
        return out

    def _emit(
        self, out: Outputs, subjects: Sequence[bytes], blocks: Sequence[str], values: Sequence[bytes | None]
    ) -> None:
        keys = [subject + b"|" + block.encode() for subject, block in zip(subjects, blocks, strict=True)]
        out.emit("linkage.candidate", partitions_of(blocks, self._partitions).tolist(), keys, values)

    def _ways(self, view: View, owners: Sequence[bytes], identities: pa.RecordBatch) -> dict[bytes, list[Stop]]:
        """The itinerary of each subject: by the leading epoch, then by the other, each by its own claims."""
        roles, blocks = (identities.column(name).to_pylist() for name in ("role", "blocks"))
        chains = [chain(s.decode(), role, b) for s, role, b in zip(owners, roles, blocks, strict=True)]
        asked = [s + b"|" + b.encode() for s, c in zip(owners, chains, strict=True) for b in c[:-1]]
        heard, at = view.get_many("heard", asked), 0
        ways: dict[bytes, list[Stop]] = {}
        for row, (subject, role, c) in enumerate(zip(owners, roles, chains, strict=True)):
            way = itinerary(role, c, heard[at : at + len(c) - 1], row)
            at += len(c) - 1
            before = ways.setdefault(subject, way)
            if before is not way:  # a block of the subject's own has no epoch, and is the same in both
                before += [stop for stop in way if stop.block != before[0].block]
        return ways

    def _encoded(self, identities: pa.RecordBatch, stops: Sequence[Stop], home: int) -> list[bytes]:
        """Candidates of identities, one for each stop."""
        blocks = identities.column("blocks").to_pylist()
        at = np.array([b.index(s.block) if s.block in b else -1 for b, s in zip(blocks, stops, strict=True)], np.int64)
        number = np.array([int(s.block.partition(":")[0]) for s in stops], np.int64)
        made = {
            **{name: identities.column(name) for name in ("supplier", "role", "expires_on", "catalogue")},
            "home": pa.array(np.full(len(stops), home, np.int32)),
            "epoch": pa.array(np.where(at < 0, 0, identities.column("epoch").to_numpy()).astype(np.int32)),
            "leading": identities.column("leading"),
            "tokens": self._tokens_of(identities.column("tokens"), number),
            "person_ref": pa.array([s.person_ref for s in stops], pa.string()),
            "claimed": pa.array([s.claimed for s in stops], pa.list_(pa.string())),
            "statement": _item(identities.column("statements"), at),
            "encoding": _item(identities.column("encodings"), at),
        }
        names = arrow_schema(_CANDIDATE).names
        batch = pa.RecordBatch.from_arrays([made[name] for name in names], names=names)
        return wire.frame(self._ids.schema_id("linkage.candidate"), encode(batch, _CANDIDATE))

    def _tokens_of(self, tokens: pa.ListArray, number: Ints) -> pa.ListArray:
        """Leave each candidate the tokens of its block's pass alone: no block learns more than it needs."""
        ends, flat = tokens.offsets.to_numpy(), tokens.values
        labels = pc.binary_slice(flat.cast(pa.binary()), 0, -TOKEN_TAIL)
        pass_of = self._pass_of[pc.index_in(labels, self._match_keys).fill_null(-1).to_numpy()]
        own = np.zeros(len(flat), bool)
        own[ends[0] : ends[-1]] = pass_of[ends[0] : ends[-1]] == np.repeat(number, np.diff(ends))
        before = np.concatenate([[0], np.cumsum(own)]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(before[ends]), flat.filter(pa.array(own)))


def _by_epoch(rows: pa.RecordBatch, subjects: Sequence[bytes]) -> tuple[pa.RecordBatch, Sequence[bytes]]:
    """Identities with the epoch that is `leading`, and after them those of subjects who are said under another besides,
    with the blocks and tokens of that; whose each is."""
    also = rows.column("also")
    names = [name for name in rows.schema.names if name != "also"]
    first = rows.select(names).append_column("leading", rows.column("epoch"))
    again = pa.array(np.flatnonzero(also.is_valid().to_numpy(zero_copy_only=False)))
    if not len(again):
        return first, subjects
    kept, other = first.take(again), also.take(again)
    parts = {other.type.field(i).name: other.field(i) for i in range(other.type.num_fields)}
    second = [parts.get(name, kept.column(name)) for name in first.schema.names]
    both = pa.concat_batches([first, pa.RecordBatch.from_arrays(second, schema=first.schema)])
    return both, [*subjects, *(subjects[i] for i in again.to_pylist())]


def _item(lists: pa.ListArray, at: Ints) -> pa.Array:
    """The item of a list beside `blocks` that stands where the candidate's block does; "" for a block of its own."""
    ends = lists.offsets.to_numpy().astype(np.int64)
    there = (at >= 0) & (at < np.diff(ends))
    return lists.values.take(pa.array(ends[:-1] + at, mask=~there)).fill_null("")


def _digest(identity: bytes, stop: Stop) -> str:
    """What a candidate is made of, so that one that was sent before need not be made again to see that it was."""
    carried = f"|{stop.person_ref}|{','.join(stop.claimed)}".encode()
    return hashlib.blake2b(identity + carried, digest_size=_DIGEST_BYTES).hexdigest()
