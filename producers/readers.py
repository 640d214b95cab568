"""Supplier files (CSV, JSON Lines, Avro containers) to chunks of text cells with the line of each row.

What cannot be read as a row is set down by its line and a reason and reading goes on where that is safe.
Memory is bounded by the block size, whatever the size of the file, of a line or of a quoted cell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import IO, Protocol

from producers import avro_files, csv_files, json_files
from producers.chunks import Chunk
from producers.header import Columns, UnusableFileError
from schemas.contracts import Contract


class _Reader(Protocol):
    def __call__(self, file: IO[bytes], columns: Columns) -> Iterator[Chunk]: ...


READERS: Mapping[str, _Reader] = MappingProxyType(
    {
        ".csv": csv_files.read,
        ".jsonl": json_files.read,
        ".ndjson": json_files.read,
        ".json": json_files.read,
        ".avro": avro_files.read,
    }
)
_OTHERS = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstandard"),
    (b"PK\x03\x04", "a zip archive or an Excel workbook"),
    (b"\xd0\xcf\x11\xe0", "an Excel 97 workbook"),
    (b"PAR1", "Parquet"),
    (b"%PDF", "PDF"),
)
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def check(path: Path) -> None:
    """Whether there is a file of a kind that can be read; says nothing of its rows.

    Raises:
        UnusableFileError: it is not there, not a file, empty, may not be read, or is of another kind.
    """
    try:
        if not path.exists():
            raise UnusableFileError("there is no such file")
        if path.is_dir():
            raise UnusableFileError("is a directory; name its files, or follow it with --follow")
        if not path.is_file():
            raise UnusableFileError("is not a regular file")
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as e:
        raise UnusableFileError(f"cannot be read ({e.strerror or type(e).__name__})") from None
    except ValueError as e:
        raise _as_unusable(e) from None
    if not start:
        raise UnusableFileError("is empty")
    for magic, kind in _OTHERS:
        if start.startswith(magic):
            raise UnusableFileError(f"is {kind}; unpack or export it as {_kinds()} first")
    if path.suffix.lower() not in READERS:
        raise UnusableFileError(f"is of a kind that is not taken; taken are {_kinds()}")
    if start.startswith(_UTF_16):
        raise UnusableFileError("is UTF-16; save it as UTF-8")


def _as_unusable(error: ValueError) -> UnusableFileError:
    return error if isinstance(error, UnusableFileError) else UnusableFileError("is not a path")


def read(file: IO[bytes], suffix: str, contract: Contract) -> Iterator[Chunk]:
    """The rows of an open file, in order.

    Args:
        file: at its start.
        suffix: one of `READERS`, such as `.csv`.
        contract: names the columns.

    Raises:
        UnusableFileError: header or format do not fit; the chunks before it stand.
    """
    return READERS[suffix.lower()](file, Columns.of(contract))


def _kinds() -> str:
    return ", ".join(READERS)


__all__ = ["READERS", "Chunk", "UnusableFileError", "check", "read"]
