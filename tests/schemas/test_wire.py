from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import wire

IDS = st.integers(0, 2**32 - 1)


def test_the_header_is_confluents() -> None:
    assert wire.header(258) == b"\x00\x00\x00\x01\x02"


@given(IDS, st.lists(st.binary(max_size=40), max_size=5))
def test_what_is_framed_says_its_id_and_keeps_its_body(schema_id: int, bodies: list[bytes]) -> None:
    values = wire.frame(schema_id, bodies)
    assert [wire.schema_id(v) for v in values] == [schema_id] * len(bodies)
    assert [v[wire.HEADER_BYTES :] for v in values] == bodies


@pytest.mark.parametrize("value", [b"", b"\x00", b"\x00\x00\x00\x01"])
def test_a_value_shorter_than_its_header_is_refused(value: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.schema_id(value)


@given(st.integers(1, 255), st.binary(min_size=4, max_size=20))
def test_another_first_byte_is_refused_without_a_word_of_the_value(magic: int, rest: bytes) -> None:
    with pytest.raises(wire.WireError) as failed:
        wire.schema_id(bytes([magic]) + rest)
    assert str(failed.value) == "magic byte is not zero"


@pytest.mark.parametrize("schema_id", [-1, 2**32])
def test_an_id_that_does_not_fit_is_refused(schema_id: int) -> None:
    with pytest.raises(OverflowError):
        wire.header(schema_id)
