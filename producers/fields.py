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
_INTEGER = (
    r"^([+-]?[0-9]{1,9})(?:\.0*)?$"  # 12.0 is how a spreadsheet or pandas writes 12 beside an empty cell
)
_NUMBER = r"^[+-]?(?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})(?:[eE][+-]?[0-9]{1,3})?$"
_IGNORED_IN_SYMBOLS = re.compile(r"[\s_\-]+")
_TRUE = ("true", "t", "1", "1.0", "yes", "y")
_FALSE = ("false", "f", "0", "0.0", "no", "n")
_SYNONYMS: Mapping[str, Mapping[str, str]] = MappingProxyType({"sex": {"female": "F", "male": "M"}})


class Read(NamedTuple):
    """`value` has the field's type, null where missing or bad; `reason` is text, null where not bad."""

    value: pl.Expr
    reason: pl.Expr


def trimmed(name: str) -> pl.Expr:
    """The cell without the space around it; null if nothing is left."""
    text = pl.col(name).str.strip_chars()
    return pl.when(text != "").then(text)


def read_key(name: str) -> Read:
    """A subject's or record's id: text that may stand in a message key."""
    text = trimmed(name)
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
    return Read(pl.when(reason.is_null()).then(text), reason)


def read_field(field: Field, today: date) -> Read:
    """A field that is not part of the key, by its kind and domain.

    Raises:
        NotImplementedError: a kind that no identified contract has.
    """
    text = trimmed(field.name)
    if field.kind == "string":
        return _string(text)
    if field.kind == "date":
        return _date(text, today)
    if field.kind == "enum":
        return _enum(text, field)
    if field.kind == "boolean":
        return _boolean(text)
    if field.kind in {"int", "double"}:
        return _number(text, field)
    raise NotImplementedError(f"{field.path}: no reader for {field.kind}")


def _checked(text: pl.Expr, value: pl.Expr, reason: str) -> Read:
    """A value that is null exactly where the text does not mean one."""
    return Read(value, pl.when(text.is_not_null() & value.is_null()).then(pl.lit(reason)))


def _string(text: pl.Expr) -> Read:
    clean = pl.when(~text.str.contains(_CONTROL)).then(text)
    return _checked(text, clean, "holds a control character")


def _date(text: pl.Expr, today: date) -> Read:
    def by(pattern: str, form: str, length: int = 10) -> pl.Expr:
        return (
            pl.when(text.str.contains(pattern))
            .then(text.str.slice(0, length))
            .str.to_date(form, strict=False)
        )

    day = pl.coalesce(by(_ISO, "%Y-%m-%d"), by(_COMPACT, "%Y%m%d"), by(_BRITISH, "%d/%m/%Y"))
    reason = (
        pl.when(text.is_null())
        .then(None)
        .when(day.is_null())
        .then(pl.lit("is not a date"))
        .when(day.is_in(DEFAULT_DATES))
        .then(pl.lit("is a default date"))
        .when(day > today)
        .then(pl.lit("is in the future"))
        .when(day < EARLIEST)
        .then(pl.lit("is too early"))
    )
    return Read(pl.when(reason.is_null()).then(day), reason)


def _enum(text: pl.Expr, field: Field) -> Read:
    meant = {_IGNORED_IN_SYMBOLS.sub("", s).lower(): s for s in field.symbols}
    meant.update(_SYNONYMS.get(field.name, {}))
    bare = text.str.to_lowercase().str.replace_all(r"[\s_\-]+", "")
    symbol = bare.replace_strict(meant, default=None, return_dtype=pl.String)
    return _checked(text, symbol, "is not among the allowed symbols")


def _boolean(text: pl.Expr) -> Read:
    lower = text.str.to_lowercase()
    value = pl.when(lower.is_in(_TRUE)).then(pl.lit(True)).when(lower.is_in(_FALSE)).then(pl.lit(False))
    return _checked(text, value, "is not a yes or a no")


def _number(text: pl.Expr, field: Field) -> Read:
    if field.kind == "int":
        value = text.str.extract(_INTEGER).str.strip_prefix("+").cast(pl.Int32, strict=False)
        reason = "is not a whole number"
    else:
        value = pl.when(text.str.contains(_NUMBER)).then(text).cast(pl.Float64, strict=False)
        value = pl.when(value.is_finite()).then(value)
        reason = "is not a number"
    if not isinstance(field.domain, tuple):
        return _checked(text, value, reason)
    inside = value.is_between(*field.domain)
    low, high = field.domain
    out = pl.when(value.is_not_null() & ~inside).then(pl.lit(f"is not from {low} to {high}"))
    return Read(pl.when(inside).then(value), pl.coalesce(_checked(text, value, reason).reason, out))
