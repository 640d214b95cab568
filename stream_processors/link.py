"""link: claim which subjects of a block are the same person. It sees tokens and encodings, and never an attribute.

By which rules is in `claims.py`; here the claims of the blocks that a batch touches are held to what was claimed
before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import compress
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas import contracts, wire
from schemas.codec import decode, encode
from schemas.registry import SchemaIds
from stream_processors.claims import Near, claims_of, rules_of, spine_of
from stream_processors.crowd import Crowd
from stream_processors.enquiry.seeking import Seeker
from stream_processors.frequency import Frequent, is_frequent
from stream_processors.matching.catalogue import Catalogue
from stream_processors.runtime.processor import Declaration
from stream_processors.runtime.records import Inputs, Outputs
from stream_processors.runtime.state import Table, View, Writes

ALERT = "governance.alert"
LINK = Declaration(
    name="link",
    by="block",
    reads=("linkage.candidate", "linkage.enquiry"),
    writes=("linkage.link", "linkage.sought", ALERT),
    keeps=(Table("candidates", "true"), Table("departments", "true"), Table("claims", "said")),
    form="2",
)
Decoded = Mapping[str, Any]
Row = tuple[bytes, bytes]
"""Key `block|subject` and value."""
_CANDIDATE = contracts.contract("linkage/candidate")
_LINK = contracts.contract("linkage/link")
_HOME_BYTES = 2
_FIRST_PASS = b"1:"
_Block = tuple[bytes, list[Row], list[Row]]
"""A block, its candidates, and what was claimed of them."""
_BLOCKS_AT_ONCE, _ROWS_AT_ONCE = 100, 20_000  # bound the memory of a batch that touches many blocks
CROWDED = 1_000
"""Subjects of a block from which on it is remembered, so that a change costs what its neighbourhood costs."""
_MOST_REMEMBERED = 6_000  # subjects of a partition, 5 KB each


class Link:
    """Holds after: what is claimed of the subjects of each touched block is `claims_of` its live candidates.

    State: `candidates` by block and subject, as they came; `departments`, an index of those that are a department's in
    the passes after the first; `claims`, what was said of each, after the partition that it was said to.
    """

    declaration = LINK
    version = ""

    def __init__(self, catalogue: Catalogue, schema_ids: SchemaIds, partitions: int) -> None:
        self._ids, self._partitions = schema_ids, partitions
        self._rules = rules_of(catalogue)
        self._crowds = _Crowds()
        self._seeker = Seeker(self._rules, schema_ids, partitions)

    def absorb(self, view: View, inputs: Sequence[Inputs]) -> set[bytes]:
        """Candidates by block and subject; touched are those that differ, as `block|subject`."""
        touched: set[bytes] = set()
        for batch in inputs:
            if batch.topic != "linkage.candidate":
                continue
            latest = batch.latest()
            turned = [_turn(key) for key in latest]
            held = view.get_many("candidates", turned)
            for key, value, old in zip(turned, latest.values(), held, strict=True):
                if value != old:
                    view.put("candidates", key, value)
                    if not key.startswith(_FIRST_PASS):
                        _index(view, key, value, old)
                if value != old or value is None:
                    touched.add(key)
        return touched

    def everything(self, view: View) -> set[bytes]:
        """Candidates that live, and those of which something was claimed."""
        found = (k for table in ("candidates", "claims") for k, _ in view.scan(table, b""))
        return {k for k in found if not is_frequent(k)}

    def settle(self, view: View, touched: Iterable[bytes], inputs: Sequence[Inputs]) -> Outputs:
        """Links that differ from what was claimed before, each to its subject's own partition.

        And whom enquiries are about.
        """
        out = Outputs()
        by_block: dict[bytes, list[bytes]] = {}
        for key in sorted(touched):
            by_block.setdefault(key.partition(b"|")[0], []).append(key)
        held = self._crowds.of(view)
        frequent = Frequent(view)
        rest = []
        for block, keys in by_block.items():
            crowd = held.get(block)
            if crowd is None:
                rest.append(block)
            else:
                self._settle_around(view, crowd, keys, frequent, out)
        rest = self._settle_spine(view, {block: by_block[block] for block in rest}, out)
        for some in _gathered(view, rest):
            self._settle_blocks(view, some, frequent, out)
        self._crowds.keep(view)
        frequent.say(max((max(b.times, default=0) for b in inputs), default=0), self._ids, self._partitions, out)
        for batch in inputs:
            if batch.topic == "linkage.enquiry":
                self._seeker.take(view, batch, out)
        return out

    def _settle_spine(self, view: View, changed: Mapping[bytes, Sequence[bytes]], out: Outputs) -> list[bytes]:
        """Work out the changed candidates alone, where nobody depends on another: in blocks of later passes where there
        are cohort subjects alone, each with its person. Returns the other blocks."""
        later = [block for block in changed if not block.startswith(_FIRST_PASS)]
        found = _scan(view, "departments", [b + b"|" for b in later])
        quiet = {block: changed[block] for block, departments in zip(later, found, strict=True) if not departments}
        keys = [key for keys in quiet.values() for key in keys]
        values = dict(zip(keys, view.get_many("candidates", keys), strict=True))
        settled: set[bytes] = set()
        rows: list[Row] = []
        for block, mine in quiet.items():
            live = [(key, value) for key in mine if (value := values[key]) is not None]
            if len(live) == len(mine):  # one that is gone may have been a department's
                settled.add(block)
                rows += live
        if rows:
            table = _table(rows)
            alone = pc.is_null(table["person_ref"]).to_pylist()
            settled -= {key.partition(b"|")[0] for (key, _), nobody in zip(rows, alone, strict=True) if nobody}
            here = [key.partition(b"|")[0] in settled for key, _ in rows]
            rows, table = list(compress(rows, here)), table.filter(pa.array(here))
            said = zip([k for k, _ in rows], view.get_many("claims", [k for k, _ in rows]), strict=True)
            self._tell(view, rows, spine_of(table), {k: v for k, v in said if v is not None}, out)
        return [block for block in changed if block not in settled]

    def _settle_blocks(self, view: View, blocks: Sequence[_Block], frequent: Frequent, out: Outputs) -> None:
        """Work whole blocks out anew; those that are crowded are remembered, so that it is the last time."""
        together, said_together, over = list[Row](), list[Row](), list[tuple[str, str]]()
        for block, rows, claimed in blocks:
            if len(rows) < CROWDED or not self._crowds.takes(view, len(rows)):
                together += rows
                said_together += claimed
            else:
                crowd = Crowd(int(block.partition(b":")[0]), self._rules)
                table = _table(rows)
                crowd.put(table)
                self._crowds.add(view, block, crowd)
                over += self._say(view, rows, table, dict(claimed), crowd.near(_places(table)), out)
        over += self._say(view, together, _table(together) if together else None, dict(said_together), None, out)
        frequent.of_blocks([block.decode() for block, _, _ in blocks], over)

    def _settle_around(self, view: View, crowd: Crowd, keys: Sequence[bytes], frequent: Frequent, out: Outputs) -> None:
        """Work out anew what the changed candidates of a remembered block may have to do with."""
        block = keys[0].partition(b"|")[0]
        changed = {key.partition(b"|")[2].decode() for key in keys}
        values = dict(zip(keys, view.get_many("candidates", keys), strict=True))
        near_before = crowd.ties_of(changed)
        crowd.remove(changed)
        live = [(k, v) for k, v in values.items() if v is not None]
        if live:
            crowd.put(_table(live))
        reached = crowd.around(near_before | changed)
        around = sorted(block + b"|" + s.encode() for s in reached)
        rows = [(k, v) for k, v in zip(around, view.get_many("candidates", around), strict=True) if v is not None]
        said = {k: v for k, v in zip(around, view.get_many("claims", around), strict=True) if v is not None}
        table = _table(rows) if rows else None
        over = self._say(view, rows, table, said, crowd.near(_places(table)) if table is not None else None, out)
        # Who shares a token is reached together or not at all.
        frequent.of_some(block.decode(), over, lambda token: reached.issuperset(crowd.holders(token)))

    def _say(
        self,
        view: View,
        rows: Sequence[Row],
        table: pa.Table | None,
        said: Mapping[bytes, bytes],
        near: Near | None,
        out: Outputs,
    ) -> tuple[tuple[str, str], ...]:
        """What is claimed of candidates, as `_tell` has it. Returns the blocks and tokens that were over their
        limit."""
        claimed, over = None, tuple[tuple[str, str], ...]()
        if table is not None:
            found = claims_of(table, self._rules, near)
            over = found.crowded
            out.count("tokens_over_their_limit", len(over))
            claimed = found.rows
        self._tell(view, rows, claimed, said, out)
        return over

    def _tell(
        self, view: View, rows: Sequence[Row], claimed: pa.Table | None, said: Mapping[bytes, bytes], out: Outputs
    ) -> None:
        """What is claimed of candidates, where it is not what was said of them, and the end of what was said of
        others."""
        should: dict[bytes, bytes] = {}
        if claimed is not None and rows:
            bodies = encode(claimed.combine_chunks().to_batches()[0], _LINK)
            homes = claimed["home"].to_pylist()
            header = wire.header(self._ids.schema_id("linkage.link"))
            head = {home: home.to_bytes(_HOME_BYTES, "big") + header for home in set(homes)}
            should = {key: head[home] + body for (key, _), home, body in zip(rows, homes, bodies, strict=True)}
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
        out.count("moved", len(moved))
        for keys in (gone, moved):
            out.emit("linkage.link", [_home(said[k]) for k in keys], [_turn(k) for k in keys], [None] * len(keys))


class _Crowds:
    """Crowded blocks that are remembered from one batch to the next, by partition; those used last, of so many
    subjects.

    A memory holds only while the store is what the last batch made of it. After a batch that was not committed, or
    anything else that moved the store, all of the partition are forgotten.
    """

    def __init__(self) -> None:
        self._held: dict[int, dict[bytes, Crowd]] = {}
        self._after: dict[int, Writes] = {}
        self._added: dict[int, int] = {}

    def of(self, view: View) -> dict[bytes, Crowd]:
        """By block. Who changes one must call `keep` at the end of the batch."""
        if view.base is None or view.base is not self._after.pop(view.partition, None):
            self._held[view.partition] = {}
        self._added[view.partition] = 0
        return self._held[view.partition]

    def takes(self, view: View, subjects: int) -> bool:
        """Whether so many subjects more would still be remembered at the end of this batch: if not, what it takes to
        know who has to do with whom is spared."""
        added = self._added[view.partition]
        return not added or added + subjects <= _MOST_REMEMBERED

    def add(self, view: View, block: bytes, crowd: Crowd) -> None:
        """Remember one more, and forget those that were added first where they are too many."""
        held = self._held[view.partition]
        held[block] = crowd
        self._added[view.partition] += len(crowd)
        while len(held) > 1 and sum(map(len, held.values())) > _MOST_REMEMBERED:
            del held[next(iter(held))]

    def keep(self, view: View) -> None:
        """What is remembered holds if the writes of this batch are the next that the store applies."""
        self._after[view.partition] = view.writes


def last_claims(links: Mapping[str, Decoded]) -> dict[str, Decoded]:
    """Subject to what the last pass that it has reached claims of it, from decoded links by `subject|block`.

    While keys are rotated, of the epoch that leads.
    """
    out: dict[str, tuple[int, Decoded]] = {}
    leading: dict[str, int] = {}
    for key, row in links.items():
        subject = key.partition("|")[0]
        leading[subject] = max(row["leading"], leading.get(subject, 0))
    for key, row in links.items():
        subject, _, block = key.partition("|")
        if row["epoch"] not in (0, leading[subject]):
            continue
        number = int(block.partition(":")[0])
        if subject not in out or number > out[subject][0]:
            out[subject] = (number, row)
    return {subject: row for subject, (_, row) in out.items()}


def _table(rows: Sequence[Row]) -> pa.Table:
    """Candidates as `claims_of` takes them."""
    decoded = decode([v[wire.HEADER_BYTES :] for _, v in rows], _CANDIDATE)
    parts = pc.split_pattern(pa.array([k for k, _ in rows], pa.string()), "|", max_splits=1).values
    named = {name: parts.take(pa.array(np.arange(i, len(parts), 2))) for i, name in enumerate(("block", "subject"))}
    return pa.table(named | dict(zip(decoded.schema.names, decoded.columns, strict=True)))


def _index(view: View, key: bytes, value: bytes | None, old: bytes | None) -> None:
    """Keep `departments` in step with a candidate that changes."""
    is_one, was_one = (v is not None and of_department(v) for v in (value, old))
    if is_one != was_one:
        view.put("departments", key, b"" if is_one else None)


def of_department(candidate: bytes) -> bool:
    """Whether a candidate is a department's subject, by the two fields that come first: the supplier, after its length
    as a variable-length integer, and the role, 0 for the cohort."""
    length, at, shift = 0, wire.HEADER_BYTES, 0
    while True:
        byte = candidate[at]
        length |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return candidate[at + (length >> 1)] != 0


def _places(table: pa.Table) -> dict[str, int]:
    return {subject: row for row, subject in enumerate(table["subject"].to_pylist())}


def _turn(key: bytes) -> bytes:
    """`subject|block` to `block|subject` and back: the topic's key, and the state's, which is scanned by block."""
    first, _, second = key.partition(b"|")
    return second + b"|" + first


def _home(said: bytes) -> int:
    return int.from_bytes(said[:_HOME_BYTES], "big")


def _gathered(view: View, blocks: Sequence[bytes]) -> Iterator[list[_Block]]:
    """Blocks as the state has them, some at a time."""
    some, rows = list[_Block](), 0
    for low in range(0, len(blocks), _BLOCKS_AT_ONCE):
        here = blocks[low : low + _BLOCKS_AT_ONCE]
        prefixes = [b + b"|" for b in here]
        some += zip(here, _scan(view, "candidates", prefixes), _scan(view, "claims", prefixes), strict=True)
        rows += sum(len(found) + len(said) for _, found, said in some[-len(here) :])
        if rows >= _ROWS_AT_ONCE:
            yield some
            some, rows = [], 0
    if some:
        yield some


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
