"""SipHash-2-4 is the published one, whatever the batch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_processors.matching import siphash as module
from stream_processors.matching.siphash import Words, siphash

MASK = 2**64 - 1
WORD = st.integers(0, MASK)
K0, K1 = 0x0706050403020100, 0x0F0E0D0C0B0A0908  # the bytes 00, 01... 0f


def column(*words: int) -> Words:
    return np.array(words, np.uint64)


def plain(k0: int, k1: int, *words: int) -> int:
    """SipHash-2-4 of one message, as the paper writes it (Aumasson and Bernstein, 2012, section 2)."""
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def left(value: int, bits: int) -> int:
        return (value << bits | value >> (64 - bits)) & MASK

    def rounds(n: int) -> None:
        for _ in range(n):
            v[0] = v[0] + v[1] & MASK
            v[2] = v[2] + v[3] & MASK
            v[1] = left(v[1], 13) ^ v[0]
            v[3] = left(v[3], 16) ^ v[2]
            v[0] = left(v[0], 32)
            v[2] = v[2] + v[1] & MASK
            v[0] = v[0] + v[3] & MASK
            v[1] = left(v[1], 17) ^ v[2]
            v[3] = left(v[3], 21) ^ v[0]
            v[2] = left(v[2], 32)

    for word in (*words, (8 * len(words) % 256) << 56):
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


@pytest.mark.parametrize(
    ("length", "digest"),
    [
        (0, "310e0edd47db6f72"),
        (8, "6224939a79f5f593"),
        (16, "db9bc2577fcc2a3f"),
        (24, "94af49f6c650adb8"),
        (32, "ce7cf2722f512771"),
        (40, "d0a704536ba93e0e"),
        (48, "51a9cb9ecba312e6"),
        (56, "bd838d3aafbf8db7"),
    ],
)
def test_the_published_vectors(length: int, digest: str) -> None:
    """`vectors.h` of the reference implementation: key 00, 01... 0f, message 00, 01... of `length` bytes."""
    words = np.frombuffer(bytes(range(length)), "<u8").astype(np.uint64)
    made = siphash(column(K0), column(K1), *(column(int(w)) for w in words))
    assert made.astype("<u8").tobytes().hex() == digest


@given(st.integers(0, 4).flatmap(lambda n: st.lists(st.tuples(*[WORD] * (n + 2)), min_size=1, max_size=20)))
def test_it_is_the_plain_one_row_by_row(rows: list[tuple[int, ...]]) -> None:
    columns = [np.array(c, np.uint64) for c in zip(*rows, strict=True)]
    assert siphash(*columns).tolist() == [plain(*row) for row in rows]


def test_no_rows() -> None:
    assert siphash(column(), column(), column()).tolist() == []


@pytest.mark.parametrize("rows", [1, 6, 7, 8, 14, 15])
def test_rows_at_the_edges_of_slices_are_hashed_like_others(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [np.arange(rows, dtype=np.uint64) * np.uint64(k) for k in (3, 5, 7)]
    should = siphash(*whole).tolist()
    monkeypatch.setattr(module, "_SLICE", 7)
    assert siphash(*whole).tolist() == should == [plain(3 * i, 5 * i, 7 * i) for i in range(rows)]


def test_what_it_is_given_stays_as_it_was() -> None:
    given_columns = [column(1, 2, 3), column(4, 5, 6), column(7, 8, 9)]
    siphash(*given_columns)
    assert [c.tolist() for c in given_columns] == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
