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
_KNOWN_PAIRS, _KNOWN_PERSONS, _KNOWN_OTHERS = 50, 50, 500
"""What is known from other files counts as so many pairs: how frequent each kind is, what one person looks like, and
what two look like, which differs less between files. Chosen on simulated families with mistakes of other kinds than the
simulator's (docs/linkage.md)."""
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


def estimate_others(pairs: Levels, before: Estimate) -> Estimate:
    """What pairs of two persons are, of which nobody is to be expected twice: of one council's cohort.

    What is known from other files counts as much as so many pairs would: few pairs hardly change it, many decide by
    themselves (the posterior mode under Dirichlet priors). One person stays as it was.
    """
    kinds = np.array([before.kinds[kind] if kind in OTHERS else 0.0 for kind in KINDS])
    kinds /= kinds.sum()
    shares = [[before.shares[kind][f] for f in FIELDS] for kind in KINDS]
    if not len(pairs):
        return Estimate(dict(zip(KINDS, kinds.tolist(), strict=True)), before.shares, 0)
    return _iterate(*_patterns(pairs), kinds, shares, fixed=0, known=True)


def estimate_from(pairs: Levels, before: Estimate, kin: Mapping[str, float]) -> Estimate:
    """What the pairs are that the match keys have left, where it is known what two persons look like.

    What one person looks like is learnt as in `estimate_others`. A relative and a person who is hard to find look the
    same in a pair; so it is given how many are relatives at most.

    Args:
        pairs: levels of the pairs, as `compare` gives them.
        before: from which it sets out.
        kin: the most pairs that there may be of `KIN`.

    Raises `ValueError` for no pairs.
    """
    patterns, n = _patterns(pairs)
    kinds = np.array([before.kinds[kind] for kind in KINDS])
    most = np.array([max(kin[kind] / n.sum(), _LEAST) if kind in kin else 1.0 for kind in KINDS])
    shares = [[before.shares[kind][f] for f in FIELDS] for kind in KINDS]
    return _iterate(patterns, n, kinds, shares, fixed=len(OTHERS), known=True, most=most)


def _patterns(pairs: Levels) -> tuple[Levels, Floats]:
    if not len(pairs):
        raise ValueError("there are no pairs to learn from")
    # A level is below 8: the levels of a pair are one number, and counting numbers needs no sorting.
    digits = 8 ** np.arange(len(FIELDS) - 1, -1, -1)
    counts = np.bincount(pairs.astype(np.int32) @ digits.astype(np.int32))
    found = np.flatnonzero(counts)
    return (found[:, None] // digits % 8).astype(np.int8), counts[found].astype(np.float64)


def _iterate(
    patterns: Levels,
    n: Floats,
    kinds: Floats,
    shares: list[list[Floats]],
    fixed: int,
    known: bool = False,
    most: Floats | None = None,
) -> Estimate:
    """Until no share moves by 1e-6; the shares of the last `fixed` kinds stay. known: what it sets out from counts as
    pairs. most: how frequent each kind may be."""
    rounds, moved = 0, 1.0
    if most is not None:
        kinds = _within(kinds, most)
    first_kinds, first_shares = kinds, shares
    while moved > _ENOUGH and rounds < _MOST_ROUNDS:
        with np.errstate(divide="ignore"):  # a kind that has no pairs will have none
            share = np.log(kinds)
        likely = share + np.column_stack([_log_likelihood(patterns, of) for of in shares])
        belongs = np.exp(likely - likely.max(axis=1, keepdims=True))
        belongs *= (n / belongs.sum(axis=1))[:, None]
        kinds = belongs.sum(axis=0) / n.sum()
        if known:
            kinds = (belongs.sum(axis=0) + _KNOWN_PAIRS * first_kinds) / (n.sum() + _KNOWN_PAIRS)
        if most is not None:
            kinds = _within(kinds, most)
        anew = [
            [
                _shares(
                    patterns[:, i],
                    belongs[:, k],
                    1 + len(LEVELS[f]),
                    (_KNOWN_OTHERS if k else _KNOWN_PERSONS) * first_shares[k][i] if known else 0.5,
                )
                for i, f in enumerate(FIELDS)
            ]
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


def _within(kinds: Floats, most: Floats) -> Floats:
    """Shares that sum to 1 with none above its most; what some give away the others get, in proportion."""
    over = np.zeros(len(kinds), bool)
    while (kinds[~over] > most[~over]).any():
        over |= kinds > most
        kinds = np.where(over, most, kinds * (1 - most[over].sum()) / kinds[~over].sum())
    return kinds


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


def _shares(levels: Levels, n: Floats, size: int, more: float | Floats = 0.5) -> Floats:
    """Share of each level among pairs that have the field; so many pairs are added, and none is below `_LEAST`."""
    counts = np.bincount(levels, weights=n, minlength=size)[MISSING + 1 :] + more
    shares = np.maximum(counts / counts.sum(), _LEAST)
    return np.asarray(shares / shares.sum(), np.float64)
