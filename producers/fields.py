"""What a cell of text means in a field of a contract: one pair of polars expressions for each kind of field.

A cell is trimmed first; an empty one is a missing value, not a bad one. A bad one gives no value and a
reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from types import MappingProxyType
from typing import NamedTuple

import polars as pl

from schemas.contracts import Field
from stream_processors.runtime.records import HEARTBEAT_KEY

# Dates that systems write when they know none: the zero days of spreadsheets (1899-12-30, 1899-12-31,
# 1900-01-01), the smallest and largest days of databases and languages (0001-01-01, 1753-01-01, 9999-12-31)
# and round centuries. Not 1970-01-01, the zero day of Unix: people have been born on it, and nobody alive was
# born on the others.
DEFAULT_DATES = (
    date(1, 1, 1),
    date(1753, 1, 1),
    date(1800, 1, 1),
    date(1899, 12, 30),
    date(1899, 12, 31),
    date(1900, 1, 1),
    date(9999, 12, 31),
)
EARLIEST = date(1850, 1, 1)
"""Before this day a date is a slip of the pen: no supplier holds records of people born or events earlier."""

MAX_VALUE_BYTES = 1_000_000
MAX_ROW_BYTES = 4_000_000
"""Of all values of a row together: half of what the topics take in one message (`infra/topics.yaml`)."""
MAX_KEY_BYTES = 1_000

_CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"
_KEY_CONTROL = r"[\x00-\x1f\x7f-\x9f\x{2028}\x{2029}]"
_ISO = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ]00:00(?::00(?:\.0+)?)?)?$"
_COMPACT = r"^[0-9]{8}$"
_BRITISH = r"^[0-9]{1,2}/[0-9]{1,2}/[0-9]{4}$"
_INTEGER = r"^([+-]?[0-9]{1,9})(?:\.0*)?$"  # 12.0 is how a spreadsheet or pandas writes 12 beside an empty cell
_NUMBER = r"^[+-]?(?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})(?:[eE][+-]?[0-9]{1,3})?$"
_IGNORED_IN_SYMBOLS = re.compile(r"[\s_\-]+")
_TRUE = ("true", "t", "1", "1.0", "yes", "y")
_FALSE = ("false", "f", "0", "0.0", "no", "n")
_SYNONYMS: Mapping[str, Mapping[str, str]] = MappingProxyType({"sex": {"female": "F", "male": "M"}})


class Read(NamedTuple):
    """How a column is read; `judge` does it.

    parsed: from the trimmed text (the column of the field's name, null if empty) to the field's type. reason: from
    both, the parsed one being the column `PARSED + name`; null where the cell is not bad.
    """

    parsed: pl.Expr
    reason: pl.Expr


PARSED = "="
REASON = "?"


def judge(cells: pl.DataFrame, reads: Mapping[str, Read]) -> pl.DataFrame:
    """Text columns, one for each of `reads`, to a column of values and, under `REASON + name`, one of reasons.

    Step by step rather than as one expression each: polars would compute what they share again and again, which
    took four times as long.
    """
    text = [pl.col(n).str.strip_chars() for n in reads]
    frame = cells.select(pl.when(t != "").then(t).alias(n) for n, t in zip(reads, text, strict=True))
    frame = frame.with_columns(r.parsed.alias(PARSED + n) for n, r in reads.items())
    frame = frame.with_columns(r.reason.cast(pl.String).alias(REASON + n) for n, r in reads.items())
    values = [pl.when(pl.col(REASON + n).is_null()).then(pl.col(PARSED + n)).alias(n) for n in reads]
    return frame.select(*values, *(REASON + n for n in reads))


def read_key(name: str) -> Read:
    """A subject's or record's id: text that may stand in a message key."""
    text = pl.col(name)
    reason = (
        pl.when(text.is_null())
        .then(pl.lit("is blank"))
        .when(text.str.contains("|", literal=True))
        .then(pl.lit("holds a |, which separates the parts of a key"))
        .when(text.str.len_bytes() > MAX_KEY_BYTES)
        .then(pl.lit("is too long for a key"))
        .when(text.str.contains(_KEY_CONTROL))
        .then(pl.lit("holds a control character"))
        .when(text == HEARTBEAT_KEY.decode())
        .then(pl.lit("is a reserved key"))
    )
    return Read(text, reason)


def read_field(field: Field, today: date) -> Read:
    """A field that is not part of the key, by its kind, its domain and whether it may be missing.

    Raises:
        NotImplementedError: a kind that no identified contract has.
    """
    text, parsed = pl.col(field.name), pl.col(PARSED + field.name)
    if field.kind == "string":
        read = Read(text, pl.when(text.str.contains(_CONTROL)).then(pl.lit("holds a control character")))
    elif field.kind == "date":
        read = _date(text, parsed, today)
    elif field.kind == "enum":
        read = _enum(text, parsed, field)
    elif field.kind == "boolean":
        read = _boolean(text, parsed)
    elif field.kind in {"int", "double"}:
        read = _number(text, parsed, field)
    else:
        raise NotImplementedError(f"{field.path}: no reader for {field.kind}")
    if field.nullable:
        return read
    return Read(read.parsed, pl.when(text.is_null()).then(pl.lit("is blank")).otherwise(read.reason))


def _meaningless(text: pl.Expr, parsed: pl.Expr, reason: str) -> pl.Expr:
    """Bad where there is text and nothing came of it."""
    return pl.when(text.is_not_null() & parsed.is_null()).then(pl.lit(reason))


def _date(text: pl.Expr, parsed: pl.Expr, today: date) -> Read:
    def by(pattern: str, form: str) -> pl.Expr:
        return pl.when(text.str.contains(pattern)).then(text.str.slice(0, 10)).str.to_date(form, strict=False)

    day = pl.coalesce(by(_ISO, "%Y-%m-%d"), by(_COMPACT, "%Y%m%d"), by(_BRITISH, "%d/%m/%Y"))
    reason = (
        pl.when(text.is_not_null() & parsed.is_null())
        .then(pl.lit("is not a date"))
        .when(parsed.is_in(DEFAULT_DATES))
        .then(pl.lit("is a default date"))
        .when(parsed > today)
        .then(pl.lit("is in the future"))
        .when(parsed < EARLIEST)
        .then(pl.lit("is too early"))
    )
    return Read(day, reason)


def _enum(text: pl.Expr, parsed: pl.Expr, field: Field) -> Read:
    meant = {_IGNORED_IN_SYMBOLS.sub("", s).lower(): s for s in field.symbols}
    meant.update(_SYNONYMS.get(field.name, {}))
    bare = text.str.to_lowercase().str.replace_all(_IGNORED_IN_SYMBOLS.pattern, "")
    symbol = bare.replace_strict(meant, default=None, return_dtype=pl.String)
    return Read(symbol, _meaningless(text, parsed, "is not among the allowed symbols"))


def _boolean(text: pl.Expr, parsed: pl.Expr) -> Read:
    meant = dict.fromkeys(_TRUE, True) | dict.fromkeys(_FALSE, False)
    value = text.str.to_lowercase().replace_strict(meant, default=None, return_dtype=pl.Boolean)
    return Read(value, _meaningless(text, parsed, "is not a yes or a no"))


def _number(text: pl.Expr, parsed: pl.Expr, field: Field) -> Read:
    if field.kind == "int":
        value = text.str.extract(_INTEGER).str.strip_prefix("+").cast(pl.Int32, strict=False)
        reason = _meaningless(text, parsed, "is not a whole number")
    else:
        value = pl.when(text.str.contains(_NUMBER)).then(text).cast(pl.Float64, strict=False)
        reason = pl.when(text.is_not_null() & ~parsed.is_finite().fill_null(False)).then(pl.lit("is not a number"))
    if isinstance(field.domain, tuple):
        low, high = field.domain
        outside = pl.when(~parsed.is_between(low, high)).then(pl.lit(f"is not from {low} to {high}"))
        reason = pl.coalesce(reason, outside)
    return Read(value, reason)
