"""What `claims` says of the candidates of whole blocks, by tables (how to read them: `claim_tables.py`)."""

from __future__ import annotations

import polars as pl
import pytest

from stream_processors.claims import Rules, claims, claims_of, rules_of, spine_of
from stream_processors.matching.catalogue import load_catalogue
from tests.stream_processors.claim_tables import NO_NEAR, RULES, candidates, near, rows_of
from tests.stream_processors.tables import narrow


def said(text: str, rules: Rules = RULES) -> list[str]:
    """Of each candidate, in order: `linked k05 c1`, or its outcome; of the cohort's the person, and who claims it."""
    found = claims(candidates(rows_of(text)), rules).rows
    out = []
    for row in found.iter_rows(named=True):
        if row["role"] == "cohort":
            assert (row["outcome"], row["match_key"]) == ("linked", "cohort")
            out.append(" ".join([narrow(row["person_ref"]), *row["claimed"]]))
        else:
            assert row["claimed"] == []
            link = [row["match_key"], narrow(row["person_ref"] or "")] if row["match_key"] else []
            assert bool(link) == (row["outcome"] == "linked") == (row["person_ref"] is not None)
            out.append(" ".join([row["outcome"], *link]))
    return out


# Near matches ---------------------------------------------------------------------------------------------------------

NEAR_CASES = {
    "the same encoding, no token: a near match": (
        """
        subject | encoding
        c1      | abcd
        d1      | abcd
        """,
        ["c1 dfe", "linked near1 c1"],
    ),
    "evidence above the threshold is enough": (
        """
        subject | encoding
        c1      | abcd
        d1      | abce
        """,
        ["c1 dfe", "linked near1 c1"],
    ),
    "evidence below the threshold is not": (
        """
        subject | encoding
        c1      | abcd
        d1      | abef
        """,
        ["c1", "waiting"],
    ),
    "a clearly better person is taken": (
        """
        subject | encoding
        c1      | abcde
        c2      | abcdf
        d1      | abcde
        """,
        ["c1 dfe", "c2", "linked near1 c1"],
    ),
    "two persons within the margin are ambiguous": (
        """
        subject | encoding
        c1      | abcdf
        c2      | abceg
        d1      | abcde
        """,
        ["c1", "c2", "ambiguous"],
    ),
    "a person below the threshold, within the margin of the best, is a rival": (
        """
        subject | encoding
        c1      | abcdefgh
        c2      | abcdefg
        d1      | abcdefgi
        """,
        ["c1", "c2", "ambiguous"],
    ),
    "two councils' subjects of one person are no rivals": (
        """
        subject | supplier | tokens | encoding
        c1      | x        | k01=s  | abcde
        c2      | y        | k01=s  | abcde
        d1      |          |        | abcdf
        """,
        ["c1 dfe", "c1 dfe", "linked near1 c1"],
    ),
    "a match key comes before any near match": (
        """
        subject | tokens | encoding
        c1      | k08=x  | abcd
        c2      |        | wxyz
        d1      | k08=x  | wxyz
        """,
        ["c1 dfe", "c2", "linked k08 c1"],
    ),
    "who is ambiguous by a match key gets no near match": (
        """
        subject | supplier | tokens | encoding
        c1      | x        | k05=x  | abcd
        c2      | y        | k05=x  | wxyz
        d1      |          | k05=x  | wxyz
        """,
        ["c1", "c2", "ambiguous"],
    ),
    "a link by a match key is stricter than a near match": (
        """
        subject | tokens | encoding
        c1      | k08=x  | abcd
        d1      | k08=x  |
        d2      |        | abcd
        """,
        ["c1 dfe", "linked k08 c1", "contested"],
    ),
    "two near matches of one supplier contest, whoever has more evidence": (
        """
        subject | encoding
        c1      | abcde
        d1      | abcde
        d2      | abcdf
        """,
        ["c1 dfe", "contested", "contested"],
    ),
    "near matches of two suppliers do not contest": (
        """
        subject | supplier | encoding
        c1      | x        | abcd
        d1      | dfe      | abcd
        d2      | dwp      | abcd
        """,
        ["c1 dfe dwp", "linked near1 c1", "linked near1 c1"],
    ),
    "a person whom the supplier claimed before is closed, and the next best is found": (
        """
        subject | block | person_ref | claimed | encoding
        c1      | 2:a   | p          | dfe     | abcde
        c2      | 2:a   | q          | dwp     | abcdf
        d1      | 2:a   |            |         | abcde
        """,
        ["p", "q dfe", "linked near2 q"],
    ),
    "who states another sex and no forename in common is no near match, nor a rival": (
        """
        subject | states | encoding
        c1      | M bob  | abcd
        c2      | F ann  | abce
        d1      | F ann  | abcd
        """,
        ["c1", "c2 dfe", "linked near1 c2"],
    ),
    "without encodings there is no near match": (
        """
        subject | encoding
        c1      |
        c2      | abcd
        d1      |
        """,
        ["c1", "c2", "waiting"],
    ),
    "blocks do not meet": (
        """
        subject | block | encoding
        c1      | 1:a   | abcd
        d1      | 1:b   | abcd
        """,
        ["c1", "waiting"],
    ),
}


@pytest.mark.parametrize("case", NEAR_CASES)
def test_near_matches(case: str) -> None:
    table, should = NEAR_CASES[case]
    assert said(table) == should


def test_without_weights_there_are_no_near_matches() -> None:
    table = "subject | encoding\n c1 | abcd\n d1 | abcd"
    assert said(table, NO_NEAR) == ["c1", "waiting"]
    only_second = Rules(RULES.ids, RULES.strict, RULES.most, {2: near(2)})
    assert said(table, only_second) == ["c1", "waiting"]


# Statements, limits, claims -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mine", "theirs", "linked"),
    [
        ("F ann", "M bob", False),
        ("F ann rose", "M bob lee", False),
        ("F ann", "M ann", True),  # the sex is wrong
        ("F ann rose", "M bob rose", True),
        ("F ann", "F bob", True),  # no contradiction by the names alone
        ("- ann", "M bob", True),
        ("F ann", "- bob", True),
        ("F", "M bob", True),  # no forename stated
        ("F ann", "M", True),
        ("", "M bob", True),
    ],
)
def test_a_stated_contradiction_is_another_sex_and_no_forename_in_common(mine: str, theirs: str, linked: bool) -> None:
    by_key = f"subject | tokens | states\n c1 | k05=x | {theirs}\n d1 | k05=x | {mine}"
    by_near = f"subject | encoding | states\n c1 | abcd | {theirs}\n d1 | abcd | {mine}"
    assert said(by_key)[1] == ("linked k05 c1" if linked else "waiting")
    assert said(by_near)[1] == ("linked near1 c1" if linked else "waiting")


CASES = {
    "a contradiction makes a looser key speak": (
        """
        subject | tokens      | states
        c1      | k05=x       | M bob
        c2      | k08=y       | F ann
        d1      | k05=x k08=y | F ann
        """,
        ["c1", "c2 dfe", "linked k08 c2"],
    ),
    "a contradiction leaves one of two, which is then not ambiguous": (
        """
        subject | supplier | tokens | states
        c1      | x        | k05=x  | M bob
        c2      | y        | k05=x  | F ann
        d1      |          | k05=x  | F ann
        """,
        ["c1", "c2 dfe", "linked k05 c2"],
    ),
    "the spine itself is made by strict tokens, whatever is stated": (
        """
        subject | supplier | tokens | states
        c1      | x        | k01=s  | M bob
        c2      | y        | k01=s  | F ann
        d1      |          | k01=s  | F ann
        """,
        ["c1 dfe", "c1 dfe", "linked k01 c1"],
    ),
    "a token of more subjects of one council than its key allows is not used": (
        """
        subject | tokens
        c1      | k08=x
        c2      | k08=x
        d1      | k08=x
        """,
        ["c1", "c2", "waiting"],
    ),
    "as many of each of two councils are not too many": (
        """
        subject | supplier | tokens
        c1      | x        | k08=x
        c2      | y        | k08=x
        d1      |          | k08=x
        """,
        ["c1", "c2", "ambiguous"],
    ),
    "departments do not crowd": (
        """
        subject | supplier | tokens
        c1      |          | k08=x
        d1      | dfe      | k08=x
        d2      | dwp      | k08=x
        d3      | moj      | k08=x
        """,
        ["c1 dfe dwp moj", "linked k08 c1", "linked k08 c1", "linked k08 c1"],
    ),
    "a crowded strict token joins nobody": (
        """
        subject | supplier | tokens
        c1      | x        | k01=s
        c2      | x        | k01=s
        c3      | y        | k01=s
        """,
        ["c1", "c2", "c3"],
    ),
    "a person is who a chain of strict tokens reaches": (
        """
        subject | supplier | tokens
        c4      | x        | k01=t
        c3      | y        | k01=t k02=s
        c2      | z        | k02=s
        c1      | z        | k05=t
        """,
        ["c2", "c2", "c2", "c1"],
    ),
    "the strictly stricter of one supplier wins, of the person and not of the subject": (
        """
        subject | supplier | tokens
        c1      | x        | k01=s k05=x
        c2      | y        | k01=s k08=y
        d1      |          | k05=x
        d2      |          | k08=y
        """,
        ["c1 dfe", "c1 dfe", "linked k05 c1", "contested"],
    ),
    "a tie links neither, nor a looser third": (
        """
        subject | tokens
        c1      | k05=x k08=y
        d1      | k05=x
        d2      | k05=x
        d3      | k08=y
        """,
        ["c1 dfe", "contested", "contested", "contested"],
    ),
    "who claims a person in an earlier pass closes it to its own others alone": (
        """
        subject | block | supplier | person_ref | claimed | tokens
        c1      | 2:a   | x        | p          | dfe     | p01=x
        d1      | 2:a   | dfe      |            |         | p01=x
        d2      | 2:a   | dwp      |            |         | p01=x
        """,
        ["p dwp", "waiting", "linked p01 p"],
    ),
    "what one council's subject says of claims closes the person of the other's too": (
        """
        subject | block | supplier | person_ref | claimed | tokens
        c1      | 2:a   | x        | p          | dfe     |
        c2      | 2:a   | y        | p          |         | p01=x
        d1      | 2:a   | dfe      |            |         | p01=x
        """,
        ["p", "p", "waiting"],
    ),
    "a person is closed in its own block alone, and blocks have their own tokens": (
        """
        subject | block | person_ref | claimed | tokens
        c1      | 2:a   | p          | dfe     | p01=x
        d1      | 2:a   |            |         | p01=x
        c1      | 2:b   | p          |         | p01=x
        d2      | 2:b   |            |         | p01=x
        d3      | 2:c   |            |         | p01=x
        """,
        ["p", "waiting", "p dfe", "linked p01 p", "waiting"],
    ),
    "several passes and blocks at once": (
        """
        subject | block | person_ref | tokens | encoding
        d1      | 1:b   |            | k05=x  |
        c1      | 1:b   |            | k05=x  |
        d2      | 2:b   |            | p01=x  |
        c2      | 2:b   | p          | p01=x  |
        c3      | 2:a   | q          |        | abcd
        d3      | 2:a   |            |        | abcd
        d4      | 0:d   |            |        | abcd
        c4      | 0:c   |            | k05=x  |
        """,
        [
            "linked k05 c1", "c1 dfe", "linked p01 p", "p dfe", "q dfe", "linked near2 q", "waiting", "c4",
        ],
    ),
    "a token of a match key that is not in force is not looked at": (
        """
        subject | tokens
        c1      | k99=x
        d1      | k99=x k98=y
        """,
        ["c1", "waiting"],
    ),
    "nobody of the cohort": ("subject | tokens\n d1 | k05=x\n d2 |", ["waiting", "waiting"]),
    "nobody of a department": ("subject | tokens\n c1 | k05=x\n c2 |", ["c1", "c2"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_match_keys_and_rules(case: str) -> None:
    table, should = CASES[case]
    assert said(table) == should


def test_crowded_tokens_are_told_with_their_blocks() -> None:
    rows = rows_of(
        """
        subject | block | supplier | tokens
        c1      | 1:a   | x        | k08=x k05=z
        c2      | 1:a   | x        | k08=x k05=z
        c3      | 1:a   | y        | k08=x
        c4      | 1:b   | x        | k08=x
        c5      | 1:b   | x        | k08=x
        c6      | 1:b   | y        | k08=y
        """
    )
    found = claims(candidates(rows), RULES).crowded
    assert sorted(found) == [("1:a", rows[0]["tokens"][0]), ("1:b", rows[3]["tokens"][0])]


def test_rules_are_the_catalogues() -> None:
    catalogue = load_catalogue()
    rules, without = rules_of(catalogue), rules_of(catalogue.configured(off=["k05"], near=False))
    assert rules.ids == tuple(k.id for k in catalogue.enabled)
    assert [i for i, s in zip(rules.ids, rules.strict.tolist(), strict=True) if s] == ["k01", "k02", "k03", "k04"]
    assert sorted(rules.near) == [1, 2, 3]
    assert without.near == {}
    assert "k05" not in without.ids
    assert "k20" in without.ids  # what near matches do better is in force without them


def test_cohort_subjects_with_persons_and_without_a_department_stand_for_themselves() -> None:
    rows = rows_of(
        """
        subject | block | supplier | person_ref | claimed | tokens
        c1      | 2:a   | x        | p          |         | k01=x p01=y
        c2      | 2:a   | x        | p          | dfe     | k01=x p01=y
        c3      | 2:b   | y        | q          | dfe dwp | p01=y
        """
    )
    table = candidates(rows).to_arrow()
    made, should = (
        pl.DataFrame(t).cast({"person_ref": pl.String}) for t in (spine_of(table), claims_of(table, RULES).rows)
    )
    assert made.equals(should)
