"""Which quarantined records are still there, which are meant, and which may go back."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from infra.quarantine.entries import Collector, Filter, Pace, counts, decide, follow_newest, place_of

HOME, SOURCE = "identified.dfe.", "identified.dfe.absence"


def headers(
    offset: int, error: str = "OutOfDomain", partition: int = 0, topic: str = SOURCE
) -> list[tuple[str, bytes]]:
    return [
        ("__connect.errors.topic", topic.encode()),
        ("__connect.errors.partition", str(partition).encode()),
        ("__connect.errors.offset", str(offset).encode()),
        ("__connect.errors.exception.class.name", error.encode()),
        ("lethe.errors.field", b"SessionsPossible"),
    ]


def collected(*entries: tuple[str, int | None, list[tuple[str, bytes]]]) -> pl.DataFrame:
    """Entries (key, size, headers) at offsets 0, 1, 2... and times 1000, 1001, 1002..."""
    out = Collector()
    for offset, (key, size, said) in enumerate(entries):
        out.add(key.encode(), offset, 1_000 + offset, size, said)
    return out.latest().sort("offset")


def newest(**offsets: int) -> dict[str, dict[str, np.ndarray]]:
    keys = np.unique(np.array([hash(k.replace("_", "|").encode()) for k in offsets], dtype=np.int64))
    found = np.full(len(keys), -1, dtype=np.int64)
    follow_newest(keys, found, [k.replace("_", "|").encode() for k in offsets], list(offsets.values()))
    return {SOURCE: {"key": keys, "offset": found}}


def test_the_last_entry_of_a_key_counts_and_a_tombstone_ends_it() -> None:
    rows = collected(
        ("absence|u1|r1", 10, headers(4)),
        ("absence|u2|r1", 11, headers(5)),
        ("absence|u1|r1", 12, headers(6, "Undecodable")),
        ("absence|u2|r1", None, []),
        ("person|u2|r1", 13, headers(7)),  # another dataset is another key
    )
    assert rows.select("offset", "error", "size").rows() == [(2, "Undecodable", 12), (4, "OutOfDomain", 13)]


@pytest.mark.parametrize(
    ("meant", "offsets"),
    [
        (Filter(), [0, 1, 2]),
        (Filter(datasets=("absence",)), [0, 2]),
        (Filter(errors=("Undecodable", "NullKey")), [2]),
        (Filter(since_ms=1_001), [1, 2]),
        (Filter(until_ms=1_002, datasets=("absence",)), [0]),
    ],
)
def test_a_filter_says_which_are_meant(meant: Filter, offsets: list[int]) -> None:
    rows = collected(
        ("absence|u1|r1", 1, headers(1)),
        ("person|u1", 1, headers(2)),
        ("absence|u2|r1", 1, headers(3, "Undecodable")),
    )
    assert meant.of(rows)["offset"].to_list() == offsets


@pytest.mark.parametrize(
    ("said", "last", "why"),
    [
        (headers(4), 4, ""),  # the record that failed is still the last word on its key
        (headers(4), 9, "superseded"),  # a newer record, or a tombstone
        (headers(4), None, "superseded"),  # deleted, and compacted away
        (headers(4, "WrongPartition"), 4, "wrong_partition"),
        (headers(4, partition=3), 4, "no_place"),
        (headers(4, topic="identified.moj.offence"), 4, "no_place"),
        ([], 4, "no_place"),
    ],
)
def test_only_the_last_word_on_a_key_goes_back(said: list[tuple[str, bytes]], last: int | None, why: str) -> None:
    rows = collected(("absence|u1|r1", 1, said))
    found = newest(u1_r1=last) if last is not None else newest(other=1)
    assert decide(rows, found, HOME, 0)["why"].to_list() == [why]


def test_a_record_without_a_key_does_not_go_back() -> None:
    rows = collected(("absence|@0-4", 1, headers(4)))
    assert decide(rows, newest(u1_r1=4), HOME, 0)["why"].to_list() == ["no_place"]


def test_the_last_offset_of_a_key_is_followed_through_batches_and_other_keys_are_not_asked_for() -> None:
    keys = np.unique(np.array([hash(b"a"), hash(b"b")], dtype=np.int64))
    found = np.full(2, -1, dtype=np.int64)
    follow_newest(keys, found, [b"a", b"c", b"a", None], [3, 4, 5, 6])
    follow_newest(keys, found, [b"c"], [9])
    assert dict(zip(keys.tolist(), found.tolist(), strict=True)) == {hash(b"a"): 5, hash(b"b"): -1}


def test_headers_that_are_no_numbers_are_unknown_and_attempts_come_along() -> None:
    said = [*headers(4), ("lethe.requeue.attempts", b"2"), ("__connect.errors.partition", b"x")]
    found = place_of(said)
    assert (found.source_offset, found.partition, found.attempts, found.field) == (4, -1, 2, "SessionsPossible")


def test_counts_say_how_many_how_large_and_since_when() -> None:
    rows = collected(("absence|u1|r1", 5, headers(1)), ("absence|u2|r1", 6, headers(2)))
    assert counts(rows).to_dicts() == [
        {
            "dataset": "absence",
            "error": "OutOfDomain",
            "field": "SessionsPossible",
            "records": 2,
            "bytes": 11,
            "attempts": 0,
            "first_ms": 1_000,
            "last_ms": 1_001,
        }
    ]


def test_a_pace_is_kept_on_the_average() -> None:
    pace = Pace(100, began=10)
    assert pace.wait(100, now=10.25) == pytest.approx(0.75)
    assert pace.wait(100, now=12) == 0
    assert Pace(None, 10).wait(1_000_000, now=10) == 0
