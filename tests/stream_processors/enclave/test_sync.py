"""When a file can go on, when it must be rebuilt, and when deletions may be acknowledged."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stream_processors.enclave.acknowledge import acknowledgements
from stream_processors.enclave.store import Position
from stream_processors.enclave.sync import reason_to_rebuild

DAY = 86_400_000
AT = Position("topic", {0: 10, 1: 20}, as_of_ms=100 * DAY)
ENDS = {0: (0, 10), 1: (5, 30)}


@pytest.mark.parametrize(
    ("change", "ends", "topic", "now", "reason"),
    [
        ({}, ENDS, "topic", 100 * DAY, None),
        ({}, ENDS, "topic", 115 * DAY, None),
        ({}, ENDS, "topic", 115 * DAY + 1, "older than tombstones"),
        ({}, ENDS, "topic", 100 * DAY - 1, "older than tombstones"),
        ({"topic_id": ""}, ENDS, "topic", 100 * DAY, "no file"),
        ({}, ENDS, "another", 100 * DAY, "made anew"),
        ({}, {0: (0, 10)}, "topic", 100 * DAY, "partitions"),
        ({}, {0: (0, 9), 1: (5, 30)}, "topic", 100 * DAY, "goes on"),
        ({}, {0: (0, 10), 1: (21, 30)}, "topic", 100 * DAY, "goes on"),
    ],
)
def test_a_file_goes_on_only_if_no_deletion_can_have_been_missed(
    change: dict[str, str], ends: dict[int, tuple[int, int]], topic: str, now: int, reason: str | None
) -> None:
    found = reason_to_rebuild(replace(AT, **change), topic, ends, now, 30 * DAY)  # type: ignore[arg-type]
    assert found is None if reason is None else reason in (found or "")


def test_a_deletion_is_acknowledged_by_the_offset_after_it() -> None:
    first, second = acknowledgements("lab", replace(AT, tombstones=3), 7)
    assert (first.key, first.next_offset, first.tombstones) == (b"lab|research.person|0", 10, 3)
    assert (second.key, second.next_offset, second.swept_at) == (b"lab|research.person|1", 20, 7)


def test_nothing_is_acknowledged_while_removed_rows_are_in_the_file() -> None:
    with pytest.raises(ValueError, match="still in the file"):
        acknowledgements("lab", replace(AT, unswept=True), 7)
