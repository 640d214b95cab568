"""Expectation maximisation finds what was planted, and finds it again."""

from __future__ import annotations

import numpy as np
import pytest

from stream_processors.matching import estimate as module
from stream_processors.matching.estimate import KINDS, Estimate, estimate, estimate_from, estimate_others, estimate_rest
from stream_processors.matching.near import MISSING, Floats, Levels
from stream_processors.matching.near_model import FIELDS, LEVELS, OTHERS

SHARES = {"person": 0.15, "household": 0.15, "named_after": 0.1, "namesakes": 0.15, "strangers": 0.45}
ALIKE = {
    "person": FIELDS,
    "household": ("surname", "postcode"),
    "named_after": ("forename", "surname", "sex", "postcode"),
    "namesakes": ("forename", "surname", "sex"),
    "strangers": (),
}
HALF_EACH = np.array([0.5, 0.5])


def planted(kind: str, field: str) -> Floats:
    """Shares of the levels: 0.95 for the first in what two of a kind share, 0.02 in what they do not."""
    if field == "sex" and field not in ALIKE[kind]:
        return HALF_EACH
    others = np.arange(1, len(LEVELS[field]), dtype=float)
    first, others = (0.95, others[::-1]) if field in ALIKE[kind] else (0.02, others)
    return np.array([first, *(1 - first) * others / others.sum()])


def mixture(n: int, seed: int, shares: dict[str, float] = SHARES) -> Levels:
    """Pairs of the planted kinds, of whose fields one in ten is missing."""
    random = np.random.default_rng(seed)
    kinds = random.choice(len(KINDS), n, p=[shares[k] for k in KINDS])
    out = np.zeros((n, len(FIELDS)), np.int8)
    for i, kind in enumerate(KINDS):
        at = np.flatnonzero(kinds == i)
        for j, field in enumerate(FIELDS):
            out[at, j] = 1 + random.choice(len(LEVELS[field]), len(at), p=planted(kind, field))
    out[random.random(out.shape) < 0.1] = MISSING
    return out


@pytest.fixture(scope="module")
def found() -> Estimate:
    return estimate(mixture(30_000, seed=1), matches=0.1)


def test_m_of_one_person_is_found_within_two_hundredths(found: Estimate) -> None:
    for field in FIELDS:
        assert found.shares["person"][field] == pytest.approx(planted("person", field), abs=0.02)


def test_u_of_strangers_is_found_within_three_hundredths(found: Estimate) -> None:
    for field in FIELDS:
        assert found.shares["strangers"][field] == pytest.approx(planted("strangers", field), abs=0.03)


def test_shares_of_one_person_of_strangers_and_of_all_between_are_found_within_two_hundredths(found: Estimate) -> None:
    """Kinds that differ in one field alone are not told apart so well: their sum is what counts."""
    assert sum(found.kinds.values()) == pytest.approx(1)
    assert found.kinds["person"] == pytest.approx(0.15, abs=0.02)
    assert found.kinds["strangers"] == pytest.approx(0.45, abs=0.02)
    assert sum(found.kinds[k] for k in OTHERS[:-1]) == pytest.approx(0.4, abs=0.02)


def test_shares_among_pairs_of_two_persons_leave_out_the_pairs_of_one(found: Estimate) -> None:
    assert sum(found.share(kind) for kind in OTHERS) == pytest.approx(1)
    assert found.share("strangers") == pytest.approx(0.45 / 0.85, abs=0.03)


def test_weights_are_log2_of_m_over_u_for_every_level(found: Estimate) -> None:
    weights = found.weights("strangers")
    assert {f: len(w) for f, w in weights.items()} == {f: len(of) for f, of in LEVELS.items()}
    assert weights["date_of_birth"][0] == pytest.approx(np.log2(0.95 / 0.02), abs=0.5)
    assert weights["sex"] == pytest.approx(np.log2(planted("person", "sex") / HALF_EACH), abs=0.5)
    m, u = found.shares["person"], found.shares["strangers"]
    for field in FIELDS:
        assert weights[field] == pytest.approx(np.log2(m[field] / u[field]), abs=0.006)


def test_the_same_pairs_give_the_same_estimate_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_ROUNDS", 20)
    pairs = mixture(2_000, seed=2)
    first, again, shuffled = (
        estimate(p, 0.1) for p in (pairs, pairs.copy(), np.random.default_rng(3).permutation(pairs))
    )
    for other in (again, shuffled):
        assert other.kinds == first.kinds
        assert other.rounds == first.rounds == 20
        for kind in KINDS:
            assert other.weights("strangers" if kind == "person" else kind) == first.weights(
                "strangers" if kind == "person" else kind
            )


def test_no_level_is_taken_for_impossible(found: Estimate) -> None:
    """One odd pair never decides: weights are bounded by log2(1/1e-4)."""
    for kind in KINDS:
        for field in FIELDS:
            assert found.shares[kind][field].min() > 0.9e-4
            assert found.shares[kind][field].sum() == pytest.approx(1)


def test_of_the_rest_what_two_persons_look_like_stays_and_what_one_looks_like_is_learnt_anew(found: Estimate) -> None:
    """The match keys have taken those who agree in all: fewer are left, and they differ more."""
    pairs = mixture(20_000, seed=4)
    easy = (pairs[:, [0, 1, 3]] == 1).all(axis=1)
    rest = estimate_rest(pairs[~easy], found)
    assert rest.kinds["person"] < found.kinds["person"]
    assert rest.shares["person"]["surname"][0] < found.shares["person"]["surname"][0]
    for kind in OTHERS:
        for field in FIELDS:
            assert rest.shares[kind][field].tolist() == found.shares[kind][field].tolist()


def test_where_relatives_are_known_to_be_few_those_who_look_like_them_are_one_person(found: Estimate) -> None:
    """Surname and home agree, the forename does not: a relative, or one person who is hard to find."""
    alike = np.ones((400, len(FIELDS)), np.int8)
    alike[:, 0] = LEVELS["forename"].index("different") + 1
    strangers = mixture(2_000, 6, dict.fromkeys(KINDS, 0.0) | {"strangers": 1.0})
    pairs = np.concatenate([alike, strangers])
    few, many = (estimate_from(pairs, found, {"household": n}) for n in (1, 2_000))
    assert few.kinds["person"] == pytest.approx(1 / 6, abs=0.03)
    assert few.kinds["household"] == pytest.approx(1 / 2_400)
    assert many.kinds["person"] < few.kinds["person"]
    assert many.shares["person"]["forename"][5] < few.shares["person"]["forename"][5]


def test_few_pairs_hardly_change_what_is_known_and_many_decide(found: Estimate) -> None:
    other = np.ones((20_000, len(FIELDS)), np.int8)
    known = found.shares["person"]["surname"][0]
    for n, moves in ((5, False), (20_000, True)):
        learnt = estimate_from(other[:n], found, {}).shares["person"]["surname"][0]
        assert (learnt - known > 0.03) == moves


def test_pairs_of_two_persons_are_none_of_one(found: Estimate) -> None:
    two = estimate_others(mixture(20_000, 7, dict(zip(KINDS, (0, 0.3, 0, 0, 0.7), strict=True))), found)
    assert two.kinds["person"] == 0
    assert two.kinds["household"] == pytest.approx(0.3, abs=0.05)
    for field in FIELDS:
        assert two.shares["person"][field] == pytest.approx(found.shares["person"][field])
    nobody = estimate_others(np.empty((0, len(FIELDS)), np.int8), found)
    assert nobody.share("strangers") == pytest.approx(found.share("strangers"))


def test_no_pairs_are_refused(found: Estimate) -> None:
    none = np.empty((0, len(FIELDS)), np.int8)
    with pytest.raises(ValueError, match="no pairs"):
        estimate(none, 0.1)
    with pytest.raises(ValueError, match="no pairs"):
        estimate_rest(none, found)
    with pytest.raises(ValueError, match="no pairs"):
        estimate_from(none, found, {})


@pytest.mark.parametrize("matches", [0.0, -0.1, 0.4, 1.0, float("nan")])
def test_a_first_guess_that_leaves_no_room_for_other_kinds_is_refused(matches: float) -> None:
    with pytest.raises(ValueError, match="first guess"):
        estimate(mixture(10, seed=1), matches)
