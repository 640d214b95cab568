"""Who is linked to whom: named cases, each with the outcome that it must have.

How to read a table: `c1`, `c2`... are subjects of a council, `s1` of another, `d1`, `d2`... of a department, `b1` of a
second one. `"` is what the row above says, `-` is missing. `is` says of the spine whose person it is, of a department's
subject who it is linked to and by what, or why it is not; `without near` the same where near matches are off, if that
is another.
"""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any

import pytest

from schemas.contracts import identified
from tests.stream_processors.tables import CONTEXT, Flow, cells

WITHOUT_NEAR = dataclasses.replace(CONTEXT, catalogue=CONTEXT.catalogue.configured(near=False))
SUPPLIERS = {"c": "council-northam", "s": "council-southam", "d": "dfe", "b": "dwp"}
IDENTITY = {
    "forename": "forename",
    "middle": "middle_names",
    "surname": "surname",
    "born": "date_of_birth",
    "sex": "sex",
    "postcode": "postcode",
}

CASES = {
    # Families
    "twins, both in the cohort and both in the department": """
        who | forename | surname   | born       | sex | postcode | is
        c1  | Anna     | Whitfield | 2001-03-14 | F   | SE13 7AB | c1
        c2  | Grace    | "         | "          | "   | "        | c2
        d1  | Anna     | "         | "          | "   | "        | c1 k01
        d2  | Grace    | "         | "          | "   | "        | c2 k01
        """,
    "twins, both in the cohort, and a record without a forename": """
        who | forename | surname   | born       | sex | postcode | is
        c1  | Anna     | Whitfield | 2001-03-14 | F   | SE13 7AB | c1
        c2  | Grace    | "         | "          | "   | "        | c2
        d1  | -        | "         | "          | "   | "        | ambiguous
        """,
    # Without near matches the keys that leave the forename out find the twin: why k20 says so.
    "twins, one in the cohort and the other in the department": """
        who | forename | surname   | born       | sex | postcode | is      | without near
        c1  | Anna     | Whitfield | 2001-03-14 | F   | SE13 7AB | c1      |
        d2  | Grace    | "         | "          | "   | "        | waiting | c1 k20
        """,
    "twins, one in the cohort, both in the department": """
        who | forename | surname   | born       | sex | postcode | is      | without near
        c1  | Anna     | Whitfield | 2001-03-14 | F   | SE13 7AB | c1      |
        d1  | Anna     | "         | "          | "   | "        | c1 k01  |
        d2  | Grace    | "         | "          | "   | "        | waiting | contested
        """,
    "twins with one initial, one in the cohort and the other in the department": """
        who | forename | surname   | born       | sex | postcode | is      | without near
        c1  | Anna     | Whitfield | 2001-03-14 | F   | SE13 7AB | c1      |
        d2  | Alice    | "         | "          | "   | "        | waiting | c1 k20
        """,
    "opposite-sex twins, one in the cohort and the other in the department": """
        who | forename | surname   | born       | sex | postcode | is
        c1  | Anna     | Whitfield | 2001-03-14 | F   | SE13 7AB | c1
        d2  | Jack     | "         | "          | M   | "        | waiting
        """,
    "opposite-sex twins, and a record that lacks the forename: the sex tells": """
        who | forename | surname   | born       | sex | postcode | is       | without near
        c1  | Anna     | Whitfield | 2001-03-14 | F   | SE13 7AB | c1       |
        c2  | Jack     | "         | "          | M   | "        | c2       |
        d2  | -        | "         | "          | "   | "        | c2 near1 | ambiguous
        """,
    "opposite-sex twins, a record that lacks the forename and the other twin is in the cohort": """
        who | forename | surname   | born       | sex | postcode | is      | without near
        c1  | Anna     | Whitfield | 2001-03-14 | F   | SE13 7AB | c1      |
        d2  | -        | "         | "          | M   | "        | waiting | c1 k20
        """,
    "siblings with one initial": """
        who | forename | surname   | born       | sex | postcode | is
        c1  | Anna     | Whitfield | 2001-03-14 | F   | SE13 7AB | c1
        c2  | Alice    | "         | 2003-09-02 | "   | "        | c2
        d1  | Anna     | "         | 2001-03-14 | "   | "        | c1 k01
        d2  | Alice    | "         | 2003-09-02 | "   | "        | c2 k01
        """,
    "siblings with one initial, one in the cohort and the other in the department": """
        who | forename | surname   | born       | sex | postcode | is
        c1  | Anna     | Whitfield | 2001-03-14 | F   | SE13 7AB | c1
        d2  | Alice    | "         | 2003-09-02 | "   | "        | waiting
        """,
    "siblings, a record with an initial and no date of birth": """
        who | forename | surname   | born       | sex | postcode | is
        c1  | Anna     | Whitfield | 2001-03-14 | F   | SE13 7AB | c1
        c2  | Alice    | "         | 2003-09-02 | "   | "        | c2
        d1  | A        | "         | -          | "   | "        | waiting
        """,
    "father and son of one name": """
        who | forename | surname   | born       | sex | postcode | is
        c1  | John     | Whitfield | 1970-05-20 | M   | SE13 7AB | c1
        c2  | "        | "         | 1999-11-03 | "   | "        | c2
        d1  | "        | "         | 1970-05-20 | "   | "        | c1 k01
        d2  | "        | "         | 1999-11-03 | "   | "        | c2 k01
        """,
    # Without near matches name and home are enough: why p05 says so.
    "father and son of one name, one in the cohort and the other in the department": """
        who | forename | surname   | born       | sex | postcode | is      | without near
        c1  | John     | Whitfield | 1970-05-20 | M   | SE13 7AB | c1      |
        d2  | "        | "         | 1999-11-03 | "   | "        | waiting | c1 p05
        """,
    "father and son of one name, and a record without a date of birth": """
        who | forename | surname   | born       | sex | postcode | is
        c1  | John     | Whitfield | 1970-05-20 | M   | SE13 7AB | c1
        c2  | "        | "         | 1999-11-03 | "   | "        | c2
        d1  | "        | "         | -          | "   | "        | ambiguous
        """,
    "a step-family with two surnames: each child by its own record, under either name": """
        who | forename | surname   | born       | sex | postcode | is
        c1  | Anna     | Whitfield | 2001-03-14 | F   | SE13 7AB | c1
        c2  | Ella     | Okafor    | 2003-09-02 | "   | "        | c2
        d1  | Anna     | "         | 2001-03-14 | "   | "        | c1 k07
        d2  | Ella     | Whitfield | 2003-09-02 | "   | "        | c2 k07
        """,
    # Moves and marriages
    "a house move in the area": """
        who | forename | surname   | born       | sex | postcode | is
        c1  | Anna     | Whitfield | 2001-03-14 | F   | SE13 7AB | c1
        d1  | "        | "         | "          | "   | SE6 2AA  | c1 k08
        """,
    "a house move far away: nothing tells it from a stranger of one name and date of birth": """
        who | forename | surname   | born       | sex | postcode | is
        c1  | Anna     | Whitfield | 2001-03-14 | F   | SE13 7AB | c1
        d1  | "        | "         | "          | "   | N1 9GU   | waiting
        """,
    "a house move far away, and a middle name agrees": """
        who | forename | middle | surname   | born       | sex | postcode | is       | without near
        c1  | Anna     | Rose   | Whitfield | 2001-03-14 | F   | SE13 7AB | c1       |
        d1  | "        | "      | "         | "          | "   | N1 9GU   | c1 near1 | c1 q02
        """,
    "a marriage: a new surname, the old home": """
        who | forename | surname   | born       | sex | postcode | is
        c1  | Anna     | Whitfield | 1981-03-14 | F   | SE13 7AB | c1
        d1  | "        | Okafor    | "          | "   | "        | c1 k07
        """,
    "a marriage and a move: nothing is left but a forename and a date of birth": """
        who | forename | surname   | born       | sex | postcode | is
        c1  | Anna     | Whitfield | 1981-03-14 | F   | SE13 7AB | c1
        d1  | "        | Okafor    | "          | "   | SE6 2AA  | waiting
        """,
    # Strangers
    "two who share name and date of birth are each linked in their own home": """
        who | forename | surname   | born       | sex | postcode | is
        c1  | Anna     | Whitfield | 2001-03-14 | F   | SE13 7AB | c1
        c2  | "        | "         | "          | "   | N1 9GU   | c2
        d1  | "        | "         | "          | "   | SE13 7AB | c1 k01
        d2  | "        | "         | "          | "   | N1 9GU   | c2 k01
        """,
    "of two who share name and date of birth, one who lives in a third place is neither": """
        who | forename | surname   | born       | sex | postcode | is
        c1  | Anna     | Whitfield | 2001-03-14 | F   | SE13 7AB | c1
        c2  | "        | "         | "          | "   | N1 9GU   | c2
        d1  | "        | "         | "          | "   | LS1 4DY  | waiting
        """,
    "a stranger of one name and date of birth does not take a person from who lives there": """
        who | forename | surname   | born       | sex | postcode | is
        c1  | Anna     | Whitfield | 2001-03-14 | F   | SE13 7AB | c1
        d1  | "        | "         | "          | "   | "        | c1 k01
        d2  | "        | "         | "          | "   | SE6 2AA  | contested
        """,
    # Ways to write one person
    "a nickname": """
        who | forename  | surname   | born       | sex | postcode | is
        c1  | Katherine | Whitfield | 2001-03-14 | F   | SE13 7AB | c1
        d1  | Kate      | "         | "          | "   | "        | c1 k04
        """,
    "exchanged names": """
        who | forename  | surname   | born       | sex | postcode | is
        c1  | Anna      | Whitfield | 2001-03-14 | F   | SE13 7AB | c1
        d1  | Whitfield | Anna      | "          | "   | "        | c1 k05
        """,
    "day and month exchanged": """
        who | forename | surname   | born       | sex | postcode | is
        c1  | Anna     | Whitfield | 2001-03-04 | F   | SE13 7AB | c1
        d1  | "        | "         | 2001-04-03 | "   | "        | c1 p01
        """,
    "day and month exchanged, and a move in the area": """
        who | forename | surname   | born       | sex | postcode | is
        c1  | Anna     | Whitfield | 2001-03-04 | F   | SE13 7AB | c1
        d1  | "        | "         | 2001-04-03 | "   | SE6 2AA  | c1 q01
        """,
    "a typing error in the forename": """
        who | forename | surname   | born       | sex | postcode | is
        c1  | Anna     | Whitfield | 2001-03-14 | F   | SE13 7AB | c1
        d1  | Amna     | "         | "          | "   | "        | c1 k10
        """,
    "a typing error in the surname": """
        who | forename | surname   | born       | sex | postcode | is
        c1  | Anna     | Whitfield | 2001-03-14 | F   | SE13 7AB | c1
        d1  | "        | Whitfeild | "          | "   | "        | c1 k05
        """,
    "a typing error in both names": """
        who | forename | surname   | born       | sex | postcode | is
        c1  | Anna     | Whitfield | 2001-03-14 | F   | SE13 7AB | c1
        d1  | Amna     | Whitfeild | "          | "   | "        | c1 k10
        """,
    "a typing error in the day of birth": """
        who | forename | surname   | born       | sex | postcode | is
        c1  | Anna     | Whitfield | 2001-03-14 | F   | SE13 7AB | c1
        d1  | "        | "         | 2001-03-15 | "   | "        | c1 p02
        """,
    "a typing error in the month of birth": """
        who | forename | surname   | born       | sex | postcode | is
        c1  | Anna     | Whitfield | 2001-03-14 | F   | SE13 7AB | c1
        d1  | "        | "         | 2001-04-14 | "   | "        | c1 p03
        """,
    "a typing error in the year of birth": """
        who | forename | surname   | born       | sex | postcode | is
        c1  | Anna     | Whitfield | 2001-03-14 | F   | SE13 7AB | c1
        d1  | "        | "         | 2002-03-14 | "   | "        | c1 p04
        """,
    "a typing error in the sex": """
        who | forename | surname   | born       | sex | postcode | is
        c1  | Anna     | Whitfield | 2001-03-14 | F   | SE13 7AB | c1
        d1  | "        | "         | "          | M   | "        | c1 k03
        """,
    "a typing error at the end of the postcode": """
        who | forename | surname   | born       | sex | postcode | is
        c1  | Anna     | Whitfield | 2001-03-14 | F   | SE13 7AB | c1
        d1  | "        | "         | "          | "   | SE13 7AC | c1 k05
        """,
    "a typing error at the beginning of the postcode": """
        who | forename | surname   | born       | sex | postcode | is       | without near
        c1  | Anna     | Whitfield | 2001-03-14 | F   | SE13 7AB | c1       |
        d1  | "        | "         | "          | "   | SW13 7AB | c1 near1 | waiting
        """,
    # What is missing
    "a missing date of birth": """
        who | forename | surname   | born       | sex | postcode | is       | without near
        c1  | Anna     | Whitfield | 2001-03-14 | F   | SE13 7AB | c1       |
        d1  | "        | "         | -          | "   | "        | c1 near2 | c1 p05
        """,
    "a missing date of birth, and the surname misspelt": """
        who | forename | surname   | born       | sex | postcode | is       | without near
        c1  | Anna     | Whitfield | 2001-03-14 | F   | SE13 7AB | c1       |
        d1  | "        | Whitfeild | -          | "   | "        | c1 near2 | c1 p07
        """,
    "a missing date of birth and a house move": """
        who | forename | surname   | born       | sex | postcode | is
        c1  | Anna     | Whitfield | 2001-03-14 | F   | SE13 7AB | c1
        d1  | "        | "         | -          | "   | N1 9GU   | waiting
        """,
    "a missing postcode": """
        who | forename | surname   | born       | sex | postcode | is       | without near
        c1  | Anna     | Whitfield | 2001-03-14 | F   | SE13 7AB | c1       |
        d1  | "        | "         | "          | "   | -        | c1 near1 | waiting
        """,
    "an initial for the forename": """
        who | forename | surname   | born       | sex | postcode | is       | without near
        c1  | Anna     | Whitfield | 2001-03-14 | F   | SE13 7AB | c1       |
        d1  | A        | "         | "          | "   | "        | c1 near1 | c1 k20
        """,
    # Several councils and departments
    "a person known to two councils": """
        who | forename | surname   | born       | sex | postcode | is
        c1  | Anna     | Whitfield | 2001-03-14 | F   | SE13 7AB | c1
        s1  | "        | "         | "          | "   | "        | c1
        d1  | "        | "         | "          | "   | "        | c1 k01
        b1  | "        | "         | "          | "   | "        | c1 k01
        """,
    "a person known to two councils, to one of them under another home, stays two: loose keys join nobody": """
        who | forename | surname   | born       | sex | postcode | is
        c1  | Anna     | Whitfield | 2001-03-14 | F   | SE13 7AB | c1
        s1  | "        | "         | "          | "   | SE6 2AA  | s1
        d1  | "        | "         | "          | "   | SE13 7AB | c1 k01
        """,
    "a near match to a person known to two councils finds one person": """
        who | forename | surname   | born       | sex | postcode | is       | without near
        c1  | Anna     | Whitfield | 2001-03-14 | F   | SE13 7AB | c1       |
        s1  | "        | "         | "          | "   | "        | c1       |
        d1  | "        | "         | "          | "   | -        | c1 near1 | waiting
        """,
    # Default values
    "the 01/01/1900 birthday is no date of birth": """
        who | forename | surname   | born       | sex | postcode | is      | without near
        c1  | Anna     | Whitfield | 1900-01-01 | F   | SE13 7AB | c1      |
        c2  | Grace    | Poole     | "          | "   | N1 9GU   | c2      |
        d1  | Ella     | Okafor    | "          | "   | SE13 7AB | waiting |
        d2  | Anna     | Whitfield | "          | "   | "        | c1 near2 | c1 p05
        """,
    # One in the hostel would be found by a stranger's day of birth and postcode; six are too many for the token.
    "the hostel's postcode: a stranger is nobody, and who lives there is found": """
        who | forename | surname | born       | sex | postcode | is
        c1  | Adam     | Brown   | 1980-01-01 | M   | SE1 1AA  | c1
        c2  | Bob      | Cole    | "          | "   | "        | c2
        c3  | Carl     | Dunn    | "          | "   | "        | c3
        c4  | Dave     | East    | "          | "   | "        | c4
        c5  | Eric     | Ford    | "          | "   | "        | c5
        c6  | Fred     | Gray    | "          | "   | "        | c6
        d1  | Zak      | Quill   | "          | "   | "        | waiting
        d2  | Carl     | Dunn    | "          | "   | "        | c3 k01
        """,
    "a council's six records of one name, day and home: a crowded token joins none and links none": """
        who | forename | surname   | born       | sex | postcode | is        | without near
        c1  | Anna     | Whitfield | 2001-03-14 | F   | SE13 7AB | c1        |
        c2  | "        | "         | "          | "   | "        | c2        |
        c3  | "        | "         | "          | "   | "        | c3        |
        c4  | "        | "         | "          | "   | "        | c4        |
        c5  | "        | "         | "          | "   | "        | c5        |
        c6  | "        | "         | "          | "   | "        | c6        |
        d1  | "        | "         | "          | "   | "        | ambiguous | waiting
        """,
}


def people_of(text: str) -> list[dict[str, str]]:
    """Rows of a table, with what the row above says put in."""
    out: list[dict[str, str]] = []
    for row in cells(text):
        out.append({name: out[-1][name] if cell == '"' else cell for name, cell in row.items()})
    return out


def record(row: dict[str, str]) -> tuple[str, dict[str, Any]]:
    """Supplier and person record of a row."""
    supplier = SUPPLIERS[row["who"][0]]
    said: dict[str, Any] = {field: row[name] for name, field in IDENTITY.items() if row.get(name, "-") != "-"}
    if "date_of_birth" in said:
        said["date_of_birth"] = datetime.date.fromisoformat(said["date_of_birth"])
    if supplier.startswith("council"):
        said["programme_status"] = "participant"
    return supplier, said | {identified(supplier, "person").subject_field: row["who"]}


def outcomes(flow: Flow, rows: list[dict[str, str]]) -> dict[str, str]:
    """What is claimed of each subject in the end. A person is named by the first row that is it."""
    who = {
        ref: next(r["who"] for r in rows if record(r)[0] == supplier and r["who"] == subject)
        for (supplier, subject), ref in flow.oracle().subject_refs.items()
    }
    links = {who[ref]: row for ref, row in flow.links().items()}
    named: dict[str, str] = {}
    out = {}
    for row in rows:
        link = links[row["who"]]
        if row["who"][0] in "cs":
            out[row["who"]] = named.setdefault(link["person_ref"], row["who"])
        else:
            out[row["who"]] = (
                f"{named[link['person_ref']]} {link['match_key']}" if link["match_key"] else link["outcome"]
            )
    return out


@pytest.mark.parametrize("case", list(CASES))
def test_the_outcome_of(case: str) -> None:
    rows = people_of(CASES[case])
    flow = Flow()
    for row in rows:
        supplier, said = record(row)
        flow.put(supplier, "person", **said)
    flow.run()
    assert outcomes(flow, rows) == {row["who"]: row["is"] for row in rows}
    assert flow.differences() == []


@pytest.mark.parametrize("case", [case for case, text in CASES.items() if "without near" in text])
def test_the_outcome_without_near_matches_of(case: str) -> None:
    rows = people_of(CASES[case])
    flow = Flow(context=WITHOUT_NEAR)
    for row in rows:
        supplier, said = record(row)
        flow.put(supplier, "person", **said)
    flow.run()
    assert outcomes(flow, rows) == {row["who"]: row.get("without near", row["is"]) for row in rows}
    assert flow.differences() == []
