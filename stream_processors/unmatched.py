"""In join: whose linkage window has ended. A department's subject that matches nobody waits, unseen, until then.

join alone knows who belongs to nobody; it tells pseudonymise, which deletes at the source (`erasure/unmatched.py`).
A subject may be between two persons for a moment, and its link may still be on its way. So whoever is found to belong
to nobody when a day is confirmed is told of only when a later day is, if it has not been linked in between. See ADR 37.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgpack
import pyarrow as pa

from schemas import contracts, wire
from schemas.codec import decode
from schemas.registry import SchemaIds
from schemas.rows import to_value
from stream_processors import clock
from stream_processors.clock import DAY_DIGITS, Clock, day_key, day_of, days_up_to
from stream_processors.refs import REF_WIDTH
from stream_processors.retention_policy import RetentionPolicy
from stream_processors.runtime.records import Inputs, Outputs
from stream_processors.runtime.state import Table, View

READS, TOPIC = (clock.TOPIC,), "linkage.unmatched"
TABLES = (Table("received", "true"), Table("calendar", "true"), Table("heard", "true"))
"""Day on which the person record of a department's subject was received, by subject, and the same by day; and of each
input, the broker's time of the last record."""
WAITS = b"window|"
"""Where `attached` has a row for a subject that belongs to nobody after its window; how many there are, under the
bare prefix. References are hexadecimal, so no activity's key begins so."""
LOOKED = b"looked"
"""Row of `attached`: the day of receipt (as `day_key`) up to which all were looked at."""
RESERVED = (clock.ROW, WAITS, LOOKED)
_MUST_HEAR = ("linkage.activity", "linkage.link")
_ACTIVITY = contracts.contract("linkage/activity")
_SUBJECT = slice(0, REF_WIDTH)
_PERSON = bytes([2 * _ACTIVITY.parsed["fields"][0]["type"]["symbols"].index("person")])
"""How the body of a person's activity begins: Avro writes an enum as the zigzag number of its symbol."""


@dataclass(frozen=True)
class _Row:
    """`seen`: the broker's time (ms since 1970) of the tick at which it was first seen to belong to nobody, None before
    a tick; `told`: whether pseudonymise was told."""

    seen: int | None = None
    told: bool = False

    def packed(self) -> bytes:
        packed: bytes = msgpack.packb([self.seen, self.told])
        return packed

    @classmethod
    def unpacked(cls, row: bytes) -> _Row:
        return cls(*msgpack.unpackb(row))


class Windows:
    """Holds after each step: `linkage.unmatched` has, of the subjects of a partition, only such as belong to nobody
    though their window has ended by the confirmed day."""

    def __init__(self, policy: RetentionPolicy, schema_ids: SchemaIds) -> None:
        self._window, self._ids = policy.linkage_window_days, schema_ids

    def absorb(self, view: View, changed: Mapping[bytes, tuple[bytes | None, bytes | None]]) -> None:
        """How far the inputs were read, and windows of activities that differ, by key: what was held, what is now."""
        for topic, at in view.read_at.items():
            view.put("heard", topic.encode(), str(at).encode())
        people = {key: new for key, (old, new) in changed.items() if _is_person(new) or _is_person(old)}
        days = received_days(people)
        subjects = [key[_SUBJECT] for key in people]
        for key, subject, old in zip(people, subjects, view.get_many("received", subjects), strict=True):
            new = day_key(days[key]) if key in days else None
            if new == old:
                continue
            if old is not None:
                view.put("calendar", old + subject, None)
            if new is not None:
                view.put("calendar", new + subject, b"")
            view.put("received", subject, new)

    def settle(self, view: View, touched: Iterable[bytes], inputs: Sequence[Inputs], out: Outputs) -> None:
        """Whose window has ended; and of those that were told of, whose has not any more.

        `touched`: subjects to look at, where there is no input.
        """
        before = Clock.unpacked(view.get_many("attached", [clock.ROW])[0])
        now = before.after(inputs)
        if now != before:
            view.put("attached", clock.ROW, now.packed())
        if now.confirmed is None:
            return
        moved = {*view.writes["received"], *view.writes["person_of"]} if inputs else set(touched)
        rows: dict[bytes, _Row] = {}
        turn = now.confirmed != before.confirmed
        if turn:
            rows = {k[len(WAITS) :]: _Row.unpacked(v) for k, v in view.scan("attached", WAITS) if k != WAITS}
            moved |= rows.keys()
            (looked,) = view.get_many("attached", [LOOKED])
            last = now.confirmed - self._window
            for prefix in days_up_to(last, day_of(looked) if looked is not None else None):
                moved.update(k[DAY_DIGITS:] for k, _ in view.scan("calendar", prefix))
            if looked is None or looked < day_key(last):
                view.put("attached", LOOKED, day_key(last))
        elif self._count(view):
            names = sorted(moved)
            found = view.get_many("attached", [WAITS + s for s in names])
            rows = {s: _Row.unpacked(row) for s, row in zip(names, found, strict=True) if row is not None}
        self._look_at(view, sorted(moved), rows, now, inputs if turn else None, out)

    def _look_at(
        self,
        view: View,
        subjects: Sequence[bytes],
        rows: Mapping[bytes, _Row],
        now: Clock,
        tick: Sequence[Inputs] | None,
        out: Outputs,
    ) -> None:
        """Rows of these subjects after a step, and what follows. `rows`: before it. `tick`: the inputs, if they have
        confirmed a day."""
        at = max((t for b in tick if b.topic == clock.TOPIC for t in b.times), default=0) if tick is not None else None
        last = day_key((now.confirmed or 0) - self._window)
        came, persons = view.get_many("received", subjects), view.get_many("person_of", subjects)
        found = {s for s, day, p in zip(subjects, came, persons, strict=True) if day and day <= last and p is None}
        ready = {s for s in found if at is not None and s in rows and not rows[s].told and rows[s].seen is not None}
        ready = self._settled(view, ready, rows)
        after: dict[bytes, _Row | None] = {s: None for s in rows if s not in found}
        after |= {s: _Row() for s in found if s not in rows}
        if at is not None:
            after |= {s: _Row(at) for s in found if s not in rows or rows[s].seen is None}
        after |= {s: _Row(rows[s].seen, told=True) for s in ready}
        for subject, row in sorted(after.items()):
            view.put("attached", WAITS + subject, row.packed() if row is not None else None)
        change = sum(row is not None and s not in rows for s, row in after.items()) - sum(
            row is None for row in after.values()
        )
        if change:
            count = self._count(view) + change
            view.put("attached", WAITS, str(count).encode() if count else None)
        taken_back = sorted(s for s, row in after.items() if row is None and rows[s].told)
        said = to_value(TOPIC, {"as_of": now.day}, self._ids) if ready else b""
        out.emit(TOPIC, view.partition, sorted(ready), [said] * len(ready))
        out.emit(TOPIC, view.partition, taken_back, [None] * len(taken_back))
        out.count("unmatched", len(ready))

    def _settled(self, view: View, subjects: set[bytes], rows: Mapping[bytes, _Row]) -> set[bytes]:
        """Of these, whom link has claimed something of, and of whom all was read that lay here when they were seen."""
        heard = [int(at) if at else -1 for at in view.get_many("heard", [t.encode() for t in _MUST_HEAR])]
        known = sorted(s for s in subjects if (rows[s].seen or 0) <= min(heard))
        claims = view.scan_many("links", [s + b"|" for s in known], REF_WIDTH + 1)
        return {s for s, of in zip(known, claims, strict=True) if of}

    def _count(self, view: View) -> int:
        return int(view.get_many("attached", [WAITS])[0] or b"0")


def _is_person(value: bytes | None) -> bool:
    return value is not None and value.startswith(_PERSON, wire.HEADER_BYTES)


def received_days(activities: Mapping[bytes, bytes | None]) -> dict[bytes, int]:
    """Day of receipt (since 1970-01-01) of departments' person records among these of `linkage.activity`. From it the
    window counts; councils' subjects have none."""
    live = {key: value for key, value in activities.items() if value is not None and _is_person(value)}
    if not live:
        return {}
    records = decode([value[wire.HEADER_BYTES :] for value in live.values()], _ACTIVITY)
    days = records.column("received_on").cast(pa.int32()).to_pylist()
    return {
        key: day
        for key, supplier, day in zip(live, records.column("supplier").to_pylist(), days, strict=True)
        if day is not None and contracts.kind_of(supplier) != "council"
    }
