from __future__ import annotations

import hashlib
import hmac
from datetime import date
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_processors.matching.catalogue import load_catalogue
from stream_processors.matching.components import components
from stream_processors.matching.normalise import normalise
from stream_processors.matching.tokens import SEPARATOR, TokenKeys, hmac_hex, tokenise
from tests.examples import examples
from tests.stream_processors.matching.people import ANY_TEXT, PERSONS, SAM, any_text, people

CATALOGUE = load_catalogue()
KEYS = TokenKeys(bytes(range(32)), epoch=0)


def tokens(*rows: dict[str, Any], keys: TokenKeys = KEYS) -> pl.DataFrame:
    return tokenise(normalise(people(*rows)), CATALOGUE, keys).select("tokens", "blocks")


def by_key(row: dict[str, Any], keys: TokenKeys = KEYS) -> dict[str, str]:
    return dict(token.split(":") for token in tokens(row, keys=keys)["tokens"].item())


def test_a_whole_person_has_a_token_for_each_enabled_key_strictest_first() -> None:
    made = tokens(SAM)
    assert [t.split(":")[0] for t in made["tokens"].item()] == [k.id for k in CATALOGUE.enabled]
    assert made["blocks"].explode().str.contains("^[123]:[0-9a-f]{32}$").all()
    assert made["tokens"].explode().str.contains("^[kpq][0-9]{2}:[0-9a-f]{32}$").all()


def test_tokens_do_not_change_by_accident() -> None:
    """Whoever changes these must raise the catalogue's version and re-tokenise all that is live."""
    made = tokens(SAM)
    assert made["tokens"].item().to_list()[:2] == [
        "k01:5a5e8617199617e5a09113a55c9114a0",
        "k02:f12c2c2bfd66cc16ba258e20db29c362",
    ]
    assert made["blocks"].item().to_list()[0] == "1:8e5ae64b445cb3bd97da2ec91db8871c"


def test_a_token_is_the_hmac_of_its_components() -> None:
    made = by_key(SAM)
    for key in CATALOGUE.enabled:
        values = components(normalise(people(SAM)), key.components).row(0)
        digest = hmac.new(KEYS.match_key(key).encode(), SEPARATOR.join(values).encode(), hashlib.sha256).hexdigest()
        assert made[key.id] == digest[:32]


@pytest.mark.parametrize(
    ("missing", "left"),
    [
        ("date_of_birth", ""),
        ("forename", ""),
        ("surname", "k07 k17 k18"),
        (
            "middle_names",
            "k01 k02 k03 k04 k05 k07 k08 k09 k10 k11 k12 k13 k14 k17 k18 k19 k23 p01 p02 p03 p04 q01",
        ),
        ("sex", "k03 k05 k06 k07 k10 k11 k12 k14 k17 k18 k19 k23 p01 p02 p03 p04 q02 q03 q04"),
        ("postcode", "q02 q03 q04"),
    ],
)
def test_a_missing_component_makes_no_token(missing: str, left: str) -> None:
    assert list(by_key({**SAM, missing: None})) == left.split()


def test_a_person_of_nothing_has_empty_lists() -> None:
    assert tokens({}).row(0) == ([], [])


def test_no_rows() -> None:
    assert tokens().schema == {"tokens": pl.List(pl.String), "blocks": pl.List(pl.String)}


@pytest.mark.parametrize(
    ("of", "other", "shared"),
    [
        ("the same written otherwise", {"surname": "O’BRIEN  SMITH", "postcode": "se137ab"}, "k01"),
        ("no middle names", {"middle_names": None}, "k02"),
        ("the wrong sex", {"middle_names": None, "sex": "F"}, "k03"),
        ("a nickname", {"middle_names": None, "forename": "Sam"}, "k04"),
        ("exchanged names", {"middle_names": None, "forename": "O'Brien Smith", "surname": "Samuel"}, "k05"),
        ("the middle name as forename", {"forename": "Peter", "middle_names": "Samuel Ian"}, "k06"),
        ("another surname", {"surname": "Jones"}, "k07"),
        ("another house", {"middle_names": None, "postcode": "SE9 1AE"}, "k08"),
        ("another house, a nickname", {"forename": "Sam", "postcode": "SE9 1AE"}, "k09"),
        ("both names misspelt", {"forename": "Samual", "surname": "O'Brian Smyth"}, "k10"),
        ("a mistyped surname, a near house", {"surname": "Obscure", "postcode": "SE13 9XY"}, "k11"),
        ("another house, sex missing", {"middle_names": None, "postcode": "SE9 1AE", "sex": None}, "k12"),
        ("another house, misspelt", {"forename": "Samual", "postcode": "SE9 1AE"}, "k13"),
        ("both names mistyped", {"forename": "Samxl", "surname": "Obscure"}, "k14"),
        ("a forename that sounds alike, another surname", {"forename": "Samual", "surname": "Jones"}, "k17"),
        ("day and month of birth exchanged", {"date_of_birth": date(2001, 3, 2)}, "p01"),
        ("another day of birth", {"date_of_birth": date(2001, 2, 13)}, "p02"),
        ("another month of birth", {"date_of_birth": date(2001, 8, 3)}, "p03"),
        ("another year of birth", {"date_of_birth": date(2011, 2, 3)}, "p04"),
        ("exchanged, and another house", {"date_of_birth": date(2001, 3, 2), "postcode": "SE9 1AE"}, "q01"),
        ("another day, and another house", {"date_of_birth": date(2001, 2, 13), "postcode": "M1 1AE"}, "q02"),
    ],
)
def test_the_strictest_key_that_two_records_share(of: str, other: dict[str, Any], shared: str) -> None:
    first, second = by_key(SAM), by_key({**SAM, **other})
    assert next(id_ for id_ in first if second.get(id_) == first[id_]) == shared, of


@pytest.mark.parametrize("twin", ["Joseph", "Simon", "Sarah", "Saul", "Unknown", "S"])
def test_a_twin_shares_no_token(twin: str) -> None:
    other = by_key({**SAM, "forename": twin, "middle_names": None})
    assert not other.items() & by_key(SAM).items()


@settings(any_text, max_examples=examples(30))
@given(PERSONS)
def test_tokens_do_not_depend_on_the_batch(rows: list[dict[str, Any]]) -> None:
    together = tokens(*rows)
    assert len(together) == len(rows)
    assert together.rows() == [tokens(row).row(0) for row in rows]


def test_other_columns_stay() -> None:
    cleaned = normalise(people(SAM, {}, SAM))
    assert tokenise(cleaned, CATALOGUE, KEYS).select(cleaned.columns).equals(cleaned)


@any_text
@given(
    st.lists(st.none() | ANY_TEXT),
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200),
)
def test_hmac_is_that_of_python(texts: list[str | None], key: str) -> None:
    made = pl.DataFrame({"t": texts}, schema={"t": pl.String}).select(hmac_hex(pl.col("t"), key)).to_series()
    assert made.to_list() == [
        None if t is None else hmac.new(key.encode(), t.encode(), hashlib.sha256).hexdigest()[:32] for t in texts
    ]


def test_keys_differ_by_purpose_epoch_and_master() -> None:
    others = (TokenKeys(bytes(range(32)), 1), TokenKeys(bytes(32), 0))
    made = [
        k
        for keys in (KEYS, *others)
        for k in (*map(keys.match_key, CATALOGUE.enabled), *map(keys.block, CATALOGUE.passes))
    ]
    assert len(set(made)) == len(made)


def test_a_derived_key_is_hkdf_sha256_of_rfc_5869() -> None:
    secret = hmac.new(bytes(32), bytes(range(32)), hashlib.sha256).digest()
    expanded = hmac.new(secret, b"lethe/1/epoch/0/anything\x01", hashlib.sha256).hexdigest()
    assert KEYS.derive("anything") == expanded


def test_a_key_for_other_components_is_another_key() -> None:
    key = CATALOGUE.enabled[0]
    assert KEYS.match_key(key) != KEYS.match_key(key.model_copy(update={"components": ("dob", "sex")}))


def test_bad_keys_are_refused_and_keys_are_not_printed() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        TokenKeys(b"short", 0)
    with pytest.raises(ValueError, match="epoch"):
        TokenKeys(bytes(32), -1)
    assert repr(KEYS) == "TokenKeys(epoch=0)"
