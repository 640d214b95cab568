"""Avro container files: flat records under any schema whose fields are named as the contract's."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import IO, Any

import fastavro

from producers.chunks import CHUNK_ROWS, Broken, Chunk, of_rows
from producers.header import Columns, UnusableFileError

_SIMPLE = {"null", "boolean", "int", "long", "float", "double", "string", "enum"}


class _Bounded:
    """A file that refuses to be asked for more than it has: a damaged length must not take the memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        place = file.tell()
        self._size = file.seek(0, 2)
        file.seek(place)

    def read(self, size: int = -1) -> bytes:
        """As of any file; at most what is left."""
        left = self._size - self._file.tell()
        return self._file.read(left if size < 0 else min(size, left))


def read(file: IO[bytes], columns: Columns) -> Iterator[Chunk]:
    """The records, from 1. Where a block is damaged or cut off, one broken row says so and reading stops.

    Raises:
        UnusableFileError: not an Avro container, its schema does not fit, or a field is not a single value.
    """
    try:
        bounded: Any = _Bounded(file)
        records = fastavro.reader(bounded)
        schema = records.writer_schema
    except Exception:  # whatever a damaged header makes fastavro raise
        raise UnusableFileError("is not an Avro container file, or its header is damaged") from None
    names = _names(schema, columns)
    fields = columns.match(names)
    rows: list[list[str | None]] = []
    first = 1
    for record in _whole(records):
        if record is None:
            at = first + len(rows)
            yield of_rows(
                fields,
                rows,
                range(first, at),
                [Broken(at, "is cut off or damaged: nothing after it was read")],
            )
            return
        rows.append([_text(record[n]) for n in names])
        if len(rows) >= CHUNK_ROWS:
            yield of_rows(fields, rows, range(first, first + len(rows)))
            first += len(rows)
            rows = []
    if rows:
        yield of_rows(fields, rows, range(first, first + len(rows)))


def _whole(records: Any) -> Iterator[dict[str, Any] | None]:
    """The records; None in the place of the first that cannot be read."""
    while True:
        try:
            record = next(records)
        except StopIteration:
            return
        except Exception:  # EOFError, zlib.error, struct.error, OverflowError, MemoryError and more
            yield None
            return
        if not isinstance(record, dict):
            yield None
            return
        yield record


def _names(schema: Any, columns: Columns) -> list[str]:
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise UnusableFileError("its Avro schema is not a record")
    names = []
    for field in schema["fields"]:
        names.append(str(field["name"]))
        kinds = {_kind(t) for t in (field["type"] if isinstance(field["type"], list) else [field["type"]])}
        known = columns.field(names[-1])
        if known is not None and not kinds <= _SIMPLE:
            raise UnusableFileError(f"field {known} is not a single value in its Avro schema")
        if known in columns.required and kinds == {"null"}:
            raise UnusableFileError(f"field {known} is never there in its Avro schema")
    return names


def _kind(type_: Any) -> str:
    if isinstance(type_, dict):
        type_ = type_.get("type")
    return type_ if isinstance(type_, str) else "nested"


def _text(value: Any) -> str | None:
    """The cell of a value, as a CSV file would have it."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, float):
        return repr(value)
    return str(value)
