"""How alike two encodings are, by named pairs of persons, and what that is worth, by sums worked out by hand."""

from __future__ import annotations

import math
from base64 import b64encode
from datetime import date
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_processors import oracle
from stream_processors.matching import near as module
from stream_processors.matching.encodings import ENCODING_BYTES, bloom, features
from stream_processors.matching.near import MISSING, Levels, compare, evidence, stacked
from stream_processors.matching.near_model import FIELDS, LEVELS, OTHERS, PassWeights, load_near
from stream_processors.matching.normalise import normalise
from tests.stream_processors.matching.people import people

KATHERINE = {
    "forename": "Katherine",
    "middle_names": "Rose",
    "surname": "Robinson",
    "date_of_birth": date(1987, 3, 14),
    "sex": "F",
    "postcode": "SE13 7AB",
}
MISSES = "missing"


def levels(a: dict[str, Any], b: dict[str, Any], key: int = 2) -> Levels:
    """Levels of the one pair, all fields encoded under one key."""
    keys = np.full(2, key, np.uint64)
    filters = bloom(features(normalise(people(a, b))), np.arange(2), keys, keys).view("<u8")
    return compare(filters, np.array([0]), np.array([1]))


def named(found: Levels) -> dict[str, str]:
    """Field to what its level is called, without those that are the same."""
    return {
        f: LEVELS[f][level - 1] if level else MISSES
        for f, level in zip(FIELDS, found[0].tolist(), strict=True)
        if level != 1
    }


PAIRS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "the same details": ({}, {}),
    "a nickname": ({"forename": "Kate"}, {}),
    "the forename spelt otherwise": ({"forename": "Catherine"}, {"forename": "nearly the same"}),
    "two letters of the forename exchanged": ({"forename": "Katherien"}, {"forename": "very alike"}),
    "a letter of the surname left out": ({"surname": "Robison"}, {"surname": "nearly the same"}),
    "the surname doubled by marriage": ({"surname": "Robinson-Hall"}, {"surname": "very alike"}),
    "another surname": ({"surname": "Patel"}, {"surname": "different"}),
    "forename and surname exchanged": (
        {"forename": "Robinson", "surname": "Katherine"},
        {"forename": "exchanged", "surname": "exchanged"},
    ),
    "the forename is an initial": ({"forename": "K"}, {"forename": MISSES}),
    "the day is wrong": ({"date_of_birth": date(1987, 3, 29)}, {"date_of_birth": "one part"}),
    "the month is wrong": ({"date_of_birth": date(1987, 10, 14)}, {"date_of_birth": "one part"}),
    "the year is wrong": ({"date_of_birth": date(1978, 3, 14)}, {"date_of_birth": "one part"}),
    "the year alone is right": ({"date_of_birth": date(1987, 11, 29)}, {"date_of_birth": "little"}),
    "another date of birth": ({"date_of_birth": date(2004, 11, 29)}, {"date_of_birth": "nothing"}),
    "a default date": ({"date_of_birth": date(1900, 1, 1)}, {"date_of_birth": MISSES}),
    "the last letter of the postcode": ({"postcode": "SE13 7AC"}, {"postcode": "nearly the same"}),
    "moved within the sector": ({"postcode": "SE13 7XY"}, {"postcode": "nearly the same"}),
    "moved within the district": ({"postcode": "SE13 5XY"}, {"postcode": "sector"}),
    "moved far": ({"postcode": "N1 9GU"}, {"postcode": "different"}),
    "no fixed abode": ({"postcode": "ZZ99 3VZ"}, {"postcode": MISSES}),
    "another middle name": ({"middle_names": "Jane"}, {"middle_names": "different"}),
    "no middle name": ({"middle_names": None}, {"middle_names": MISSES}),
    "another sex": ({"sex": "M"}, {"sex": "different"}),
    "a sex that says nothing": ({"sex": "X"}, {"sex": MISSES}),
}


@pytest.mark.parametrize("what", PAIRS)
def test_how_alike_two_records_are_under_any_key(what: str) -> None:
    changed, should = PAIRS[what]
    for key in (2, 3, 4, 6, 8):
        there, back = levels(KATHERINE, KATHERINE | changed, key), levels(KATHERINE | changed, KATHERINE, key)
        assert named(there) == should
        assert there.tolist() == back.tolist()


def test_what_both_lack_says_nothing() -> None:
    assert levels({"surname": "Robinson"}, {"surname": "Robinson"}).tolist() == [[MISSING, 1, *[MISSING] * 4]]


def test_day_and_month_exchanged_are_more_alike_than_day_and_month_otherwise_wrong() -> None:
    born = {"date_of_birth": date(1987, 4, 7)}
    exchanged, otherwise = (
        sum(int(levels(KATHERINE | born, KATHERINE | {"date_of_birth": other}, key)[0, 2]) for key in range(20))
        for other in (date(1987, 7, 4), date(1987, 11, 29))
    )
    assert 20 < exchanged < otherwise


# Evidence -------------------------------------------------------------------------------------------------------------

COUNTING = {f: tuple(float(8 - 4 * i) for i in range(len(of))) for f, of in LEVELS.items()}
"""Of each field 8 bits for the first level, 4 for the second, 0 for the third, -4..."""


def weights(home: bool = False, against: dict[str, dict[str, tuple[float, ...]]] | None = None) -> PassWeights:
    return PassWeights.model_validate(
        {
            "pass": 2,
            "threshold": 10,
            "margin": 1,
            "home": home,
            "shares": {"household": 0.25, "named_after": 0.125, "namesakes": 0.125, "strangers": 0.5},
            "against": dict.fromkeys(OTHERS, COUNTING) | (against or {}),
        }
    )


def pair(**of: str) -> Levels:
    """Levels by name; what is not named is missing."""
    row = [1 + LEVELS[f].index(of[f]) if f in of else MISSING for f in FIELDS]
    return np.array([row], np.int8)


@pytest.mark.parametrize(
    ("found", "bits"),
    [
        (pair(), 0.0),
        (pair(forename="same"), 8.0),
        (pair(forename="same", surname="nearly the same"), 8.0 + 4.0),
        (pair(forename="different", sex="different"), -12.0 + 4.0),
        (pair(forename="exchanged", surname="exchanged"), -16.0 - 16.0),
        (pair(date_of_birth="one part", postcode="sector", middle_names="in common"), 0.0 + 0.0 + 8.0),
    ],
)
def test_weights_add_up_and_a_field_that_is_missing_adds_nothing(found: Levels, bits: float) -> None:
    assert evidence(found, weights()).tolist() == [bits]


def test_what_two_of_a_household_share_is_weak_evidence_for_all_who_may_be_one() -> None:
    """Against strangers, namesakes and those named after each other 8 bits, against a household 0."""
    in_households = {**COUNTING, "surname": (0.0,) * len(LEVELS["surname"])}
    found = evidence(pair(surname="same"), weights(against={"household": in_households}))
    # -log2(1/4 2^0 + 3/4 2^-8)
    assert found.tolist() == [round(-math.log2(0.25 + 0.75 / 256), 2)] == [1.98]


def test_evidence_is_in_hundredths_of_a_bit() -> None:
    odd = dict.fromkeys(OTHERS, COUNTING | {"sex": (1.2345, -1.2355)})
    assert evidence(pair(sex="same"), weights(against=odd)).tolist() == [1.23]
    assert evidence(pair(sex="different"), weights(against=odd)).tolist() == [-1.24]


@pytest.mark.parametrize(
    ("found", "may_be"),
    [
        (pair(forename="same", surname="same", postcode="different"), False),
        (pair(forename="same", surname="same", postcode="different", middle_names="different"), False),
        (pair(forename="same", surname="same", postcode="different", middle_names="in common"), True),
        (pair(forename="same", surname="same", postcode="area"), True),
        (pair(forename="same", surname="same"), True),
    ],
)
def test_two_homes_are_two_persons_unless_a_middle_name_agrees_where_the_pass_says_so(
    found: Levels, may_be: bool
) -> None:
    assert np.isfinite(evidence(found, weights(home=True))).tolist() == [may_be]
    assert np.isfinite(evidence(found, weights(home=False))).tolist() == [True]


def test_no_pairs() -> None:
    none = np.empty(0, np.int64)
    found = compare(np.zeros((1, ENCODING_BYTES // 8), np.uint64), none, none)
    assert found.shape == (0, len(FIELDS))
    assert evidence(found, weights(home=True)).tolist() == []


# The same, worked out by other code -----------------------------------------------------------------------------------


@st.composite
def encodings(draw: st.DrawFn) -> list[str]:
    """Alike and unlike: each is one of two with some bits set or cleared."""
    whole = (1 << 8 * ENCODING_BYTES) - 1
    bits = st.integers(0, whole)
    sparse = st.tuples(bits, bits).map(lambda b: b[0] & b[1])
    seeds = draw(st.tuples(sparse, sparse))
    empty = st.sampled_from([0, 0, (1 << 128) - 1, ((1 << 128) - 1) << 448, (1 << 32) - 1])
    made = draw(
        st.lists(
            st.tuples(st.sampled_from(seeds), sparse, sparse, empty).map(lambda d: (d[0] ^ d[1] & d[2]) & ~d[3]),
            min_size=2,
            max_size=8,
        )
    )
    return [b64encode(m.to_bytes(ENCODING_BYTES, "big")).decode() for m in made]


@settings(deadline=None)
@given(encodings(), st.sampled_from([1, 2, 3]))
def test_evidence_is_what_the_oracle_makes_of_the_same_encodings(texts: list[str], number: int) -> None:
    model = load_near().of(number)
    assert model is not None
    n = len(texts)
    left, right = np.repeat(np.arange(n), n), np.tile(np.arange(n), n)
    bits = evidence(compare(stacked(texts), left, right), model).tolist()
    for i, j, found in zip(left.tolist(), right.tolist(), bits, strict=True):
        assert found == pytest.approx(oracle._evidence(texts[i], texts[j], model), abs=0.011)


@pytest.mark.parametrize("pairs", [6, 7, 8, 15])
def test_pairs_at_the_edges_of_slices_are_compared_like_others(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    filters = random.integers(0, 2**63, (5, ENCODING_BYTES // 8), dtype=np.uint64)
    left, right = random.integers(0, 5, pairs), random.integers(0, 5, pairs)
    should = compare(filters, left, right)
    monkeypatch.setattr(module, "_PAIRS_AT_ONCE", 7)
    assert compare(filters, left, right).tolist() == should.tolist()
    each = [compare(filters, left[i : i + 1], right[i : i + 1])[0].tolist() for i in range(pairs)]
    assert should.tolist() == each
