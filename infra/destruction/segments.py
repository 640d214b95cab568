"""Kafka's log segments as they lie on disk: every record that is still there, whether a reader could get it or not.

A segment is a row of record batches (Kafka's message format, magic 2: 61 bytes of header, then the records, compressed
as one). Compression hides bytes from a plain search, so batches are decompressed here (pyarrow) and parsed by aiokafka.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from aiokafka.record.default_records import DefaultRecordBatch

_HEAD = 61
_MAGIC_AT, _ATTRIBUTES_AT, _PRODUCER_AT = 16, 21, 43
_COMPRESSION, _TRANSACTIONAL, _CONTROL = 0x07, 0x10, 0x20
_CODECS = {1: "gzip", 3: "lz4", 4: "zstd"}
_ABORT, _COMMIT = 0, 1
_SEGMENT = re.compile(r"(\d{20})\.log(\.deleted|\.cleaned|\.swap)?$")
_FOLDER = re.compile(r"(.+)-(\d+)(\.[0-9a-f]{32}-delete)?$")


class UnreadableSegmentError(ValueError):
    """A segment has bytes that are no batch which can be read here. The message names the file and the place."""


class Record(NamedTuple):
    """One record on disk. `time` as the broker has it, in ms since 1970."""

    offset: int
    time: int
    key: bytes | None
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch, decompressed. `marker`: for the end of a transaction, whether it was committed; else None."""

    offset: int
    producer: int
    transactional: bool
    marker: bool | None
    content: bytes

    def records(self) -> Iterator[Record]:
        """Its records in order; none of a marker."""
        if self.marker is None:
            for r in DefaultRecordBatch(self.content):
                yield Record(r.offset, r.timestamp, r.key, r.value)

    @property
    def time(self) -> int:
        """The latest time in it, in ms since 1970."""
        latest: int = struct.unpack_from(">q", self.content, 35)[0]
        return latest


class Segment(NamedTuple):
    """A file of batches. `retired`: waits to be removed, or is the cleaner's work in progress."""

    path: Path
    retired: bool


class PartitionFolder(NamedTuple):
    """A partition's folder on disk. `deleted`: its topic was, and it waits to be removed."""

    topic: str
    partition: int
    path: Path
    deleted: bool


def partition_folders(data: Path) -> list[PartitionFolder]:
    """Every partition that lies below a broker's log directory."""
    out = []
    for path in sorted(data.iterdir()) if data.is_dir() else ():
        found = _FOLDER.match(path.name)
        if found and path.is_dir():
            out.append(PartitionFolder(found[1], int(found[2]), path, bool(found[3])))
    return out


def segments(folder: Path) -> list[Segment]:
    """A partition's segments in the order of their offsets, retired ones last."""
    found = []
    for path in folder.iterdir():
        name = _SEGMENT.match(path.name)
        if name:
            found.append((bool(name[2]), name[1], Segment(path, bool(name[2]))))
    return [segment for *_, segment in sorted(found, key=lambda f: f[:2])]


def batches(path: Path) -> Iterator[Batch]:
    """Every whole batch of a segment, one in memory at a time. A last one that is being written is left out.

    Raises:
        UnreadableSegmentError: bytes that are no batch, or a compression that is not known here (snappy).
        FileNotFoundError: the broker has removed the file meanwhile.
    """
    with path.open("rb") as file:
        while len(head := file.read(_HEAD)) == _HEAD:
            base, length = struct.unpack_from(">qi", head)
            if length == 0 and not any(head):  # room that was reserved and not written yet
                return
            if length < _HEAD - 12 or head[_MAGIC_AT] != 2:
                raise UnreadableSegmentError(f"{path}: no batch at offset {base}")
            body = file.read(length - (_HEAD - 12))
            if len(body) < length - (_HEAD - 12):
                return
            yield _batch(path, base, head, body)


def _batch(path: Path, base: int, head: bytes, body: bytes) -> Batch:
    attributes, producer = (
        struct.unpack_from(">h", head, _ATTRIBUTES_AT)[0],
        struct.unpack_from(">q", head, _PRODUCER_AT)[0],
    )
    compression = attributes & _COMPRESSION
    if compression:
        if compression not in _CODECS:
            raise UnreadableSegmentError(f"{path}: a compression that is not read here, at offset {base}")
        try:
            body = pa.CompressedInputStream(pa.BufferReader(body), _CODECS[compression]).read()
        except OSError:
            raise UnreadableSegmentError(f"{path}: cannot be decompressed, at offset {base}") from None
    plain = bytearray(head)
    struct.pack_into(">h", plain, _ATTRIBUTES_AT, attributes & ~_COMPRESSION)
    content = bytes(plain) + body
    return Batch(base, producer, bool(attributes & _TRANSACTIONAL), _marker(attributes, content), content)


def _marker(attributes: int, content: bytes) -> bool | None:
    if not attributes & _CONTROL:
        return None
    for record in DefaultRecordBatch(content):
        if record.key is not None and len(record.key) >= 4:
            kind: int = struct.unpack_from(">h", record.key, 2)[0]
            if kind in (_ABORT, _COMMIT):
                return kind == _COMMIT
    return True
