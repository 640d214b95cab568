"""Candidates of blocks, for tests: few subjects who are alike in many ways, and blocks of thousands."""

from __future__ import annotations

import datetime
from functools import cache

import polars as pl
from hypothesis import strategies as st

from schemas.contracts import contract
from stream_processors.matching.catalogue import load_catalogue
from stream_processors.matching.encodings import Encoder
from stream_processors.matching.normalise import normalise
from stream_processors.matching.tokens import TokenKeys, tokenise
from tests.stream_processors.tables import encoded_candidates

_FORENAMES = ("Anna", "Ann", "Beth", "Bertha", "Carl", "Charles", "Dora", "Emil", "Fay", "Gus")
_SURNAMES = ("Smith", "Smyth", "Jones", "Brown", "Taylor", "Walker", "Obscure")
_KEYS = TokenKeys(b"k" * 32, 1)
CONTRACT = contract("linkage/candidate")


def candidate(subject: str, block: str) -> st.SearchStrategy[bytes]:
    """A value of a candidate of pass 2, of a person out of few."""
    return (
        st.builds(
            lambda *of: _few()[(subject[0] == "c", *of)],
            st.sampled_from(_FORENAMES[:4]),
            st.sampled_from(_SURNAMES[:3]),
            st.sampled_from(("F", "M", None)),
            st.booleans(),
        )
        if block
        else st.nothing()
    )


@cache
def _few() -> dict[tuple[bool, str, str, str | None, bool], bytes]:
    who = [
        (cohort, forename, surname, sex, born)
        for cohort in (True, False)
        for forename in _FORENAMES[:4]
        for surname in _SURNAMES[:3]
        for sex in ("F", "M", None)
        for born in (True, False)
    ]
    rows: list[dict[str, object]] = [
        {
            "cohort": cohort,
            "forename": forename,
            "surname": surname,
            "sex": sex,
            "date_of_birth": datetime.date(2001, 3, 4) if born else datetime.date(2001, 4, 3),
            "postcode": "SE6 1AA",
        }
        for cohort, forename, surname, sex, born in who
    ]
    return dict(zip(who, _values(rows), strict=True))


def candidates_of_a_block(size: int) -> tuple[list[tuple[str, str]], list[bytes]]:
    """Subjects with their block, and values: a third of them the cohort, all different and many alike."""
    rows: list[dict[str, object]] = []
    for i in range(size):
        name = f"{chr(65 + i % 26)}{chr(97 + i // 26 % 26)}{chr(97 + i // 676 % 26)}"
        rows.append(
            {
                "cohort": i % 3 == 0,
                "forename": _FORENAMES[i % len(_FORENAMES)] + name.lower(),
                "surname": name + _SURNAMES[i // 7 % len(_SURNAMES)].lower(),
                "sex": "FM"[i % 2],
                "date_of_birth": datetime.date(1950, 1, 1) + datetime.timedelta(days=i * 4),
                "postcode": f"SE6 1{chr(65 + i % 20)}{chr(65 + i // 20 % 20)}",
            }
        )
    return [(f"{'c' if i % 3 == 0 else 'd'}{i}", "2:a") for i in range(size)], _values(rows)


def _values(rows: list[dict[str, object]]) -> list[bytes]:
    people = pl.DataFrame(rows).with_columns(middle_names=pl.lit(None, pl.String))
    catalogue = load_catalogue()
    made = Encoder(catalogue, _KEYS).encode(tokenise(normalise(people), catalogue, _KEYS))
    place = pl.col("blocks").list.eval(pl.element().str.starts_with("2:")).list.arg_max()
    return encoded_candidates(
        made.select(
            role=pl.when("cohort").then(pl.lit("cohort")).otherwise(pl.lit("department")),
            supplier=pl.when("cohort").then(pl.lit("council-northam")).otherwise(pl.lit("dfe")),
            tokens=pl.col("tokens").list.eval(pl.element().filter(pl.element().str.starts_with("p"))),
            statement=pl.col("statements").list.get(place),
            encoding=pl.col("encodings").list.get(place),
        )
    )
