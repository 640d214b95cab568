"""Training near matches on persons in the clear, for which simulated ones are good enough: pairs of a block, compared
as `link` will compare their encodings, and the weights that make such pairs likeliest. No truth is looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import polars as pl

from stream_processors.matching.catalogue import Catalogue, Pass
from stream_processors.matching.components import components
from stream_processors.matching.encodings import bloom, features, told_apart
from stream_processors.matching.estimate import Estimate, estimate, estimate_from, estimate_others, estimate_rest
from stream_processors.matching.near import Ints, Words, compare
from stream_processors.matching.near_model import KIN, OTHERS, NearModel, PassWeights
from stream_processors.matching.tokens import TOKEN_TAIL, TokenKeys, tokenise

POSTERIOR: Mapping[int, float] = MappingProxyType({1: 0.5, 2: 0.7, 3: 0.99})
"""Of each pass, how likely a pair must be one person: chosen on simulated families (docs/linkage.md)."""
POSTERIOR_OF_MANY: Mapping[int, float] = MappingProxyType({1: 0.5, 2: 0.95, 3: 0.99})
"""The same where a department has several records of a person: nobody contests a wrong link then."""
MARGIN = 1.0
"""Bits: the best person is twice as likely as the second."""
ENOUGH_PAIRS = 100
NEVER = np.iinfo(np.int64).max
_MOST_MATCHES = 0.95
_KNOWN_SUBJECTS = 500
_HOME = frozenset({"postcode", "sector", "district"})
_BLOCKS_OF = MappingProxyType({"date_of_birth": frozenset({"dob"}), "postcode": _HOME})
_MOST_PAIRS = 5_000_000
_NO_SECRET = b"Tokens of simulated persons, to be thrown away."


def train(
    persons: pl.DataFrame, catalogue: Catalogue, version: str, posterior: Mapping[int, float] = POSTERIOR
) -> NearModel:
    """The model of persons (rows of `normalise`, and cohort, Boolean), from nothing.

    First all pairs of a pass are looked at, then those of departments' subjects whom no match key finds: near matches
    are for these alone.

    Args:
        persons: rows of `normalise`, and cohort (Boolean).
        catalogue: match keys and passes.
        version: of the model.
        posterior: of each pass, how likely a pair must be one person to be linked.

    Raises:
        ValueError: of a pass, too few pairs are left to learn from (below `ENOUGH_PAIRS`).
    """
    first = found_by_keys(persons, catalogue)
    passes = []
    for p in catalogue.passes:
        left, right = pairs_of(persons, p)
        rest = first[left] > p.number
        if int(rest.sum()) < ENOUGH_PAIRS:
            raise ValueError(f"pass {p.number}: too few pairs to learn from")
        filters = _filters(persons, p)
        levels = compare(filters, left, right)
        everyone = estimate(levels, min(0.3, len(np.unique(left)) / max(len(left), 1) / 2))
        found = estimate_rest(levels[rest], everyone)
        one, other, subjects = pairs_among(persons, p)
        among = compare(filters, one, other)
        kin = _kin(estimate_others(among, found), len(among), subjects)
        passes.append(_weights(found, kin, catalogue, p, posterior[p.number]))
    return NearModel(version=version, passes=tuple(passes))


def adapt(
    persons: pl.DataFrame,
    catalogue: Catalogue,
    version: str,
    posterior: Mapping[int, float] = POSTERIOR,
    on_pass: Callable[[int], None] = lambda _: None,
) -> NearModel:
    """The model of a catalogue's near matches, fitted to persons: as `train`, but it sets out from what the model
    expects, so that a few pairs will do. A pass without pairs keeps its weights. `on_pass` is told of each pass before.

    Raises:
        ValueError: the catalogue has no near matches, or none that say what they expect.
    """
    if catalogue.near is None:
        raise ValueError("there are no near matches to fit")
    first = found_by_keys(persons, catalogue)
    cohort = persons["cohort"].to_numpy()
    passes = []
    for weights in catalogue.near.passes:
        on_pass(weights.number)
        p = catalogue.passes[weights.number - 1]
        left, right = pairs_of(persons, p)
        rest = first[left] > p.number
        if not rest.any():
            passes.append(weights)
            continue
        before, filters = _expected(weights), _filters(persons, p)
        one, other, subjects = pairs_among(persons, p)
        among = compare(filters, one, other)
        two = estimate_others(among, before)
        kin = _kin(two, len(among), subjects, weights.kin)
        entering = np.flatnonzero(_entering(persons, p) & ~cohort & (first > p.number))
        # Where pairs are too many, those of the last subjects are not looked at.
        waiting = len(entering) if len(left) < _MOST_PAIRS else int((entering <= left.max()).sum())
        known = Estimate(before.kinds, {**two.shares, "person": before.shares["person"]}, 0)
        levels = compare(filters, left[rest], right[rest])
        found = estimate_from(levels, known, {kind: rate * waiting for kind, rate in kin.items()})
        passes.append(_weights(found, kin, catalogue, p, posterior[p.number]))
    return NearModel(version=version, passes=tuple(passes))


def _kin(two: Estimate, pairs: int, subjects: int, known: Mapping[str, float] | None = None) -> Mapping[str, float]:
    """How many of `KIN` each subject meets, from pairs among subjects of one council; what is known of other files
    counts as `_KNOWN_SUBJECTS`."""
    more = _KNOWN_SUBJECTS if known else 0
    met = {kind: 2 * pairs * two.kinds[kind] + more * (known or {}).get(kind, 0.0) for kind in KIN}
    return {kind: n / max(subjects + more, 1) for kind, n in met.items()}


def _entering(persons: pl.DataFrame, of: Pass) -> npt.NDArray[np.bool_]:
    """Who has a block of the pass."""
    made = components(persons, of.block).select(pl.all_horizontal(pl.all().is_not_null()))
    return made.to_series().to_numpy()


def _filters(persons: pl.DataFrame, of: Pass) -> Words:
    n = persons.height
    key = np.full(n, of.number, np.uint64)  # one for all: these are no secrets
    return bloom(told_apart(features(persons), of), np.arange(n), key, key).view("<u8")


def _weights(found: Estimate, kin: Mapping[str, float], catalogue: Catalogue, of: Pass, least: float) -> PassWeights:
    one = min(found.kinds["person"], _MOST_MATCHES)
    return PassWeights.model_validate(
        {
            "pass": of.number,
            # Evidence is odds after odds before, and odds before are low where few pairs are one person.
            "threshold": round(float(np.log2((1 - one) / one) + np.log2(least / (1 - least))), 2),
            "margin": MARGIN,
            "home": not _HOME & set(of.block),
            "met": _met(catalogue, of),
            "shares": {kind: max(round(found.share(kind), 6), 1e-6) for kind in OTHERS},
            "against": {kind: found.weights(kind) for kind in OTHERS},
            "matches": max(round(one, 6), 1e-6),
            "kin": {kind: round(rate, 6) for kind, rate in kin.items()},
            "person": {f: [round(x, 6) for x in of.tolist()] for f, of in found.shares["person"].items()},
        }
    )


def _expected(weights: PassWeights) -> Estimate:
    """What a pass expects of pairs, from its weights: u is m over 2 to the weight."""
    if weights.matches is None or weights.person is None:
        raise ValueError(f"pass {weights.number}: its weights do not say what they expect")
    shares = {"person": {f: np.array(of) for f, of in weights.person.items()}}
    for kind in OTHERS:
        u = {f: m / np.exp2(weights.against[kind][f]) for f, m in shares["person"].items()}
        shares[kind] = {f: of / of.sum() for f, of in u.items()}
    others = 1 - weights.matches
    kinds = {kind: others * share / sum(weights.shares.values()) for kind, share in weights.shares.items()}
    return Estimate({"person": weights.matches, **kinds}, shares, 0)


def _met(catalogue: Catalogue, of: Pass) -> list[str]:
    """Fields of which an earlier pass blocks on a part alone: all who are the same in them have met there."""
    before = [set(p.block) for p in catalogue.passes if p.number < of.number]
    return [field for field, parts in _BLOCKS_OF.items() if any(block <= parts for block in before)]


def pairs_of(persons: pl.DataFrame, of: Pass) -> tuple[Ints, Ints]:
    """Rows of departments' subjects and of the cohort's that share a block of the pass; at most five million."""
    blocks = components(persons, of.block).with_columns(cohort=persons["cohort"]).with_row_index("row").drop_nulls()
    cohort, on = blocks.filter("cohort"), list(of.block)
    departments = blocks.filter(~pl.col("cohort")).join(cohort.group_by(on).len(), on=on, maintain_order="left")
    # Whoever would come after the last pair is left out before pairs are made: crowded blocks have more than fit.
    departments = departments.filter(pl.col("len").cast(pl.Int64).cum_sum() - pl.col("len") < _MOST_PAIRS).drop("len")
    met = departments.join(cohort, on=on, suffix="_cohort", maintain_order="left_right")
    met = met.head(_MOST_PAIRS)
    return met["row"].to_numpy().astype(np.int64), met["row_cohort"].to_numpy().astype(np.int64)


def pairs_among(persons: pl.DataFrame, of: Pass) -> tuple[Ints, Ints, int]:
    """Rows of subjects of one council's cohort that share a block of the pass, each pair once; of so many whole blocks
    (one, at least) as have five million. And how many subjects these blocks have.

    A council has everybody once: they are two persons, but for a few that it has twice by mistake.
    """
    blocks = components(persons, of.block).with_columns(persons["cohort", "supplier"]).with_row_index("row")
    on = [*of.block, "supplier"]
    blocks = blocks.filter("cohort").drop("cohort").drop_nulls()
    sizes = blocks.group_by(on).len().sort(on)
    before = (pl.col("len").cast(pl.Int64) ** 2 // 2).cum_sum().shift(1, fill_value=0)
    blocks = blocks.join(sizes.filter(before < _MOST_PAIRS), on=on, how="semi", maintain_order="left")
    met = blocks.join(blocks, on=on, suffix="_other").filter(pl.col("row") < pl.col("row_other"))
    return met["row"].to_numpy().astype(np.int64), met["row_other"].to_numpy().astype(np.int64), blocks.height


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
