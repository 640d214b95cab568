"""retention: destroys what has expired, at the head of the linkage zone, with a line in the ledger for each record.

`retention.identity` and `retention.activity` are one class twice, so that no process has tokens and attributes before
it; of each record it reads the envelope alone. The tombstone is written where the record lies, and flows down as any.

pseudonymise writes the same keys, and may do so between the record that expired and the tombstone, which then destroys
what it was not meant for. So what retention writes carries a mark, and is read back: what pseudonymise said meanwhile
is kept until then, and said again. See ADR 11.

What pseudonymise deletes itself (an order to erase, a supplier's withdrawal, a correction that nobody can read) flows
down without retention, which reads it and writes the line. See ADR 21.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Any, Literal

import msgpack

from schemas import contracts, wire
from schemas.codec import arrow_schema, encode
from schemas.registry import SchemaIds
from stream_processors import clock, ledger
from stream_processors.clock import DAY_DIGITS, Clock, day_key, days_up_to
from stream_processors.envelope import Envelope, envelope
from stream_processors.ledger import Deletion, Head
from stream_processors.retention_policy import RetentionPolicy
from stream_processors.runtime.processor import Declaration
from stream_processors.runtime.records import Inputs, Outputs
from stream_processors.runtime.state import Table, View

Kind = Literal["identity", "activity"]
MARK = "lethe.retention"
"""Header of what retention writes into the linkage zone: a number that tells its own records from pseudonymise's."""

_EPOCH = date(1970, 1, 1)
_LEDGER = contracts.contract("governance/ledger")
_LINES = arrow_schema(_LEDGER)
HEAD_ROW, _WAY, _DONE = b"head", b"way|", b"done"
AT_ONCE = 20_000
"""How many of what a tick has made expire are destroyed in one transaction."""
_pack = msgpack.Packer().pack


def _declared(kind: Kind) -> Declaration:
    return Declaration(
        name=f"retention.{kind}",
        by="subject",
        reads=(f"linkage.{kind}", clock.TOPIC),
        writes=(f"linkage.{kind}", ledger.TOPIC),
        keeps=(Table("due", "true"), Table("calendar", "true"), Table("said", "said")),
        headers=True,
        says_anew=False,  # a line of the ledger is said once
        counts_held=True,
        form="2",
        says_in_parts=True,
    )


DECLARATIONS: Mapping[Kind, Declaration] = {"identity": _declared("identity"), "activity": _declared("activity")}


@dataclass
class _Way:
    """What retention has said of a key and has not read back. `destroys`: the offset of the record that expired.
    `latest`: value and offset of what pseudonymise said meanwhile, before it in the log; a null value is a deletion."""

    mark: int
    destroys: int | None = None
    latest: tuple[bytes | None, int] | None = None

    def packed(self) -> bytes:
        packed: bytes = _pack([self.mark, self.destroys, self.latest])
        return packed

    @classmethod
    def unpacked(cls, row: bytes) -> _Way:
        mark, destroys, latest = msgpack.unpackb(row)
        return cls(mark, destroys, tuple(latest) if latest is not None else None)


@dataclass(frozen=True)
class _Again:
    """What retention has hit by mistake: value and offset of what pseudonymise said (a null value is a deletion), and
    value and offset of what lies there now."""

    value: bytes | None
    offset: int
    lies: bytes | None
    lies_at: int | None


@dataclass
class _Step:
    """One step: the clock before it and after it, what is under way, and what is said."""

    partition: int
    before: Clock
    now: Clock
    done: int | None
    """The day up to which the calendar is empty."""
    marks: int
    page: ledger.Page
    ways: dict[bytes, _Way]
    says: dict[bytes, tuple[bytes | None, int]] = field(default_factory=dict)
    """Key to value and mark."""
    forms: dict[tuple[Envelope, str], ledger.Form] = field(default_factory=dict)
    """Of what has expired: a form for each envelope and why."""
    more: bool = False

    def say(self, key: bytes, value: bytes | None, destroys: int | None = None) -> None:
        self.marks += 1
        self.says[key] = (value, self.marks)
        self.ways[key] = _Way(self.marks, destroys)


class Retention:
    """Holds at rest: the topic has no record that has expired by the confirmed day, and every other that
    pseudonymise said last; each record that was destroyed has one line in the ledger.

    State: `due` (key to envelope and offset of what the log holds last), `calendar` (the same by day, without what is
    known to be under way), and in `said` the clock, how far the calendar is done, the end of the ledger's chain, and
    what is under way.

    What a tick ends is destroyed some at a time, so that a step takes no more memory however much that is. See ADR 41.
    """

    version = ""

    def __init__(self, kind: Kind, policy: RetentionPolicy, schema_ids: SchemaIds, *, at_once: int = AT_ONCE) -> None:
        self.declaration = DECLARATIONS[kind]
        self._kind, self._topic = kind, f"linkage.{kind}"
        self._stop = (policy.hard_stop - _EPOCH).days
        self._ids, self._policy, self._at_once = schema_ids, policy.digest, at_once

    def absorb(self, view: View, inputs: Sequence[Inputs]) -> set[bytes]:
        """Touched are the keys of the batch."""
        touched: set[bytes] = set()
        for batch in inputs:
            if batch.topic != self._topic:
                continue
            last = {k: i for i, k in enumerate(batch.keys) if k is not None}
            changes = view.changes
            for (key, i), old in zip(last.items(), view.get_many("due", list(last)), strict=True):
                value = batch.values[i]
                if old is not None:
                    view.removed[key] = old
                    expires_on, *whose, _ = msgpack.unpackb(old)
                    view.put("calendar", day_key(expires_on) + key, None)
                    if value is None:
                        ours = _mark(batch, i) is not None
                        _add(changes, (*whose, "destroyed" if ours else "deleted"))
                if value is not None:
                    found = envelope(self._topic, value)
                    _add(changes, (found.supplier, found.dataset, "new" if old is None else "replaced"))
                    packed = msgpack.packb([*found, batch.offsets[i]])
                    view.put("due", key, packed)
                    view.put("calendar", day_key(found.expires_on) + key, packed)
                elif old is not None:
                    view.put("due", key, None)
            touched |= last.keys()
        return touched

    def everything(self, view: View) -> set[bytes]:
        """What is held, and what is under way."""
        ways = {k[len(_WAY) :] for k, _ in view.scan("said", _WAY)}
        return {k for k, _ in view.scan("due", b"")} | ways

    def held(self, view: View) -> dict[str, dict[str, int]]:
        """How many records are held, by `<supplier>|<dataset>`."""
        counts = Counter(tuple(msgpack.unpackb(row)[1:3]) for _, row in view.scan("due", b""))
        return {self._topic: {self._whose(*whose): n for whose, n in counts.items()}}

    def _whose(self, supplier: str, dataset: str | None) -> str:
        return f"{supplier}|{dataset or self._kind}"

    def settle(self, view: View, touched: Iterable[bytes], inputs: Sequence[Inputs]) -> Outputs:
        """Tombstones and lines for what has expired; what a tombstone has hit by mistake, again."""
        keys = sorted(touched)
        rows = dict(zip(keys, view.get_many("said", [_WAY + k for k in keys]), strict=True))
        step = self._begun(view, inputs, {k: _Way.unpacked(row) for k, row in rows.items() if row is not None})
        self._deleted(view, step, inputs)
        again, arrived = self._read_back(step, inputs)
        if keys and not inputs:
            again = self._left_over(view, step)
        expired = self._expired(view, step)
        late = [k for k in expired if k not in rows]
        for key, row in zip(late, view.get_many("said", [_WAY + k for k in late]), strict=True):
            if row is not None:
                rows[key], step.ways[key] = row, _Way.unpacked(row)
        for key in sorted(again):
            self._say_again(step, key, again[key])
        held = {**dict(zip(keys, view.get_many("due", keys), strict=True)), **expired}
        for key in sorted(held.keys() - again.keys()):
            packed = held[key]
            if packed is None:
                continue
            *rest, offset = msgpack.unpackb(packed)
            found, way = Envelope(*rest), step.ways.get(key)
            if not self._is_over(found.expires_on, step.now):
                continue
            view.put("calendar", day_key(found.expires_on) + key, None)
            if way is None or way.destroys != offset:
                # What was held when a shorter policy had it said again has not come too late.
                too_late = key in arrived and key not in view.removed and self._is_over(found.expires_on, step.before)
                form = step.forms.get((found, self._why(found, too_late)))
                if form is not None:
                    self._put_down(step, form, key, offset)
                else:
                    self._line(step, key, found, offset, late=too_late)
                step.say(key, None, destroys=offset)
        for key in again.keys() & expired.keys():
            view.put("calendar", day_key(msgpack.unpackb(expired[key])[0]) + key, None)
        return self._ended(view, step, rows)

    # Before and after.

    def _begun(self, view: View, inputs: Sequence[Inputs], ways: dict[bytes, _Way]) -> _Step:
        told, head, done = view.get_many("said", [clock.ROW, HEAD_ROW, _DONE])
        before = Clock.unpacked(told)
        marks, *end = msgpack.unpackb(head) if head else (0,)
        done_to = msgpack.unpackb(done) if done else None
        return _Step(view.partition, before, before.after(inputs), done_to, marks, ledger.Page(Head(*end)), ways)

    def _ended(self, view: View, step: _Step, rows: Mapping[bytes, bytes | None]) -> Outputs:
        out = Outputs(more=step.more)
        for (supplier, dataset, what), n in view.changes.items():
            out.tally(self._topic, f"{self._whose(supplier, dataset)} {what}", n)
        for key, way in step.ways.items():
            packed = way.packed()
            if packed != rows.get(key):
                view.put("said", _WAY + key, packed)
        for key, row in rows.items():
            if row is not None and key not in step.ways:
                view.put("said", _WAY + key, None)
        if step.now != step.before:
            view.put("said", clock.ROW, step.now.packed())
        if not step.more and step.now.confirmed != step.done:
            view.put("said", _DONE, msgpack.packb(step.now.confirmed))
        page = step.page
        if step.says or page:
            view.put("said", HEAD_ROW, msgpack.packb([step.marks, page.head.sequence, page.head.digest]))
        says = step.says
        headers = [[(MARK, b"%d" % mark)] for _, mark in says.values()]
        out.emit(self._topic, view.partition, list(says), [value for value, _ in says.values()], headers)
        if page:
            lines = page.batch(_LINES)
            values = wire.frame(self._ids.schema_id(ledger.TOPIC), encode(lines, _LEDGER))
            out.emit(ledger.TOPIC, view.partition, page.keys(), values)
        for line, n in page.counted():
            out.count(f"refused.{line['why']}" if line["refused"] else f"destroyed.{line['why']}", n)
        return out

    # What others have deleted.

    def _deleted(self, view: View, step: _Step, inputs: Sequence[Inputs]) -> None:
        """A line for each record that pseudonymise has taken back, if it was held and has no line yet, and for each
        that it refused."""
        for batch in inputs:
            if batch.topic != self._topic:
                continue
            tombstones = [i for i, v in enumerate(batch.values) if v is None and _mark(batch, i) is None]
            gone = {k for i in tombstones if (k := batch.keys[i]) is not None}
            held = {k: self._held_before(view, step, k) for k in gone}
            for i, (key, value, offset) in enumerate(zip(batch.keys, batch.values, batch.offsets, strict=True)):
                if key is None or key not in gone:
                    continue
                mark = _mark(batch, i)
                if value is not None:
                    held[key] = envelope(self._topic, value), offset
                elif mark is None:
                    self._taken_back(
                        step, key, held[key], Deletion.of(batch.headers[i] if batch.headers else None), offset
                    )
                    held[key] = None
                elif (way := step.ways.get(key)) is not None and way.mark == mark and way.destroys is None:
                    held[key] = None  # what was said again and taken back has its line; what is hit by mistake returns

    def _held_before(self, view: View, step: _Step, key: bytes) -> tuple[Envelope, int] | None:
        """What the log held of a key before the batch, and where; None if it has its line already."""
        row, way = view.removed.get(key), step.ways.get(key)
        if row is None:
            return None
        *found, offset = msgpack.unpackb(row)
        return (Envelope(*found), offset) if way is None or way.destroys != offset else None

    def _taken_back(
        self, step: _Step, key: bytes, held: tuple[Envelope, int] | None, said: Deletion, tombstone: int
    ) -> None:
        if held is not None and said.why == "window":
            self._line(step, key, *held, deletion=said, tombstone=tombstone)
        elif held is not None and said.why == "expiry":
            self._line(step, key, *held, deletion=self._at_its_source(step, held[0], said), tombstone=tombstone)
        elif held is not None:
            self._line(step, key, *held, deletion=replace(said, refused_at=None), tombstone=tombstone)
        if said.refused_at is not None:
            topic, offset, supplier, dataset = said.refused_at
            found = Envelope(self._stop, supplier, dataset if self._kind == "activity" else None)
            self._line(step, key, found, offset, deletion=said, tombstone=tombstone, topic=topic)

    def _at_its_source(self, step: _Step, found: Envelope, said: Deletion) -> Deletion:
        """What pseudonymise has taken back because it has expired, before our own clock came to it. If it has not, it
        is the supplier's doing."""
        days = [d for d in (step.now.day, said.as_of) if d is not None]
        as_of = max(days, default=_EPOCH)
        if min(found.expires_on, self._stop) > (as_of - _EPOCH).days:
            return Deletion("withdrawal")
        return Deletion("expiry", as_of=as_of)

    # What is under way.

    def _read_back(self, step: _Step, inputs: Sequence[Inputs]) -> tuple[dict[bytes, _Again], set[bytes]]:
        """What our own records have hit by mistake. Besides, the keys that pseudonymise has written."""
        again: dict[bytes, _Again] = {}
        arrived: set[bytes] = set()
        for batch in inputs:
            if batch.topic != self._topic:
                continue
            for i, (key, value, offset) in enumerate(zip(batch.keys, batch.values, batch.offsets, strict=True)):
                if key is None:
                    continue
                mark, way = _mark(batch, i), step.ways.get(key)
                if mark is None:
                    arrived.add(key)
                    again.pop(key, None)
                    if way is not None:
                        way.latest = (value, offset)
                elif way is not None and way.mark == mark:
                    del step.ways[key]
                    if way.latest is not None and way.latest[0] != value:
                        again[key] = _Again(*way.latest, value, offset)
        return again, arrived

    def _left_over(self, view: View, step: _Step) -> dict[bytes, _Again]:
        """After a long absence: what was under way has been read, or was compacted away before anybody read it."""
        again: dict[bytes, _Again] = {}
        keys = sorted(step.ways)
        for key, packed in zip(keys, view.get_many("due", keys), strict=True):
            way = step.ways[key]
            if packed is None:
                if way.latest is not None and way.latest[0] is not None:
                    again[key] = _Again(*way.latest, None, None)
                del step.ways[key]
            elif msgpack.unpackb(packed)[3] != way.destroys:
                del step.ways[key]
        return again

    def _say_again(self, step: _Step, key: bytes, again: _Again) -> None:
        if again.value is None:
            if again.lies is not None and again.lies_at is not None:
                found = envelope(self._topic, again.lies)
                self._line(step, key, found, again.lies_at, deletion=Deletion("withdrawal"))
            step.say(key, None)
            return
        found = envelope(self._topic, again.value)
        if not self._is_over(found.expires_on, step.now):
            step.say(key, again.value)
            return
        self._line(step, key, found, again.offset)
        if again.lies is not None:
            step.say(key, None)

    # What has expired.

    def _is_over(self, expires_on: int, at: Clock) -> bool:
        return at.confirmed is not None and min(expires_on, self._stop) <= at.confirmed

    def _expired(self, view: View, step: _Step) -> dict[bytes, bytes]:
        """What the clock has ended and is still in the calendar, with its row in `due`: some of it, and then there is
        `more`. Costs what it is, not what is held."""
        now = step.now.confirmed
        if now is None or now == step.done:
            return {}
        # At the hard stop nothing may be held any more.
        prefixes = [b""] if now >= self._stop else days_up_to(now, step.done)
        found: dict[bytes, bytes] = {}
        for prefix in prefixes:
            for key, packed in view.scan("calendar", prefix, self._at_once - len(found)):
                found[key[DAY_DIGITS:]] = packed
            if len(found) == self._at_once:
                step.more = True
                break
        return found

    def _line(
        self,
        step: _Step,
        key: bytes,
        found: Envelope,
        offset: int,
        *,
        late: bool = False,
        deletion: Deletion | None = None,
        tombstone: int | None = None,
        topic: str | None = None,
    ) -> None:
        """A line for a record. `late`: it had expired when it came, and was not held. `deletion`: pseudonymise took it
        back, by the tombstone at that offset. `topic`: where it lay, if not here."""
        expires: int | None = min(found.expires_on, self._stop)
        as_of = _date(step.now.confirmed)
        by_policy = deletion is None or deletion.why in ("expiry", "window")
        if by_policy:
            why = "window" if deletion is not None and deletion.why == "window" else self._why(found, late)
            as_of = deletion.as_of if deletion is not None else as_of
            said: dict[str, Any] = {"reason": None, "by": None, "order_id": None, "refused": False}
        else:
            assert deletion is not None
            why = deletion.why
            expires = expires if deletion.refused_at is None else None
            said = {
                "reason": deletion.reason,
                "by": deletion.by or found.supplier,
                "order_id": deletion.order_id,
                "refused": deletion.refused_at is not None,
            }
        fixed = {
            "kind": self._kind,
            "dataset": found.dataset,
            "supplier": found.supplier,
            "why": why,
            "expires_on": _date(expires),
            "as_of": as_of,
            "topic": topic or self._topic,
            "partition": step.partition,
            **said,
            "tombstone": tombstone,
            "policy": self._policy if by_policy else None,
        }
        form = ledger.Form(fixed)
        if deletion is None:
            step.forms[found, why] = form
        self._put_down(step, form, key, offset)

    def _why(self, found: Envelope, late: bool) -> str:
        """Why retention destroys a record."""
        return "late" if late else "hard_stop" if found.expires_on >= self._stop else "expiry"

    def _put_down(self, step: _Step, form: ledger.Form, key: bytes, offset: int) -> None:
        step.page.put(form, hashlib.sha256(key).hexdigest(), offset)


def _date(days: int | None) -> date | None:
    return None if days is None else _EPOCH + timedelta(days)


def _add(changes: dict[tuple[str, str | None, str], int], what: tuple[str, str | None, str]) -> None:
    changes[what] = changes.get(what, 0) + 1


def _mark(batch: Inputs, i: int) -> int | None:
    for name, value in (batch.headers[i] if batch.headers else None) or ():
        if name == MARK:
            return int(value)
    return None
