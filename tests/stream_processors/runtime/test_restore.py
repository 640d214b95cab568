"""What a commit says of itself besides the offset, and what a restore makes of it."""

from __future__ import annotations

import pytest

from stream_processors.runtime.restore import Told, is_of_form, metadata_of, of_form, told_by
from stream_processors.runtime.state import MemoryStore, Position


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1700000000000 epoch 1, catalogue 3", Told(1_700_000_000_000, "epoch 1, catalogue 3")),
        ("1700000000000", Told(1_700_000_000_000)),
        ("0/17 epoch 1", Told(0, "epoch 1", 17)),
        ("0/0", Told(0, "", 0)),
        ("0/ epoch 1", Told(None)),
        ("somebody else's", Told(None)),
        ("", Told(None)),
        (None, Told(None)),
    ],
)
def test_the_metadata_of_a_commit_is_read_as_it_was_written(text: str | None, told: Told) -> None:
    assert told_by(text) == told
    if told.time_ms is not None:
        assert metadata_of(told.time_ms, told.version, told.anew) == text


def test_a_state_is_read_as_the_form_that_it_was_written_in_alone() -> None:
    store = MemoryStore()
    assert is_of_form(store, "")
    assert not is_of_form(store, "2")
    store.apply({**of_form("2"), "heard": {b"key": b"value"}}, Position({}))
    assert is_of_form(store, "2")
    assert not is_of_form(store, "")
    assert not is_of_form(store, "3")
