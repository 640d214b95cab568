"""Training on a few simulated persons: which pairs are looked at, and that a model comes out that loads."""

from __future__ import annotations

import random
from datetime import date
from typing import Any

import polars as pl
import pytest

from stream_processors.matching.catalogue import Catalogue, load_catalogue
from stream_processors.matching.near_model import OTHERS, NearModel
from stream_processors.matching.normalise import normalise
from stream_processors.matching.training import NEVER, adapt, found_by_keys, pairs_among, pairs_of, train
from tests.stream_processors.matching.people import people

CATALOGUE = load_catalogue()
BY_DOB = Catalogue.model_validate(
    {
        "version": "t",
        "passes": [{"pass": 1, "block": ["dob"]}],
        "match_keys": [
            {
                "id": "k01", "components": ["forename", "surname", "dob", "postcode"], "strict": False, "pass": 1,
                "max_persons": 2, "why": "a test",
            }
        ],
    }
)  # fmt: skip
assert CATALOGUE.near is not None
FITTED = BY_DOB.with_near(NearModel(version="t", passes=CATALOGUE.near.passes[:1]))
ANN = {"forename": "Ann", "surname": "Lee", "date_of_birth": date(2001, 3, 4), "sex": "F", "postcode": "SE6 1AA"}


def persons(cohort: list[dict[str, Any]], department: list[dict[str, Any]]) -> pl.DataFrame:
    flags = pl.Series("cohort", [True] * len(cohort) + [False] * len(department))
    suppliers = pl.when(flags).then(pl.lit("council-a")).otherwise(pl.lit("health"))
    return normalise(people(*cohort, *department)).with_columns(flags, supplier=suppliers)


def simulated(n: int, seed: int) -> pl.DataFrame:
    """A cohort of n, all of whom a department knows; of a third it has surname or forename misspelt, or another home.

    Born on 20 days, so that many strangers meet.
    """
    draw = random.Random(seed)
    forenames = ["Ann", "Beth", "Carl", "Dan", "Eve", "Fay", "Gus", "Hal", "Ida", "Jim", "Kay", "Leo"]
    surnames = ["Archer", "Baker", "Carter", "Draper", "Fisher", "Glover", "Hunter", "Mason", "Parker", "Turner"]
    cohort: list[dict[str, Any]] = [
        {
            "forename": draw.choice(forenames),
            "surname": draw.choice(surnames),
            "date_of_birth": date(2001, 1, draw.randint(1, 20)),
            "sex": draw.choice("FM"),
            "postcode": f"SE{draw.randint(1, 20)} {draw.randint(1, 9)}A{draw.choice('ABCDE')}",
        }
        for _ in range(n)
    ]
    spoilt = [
        p
        | draw.choice(
            [
                {},
                {},
                {},
                {"surname": p["surname"][:-1] + "x"},
                {"forename": p["forename"] + "e"},
                {"postcode": p["postcode"][:-1] + "Z"},
            ]
        )
        for p in cohort
    ]
    return persons(cohort, spoilt)


def test_pairs_are_a_department_row_and_a_cohort_row_of_one_block() -> None:
    rows = persons([ANN, ANN | {"date_of_birth": date(2002, 1, 1)}, ANN | {"date_of_birth": None}], [ANN, ANN])
    left, right = pairs_of(rows, BY_DOB.passes[0])
    assert sorted(zip(left.tolist(), right.tolist(), strict=True)) == [(3, 0), (4, 0)]


def test_pairs_among_are_of_one_council_and_each_is_there_once() -> None:
    rows = persons(
        [ANN, ANN, ANN | {"date_of_birth": date(2002, 1, 1)}, ANN, ANN | {"date_of_birth": None}], [ANN, ANN]
    )
    elsewhere = pl.when(pl.int_range(pl.len()) == 3).then(pl.lit("council-b")).otherwise("supplier")
    one, other, subjects = pairs_among(rows.with_columns(supplier=elsewhere), BY_DOB.passes[0])
    assert list(zip(one.tolist(), other.tolist(), strict=True)) == [(0, 1)]
    assert subjects == 4


def test_whom_match_keys_find_is_whoever_shares_a_token_with_the_cohort() -> None:
    rows = persons([ANN], [ANN, ANN | {"surname": "Li"}, ANN | {"surname": "Li"}])
    assert found_by_keys(rows, BY_DOB).tolist() == [1, 1, NEVER, NEVER]


def test_a_model_is_made_whose_weights_fit_and_say_what_is_to_be_expected() -> None:
    model = train(simulated(300, seed=1), BY_DOB, "test")
    assert NearModel.model_validate(model.model_dump(by_alias=True)) == model
    (only,) = model.passes
    assert (only.number, only.home, only.margin) == (1, True, 1.0)
    assert sum(only.shares.values()) == pytest.approx(1, abs=0.01)
    strangers = only.against["strangers"]
    assert strangers["forename"][0] > 0 > strangers["forename"][5]
    assert strangers["surname"][0] > 0 > strangers["surname"][5]
    assert strangers["date_of_birth"] == pytest.approx([0.0] * 6)  # all of a block share it
    assert strangers["middle_names"] == pytest.approx([0.0] * 2)  # nobody has any


def test_a_pass_that_blocks_on_the_home_does_not_ask_for_it() -> None:
    by_home = BY_DOB.model_dump(by_alias=True) | {"passes": [{"pass": 1, "block": ["postcode"]}]}
    by_home["match_keys"][0]["components"] = ["forename", "surname", "postcode"]
    (only,) = train(simulated(900, seed=1), Catalogue.model_validate(by_home), "test").passes
    assert not only.home


def test_training_twice_on_the_same_persons_gives_the_same_model() -> None:
    assert train(simulated(120, seed=2), BY_DOB, "test") == train(simulated(120, seed=2), BY_DOB, "test")


def test_a_higher_posterior_asks_for_more_evidence_and_changes_nothing_else() -> None:
    rows = simulated(120, seed=3)
    (low,), (high,) = (train(rows, BY_DOB, "test", {1: p}).passes for p in (0.5, 0.8))
    assert high.threshold - low.threshold == pytest.approx(2.0, abs=0.011)  # odds of 4 to 1 against 1 to 1
    assert low.model_copy(update={"threshold": high.threshold}) == high
    assert set(low.against) == set(OTHERS)


@pytest.mark.parametrize(("cohort", "department"), [([], [ANN]), ([ANN], []), ([ANN], [ANN])])
def test_where_there_is_nothing_to_learn_from_there_is_no_model(
    cohort: list[dict[str, Any]], department: list[dict[str, Any]]
) -> None:
    with pytest.raises(ValueError, match="pass 1: too few pairs to learn from"):
        train(persons(cohort, department), BY_DOB, "test")


def test_a_pass_without_pairs_keeps_what_the_model_expects_and_one_with_pairs_is_fitted() -> None:
    assert CATALOGUE.near is not None
    nobody = adapt(persons([ANN], [ANN | {"date_of_birth": date(2002, 1, 1)}]), FITTED, "own")
    assert nobody.passes == CATALOGUE.near.passes[:1]
    fitted = adapt(simulated(200, seed=5), FITTED, "own")
    assert fitted.passes != nobody.passes
    assert adapt(simulated(200, seed=5), FITTED, "own") == fitted


def test_a_cohort_of_twins_teaches_that_another_forename_is_another_person() -> None:
    alone = simulated(300, seed=6)
    shift = [{"forename": "Zoe"}, {"forename": "Max"}]
    twins = [
        {k: row[k] for k in ANN} | other for row in alone.filter("cohort").iter_rows(named=True) for other in shift
    ]
    cohort = [{k: row[k] for k in ANN} for row in alone.filter("cohort").iter_rows(named=True)]
    department = [{k: row[k] for k in ANN} for row in alone.filter(~pl.col("cohort")).iter_rows(named=True)]
    few, many = (adapt(persons(c, department), FITTED, "own").passes[0] for c in (cohort, cohort + twins))
    assert many.kin["household"] > 10 * few.kin["household"]


def test_what_does_not_say_what_it_expects_cannot_be_fitted() -> None:
    assert CATALOGUE.near is not None
    silent = NearModel(version="t", passes=(CATALOGUE.near.passes[0].model_copy(update={"person": None}),))
    with pytest.raises(ValueError, match="pass 1: its weights do not say what they expect"):
        adapt(simulated(100, seed=1), BY_DOB.with_near(silent), "own")
    with pytest.raises(ValueError, match="no near matches to fit"):
        adapt(simulated(100, seed=1), BY_DOB, "own")
