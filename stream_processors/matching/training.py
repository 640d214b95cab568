"""Training near matches on persons in the clear, for which simulated ones are good enough: pairs of a block, compared
as `link` will compare their encodings, and the weights that make such pairs likeliest. No truth is looked at."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import polars as pl

from stream_processors.matching.catalogue import Catalogue, Pass
from stream_processors.matching.components import components
from stream_processors.matching.encodings import bloom, features, told_apart
from stream_processors.matching.estimate import Estimate, estimate, estimate_rest, estimate_two
from stream_processors.matching.near import Ints, compare
from stream_processors.matching.near_model import LEVELS, OTHERS, NearModel, PassWeights
from stream_processors.matching.tokens import TOKEN_TAIL, TokenKeys, tokenise

POSTERIOR: Mapping[int, float] = MappingProxyType({1: 0.5, 2: 0.6, 3: 0.7})
CAREFUL: Mapping[int, float] = MappingProxyType({1: 0.5, 2: 0.7, 3: 0.7})
"""For the weights that come with Lethe: departments may hold fathers whose sons alone are in the cohort."""
MARGIN = 1.0
"""Bits: the best person is twice as likely as the second."""
ENOUGH_PAIRS = 100
NEVER = np.iinfo(np.int64).max
_MOST_MATCHES = 0.95
_NEARLY_ALL = 0.4
"""Share of a block's pairs that are one person, from which on `estimate` has no room for the other kinds."""
_HOME = frozenset({"postcode", "sector", "district"})
_BLOCKS_OF = MappingProxyType({"date_of_birth": frozenset({"dob"}), "postcode": _HOME})
_MOST_PAIRS = 5_000_000
_NO_SECRET = b"Tokens of simulated persons, to be thrown away."


def train(
    persons: pl.DataFrame,
    catalogue: Catalogue,
    version: str,
    posterior: Mapping[int, float] = POSTERIOR,
    otherwise: NearModel | None = None,
) -> NearModel:
    """The model of persons (rows of `normalise`, and cohort, Boolean).

    First all pairs of a pass are looked at, then those of departments' subjects whom no match key finds: near matches
    are for these alone.

    Args:
        persons: rows of `normalise`, and cohort (Boolean).
        catalogue: match keys and passes.
        version: of the model.
        posterior: of each pass, how likely a pair must be one person to be linked.
        otherwise: whose weights a pass gets of which too few pairs are left to learn from (below `ENOUGH_PAIRS`), or
            what is learned makes no sense: a field in which a pair agrees would speak less for one person than one in
            which it does not.

    Raises:
        ValueError: there is no `otherwise` for such a pass.
    """
    passes = []
    first = found_by_keys(persons, catalogue)
    for p in catalogue.passes:
        try:
            found = estimated(persons, p, first > p.number)
        except ValueError:
            if otherwise is None:
                raise
            found = None
        if otherwise is not None and (found is None or not _sensible(found)):
            passes += [weights for weights in (otherwise.of(p.number),) if weights is not None]
            continue
        assert found is not None
        one, least = min(found.kinds["person"], _MOST_MATCHES), posterior[p.number]
        passes.append(
            PassWeights.model_validate(
                {
                    "pass": p.number,
                    # Evidence is odds after odds before, and odds before are low where few pairs are one person.
                    "threshold": round(float(np.log2((1 - one) / one) + np.log2(least / (1 - least))), 2),
                    "margin": MARGIN,
                    "home": not _HOME & set(p.block),
                    "met": _met(catalogue, p),
                    "shares": {kind: max(round(found.share(kind), 6), 1e-6) for kind in OTHERS},
                    "against": {kind: found.weights(kind) for kind in OTHERS},
                }
            )
        )
    return NearModel(version=version, passes=tuple(passes))


def _met(catalogue: Catalogue, of: Pass) -> list[str]:
    """Fields of which an earlier pass blocks on a part alone: all who are the same in them have met there."""
    before = [set(p.block) for p in catalogue.passes if p.number < of.number]
    return [field for field, parts in _BLOCKS_OF.items() if any(block <= parts for block in before)]


def estimated(persons: pl.DataFrame, of: Pass, waiting: npt.NDArray[np.bool_]) -> Estimate:
    """What the pairs of a pass are that the match keys of it and of those before have left: `waiting`.

    If nearly all pairs are one person and what is learned of five kinds of pairs makes no sense, it is learned of two:
    one person, and strangers.
    """
    left, right = pairs_of(persons, of)
    rest = waiting[left]
    if int(rest.sum()) < ENOUGH_PAIRS:
        raise ValueError(f"pass {of.number}: too few pairs to learn from")
    n = persons.height
    key = np.full(n, of.number, np.uint64)  # one for all: these are no secrets
    filters = bloom(told_apart(features(persons), of), np.arange(n), key, key).view("<u8")
    levels = compare(filters, left, right)
    first = estimate(levels, min(0.3, len(np.unique(left)) / max(len(left), 1) / 2))
    found = estimate_rest(levels[rest], first)
    # Whom a key finds has one pair, at least, that is one person.
    known = len(np.unique(left[~rest])) / len(left)
    if known < _NEARLY_ALL or _sensible(found):
        return found
    return estimate_rest(levels[rest], estimate_two(levels, min(known, _MOST_MATCHES)))


def _sensible(found: Estimate) -> bool:
    weights = found.weights("strangers")
    told = ("forename", "surname", "date_of_birth")
    different = {f: len(LEVELS[f]) - (2 if "exchanged" in LEVELS[f] else 1) for f in told}
    return all(weights[f][0] >= weights[f][different[f]] for f in told)


def pairs_of(persons: pl.DataFrame, of: Pass) -> tuple[Ints, Ints]:
    """Rows of departments' subjects and of the cohort's that share a block of the pass; at most five million."""
    blocks = components(persons, of.block).with_columns(cohort=persons["cohort"]).with_row_index("row").drop_nulls()
    met = blocks.filter(~pl.col("cohort")).join(blocks.filter("cohort"), on=list(of.block), suffix="_cohort")
    met = met.head(_MOST_PAIRS)
    return met["row"].to_numpy().astype(np.int64), met["row_cohort"].to_numpy().astype(np.int64)


def found_by_keys(persons: pl.DataFrame, catalogue: Catalogue) -> Ints:
    """The first pass in which a subject shares a token with the cohort; `NEVER` if it shares none."""
    passes = {k.id: k.pass_number for k in catalogue.enabled}
    shared = (
        tokenise(persons, catalogue, TokenKeys(_NO_SECRET, 0))
        .select(pl.int_range(pl.len()).alias("row"), "cohort", "tokens")
        .explode("tokens")
        .drop_nulls("tokens")
        .filter(pl.col("cohort").any().over("tokens"))
        .select("row", number=pl.col("tokens").str.head(-TOKEN_TAIL).replace_strict(passes, return_dtype=pl.Int64))
    )
    found = np.full(persons.height, NEVER)
    np.minimum.at(found, shared["row"].to_numpy(), shared["number"].to_numpy())
    return found
