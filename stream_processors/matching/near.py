"""Near matches: how alike two encodings of one block are, field by field, and what that is worth as evidence.

Fields are compared by the Dice coefficient of their Bloom filters and put into levels; a level's weight is log2(m/u), m
and u being how often it occurs among pairs of one person and of two (Fellegi and Sunter, A theory for record linkage,
Journal of the American Statistical Association 64, 1969). The weights of the fields add up; a field that one of the two
lacks adds nothing. Two persons may be strangers, namesakes, or of one household: there is a sum against each, and the
evidence against their mixture is what counts (`estimate.py`).
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from stream_processors.matching.encodings import ENCODING_BYTES
from stream_processors.matching.near_model import CUTS, EXCHANGED, FIELDS, LEVELS, OTHERS, PassWeights

Words = npt.NDArray[np.uint64]
Levels = npt.NDArray[np.int8]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MISSING = 0
_EXCHANGED_LEVEL = 1 + LEVELS["forename"].index("exchanged")
_ALIKE_LEVEL = 1 + LEVELS["forename"].index("alike")
_MOST_BITS = 128
_SIDE = 2 * _MOST_BITS + 1
_UNKNOWN = 2 * _MOST_BITS + 1
"""Stands for the bits of a field that is missing: more than two that are there can have."""
_WIDE_SIDE = 2 * _UNKNOWN + 1
_PAIRS_AT_ONCE = 32_768  # what the arrays of a slice take stays near the core


def stacked(encodings: Sequence[str]) -> Words:
    """Encodings as rows of nine words."""
    return np.frombuffer(b64decode("".join(encodings)), "<u8").reshape(-1, ENCODING_BYTES // 8)


def compare(filters: Words, left: Ints, right: Ints) -> Levels:
    """Level of each field (int8, pairs by `FIELDS`) for pairs of rows `left[i]` and `right[i]` of `stacked`
    encodings."""
    bits = _bits(filters)
    out = np.empty((len(left), len(FIELDS)), np.int8)
    for low in range(0, len(left), _PAIRS_AT_ONCE):
        a, b = left[low : low + _PAIRS_AT_ONCE], right[low : low + _PAIRS_AT_ONCE]
        x, y = filters[a], filters[b]
        at = _bits(x & y).astype(np.int32) * _SIDE + (bits[a] + bits[b])
        levels = out[low : low + _PAIRS_AT_ONCE]
        for i, table in enumerate(_level_tables()):
            levels[:, i] = table[at[:, i]]
        levels[(bits[a] == 0) | (bits[b] == 0)] = MISSING
        _mark_exchanged(x, y, bits[a], bits[b], levels)
    return out


def evidence(levels: Levels, weights: PassWeights) -> Floats:
    """Evidence (bits) that the two of each pair are one person, rounded to a hundredth.

    -log2 of the sum over `OTHERS` of share * 2**-sum, the sum being that of the fields' weights against that kind;
    -infinity where `weights.home` or `weights.met` says so.
    """
    terms = [np.log2(weights.shares[kind]) - _sums(levels, weights.against[kind]) for kind in OTHERS]
    bits: Floats = np.round(-np.logaddexp2.reduce(terms, axis=0), 2)
    if weights.home:
        moved = levels[:, FIELDS.index("postcode")] == len(LEVELS["postcode"])
        bits[moved & (levels[:, FIELDS.index("middle_names")] != 1)] = -np.inf
    for field in weights.met:
        bits[levels[:, FIELDS.index(field)] == 1] = -np.inf
    return bits


def evident(filters: Words, left: Ints, right: Ints, weights: PassWeights) -> tuple[Ints, Floats]:
    """Which of the pairs have evidence at or above the floor of the pass (places in left and right), and how much.

    Most pairs are two strangers. The sum against strangers alone, with names taken for exchanged where they might be,
    is never below the evidence by more than the share of strangers: it is worked out for all, the rest for those it
    leaves.
    """
    bound = _bounds(weights)
    slack = -np.log2(weights.shares["strangers"]) + 0.01
    bits = _bits(filters)
    bits[bits == 0] = _UNKNOWN
    places, found = [np.empty(0, np.int64)], [np.empty(0)]
    for low in range(0, len(left), _PAIRS_AT_ONCE):
        a, b = left[low : low + _PAIRS_AT_ONCE], right[low : low + _PAIRS_AT_ONCE]
        at = _bits(filters[a] & filters[b]).astype(np.int32) * _WIDE_SIDE + bits[a] + bits[b]
        most = np.full(len(a), slack)
        for i, table in enumerate(bound):
            most += table[at[:, i]]
        likely = np.flatnonzero(most >= weights.floor)
        if len(likely):
            exact = evidence(compare(filters, a[likely], b[likely]), weights)
            enough = exact >= weights.floor
            places.append(likely[enough] + low)
            found.append(exact[enough])
    return np.concatenate(places), np.concatenate(found)


@lru_cache(maxsize=16)
def _bounds_of(strangers: tuple[tuple[float, ...], ...]) -> list[Floats]:
    both, total = np.divmod(np.arange((_MOST_BITS + 1) * _WIDE_SIDE), _WIDE_SIDE)
    tables = []
    for levels, weights in zip(_level_tables(), strangers, strict=True):
        known = total < _UNKNOWN
        level = levels[both[known] * _SIDE + np.minimum(total[known], _SIDE - 1)].astype(np.int64)
        worth = np.array(weights)[level - 1]
        if len(weights) == len(LEVELS["forename"]):
            worth = np.where(level > _ALIKE_LEVEL, np.maximum(worth, weights[-1]), worth)
        table = np.zeros(len(both))
        table[known] = worth
        tables.append(table)
    return tables


def _bounds(weights: PassWeights) -> list[Floats]:
    """Of each field, the most that bits in common (times `_WIDE_SIDE`) plus the bits of both can be worth."""
    return _bounds_of(tuple(weights.against["strangers"][field] for field in FIELDS))


def _sums(levels: Levels, weights: Mapping[str, tuple[float, ...]]) -> Floats:
    total = np.zeros(len(levels))
    for i, field in enumerate(FIELDS):
        total += np.array((0.0, *weights[field]))[levels[:, i]]
    return total


def _bits(words: Words) -> npt.NDArray[np.int16]:
    """Bits set in each field of encodings."""
    ones = np.bitwise_count(words)
    out = np.empty((len(words), len(FIELDS)), np.int16)
    np.add(ones[:, 0:8:2], ones[:, 1:8:2], out=out[:, :4], dtype=np.int16)
    out[:, 4] = np.bitwise_count(words[:, 8].astype(np.uint32))
    out[:, 5] = ones[:, 8] - out[:, 4]
    return out


@lru_cache(maxsize=1)
def _level_tables() -> list[Levels]:
    """Of each field, the level by bits in common (times `_SIDE`) plus the bits of both."""
    both, total = np.divmod(np.arange((_MOST_BITS + 1) * _SIDE), _SIDE)
    dice = 2 * both / np.maximum(total, 1)
    tables = []
    for field in FIELDS:
        if field == "middle_names":
            tables.append(np.where(dice >= CUTS[field][0], 1, 2).astype(np.int8))
        else:
            cuts = np.array((1.0, *CUTS[field]))
            tables.append((1 + (dice[:, None] < cuts).sum(axis=1)).astype(np.int8))
    return tables


def _mark_exchanged(x: Words, y: Words, nx: npt.NDArray[np.int16], ny: npt.NDArray[np.int16], levels: Levels) -> None:
    """The forename of each is the surname of the other."""
    at = np.flatnonzero((levels[:, 0] > _ALIKE_LEVEL) & (levels[:, 1] > _ALIKE_LEVEL))
    for mine, other in ((0, 1), (1, 0)):
        a, b = x[at], y[at]
        both = np.bitwise_count(a[:, 2 * mine] & b[:, 2 * other]) + np.bitwise_count(
            a[:, 2 * mine + 1] & b[:, 2 * other + 1]
        )
        at = at[2.0 * both >= EXCHANGED * (nx[at, mine] + ny[at, other])]
    levels[at, :2] = _EXCHANGED_LEVEL
