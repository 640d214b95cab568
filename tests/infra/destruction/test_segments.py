"""What lies in a partition's segments: batches made by aiokafka's own writer, as a broker keeps them."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from infra.destruction.leftovers import OnDisk, on_disk
from infra.destruction.segments import UnreadableSegmentError, batches, partition_folders, segments

NOW = 1_000_000
Kept = tuple[int, int, bytes, bytes | None]
"""Offset, time, key and value."""


def batch(records: Sequence[Kept], codec: int = 0, producer: int = -1, transactional: bool = False) -> bytes:
    builder = DefaultRecordBatchBuilder(2, 0, 1 if transactional else 0, producer, 0 if producer >= 0 else -1, 0, 10**6)
    base = records[0][0]
    for offset, time, key, value in records:
        builder.append(offset - base, time, key, value, [])
    plain = bytes(builder.build())
    return packed(plain, base, codec)


def packed(plain: bytes, base: int, codec: int = 0, control: bool = False) -> bytes:
    """The batch at its offset, its records compressed as a client would."""
    head, body = bytearray(plain[:61]), plain[61:]
    if codec:
        name = {1: "gzip", 3: "lz4", 4: "zstd"}[codec]
        if name == "gzip":
            body = gzip.compress(body)
        else:
            sink = pa.BufferOutputStream()
            with pa.CompressedOutputStream(sink, name) as out:
                out.write(body)
            body = sink.getvalue().to_pybytes()
    attributes = struct.unpack_from(">h", head, 21)[0] | codec | (0x20 if control else 0)
    struct.pack_into(">q", head, 0, base)
    struct.pack_into(">i", head, 8, 49 + len(body))
    struct.pack_into(">h", head, 21, attributes)
    return bytes(head) + body


def marker(offset: int, time: int, producer: int, commit: bool) -> bytes:
    key = struct.pack(">hh", 0, int(commit))
    builder = DefaultRecordBatchBuilder(2, 0, 1, producer, 0, -1, 10**6)
    builder.append(0, time, key, b"\0" * 6, [])
    return packed(bytes(builder.build()), offset, control=True)


def lies(folder: Path, *content: bytes, ledgered: set[int] | None = None) -> OnDisk:
    folder.mkdir(exist_ok=True)
    (folder / "00000000000000000000.log").write_bytes(b"".join(content))
    return on_disk(segments(folder), ledgered or set(), NOW)


@pytest.mark.parametrize("codec", [0, 1, 3, 4])
def test_records_are_read_whatever_compresses_them(tmp_path: Path, codec: int) -> None:
    kept = [(5, 100, b"k1", b"v1" * 50), (6, 100, b"k2", None)]
    (tmp_path / "x.log").write_bytes(batch(kept, codec))
    (found,) = batches(tmp_path / "x.log")
    assert [(r.offset, r.key, r.value) for r in found.records()] == [(o, k, v) for o, _, k, v in kept]
    assert b"v1v1v1" in found.content


def test_a_batch_that_is_being_written_is_left_out_and_what_is_no_batch_is_named(tmp_path: Path) -> None:
    whole = batch([(0, 1, b"k", b"v")])
    (tmp_path / "x.log").write_bytes(whole + whole[:-1])
    assert len(list(batches(tmp_path / "x.log"))) == 1
    (tmp_path / "x.log").write_bytes(whole + b"\0" * 100)
    assert len(list(batches(tmp_path / "x.log"))) == 1, "room that is reserved"
    (tmp_path / "x.log").write_bytes(whole + b"\1" * 100)
    with pytest.raises(UnreadableSegmentError, match="no batch"):
        list(batches(tmp_path / "x.log"))
    snappy = bytearray(whole)
    snappy[22] |= 2
    (tmp_path / "x.log").write_bytes(bytes(snappy))
    with pytest.raises(UnreadableSegmentError, match="compression"):
        list(batches(tmp_path / "x.log"))


def test_a_value_is_dead_from_when_its_key_was_written_again(tmp_path: Path) -> None:
    found = lies(
        tmp_path / "t-0",
        batch([(0, 10, b"a", b"1"), (1, 10, b"b", b"1")]),
        batch([(2, 20, b"a", None)]),
        batch([(3, 30, b"b", b"2"), (4, 30, b"c", b"1")]),
        ledgered={0},
    )
    assert (found.records, found.live) == (5, 2)
    assert (found.dead.count, found.dead.since, found.dead.offset) == (2, 20, 0)
    assert (found.destroyed.count, found.undead) == (1, [])


def test_a_destroyed_record_that_is_not_followed_by_anything_is_not_dead(tmp_path: Path) -> None:
    found = lies(tmp_path / "t-0", batch([(7, 10, b"a", b"1")]), ledgered={7})
    assert (found.undead, found.destroyed.count) == ([7], 0)


def test_what_an_aborted_transaction_wrote_is_dead_and_replaces_nothing(tmp_path: Path) -> None:
    found = lies(
        tmp_path / "t-0",
        batch([(0, 10, b"a", b"1")]),
        batch([(1, 20, b"a", None), (2, 20, b"b", b"x")], producer=9, transactional=True),
        marker(3, 25, 9, commit=False),
        batch([(4, 30, b"c", b"1")], producer=9, transactional=True),
        marker(5, 35, 9, commit=True),
        batch([(6, 40, b"d", b"1")], producer=9, transactional=True),  # its commit was cleaned away, or is to come
    )
    assert found.live == 3
    assert (found.dead.count, found.dead.since, found.dead.offset) == (1, 25, 2)


def test_files_that_wait_to_be_removed_count_as_dead_since_they_were_renamed(tmp_path: Path) -> None:
    folder = tmp_path / "t-0"
    folder.mkdir()
    (folder / "00000000000000000000.log.deleted").write_bytes(batch([(0, 10, b"a", b"1"), (1, 10, b"b", b"1")]))
    found = lies(folder, batch([(1, 10, b"b", b"1")]))
    assert (found.live, found.dead.count, found.dead.offset) == (1, 1, 0)


def test_folders_are_told_apart_by_topic_partition_and_whether_their_topic_is_deleted(tmp_path: Path) -> None:
    for name in ("state.retention.identity-3", "linkage.link-0." + "a" * 32 + "-delete", "__consumer_offsets-1"):
        (tmp_path / name).mkdir()
    (tmp_path / "meta.properties").touch()
    assert [(f.topic, f.partition, f.deleted) for f in partition_folders(tmp_path)] == [
        ("__consumer_offsets", 1, False),
        ("linkage.link", 0, True),
        ("state.retention.identity", 3, False),
    ]
    assert partition_folders(tmp_path / "nowhere") == []
