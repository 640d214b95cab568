"""Whom an enquiry is about: six details, from a file or from an opened enquiry. No error and no repr shows one."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import date, datetime
from pathlib import Path
from typing import Self

import polars as pl

_LONGEST = 200
_PAD_TO = 256
_MAX_FILE_BYTES = 64 * 1024


class PersonError(ValueError):
    """Details that cannot be used. The message names the field, and never holds a value."""


@dataclass(frozen=True)
class PersonAsked:
    """The details that match keys are made of; any may be missing. `sex` is F, M or X."""

    forename: str | None = field(default=None, repr=False)
    middle_names: str | None = field(default=None, repr=False)
    surname: str | None = field(default=None, repr=False)
    date_of_birth: date | None = field(default=None, repr=False)
    sex: str | None = field(default=None, repr=False)
    postcode: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, details: Mapping[str, object]) -> Self:
        """From fields by name, as text; a date of birth as 2001-02-03, 20010203 or 03/02/2001.

        Raises:
            PersonError: an unknown field, a value that is no text or too long, or a date of birth that is none.
        """
        names = {f.name for f in fields(cls)}
        unknown = sorted(str(name) for name in details if name not in names)
        if unknown:
            raise PersonError(f"unknown field {unknown[0]}; known are {', '.join(sorted(names))}")
        texts: dict[str, str | None] = {}
        for name, value in details.items():
            if value is not None and not isinstance(value, str):
                raise PersonError(f"{name} is no text")
            if value is not None and len(value) > _LONGEST:
                raise PersonError(f"{name} is longer than {_LONGEST} characters")
            texts[name] = (value or "").strip() or None
        born = texts.pop("date_of_birth", None)
        return cls(date_of_birth=_date(born) if born else None, **texts)

    def to_bytes(self) -> bytes:
        """As JSON, filled up with spaces to a multiple of 256 bytes: the length says nothing of the names."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        found["date_of_birth"] = self.date_of_birth.isoformat() if self.date_of_birth else None
        text = json.dumps({k: v for k, v in found.items() if v is not None}, ensure_ascii=False).encode()
        return text.ljust(-(-len(text) // _PAD_TO) * _PAD_TO)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """What `to_bytes` made.

        Raises:
            PersonError: it is nothing of the kind.
        """
        details = _json(data)
        if not isinstance(details, dict):
            raise PersonError("the details are no JSON object")
        return cls.of(details)


def frame_of(people: Sequence[PersonAsked]) -> pl.DataFrame:
    """One row for each, with the columns that `normalise` reads."""
    schema = {f.name: pl.Date if f.name == "date_of_birth" else pl.String for f in fields(PersonAsked)}
    return pl.DataFrame({name: [getattr(p, name) for p in people] for name in schema}, schema=schema)


def read_person(path: Path) -> PersonAsked:
    """The one person in a file: a JSON object, or CSV with a header and one row.

    Raises:
        PersonError: the file cannot be read, holds nobody or several, or a detail cannot be used.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as e:
        raise PersonError(f"{path}: cannot be read ({e.strerror})") from None
    if len(data) > _MAX_FILE_BYTES:
        raise PersonError(f"{path}: too large for one person")
    try:
        if path.suffix.lower() == ".csv":
            return PersonAsked.of(_only_row(data))
        return PersonAsked.from_bytes(data)
    except PersonError as e:
        raise PersonError(f"{path}: {e}") from None


def _only_row(data: bytes) -> Mapping[str, object]:
    text = _text(data)
    if text is None:
        raise PersonError("is not UTF-8")
    rows = list(csv.DictReader(io.StringIO(text), restkey="(more)"))
    if len(rows) != 1:
        raise PersonError(f"holds {len(rows)} rows; an enquiry is about one person")
    if "(more)" in rows[0]:
        raise PersonError("the row has more cells than the header")
    return {str(name).strip(): value for name, value in rows[0].items()}


def _date(text: str) -> date:
    found = _parsed(text)
    if found is None:
        raise PersonError("date_of_birth is no date such as 2001-02-03")
    return found


# Apart, and without the cause: an error that quotes a value must not be chained to ours.
def _parsed(text: str) -> date | None:
    try:
        return datetime.strptime(text, "%d/%m/%Y").date() if "/" in text else date.fromisoformat(text)
    except ValueError:
        return None


def _text(data: bytes) -> str | None:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None


def _json(data: bytes) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None
