"""In pseudonymise: of whom nobody was found by the end of the linkage window, everything leaves its source.

join tells which subjects those are (`linkage.unmatched`). The supplier may be sending a subject anew at that moment. So
the person record goes first, with a mark as what has expired has, and is read back (`overdue.py`). If the supplier has
written in between, that stays, and the subject waits anew. If not, what the tombstone was read back of goes with it:
the subject's other records that the broker took before it. See ADR 37.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date

import polars as pl

from schemas import contracts
from schemas.registry import SchemaIds
from schemas.rows import from_value
from stream_processors.erasure.overdue import SourceExpiry, window_of
from stream_processors.erasure.reading import received
from stream_processors.erasure.suppression import subjects_of
from stream_processors.refs import Refs
from stream_processors.retention_policy import RetentionPolicy, waits_until
from stream_processors.runtime.records import Inputs, Outputs
from stream_processors.runtime.state import Table, View

TOPIC = "linkage.unmatched"
READS = (TOPIC,)
TABLES = (Table("unmatched", "memory"),)
_PEOPLE = "identified.*.person"


class Unmatched:
    """Holds after each step: of whom join says that nobody was found, no person record that was read, and whose window
    has ended, lives at its source without a tombstone written after it."""

    def __init__(self, policy: RetentionPolicy, refs: Refs, schema_ids: SchemaIds, expiry: SourceExpiry) -> None:
        self._policy, self._refs, self._ids, self._expiry = policy, refs, schema_ids, expiry

    def absorb(self, view: View, inputs: Sequence[Inputs]) -> None:
        """Of whom nobody was found."""
        for batch in inputs:
            if batch.topic == TOPIC:
                for key, value in batch.latest().items():
                    view.put("unmatched", key, value)

    def sweep(self, view: View, inputs: Sequence[Inputs], out: Outputs) -> None:
        """Tombstones over the person records, read before this batch, of subjects that were named in it."""
        new = {k: v for b in inputs if b.topic == TOPIC for k, v in b.latest().items() if v is not None}
        if not new:
            return
        named = self._named(new.items())
        for topic, held in _last_of(
            (batch, self._rows_of(batch, named)) for batch in view.history(_PEOPLE) if _of_department(batch.topic)
        ).items():
            self._end(view, topic, held, out)

    def take(self, view: View, batch: Inputs, rows: Iterable[int], out: Outputs) -> None:
        """The same of a department's person records that come: of these rows, the last of their keys."""
        pending = view.scan("unmatched", b"")
        if pending:
            part = batch.only(sorted(rows))
            for topic, held in _last_of([(part, self._rows_of(part, self._named(pending)))]).items():
                self._end(view, topic, held, out)

    def follow(self, view: View, batch: Inputs, gone: Iterable[int], inputs: Sequence[Inputs], out: Outputs) -> None:
        """What belongs to a department's person records that were ended here and whose tombstones are read back: of
        these rows, which nothing came before. A supplier that forges such a tombstone deletes its own records."""
        ended = {key: (day, batch.times[row]) for row in gone
                 if (day := window_of(batch, row)) is not None and (key := batch.keys[row]) is not None}  # fmt: skip
        if not ended:
            return
        supplier = batch.topic.split(".")[1]
        pattern = f"identified.{supplier}.*"
        others = [b for b in inputs if b.topic.startswith(f"identified.{supplier}.")]
        found = _last_of(
            (b, self._records_of(b, ended)) for b in (*view.history(pattern), *others) if b.topic != batch.topic
        )
        for topic, held in found.items():
            self._end(view, topic, held, out)

    def _end(self, view: View, topic: str, held: Mapping[bytes, tuple[int, date]], out: Outputs) -> None:
        known = self._expiry.known(view, topic, list(held))
        for day in sorted({day for _, day in held.values()}):
            ends = {k: at for k, (at, of) in held.items() if of == day and known.get(k) != at}
            self._expiry.end(view, topic, ends, out, window=day)
            out.count("unmatched", len(ends))

    def _named(self, rows: Iterable[tuple[bytes, bytes]]) -> dict[str, date]:
        """The day as of which each subject was named, by reference."""
        return {key.decode(): from_value(TOPIC, value, self._ids)["as_of"] for key, value in rows}

    def _rows_of(self, batch: Inputs, named: Mapping[str, date]) -> dict[int, date | None]:
        """Rows of the subjects named: the day, where the record had come so early that its window has ended."""
        if not len(batch.keys):
            return {}
        supplier = batch.topic.split(".")[1]
        keys = [k.decode(errors="replace") if k is not None else None for k in batch.keys]
        frame = (
            pl.DataFrame({"key": pl.Series(keys, dtype=pl.String)})
            .with_columns(
                ref=self._refs.subject(supplier, pl.col("key")),
                until=waits_until(self._policy, received(batch, range(len(keys)))),
            )
            .with_row_index("row")
            .filter(pl.col("ref").is_in(list(named)))
        )
        out: dict[int, date | None] = {}
        for row, ref, until in frame.select("row", "ref", "until").iter_rows():
            ends = batch.values[row] is not None and until <= named[ref]
            out[row] = named[ref] if ends else None
        return out

    @staticmethod
    def _records_of(batch: Inputs, ended: Mapping[bytes, tuple[date, int]]) -> dict[int, date | None]:
        """Rows of the subjects that were ended: the day, where the broker had the record before the tombstone."""
        if not len(batch.keys):
            return {}
        keys = [k.decode(errors="replace") if k is not None else None for k in batch.keys]
        frame = pl.DataFrame({"subject": subjects_of(keys)}).with_row_index("row")
        of = {key.decode(errors="replace"): when for key, when in ended.items()}
        out: dict[int, date | None] = {}
        for row, subject in frame.filter(pl.col("subject").is_in(list(of))).iter_rows():
            day, at = of[subject]
            out[row] = day if batch.values[row] is not None and batch.times[row] <= at else None
        return out


def _of_department(topic: str) -> bool:
    return contracts.kind_of(topic.split(".")[1]) != "council"


def _last_of(
    batches: Iterable[tuple[Inputs, Mapping[int, date | None]]],
) -> dict[str, dict[bytes, tuple[int, date]]]:
    """By topic and key, offset and day of the last record, where that has one."""
    found: dict[str, dict[bytes, tuple[int, date]]] = {}
    for batch, days in batches:
        held = found.setdefault(batch.topic, {})
        for row, day in sorted(days.items()):
            key = batch.keys[row]
            if key is None:
                continue
            if day is None:
                held.pop(key, None)
            else:
                held[key] = batch.offsets[row], day
    return found
