"""Bytes of a file to lines of text, a bounded block at a time.

Every line is UTF-8, or, where it is not, Windows-1252 (as exports of older systems are): decided line by
line, so that a row reads the same wherever in a file it stands. Lines end in LF, CRLF or CR, also mixed.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

BLOCK_BYTES = 1 << 20
MAX_LINE_BYTES = 4 << 20
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Block:
    """Whole lines.

    data: their bytes. first: number of the first one, from 1. too_long: the block is one line that was longer
    than `MAX_LINE_BYTES` and has been skipped: `data` is empty.
    """

    data: bytes
    first: int
    too_long: bool = False


def blocks(file: IO[bytes], block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
    """The lines from where the file stands, without a byte-order mark; a line at most beyond the size."""
    number = 1
    rest = file.read(len(_BOM))
    rest = rest.removeprefix(_BOM)
    while True:
        read = file.read(block_bytes)
        data = rest + read
        end = len(data) if not read else _last_end(data)
        if not end and not read:
            return
        if not end and len(data) > MAX_LINE_BYTES:
            rest = _skip_line(file, data, block_bytes)
            yield Block(b"", number, too_long=True)
            number += 1
            continue
        if end:
            block, rest = Block(data[:end], number), data[end:]
            yield block
            number += count_lines(block.data)
        else:
            rest = data


def count_lines(data: bytes) -> int:
    """Lines in a block; what follows the last line end counts as one."""
    ends = data.count(b"\n")
    if b"\r" in data:
        ends += data.count(b"\r") - data.count(b"\r\n")
    return ends + (not data.endswith((b"\n", b"\r")))


def _last_end(data: bytes) -> int:
    """Length of the whole lines in `data`; a CR at the very end may be half of a CRLF and is left."""
    newline = data.rfind(b"\n") + 1
    return newline or data.rfind(b"\r", 0, len(data) - 1) + 1


def _skip_line(file: IO[bytes], data: bytes, block_bytes: int) -> bytes:
    """Reads on to the end of the line and returns what follows it."""
    pending = data[-1:]
    while read := file.read(block_bytes):
        both = pending + read
        ends = [i for i in (both.find(b"\n"), both.find(b"\r", 0, len(both) - 1)) if i >= 0]
        if ends:
            end = min(ends)
            return both[end + 2 :] if both[end : end + 2] == b"\r\n" else both[end + 1 :]
        pending = both[-1:]
    return b""


def text_lines(data: bytes) -> tuple[list[str], int]:
    """The lines of a block, each with its end, and how many of them were not UTF-8."""
    try:
        return list(io.StringIO(data.decode(), newline="")), 0
    except UnicodeDecodeError:
        pass
    lines, recoded = [], 0
    for raw in io.StringIO(data.decode("latin-1"), newline=""):
        line = raw.encode("latin-1")
        try:
            lines.append(line.decode())
        except UnicodeDecodeError:
            recoded += 1
            lines.append(_windows_1252(line, raw))
    return lines, recoded


def _windows_1252(line: bytes, as_latin_1: str) -> str:
    try:
        return line.decode("cp1252")
    except UnicodeDecodeError:  # one of the five bytes that mean nothing there: a control character, refused later
        return as_latin_1
