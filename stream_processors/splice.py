"""A research record spliced from encoded parts, so that nothing that is stored is decoded again.

An Avro record is its fields one after the other, an array a count, its items and a zero (Avro 1.12 specification,
"Complex types"). What is kept of a person is the head of its record, its place, and an encoded item per contribution.
What follows from two of them is encoded here: `months_from_start` at the end of each item, and of birth year, sex and
area what is published.
"""

from __future__ import annotations

import functools
import json
from bisect import bisect_left
from collections.abc import Mapping

import polars as pl
import pyarrow as pa

from schemas import contracts
from schemas.codec import arrow_schema
from schemas.contracts import Contract
from stream_processors.widen import Place

_CONTRIBUTION = contracts.contract("linkage/contribution")
_RESEARCH = contracts.contract("research/person")
FACTS = b"\x00"
_FIRST = b"\x01"  # how the first item begins that is none of facts
HEADER_KEY, PLACE_KEY = b"head", b"place"  # no record references: those are 32 hex digits
NOT_RECORDS = frozenset({HEADER_KEY, PLACE_KEY})
# A stored item: its dataset in one byte, the number of its month in three, the encoded item without
# `months_from_start`, which follows from the person's start. The stored head: the start's number, the encoded head
# without birth year, sex and area, of which less may be published than is known.
_MONTH_AT, _MONTH_BYTES = 1, 3
HEAD_BYTES = _MONTH_AT + _MONTH_BYTES
_DERIVED = "months_from_start"
MOST_MONTHS = 1200
"""Further than this from the start, a month stands for a date that is wrong: its distance is missing."""


def _sub_contract(name: str, record: dict[str, object]) -> Contract:
    return Contract(name, json.dumps({"namespace": _RESEARCH.json["namespace"], **record}))


_ARRAYS = [f for f in _RESEARCH.json["fields"] if isinstance(f["type"], dict) and f["type"]["type"] == "array"]
DATASETS = [f["name"] for f in _ARRAYS]
ITEMS = {
    f["name"]: _sub_contract(
        "research/person",
        {**f["type"]["items"], "fields": [i for i in f["type"]["items"]["fields"] if i["name"] != _DERIVED]},
    )
    for f in _ARRAYS
}
_EMPTY = [bytes(n) for n in range(len(DATASETS) + 1)]
"""So many arrays without items."""
QUASI = ["birth_year", "sex", "area"]
_SEXES = next(leaf.symbols for leaf in _RESEARCH.leaves if leaf.path == "sex")
HEADER = _sub_contract(
    "research/person",
    {**_RESEARCH.json, "fields": [f for f in _RESEARCH.json["fields"] if f["name"] not in {*DATASETS, *QUASI}]},
)
STORED_FACTS = _sub_contract(
    "linkage/contribution", _CONTRIBUTION.json["fields"][3]["type"][1] | {"namespace": "lethe.linkage"}
)


def check_order() -> None:
    """Hold the research contract to the order that records are spliced in.

    Raises:
        ValueError: it ends with other fields, or an item does.
    """
    if [f.name for f in arrow_schema(_RESEARCH)][-len(DATASETS) - len(QUASI) :] != [*QUASI, *DATASETS]:
        raise ValueError(f"research/person must end with {', '.join(QUASI)} and its arrays: it is spliced like that")
    if any([i["name"] for i in f["type"]["items"]["fields"]][-1] != _DERIVED for f in _ARRAYS):
        raise ValueError(f"research/person: every item must end with {_DERIVED}: it is spliced like that")


def splice(held: Mapping[bytes, bytes], place: Place) -> bytes:
    """A research record from what is held of a person: its head, what is published of its place, then the arrays of
    its datasets in the schema's order, months ascending.
    """
    head = held[HEADER_KEY]
    since, parts = _since(head[:_MONTH_BYTES]), [head[_MONTH_BYTES:], _encoded(place)]
    # An item begins with its dataset and its month, so one sort brings them into groups and each group into order.
    items = sorted([item for record, item in held.items() if record not in NOT_RECORDS])
    done, low = 0, bisect_left(items, _FIRST)  # datasets that are spliced; items that are, or are facts
    while low < len(items):
        dataset = items[low][0]
        high = bisect_left(items, bytes((dataset + 1,)), low)
        parts += (_EMPTY[dataset - 1 - done], _varint(high - low))
        for item in items[low:high]:
            parts += (item[HEAD_BYTES:], since[item[_MONTH_AT:HEAD_BYTES]])
        parts.append(b"\x00")
        done, low = dataset, high
    parts.append(_EMPTY[len(DATASETS) - done])
    return b"".join(parts)


def _varint(n: int) -> bytes:
    """Avro's zigzag variable-length long."""
    n = n << 1 if n >= 0 else (-n << 1) - 1
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


@functools.lru_cache(65_536)
def _encoded(place: Place) -> bytes:
    """The three last scalar fields, each a union with null: an int, an enum by the place of its symbol, a string."""
    area = place.area.encode()
    return b"".join(
        (
            b"\x02" + _varint(int(place.year)) if place.year else b"\x00",
            b"\x02" + _varint(_SEXES.index(place.sex)) if place.sex else b"\x00",
            b"\x02" + _varint(len(area)) + area if area else b"\x00",
        )
    )


class _Since(dict[bytes, bytes]):
    """The encoded `months_from_start`, null or an int, by the number of an item's month; worked out when first asked
    for."""

    def __init__(self, start: bytes) -> None:
        super().__init__()
        self._start = int.from_bytes(start, "big")

    def __missing__(self, month: bytes) -> bytes:
        a, b = self._start, int.from_bytes(month, "big")
        known = a and b and abs(b - a) <= MOST_MONTHS
        found = self[month] = b"\x02" + _varint(b - a) if known else b"\x00"
        return found


_since = functools.lru_cache(1_024)(_Since)  # people share the months of their starts


def month_numbers(months: pl.Series) -> list[bytes]:
    """Months since the year 0, in bytes that sort as they do; 0 where there is none."""
    numbers = (months.dt.year() * 12 + months.dt.month().cast(pl.Int32)).fill_null(0)
    packed = {n: n.to_bytes(_MONTH_BYTES, "big") for n in numbers.unique().to_list()}
    return [packed[n] for n in numbers.to_list()]


def when(flat: pa.RecordBatch) -> list[bytes]:
    """The number of the first date column's month: items are ordered by it, and set against the start."""
    dates = next((i for i, f in enumerate(flat.schema) if pa.types.is_date32(f.type)), None)
    if dates is None:
        return [bytes(_MONTH_BYTES)] * flat.num_rows
    return month_numbers(pl.Series(flat.column(dates)).cast(pl.Date))
