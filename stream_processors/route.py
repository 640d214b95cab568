"""route: send each subject's identity to the blocks that it belongs to, and take it back from those that it leaves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import polars as pl

from schemas import contracts, wire
from schemas.codec import decode, encode
from schemas.registry import SchemaIds
from stream_processors.arrow import one_batch
from stream_processors.runtime.partition import partitions_of
from stream_processors.runtime.processor import Declaration
from stream_processors.runtime.records import Inputs, Outputs
from stream_processors.runtime.state import Table, View

ROUTE = Declaration(
    name="route",
    by="subject",
    reads=("linkage.identity",),
    writes=("linkage.candidate",),
    keeps=(Table("identities", "true"), Table("sent_blocks", "said")),
)
_IDENTITY = contracts.contract("linkage/identity")
_CANDIDATE = contracts.contract("linkage/candidate")


class Route:
    """Holds after: every live subject is a candidate in exactly its current blocks, whatever it was before.

    A subject without a block (no date of birth) is alone in a block of its own, so that a cohort person is published
    and
    a department's subject is accounted for as waiting.
    """

    declaration = ROUTE

    def __init__(self, schema_ids: SchemaIds, partitions: int) -> None:
        self._ids, self._partitions = schema_ids, partitions

    def absorb(self, view: View, inputs: Sequence[Inputs]) -> set[bytes]:
        """Identities by subject; touched are the subjects whose identity differs from the one held."""
        touched: set[bytes] = set()
        for batch in inputs:
            latest = batch.latest()
            held = view.get_many("identities", list(latest))
            for (subject, value), old in zip(latest.items(), held, strict=True):
                if value != old:
                    view.put("identities", subject, value)
                if value != old or value is None:  # a tombstone takes back even what only `said` remembers
                    touched.add(subject)
        return touched

    def everything(self, view: View) -> set[bytes]:
        """Subjects that live, and subjects that were sent somewhere."""
        return {k for table in ("identities", "sent_blocks") for k, _ in view.scan(table, b"")}

    def settle(self, view: View, touched: Iterable[bytes], inputs: Sequence[Inputs]) -> Outputs:  # noqa: ARG002
        """Candidates for the blocks that each touched subject is in; tombstones for those that it left."""
        out = Outputs()
        subjects = sorted(touched)
        identities = view.get_many("identities", subjects)
        blocks_of: dict[bytes, list[str]] = {}
        live = [(s, v) for s, v in zip(subjects, identities, strict=True) if v is not None]
        if live:
            decoded = pl.DataFrame(one_batch(decode([v[wire.HEADER_BYTES :] for _, v in live], _IDENTITY)))
            names = pl.Series("subject", [s for s, _ in live]).cast(pl.String)
            rows = decoded.with_columns(
                names,
                pl.when(pl.col("blocks").list.len() > 0)
                .then(pl.col("blocks"))
                .otherwise(pl.concat_list(pl.lit("0:") + names))
                .alias("blocks"),
            )
            blocks_of = dict(zip([s for s, _ in live], rows["blocks"].to_list(), strict=True))
            candidates = rows.explode("blocks").with_columns(pl.lit(view.partition, pl.Int32).alias("home"))
            keys = candidates.select(pl.concat_str(["subject", "blocks"], separator="|")).to_series()
            out.emit(
                "linkage.candidate",
                partitions_of(candidates["blocks"], self._partitions).tolist(),
                keys.cast(pl.Binary).to_list(),
                wire.frame(self._ids.schema_id("linkage.candidate"), encode(one_batch(candidates), _CANDIDATE)),
            )
        left: list[str] = []
        left_keys: list[bytes] = []
        for subject, said in zip(subjects, view.get_many("sent_blocks", subjects), strict=True):
            now = blocks_of.get(subject, [])
            was = said.decode().split(",") if said else []
            for block in was:
                if block not in now:
                    left.append(block)
                    left_keys.append(subject + b"|" + block.encode())
            if now != was:
                view.put("sent_blocks", subject, ",".join(now).encode() if now else None)
        out.emit("linkage.candidate", partitions_of(left, self._partitions).tolist(), left_keys, [None] * len(left))
        return out
