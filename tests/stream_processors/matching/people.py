"""Person records for tests of matching."""

from __future__ import annotations

from datetime import date
from typing import Any

import polars as pl
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

SCHEMA = {
    "forename": pl.String,
    "middle_names": pl.String,
    "surname": pl.String,
    "date_of_birth": pl.Date,
    "sex": pl.String,
    "postcode": pl.String,
}

CLEAN = {
    "forename": "clean_forename",
    "middle_names": "clean_middle_names",
    "surname": "clean_surname",
    "date_of_birth": "clean_dob",
    "sex": "clean_sex",
    "postcode": "clean_postcode",
}

SAM = {
    "forename": "Samuel",
    "middle_names": "Peter Ian",
    "surname": "O'Brien-Smith",
    "date_of_birth": date(2001, 2, 3),
    "sex": "M",
    "postcode": "SE13 7AB",
}


def people(*rows: dict[str, Any]) -> pl.DataFrame:
    """Rows with the columns of `normalise`; what a row does not say is null."""
    return pl.DataFrame([{column: row.get(column) for column in SCHEMA} for row in rows], schema=SCHEMA)


ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40)
LIKELY_NAME = st.text(alphabet="aAbBeEhHwWzZéßØ -'.", max_size=12) | st.sampled_from(
    ["N/A", "XX", "Baby", "Bill", "Al"]
)
LIKELY_POSTCODE = st.from_regex(r"[a-zA-Z]{1,2}[0-9][0-9A-Z]? ?([0-9][A-Z]{2})?", fullmatch=True)

PERSONS = st.lists(
    st.fixed_dictionaries(
        {
            "forename": st.none() | LIKELY_NAME | ANY_TEXT,
            "middle_names": st.none() | LIKELY_NAME | ANY_TEXT,
            "surname": st.none() | LIKELY_NAME | ANY_TEXT,
            "date_of_birth": st.none() | st.dates() | st.dates(date(1990, 1, 1), date(2015, 1, 1)),
            "sex": st.sampled_from(["F", "M", "X", None]),
            "postcode": st.none() | LIKELY_POSTCODE | ANY_TEXT,
        }
    ),
    max_size=8,
)

any_text = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For tests over any Unicode text, whose tables take Hypothesis seconds to make the first time."""
