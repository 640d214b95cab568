"""Figures of linking: small tables in, counts and ratios out."""

from __future__ import annotations

from datetime import date

import polars as pl
import pytest

from stream_processors.matching.catalogue import Catalogue
from stream_processors.matching.evaluation import (
    Found,
    Hard,
    Score,
    UnaccountedError,
    figures,
    final_outcomes,
    hard,
    verdicts,
)
from tests.stream_processors.tables import cells

CATALOGUE = Catalogue.model_validate(
    {
        "version": "t",
        "passes": [{"pass": 1, "block": ["dob"]}, {"pass": 2, "block": ["postcode"]}],
        "match_keys": [
            {"id": i, "components": c, "strict": False, "pass": p, "max_persons": 1, "why": "a test", "enabled": on}
            for i, c, p, on in (
                ("k01", ["dob", "forename"], 1, True),
                ("k02", ["dob", "surname"], 1, True),
                ("k03", ["dob", "sex"], 1, False),
                ("p01", ["postcode", "forename"], 2, True),
            )
        ],
    }
)
TEXT = pl.String
LINKS = dict.fromkeys(("subject_ref", "block", "outcome", "person_ref", "match_key"), TEXT)
CLEAN = {
    "subject_ref": TEXT, "clean_forename": TEXT, "clean_surname": TEXT, "clean_dob": pl.Date, "clean_sex": TEXT,
    "clean_postcode": TEXT,
}  # fmt: skip


def links(text: str) -> pl.DataFrame:
    return pl.DataFrame(cells(text), schema=LINKS)


def truth(text: str) -> pl.DataFrame:
    return pl.DataFrame(cells(text), schema={"subject_ref": TEXT, "cohort_ref": TEXT})


def departments(*subjects: str, **columns: list[object]) -> pl.DataFrame:
    """Subjects of whom nothing is missing, but for the columns given."""
    whole = {"clean_forename": "A", "clean_surname": "B", "clean_sex": "F", "clean_postcode": "N1"}
    frame = pl.DataFrame({"subject_ref": subjects}).with_columns(
        *(pl.lit(value).alias(name) for name, value in whole.items()), clean_dob=pl.lit(date(1980, 1, 1))
    )
    given = [pl.Series(name, values, dtype=CLEAN.get(name, TEXT)) for name, values in columns.items()]
    return frame.with_columns(given)


COHORT = """
    subject_ref | block | outcome | person_ref | match_key
    c1          | 1:a   | linked  | c1         | cohort
    c2          | 1:a   | linked  | c1         | cohort
    c3          | 1:b   | linked  | c3         | cohort
"""
LINKED = (
    COHORT
    + """
    d1          | 1:a   | linked    | c1       | k01
    d2          | 1:b   | linked    | c3       | k02
    d3          | 1:b   | waiting
    d4          | 1:b   | ambiguous
    d5          | 2:z   | linked    | c3       | p01
    d6          | 1:a   | contested
"""
)
TRUTH = """
    subject_ref | cohort_ref
    d1          | c2
    d2          | c1
    d3          | c3
    d4          |
    d5          | c3
    d6          |
"""
ALL = ("d1", "d2", "d3", "d4", "d5", "d6")


# The outcome of a subject -------------------------------------------------------------------------------------------


def outcome_of(rows: str) -> tuple[object, ...]:
    found = final_outcomes(links("subject_ref | block | outcome | person_ref | match_key\n" + rows))
    assert found.height == 1
    return found.row(0)[1:]


def test_a_linked_row_stands_whatever_other_passes_say() -> None:
    assert outcome_of("s | 2:b | linked | p | p01 \n s | 1:a | ambiguous \n s | 3:c | waiting")[:2] == ("2:b", "linked")


def test_of_several_linked_rows_that_of_the_lowest_pass_stands() -> None:
    assert outcome_of("s | 10:b | linked | q | p01 \n s | 2:a | linked | p | k01") == ("2:a", "linked", "p", "k01")


def test_without_a_linked_row_that_of_the_highest_pass_stands() -> None:
    assert outcome_of("s | 2:b | ambiguous \n s | 10:a | contested \n s | 1:c | waiting")[:2] == ("10:a", "contested")


def test_a_subject_without_a_block_has_its_row() -> None:
    assert outcome_of("s | 0:s | waiting")[:2] == ("0:s", "waiting")


# Right and wrong ----------------------------------------------------------------------------------------------------


def test_a_link_is_right_if_it_names_the_person_that_the_true_cohort_subject_is() -> None:
    found = verdicts(departments(*ALL), truth(TRUTH), links(LINKED))
    assert dict(found.select("subject_ref", "right").iter_rows()) == {
        "d1": True,  # c2 is of the person c1
        "d2": False,
        "d3": False,
        "d4": False,
        "d5": True,
        "d6": False,
    }
    assert found["matched"].to_list() == [True, True, True, False, True, False]
    assert found["judged"].all()


def test_rows_and_their_order_stay() -> None:
    given = departments("d5", "d1", "d3")
    found = verdicts(given, truth(TRUTH), links(LINKED))
    assert found.select(given.columns).equals(given)


def test_any_of_several_true_cohort_subjects_will_do_and_counts_once() -> None:
    both = truth("subject_ref | cohort_ref \n d2 | c1 \n d2 | c3 \n d2 | c2")
    found = verdicts(departments("d2"), both, links(LINKED))
    assert found.height == 1
    assert found["right"].all()


def test_a_link_of_somebody_who_is_nobody_of_the_cohort_is_wrong() -> None:
    found = verdicts(departments("d1"), truth("subject_ref | cohort_ref \n d1 |"), links(LINKED))
    assert found.select("judged", "matched", "linked", "right").row(0) == (True, False, True, False)


def test_a_subject_of_whom_the_truth_says_nothing_is_not_judged() -> None:
    found = verdicts(departments("d1", "d2"), truth("subject_ref | cohort_ref \n d1 | c1"), links(LINKED))
    assert found["judged"].to_list() == [True, False]
    result = figures(found, CATALOGUE)
    assert result.unjudged == 1
    assert result.overall == Score(1, 1, 1, 1)
    assert result.outcomes["linked"] == 2
    assert result.by_match_key["k02"] == Found(0, 0)


def test_a_subject_that_came_out_without_an_outcome_is_an_error() -> None:
    with pytest.raises(UnaccountedError, match="1 department subjects"):
        verdicts(departments("d1", "d9"), truth(TRUTH), links(LINKED))
    with pytest.raises(UnaccountedError, match="1 cohort subjects"):
        verdicts(departments("d1"), truth("subject_ref | cohort_ref \n d1 | c9"), links(LINKED))


# Figures ------------------------------------------------------------------------------------------------------------


def test_precision_recall_and_f1() -> None:
    overall = figures(verdicts(departments(*ALL), truth(TRUTH), links(LINKED)), CATALOGUE).overall
    assert overall == Score(subjects=6, matches=4, links=3, right=2)
    assert overall.wrong == 1
    assert overall.precision == pytest.approx(2 / 3)
    assert overall.recall == pytest.approx(1 / 2)
    assert overall.f1 == pytest.approx(4 / 7)


@pytest.mark.parametrize(
    ("score", "precision", "recall", "f1"),
    [
        (Score(3, 0, 0, 0), None, None, None),
        (Score(3, 2, 0, 0), None, 0.0, 0.0),
        (Score(3, 0, 2, 0), 0.0, None, 0.0),
        (Score(3, 3, 3, 3), 1.0, 1.0, 1.0),
    ],
)
def test_a_ratio_to_nothing_is_none(
    score: Score, precision: float | None, recall: float | None, f1: float | None
) -> None:
    assert (score.precision, score.recall, score.f1) == (precision, recall, f1)


def test_links_by_match_key_and_by_pass() -> None:
    result = figures(verdicts(departments(*ALL), truth(TRUTH), links(LINKED)), CATALOGUE)
    assert result.by_match_key == {"k01": Found(1, 1), "k02": Found(1, 0), "p01": Found(1, 1)}
    assert result.by_pass == {1: Found(2, 1), 2: Found(1, 1)}
    assert (result.by_pass[1].wrong, result.by_pass[1].precision) == (1, 0.5)


def test_keys_of_one_pass_add_up() -> None:
    other = links(LINKED.replace("c3       | k02", "c1       | k02"))
    assert figures(verdicts(departments(*ALL), truth(TRUTH), other), CATALOGUE).by_pass[1] == Found(2, 2)


def test_every_outcome_is_counted() -> None:
    result = figures(verdicts(departments(*ALL), truth(TRUTH), links(LINKED)), CATALOGUE)
    assert result.outcomes == {"linked": 3, "waiting": 1, "ambiguous": 1, "contested": 1}


def test_groups_by_sex_decade_and_missing_fields() -> None:
    subjects = departments(
        "d1",
        "d2",
        "d3",
        clean_sex=["F", "M", None],
        clean_dob=[date(1989, 12, 31), date(1990, 1, 1), None],
        clean_postcode=["N1", None, "N1"],
    )
    result = figures(verdicts(subjects, truth(TRUTH), links(LINKED)), CATALOGUE)
    right, wrong, waits = Score(1, 1, 1, 1), Score(1, 1, 1, 0), Score(1, 1, 0, 0)
    assert result.by_sex == {"F": right, "M": wrong, "missing": waits}
    assert result.by_birth_decade == {"1980s": right, "1990s": wrong, "missing": waits}
    assert result.by_missing == {"none": right, "postcode": wrong, "date_of_birth, sex": waits}
    assert result.by_supplier == {}


def test_groups_by_supplier_where_there_are_several() -> None:
    subjects = departments("d1", "d2", "d5", supplier=["dfe", "moj", "dfe"])
    result = figures(verdicts(subjects, truth(TRUTH), links(LINKED)), CATALOGUE)
    assert result.by_supplier == {"dfe": Score(2, 2, 2, 2), "moj": Score(1, 1, 1, 0)}
    assert "by_supplier" in result.as_json()


def test_nobody_at_all() -> None:
    result = figures(verdicts(departments("d1").head(0), truth("subject_ref | cohort_ref"), links(COHORT)), CATALOGUE)
    assert result.overall == Score(0, 0, 0, 0)
    assert result.as_json()["overall"]["precision"] is None


# Decoys -------------------------------------------------------------------------------------------------------------


def test_decoys_by_kind() -> None:
    about = pl.DataFrame(
        cells("""
            decoy | kind | subject_ref
            1     | twin | d1
            1     | twin | d2
            1     | twin | d4
            2     | twin | d2
            3     | twin | d3
            4     | twin |
            5     | typo | d5
        """),
        schema={"decoy": TEXT, "kind": TEXT, "subject_ref": TEXT},
    )
    twice = links(LINKED.replace("1:b   | ambiguous", "1:b   | linked    | c3       | k01"))
    found = hard(about, verdicts(departments(*ALL), truth(TRUTH), twice))
    assert found == {
        "twin": Hard(decoys=4, subjects=4, links=3, wrong=2, linked_wrongly=2),
        "typo": Hard(decoys=1, subjects=1, links=1, wrong=0, linked_wrongly=0),
    }


def test_a_decoy_of_whom_the_truth_says_nothing_is_not_linked_wrongly() -> None:
    about = pl.DataFrame({"decoy": ["1"], "kind": ["twin"], "subject_ref": ["d1"]})
    found = hard(about, verdicts(departments("d1", "d2"), truth("subject_ref | cohort_ref \n d2 | c1"), links(LINKED)))
    assert found == {"twin": Hard(decoys=1, subjects=0, links=0, wrong=0, linked_wrongly=0)}
