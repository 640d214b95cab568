"""link: claim which subjects of a block are the same person. It sees tokens and encodings, and never an attribute.

By which rules is in `claims.py`; here the claims of the blocks that a batch touches are held to what was claimed
before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import polars as pl

from schemas import contracts, wire
from schemas.codec import decode, encode
from schemas.registry import SchemaIds
from stream_processors.arrow import one_batch
from stream_processors.claims import claims, rules_of
from stream_processors.enquiry.seeking import Seeker
from stream_processors.matching.catalogue import Catalogue
from stream_processors.runtime.processor import Declaration
from stream_processors.runtime.records import Inputs, Outputs
from stream_processors.runtime.state import Table, View

LINK = Declaration(
    name="link",
    by="block",
    reads=("linkage.candidate", "linkage.enquiry"),
    writes=("linkage.link", "linkage.sought"),
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
    version = ""

    def __init__(self, catalogue: Catalogue, schema_ids: SchemaIds, partitions: int) -> None:
        self._ids = schema_ids
        self._rules = rules_of(catalogue)
        self._seeker = Seeker(self._rules, schema_ids, partitions)

    def absorb(self, view: View, inputs: Sequence[Inputs]) -> set[bytes]:
        """Candidates by block and subject; touched are the blocks in which one differs."""
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
                if value != old or value is None:
                    touched.add(key.partition(b"|")[0])
        return touched

    def everything(self, view: View) -> set[bytes]:
        """Blocks with a live candidate, and blocks in which something was claimed."""
        return {k.partition(b"|")[0] for table in ("candidates", "claims") for k, _ in view.scan(table, b"")}

    def settle(self, view: View, touched: Iterable[bytes], inputs: Sequence[Inputs]) -> Outputs:
        """Links that differ from what was claimed before, each to its subject's own partition.

        And whom enquiries are about.
        """
        out = Outputs()
        blocks = sorted(touched)
        for low in range(0, len(blocks), _BLOCKS_AT_ONCE):
            self._settle(view, blocks[low : low + _BLOCKS_AT_ONCE], out)
        for batch in inputs:
            if batch.topic == "linkage.enquiry":
                self._seeker.take(view, batch, out)
        return out

    def _settle(self, view: View, blocks: Sequence[bytes], out: Outputs) -> None:
        prefixes = [b + b"|" for b in blocks]
        rows = [row for group in _scan(view, "candidates", prefixes) for row in group]
        should: dict[bytes, bytes] = {}
        if rows:
            keys = pl.Series([k for k, _ in rows]).cast(pl.String)
            decoded = pl.DataFrame(one_batch(decode([v[wire.HEADER_BYTES :] for _, v in rows], _CANDIDATE)))
            block, subject = keys.str.split_exact("|", 1).struct.unnest()
            found = claims(decoded.with_columns(block.alias("block"), subject.alias("subject")), self._rules)
            out.count("tokens_over_their_limit", sum(found.crowded.values()))
            values = wire.frame(self._ids.schema_id("linkage.link"), encode(one_batch(found.rows), _LINK))
            homes = found.rows["home"].to_list()
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


def last_claims(links: Mapping[str, Row]) -> dict[str, Row]:
    """Subject to what the last pass that it has reached claims of it, from decoded links by `subject|block`."""
    out: dict[str, tuple[int, Row]] = {}
    for key, row in links.items():
        subject, _, block = key.partition("|")
        number = int(block.partition(":")[0])
        if subject not in out or number > out[subject][0]:
            out[subject] = (number, row)
    return {subject: row for subject, (_, row) in out.items()}


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
