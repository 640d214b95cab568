"""The destruction ledger: lines chained by hashes, so that one that is removed, altered, doubled or moved shows.

There is a chain for each kind of record and partition. Every line holds the digest of the line before it, and its own
over all its other fields. Pure functions; `retention` writes the lines, `lethe ledger verify` reads them.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any, Literal

import pyarrow as pa

TOPIC = "governance.ledger"
FIRST = "0" * 64
"""What the first line of a chain has for the digest before it."""

WHY = "lethe.why"
"""Header of what pseudonymise deletes in the linkage zone: JSON, why, where it is not the supplier's own deletion."""
LATER = ("reason", "by", "order_id", "tombstone", "refused", "policy")
"""Fields that the first lines had not: they are in the digest where they say something."""

Line = Mapping[str, Any]
"""A line of `governance.ledger`, decoded: dates as `datetime.date`."""
Chain = tuple[str, int]
"""Kind and partition."""


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain: the sequence number of the next line, and the digest of the last."""

    sequence: int = 0
    digest: str = FIRST


@dataclass(frozen=True, slots=True)
class Deletion:
    """Why pseudonymise takes a record back. `refused_at`: topic and offset, supplier and dataset of a record that came
    and was refused. `as_of`: the day as of which it had expired, or its
    subject's linkage window had ended, where it lay."""

    why: Literal["erasure", "withdrawal", "correction", "expiry", "window"]
    reason: str | None = None
    by: str | None = None
    order_id: str | None = None
    refused_at: tuple[str, int, str, str] | None = None
    as_of: date | None = None

    @classmethod
    def ordered(cls, reason: str, by: str, order_id: str, refused_at: tuple[str, int, str, str] | None) -> Deletion:
        """By an order; withdrawn is what is ordered for that reason."""
        return cls("withdrawal" if reason == "withdrawal" else "erasure", reason, by, order_id, refused_at)

    @property
    def headers(self) -> list[tuple[str, bytes]]:
        """As a record's headers."""
        said: list[Any] = [self.why, self.reason, self.by, self.order_id, self.refused_at]
        if self.as_of is not None:
            said.append(self.as_of.isoformat())
        return [(WHY, json.dumps(said, separators=(",", ":")).encode())]

    @classmethod
    def of(cls, headers: Iterable[tuple[str, bytes]] | None) -> Deletion:
        """From a record's headers; without ours, the supplier withdrew it."""
        for name, value in headers or ():
            if name == WHY:
                why, reason, by, order_id, at, *day = json.loads(value)
                as_of = date.fromisoformat(day[0]) if day else None
                return cls(why, reason, by, order_id, tuple(at) if at else None, as_of)
        return cls("withdrawal")


def chained(line: Line, head: Head) -> tuple[dict[str, Any], Head]:
    """A line (without `sequence`, `previous`, `digest`) put at the end of a chain, and the end after it."""
    whole = {**line, "sequence": head.sequence, "previous": head.digest}
    whole["digest"] = digest(whole)
    return whole, Head(head.sequence + 1, whole["digest"])


def digest(line: Line) -> str:
    """SHA-256 (FIPS 180-4) of all fields but `digest`, as JSON with sorted names and ISO dates; 64 hex digits.

    `LATER` fields that are null or false are left out, so that lines from before them have the digest that they had.
    The text is made here: `json.dumps` takes twice as long where a value is a date.
    """
    names = [name for name in sorted(line) if name != "digest"]
    return _hashed(",".join(said for name in names if (said := _said(name, line[name]))))


class Form:
    """Lines that say the same but for which record, and where it lay: what is the same in their digests is made once.

    Holds: `digest` is what the function of that name makes of the whole line.
    """

    def __init__(self, fixed: Line) -> None:
        """`fixed`: every field of the lines but `_EACH` and `digest`."""
        self.fixed = dict(fixed)
        said = [(name, _said(name, fixed[name]) if name in fixed else None) for name in sorted({*fixed, *_EACH})]
        pieces, piece = [], ""
        for name, text in said:
            if text is None:
                pieces.append(f"{piece},{_quoted(name)}:")
                piece = ""
            elif text:
                piece += f",{text}"
        self._before, self._pieces = pieces[0].removeprefix(","), (*pieces[1:], piece)

    def digest(self, record: str, offset: int, previous: str, sequence: int) -> str:
        """Of the line of a record (hex digits) that lay at an offset, after the line that has the digest `previous`."""
        p, name, number, end = self._pieces
        return _hashed(f'{self._before}{offset}{p}"{previous}"{name}"{record}"{number}{sequence}{end}')


class Page:
    """Lines that one step puts at the end of a chain, by column: no object is made of a line."""

    def __init__(self, head: Head) -> None:
        self._first, self._sequence, self._digest = head, head.sequence, head.digest
        self._forms: dict[int, tuple[int, Form]] = {}
        self._form: list[int] = []
        self._records: list[str] = []
        self._offsets: list[int] = []
        self._digests: list[str] = []

    def __len__(self) -> int:
        return len(self._form)

    @property
    def head(self) -> Head:
        """The end of the chain with these lines."""
        return Head(self._sequence, self._digest)

    def put(self, form: Form, record: str, offset: int) -> None:
        """A line for a record (hex digits) that lay at an offset. Lines of one form had better have one object."""
        self._digest = form.digest(record, offset, self._digest, self._sequence)
        self._sequence += 1
        # The form is kept along with its number: no other object has its id while it lives.
        number, _ = self._forms.setdefault(id(form), (len(self._forms), form))
        self._form.append(number)
        self._records.append(record)
        self._offsets.append(offset)
        self._digests.append(self._digest)

    def counted(self) -> list[tuple[Line, int]]:
        """What the lines of each form have in common, and how many there are."""
        counts = Counter(self._form)
        return [(form.fixed, counts[number]) for number, form in self._forms.values()]

    def batch(self, schema: pa.Schema) -> pa.RecordBatch:
        """The lines, in order, with all columns of the ledger's schema."""
        each: dict[str, list[Any]] = {
            "record": self._records,
            "offset": self._offsets,
            "sequence": list(range(self._first.sequence, self._sequence)),
            "previous": [self._first.digest, *self._digests[:-1]],
            "digest": self._digests,
        }
        forms, which = [form.fixed for _, form in self._forms.values()], pa.array(self._form, pa.int32())
        columns = [
            pa.array(each[f.name], f.type)
            if f.name in each
            else pa.array([fixed[f.name] for fixed in forms], f.type).take(which)
            for f in schema
        ]
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    def keys(self) -> list[bytes]:
        """The lines' keys, in order."""
        heads = [_key(form.fixed) for _, form in self._forms.values()]
        return [heads[n] % (self._first.sequence + i) for i, n in enumerate(self._form)]


_EACH = ("offset", "previous", "record", "sequence")
"""What differs from line to line of a form, in the order of the digest."""


def _said(name: str, value: object) -> str:
    """A field as the digest has it; empty if it is left out."""
    if isinstance(value, str):
        return f"{_quoted(name)}:{_quoted(value)}"
    if value is None or value is False:
        return "" if name in LATER else f"{_quoted(name)}:{'null' if value is None else 'false'}"
    if isinstance(value, int):
        return f"{_quoted(name)}:{'true' if value is True else value}"
    assert isinstance(value, date)
    return f'{_quoted(name)}:"{value.isoformat()}"'


def _hashed(members: str) -> str:
    return hashlib.sha256(f"{{{members}}}".encode()).hexdigest()


def key(line: Line) -> bytes:
    """The line's key: no other line has it, so compaction never drops one."""
    return _key(line) % int(line["sequence"])


def _key(line: Line) -> bytes:
    return f"{line['kind']}|{line['partition']}|%d".encode()


def verify(lines: Iterable[Line], heads: Mapping[Chain, Head] | None = None) -> list[str]:
    """Where lines, in log order, are not the chains that were written; empty if nothing is wrong.

    Args:
        lines: of any number of chains.
        heads: where each chain must end, if that is known. Without it, lines cut off from the end do not show.
    """
    at: dict[Chain, Head] = {}
    faults: list[str] = []
    for line in lines:
        chain = (line["kind"], line["partition"])
        where = f"{chain[0]}, partition {chain[1]}, line {line['sequence']}"
        head = at.get(chain, Head())
        if line["digest"] != digest(line):
            faults.append(f"{where}: was altered")
        if line["sequence"] != head.sequence:
            faults.append(f"{where}: line {head.sequence} should be here")
        elif line["previous"] != head.digest:
            faults.append(f"{where}: does not follow from the line before it")
        at[chain] = Head(line["sequence"] + 1, line["digest"])
    for chain, head in (heads or {}).items():
        if at.get(chain, Head()) != head:
            faults.append(f"{chain[0]}, partition {chain[1]}: should end with line {head.sequence - 1}")
    return faults
