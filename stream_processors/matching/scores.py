"""How much evidence near matches had, for the plot of `lethe evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from stream_processors.matching.catalogue import Catalogue
from stream_processors.matching.encodings import bloom, features, told_apart
from stream_processors.matching.near import compare, evidence
from stream_processors.matching.training import found_by_keys, pairs_of

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """Of one pass, of department subjects whom no match key finds: evidence (bits) for the best of the cohort, where
    that is right and where it is not, and the threshold of a link."""

    right: Floats
    wrong: Floats
    threshold: float


def near_scores(subjects: pl.DataFrame, truth: pl.DataFrame, catalogue: Catalogue) -> Mapping[int, Scores]:
    """By pass; nothing without near matches.

    Args:
        subjects: rows of `normalise` with supplier and subject_ref, cohort and departments.
        truth: subject_ref of a department and cohort_ref of whom it truly is (null: nobody).
        catalogue: match keys and near matches.
    """
    if catalogue.near is None:
        return {}
    persons = subjects.with_columns(cohort=pl.col("supplier").str.starts_with("council-"))
    refs = persons["subject_ref"].to_list()
    pairs = truth.drop_nulls("cohort_ref").select("subject_ref", "cohort_ref").iter_rows()
    same = set(pairs)
    out = {}
    first_found = found_by_keys(persons, catalogue)
    for p in catalogue.passes:
        weights = catalogue.near.of(p.number)
        if weights is None:
            continue
        left, right = pairs_of(persons, p)
        rest = first_found[left] > p.number
        left, right = left[rest], right[rest]
        key = np.full(persons.height, p.number, np.uint64)
        filters = bloom(told_apart(features(persons), p), np.arange(persons.height), key, key).view("<u8")
        bits = evidence(compare(filters, left, right), weights)
        order = np.lexsort((-bits, left))
        first = order[np.unique(left[order], return_index=True)[1]]
        first = first[np.isfinite(bits[first])]
        true = np.array([(refs[a], refs[b]) in same for a, b in zip(left[first], right[first], strict=True)], bool)
        out[p.number] = Scores(bits[first][true], bits[first][~true], weights.threshold)
    return out
