"""Weights for near matches, estimated from pairs of which nobody knows whether they are one person.

Expectation maximisation for a mixture of kinds of pairs whose fields are independent within each kind. With two kinds
(one person; two) a family would pass for one person, for its members share a surname and a postcode; so two of one
household are a kind of their own (Winkler, Improved decision rules in the Fellegi-Sunter model of record linkage,
1993), and so are two of one name: father and son, or strangers who share a name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stream_processors.matching.near import MISSING, Floats, Levels
from stream_processors.matching.near_model import FIELDS, LEVELS, OTHERS

KINDS = ("person", *OTHERS)
_LEAST = 1e-4
"""No level is taken for rarer, so that one odd pair never decides by itself: weights stay within log2(1/1e-4)."""
_ENOUGH = 1e-6
_MOST_ROUNDS = 1_000
_SAME = 0.9
_LEFT = 0.1
"""First guess of how many of the pairs of one person the match keys leave."""
_ALIKE: Mapping[str, tuple[str, ...]] = {
    "person": FIELDS,
    "household": ("surname", "postcode"),
    "named_after": ("forename", "surname", "sex", "postcode"),
    "namesakes": ("forename", "surname", "sex"),
    "strangers": (),
}
"""What the first guess takes the two of a pair to share."""

Shares = Mapping[str, Floats]
"""Of each field, the share of each level but `MISSING` among pairs that have it; they sum to 1."""


@dataclass(frozen=True)
class Estimate:
    """Of each kind of `KINDS`: its share among pairs, and the shares of the levels. rounds: of the iteration."""

    kinds: Mapping[str, float]
    shares: Mapping[str, Shares]
    rounds: int

    def share(self, kind: str) -> float:
        """Share of a kind among pairs of two persons."""
        return self.kinds[kind] / sum(self.kinds[other] for other in OTHERS)

    def weights(self, against: str) -> dict[str, tuple[float, ...]]:
        """log2(m/u) of each field and level but `MISSING`: one person against another kind."""
        m, u = self.shares["person"], self.shares[against]
        return {f: tuple(round(float(w), 2) for w in np.log2(m[f] / u[f])) for f in FIELDS}


def estimate_two(pairs: Levels, matches: float) -> Estimate:
    """What pairs of a block are, if two persons are strangers and nothing else (Fellegi and Sunter 1969).

    For data where `estimate` takes one person's pairs for those of two who are alike: where nearly all pairs are one
    person, nothing else tells these apart. Kinds other than these two have no share, and look like strangers.

    Args:
        pairs: levels of the pairs, as `compare` gives them.
        matches: first guess of the share of pairs that are one person; above 0 and below 1.

    Raises `ValueError` for no pairs, or another guess.
    """
    if not 0 < matches < 1:
        raise ValueError("the first guess of matches must be above 0 and below 1")
    patterns, n = _patterns(pairs)
    all_pairs = [_shares(patterns[:, i], n, 1 + len(LEVELS[f])) for i, f in enumerate(FIELDS)]
    kinds = np.array([{"person": matches, "strangers": 1 - matches}.get(kind, 0.0) for kind in KINDS])
    shares = [[_guess(f, all_pairs[i], f in _ALIKE[kind]) for i, f in enumerate(FIELDS)] for kind in KINDS]
    found = _iterate(patterns, n, kinds, shares, fixed=0)
    like = {kind: found.shares[kind if found.kinds[kind] else "strangers"] for kind in KINDS}
    return Estimate(found.kinds, like, found.rounds)


def estimate(pairs: Levels, matches: float) -> Estimate:
    """What pairs of a block are.

    Args:
        pairs: levels of the pairs, as `compare` gives them.
        matches: first guess of the share of pairs that are one person; above 0 and below 0.4, which leaves room for
            the other kinds.

    Raises `ValueError` for no pairs, or another guess.
    """
    if not 0 < matches < 2 / (len(OTHERS) + 1):
        raise ValueError(f"the first guess of matches must be above 0 and below {2 / (len(OTHERS) + 1)}")
    patterns, n = _patterns(pairs)
    all_pairs = [_shares(patterns[:, i], n, 1 + len(LEVELS[f])) for i, f in enumerate(FIELDS)]
    kinds = np.array([matches, *[matches / 2] * (len(OTHERS) - 1), 1 - matches * (len(OTHERS) + 1) / 2])
    shares = [[_guess(f, all_pairs[i], f in _ALIKE[kind]) for i, f in enumerate(FIELDS)] for kind in KINDS]
    return _iterate(patterns, n, kinds, shares, fixed=0)


def estimate_rest(pairs: Levels, before: Estimate) -> Estimate:
    """What the pairs are that the match keys have left: one person is written more differently among them.

    What two persons look like is taken from all pairs; only what one person looks like, and how frequent each kind is,
    is estimated anew.

    Raises `ValueError` for no pairs.
    """
    patterns, n = _patterns(pairs)
    shares = [[before.shares[kind][f] for f in FIELDS] for kind in KINDS]
    shares[0] = [(of + 1 / len(of)) / 2 for of in shares[0]]
    kinds = np.array([before.kinds[kind] for kind in KINDS])
    kinds[0] *= _LEFT
    return _iterate(patterns, n, kinds / kinds.sum(), shares, fixed=len(OTHERS))


def _patterns(pairs: Levels) -> tuple[Levels, Floats]:
    if not len(pairs):
        raise ValueError("there are no pairs to learn from")
    # A level is below 8: the levels of a pair are one number, and counting numbers needs no sorting.
    digits = 8 ** np.arange(len(FIELDS) - 1, -1, -1)
    counts = np.bincount(pairs.astype(np.int32) @ digits.astype(np.int32))
    found = np.flatnonzero(counts)
    return (found[:, None] // digits % 8).astype(np.int8), counts[found].astype(np.float64)


def _iterate(patterns: Levels, n: Floats, kinds: Floats, shares: list[list[Floats]], fixed: int) -> Estimate:
    """Until no share moves by 1e-6; the shares of the last `fixed` kinds stay."""
    rounds, moved = 0, 1.0
    while moved > _ENOUGH and rounds < _MOST_ROUNDS:
        with np.errstate(divide="ignore"):  # a kind that has no pairs will have none
            share = np.log(kinds)
        likely = share + np.column_stack([_log_likelihood(patterns, of) for of in shares])
        belongs = np.exp(likely - likely.max(axis=1, keepdims=True))
        belongs *= (n / belongs.sum(axis=1))[:, None]
        kinds = belongs.sum(axis=0) / n.sum()
        anew = [
            [_shares(patterns[:, i], belongs[:, k], 1 + len(LEVELS[f])) for i, f in enumerate(FIELDS)]
            for k in range(len(KINDS) - fixed)
        ] + shares[len(KINDS) - fixed :]
        moved = max(
            float(np.abs(a - b).max())
            for new, old in zip(anew, shares, strict=True)
            for a, b in zip(new, old, strict=True)
        )
        shares, rounds = anew, rounds + 1
    return Estimate(
        dict(zip(KINDS, kinds.tolist(), strict=True)),
        {kind: dict(zip(FIELDS, of, strict=True)) for kind, of in zip(KINDS, shares, strict=True)},
        rounds,
    )


def _guess(field: str, all_pairs: Floats, same: bool) -> Floats:
    if not same:
        return all_pairs
    size = len(LEVELS[field])
    return np.array([_SAME] + [(1 - _SAME) / (size - 1)] * (size - 1))


def _log_likelihood(patterns: Levels, shares: list[Floats]) -> Floats:
    total = np.zeros(len(patterns))
    for i, of in enumerate(shares):
        total += np.concatenate([[0.0], np.log(of)])[patterns[:, i]]
    return total


def _shares(levels: Levels, n: Floats, size: int) -> Floats:
    """Share of each level among pairs that have the field; half a pair is added to each, and none is below `_LEAST`."""
    counts = np.bincount(levels, weights=n, minlength=size)[MISSING + 1 :] + 0.5
    shares = np.maximum(counts / counts.sum(), _LEAST)
    return np.asarray(shares / shares.sum(), np.float64)
