"""Derived components: what match keys are made of, each a polars expression over the columns of `normalise`.

A component is null if anything that it is made of is missing; a null never takes part in a match. Components
have no spaces: DE SOUZA and DESOUZA, ANNE-MARIE and ANNEMARIE are equal.

Sources: ONS Census coverage matching (Data-Linkage/ccslink) for alphaname, nickname standardisation and
prefixes; Soundex as in the US National Archives' description and as `jellyfish.soundex` computes it.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

import numpy as np
import polars as pl

from stream_processors.matching.normalise import on_distinct

NICKNAMES = Path(__file__).parent / "nicknames.csv"

FORMAL = tuple(
    """
    WILLIAM ELIZABETH JOHN MARGARET THOMAS CATHERINE KATHERINE JAMES ROBERT RICHARD EDWARD CHARLES HENRY
    GEORGE JOSEPH DAVID MICHAEL CHRISTOPHER ANTHONY STEPHEN ANDREW PETER PAUL DANIEL MATTHEW NICHOLAS
    SAMUEL BENJAMIN ALEXANDER JONATHAN TIMOTHY PATRICK FREDERICK ALBERT ALFRED ARTHUR EDMUND FRANCIS
    LAWRENCE LEONARD PHILIP RONALD RAYMOND DONALD KENNETH GERALD DOUGLAS STANLEY THEODORE ZACHARY JOSHUA
    JACOB NATHANIEL GREGORY GABRIEL DOMINIC VINCENT WALTER HAROLD GILBERT MARY SARAH ANN JANE SUSAN
    JENNIFER PATRICIA VICTORIA REBECCA JESSICA DEBORAH BARBARA PAMELA CHRISTINE ALEXANDRA SAMANTHA
    STEPHANIE JACQUELINE JOSEPHINE JOANNA AMANDA PENELOPE PHILIPPA GEORGINA CHARLOTTE CAROLINE ISABELLA
    ISABEL ELEANOR HELEN EMILY AMELIA ABIGAIL DOROTHY FRANCES THERESA VERONICA VIRGINIA JUDITH KATHLEEN
    ALISON ANGELA CYNTHIA GERALDINE HARRIET LOUISE MADELEINE MELISSA MATILDA MILLICENT NATALIE OLIVIA
    TABITHA VALERIE VANESSA WINIFRED KATHRYN ROSEMARY ROSE ANTONIA ANDREA NICOLA
    """.split()  # noqa: SIM905
)
"""Formal names that are common in England; a nickname of several of them goes to the first.

BILL is WILLIAM, not ROBERT.
"""

_BRITISH = r"^[A-Z]{1,2}[0-9][A-Z0-9]?[0-9][A-Z]{2}$"
_BRITISH_PART = r"^[A-Z]{1,2}[0-9][A-Z0-9]?[0-9]?$"

_SOUNDEX = dict(zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "01230120022455012623010202", strict=True)) | {
    "H": "",
    "W": "",
}
_PAD = 0xFF
_UNORDERED = "soundex_unordered"


@cache
def canonical_forenames() -> Mapping[str, str]:
    """Standard form of each forename of `nicknames.csv` whose standard form is another name; upper case.

    A nickname means several names (ALEX) and names are nicknames of each other, so that following the table
    to its end would make one name of 1,067. Instead one step at most, to one name: a `FORMAL` name stays; a
    nickname of formal names becomes the first of them in that order; any other name that is a nickname of one
    name only, and that one nobody's nickname, becomes it; the rest stay. So a standard form is its own
    standard form. The price is known: CHRIS is CHRISTOPHER, and no CHRISTINE is found by it.
    """
    formal_of: dict[str, set[str]] = {}
    with NICKNAMES.open(encoding="utf-8", newline="") as rows:
        for row in csv.DictReader(rows):
            name, nickname = (_letters(row[column]) for column in ("name1", "name2"))
            if name != nickname and len(nickname) > 1:
                formal_of.setdefault(nickname, set()).add(name)
    rank = {name: i for i, name in enumerate(FORMAL)}
    standard = {}
    for nickname, names in formal_of.items():
        known = names & rank.keys()
        if nickname in rank:
            continue
        if known:
            standard[nickname] = min(known, key=rank.__getitem__)
        elif len(names) == 1 and not names & formal_of.keys():
            standard[nickname] = next(iter(names))
    return MappingProxyType(dict(sorted(standard.items())))


def soundex(name: pl.Expr) -> pl.Expr:
    """Soundex (letter and three digits) of names of A to Z; null for null, empty for empty.

    Equal to `jellyfish.soundex` on such names.

    Letters of one code are written once, also across H and W; a vowel between them separates. The first
    letter stays itself.
    """
    codes = name.str.replace_many(list(_SOUNDEX), list(_SOUNDEX.values()))
    for digit in "123456":
        codes = codes.str.replace_all(f"{digit}{{2,}}", digit)
    # H and W have no code, so nothing stands for them in front.
    after_first = pl.when(name.str.contains("^[HW]")).then(codes).otherwise(codes.str.slice(1))
    digits = after_first.str.replace_all("0", "", literal=True).str.slice(0, 3).str.pad_end(3, "0")
    return pl.when(name == "").then(name).otherwise(pl.concat_str(name.str.slice(0, 1), digits))


def sorted_letters(text: pl.Expr) -> pl.Expr:
    """The letters of ASCII text in alphabetical order; null for null."""
    return text.map_batches(_sort_letters, return_dtype=pl.String, is_elementwise=True)


def _sort_letters(text: pl.Series) -> pl.Series:
    """Sort the bytes of each value by one numpy sort over a padded matrix; out and in as one joined text."""
    if text.null_count() == len(text):
        return text
    filled = text.fill_null("")
    lengths = filled.str.len_bytes().to_numpy().astype(np.int64)
    place = np.arange(lengths.max() + 1)
    matrix = np.full((len(text), len(place)), _PAD, np.uint8)
    matrix[place < lengths[:, None]] = np.frombuffer(filled.str.join("").item().encode(), np.uint8)
    matrix.sort(axis=1)
    matrix[np.arange(len(text)), lengths] = ord("\n")
    joined = matrix[place <= lengths[:, None]].tobytes().decode("ascii")
    return pl.Series(text.name, [joined[:-1]]).str.split("\n").explode().zip_with(text.is_not_null(), text)


def _letters(name: str) -> str:
    return "".join(c for c in name.upper() if "A" <= c <= "Z")


def _solid(column: str) -> pl.Expr:
    """A clean name without its spaces."""
    return pl.col(column).str.replace_all(" ", "", literal=True)


def _forename() -> pl.Expr:
    name = _solid("clean_forename")
    return pl.when(name.str.len_bytes() > 1).then(name)


def _surname() -> pl.Expr:
    return _solid("clean_surname")


def _prefix(name: pl.Expr, length: int) -> pl.Expr:
    return pl.when(name.str.len_bytes() >= length).then(name.str.slice(0, length))


def _std_forename() -> pl.Expr:
    table = canonical_forenames()
    return _forename().replace(list(table), list(table.values()))


def _full_name() -> pl.Expr:
    middle = _solid("clean_middle_names").fill_null("")
    return pl.concat_str(_forename(), middle, _surname())


def _alpha_full_name() -> pl.Expr:
    return sorted_letters(pl.when(pl.col("clean_middle_names").is_not_null()).then(_full_name()))


def _soundex_unordered() -> pl.Expr:
    return _in_order(*(on_distinct(name, soundex) for name in (_forename(), _surname())))


def _in_order(first: pl.Expr, second: pl.Expr) -> pl.Expr:
    return pl.when(first <= second).then(pl.concat_str(first, second)).otherwise(pl.concat_str(second, first))


def _second_forename() -> pl.Expr:
    first = pl.col("clean_middle_names").str.extract("^([A-Z]+)")
    return pl.when(first.str.len_bytes() > 1).then(first)


def _dob() -> pl.Expr:
    return pl.col("clean_dob").dt.to_string("iso")


def _dob_swapped() -> pl.Expr:
    born = pl.col("clean_dob")
    day, month = born.dt.day().cast(pl.Int32), born.dt.month().cast(pl.Int32)
    two = [part.cast(pl.String).str.zfill(2) for part in (day, month)]
    year = pl.col("clean_dob").dt.to_string("iso").str.replace("-[0-9]{2}-[0-9]{2}$", "")
    return pl.when(day <= 12).then(pl.concat_str(year, *two, separator="-"))


def _dob_unordered() -> pl.Expr:
    swapped = _dob_swapped()
    return pl.min_horizontal(_dob(), swapped)


def _birth_month() -> pl.Expr:
    return _dob().str.replace("-[0-9]{2}$", "")


def _birth_day_and_month() -> pl.Expr:
    return _dob().str.extract("-([0-9]{2}-[0-9]{2})$")


def _birth_year_and_day() -> pl.Expr:
    return _dob().str.replace("-[0-9]{2}-", "-")


def _whole_code() -> pl.Expr:
    """Postcode that is not just a part of a British one (SE13, SE13 7): thousands share a part."""
    code = pl.col("clean_postcode")
    return pl.when(~code.str.contains(_BRITISH_PART)).then(code)


def _without_end(british: int, other: int) -> pl.Expr:
    """Postcode less so many last characters, if at least two characters are left."""
    code = _whole_code()
    area = pl.when(code.str.contains(_BRITISH)).then(code.str.head(-british)).otherwise(code.str.head(-other))
    return pl.when(area.str.len_bytes() > 1).then(area)


def _area() -> pl.Expr:
    return pl.col("clean_postcode").str.extract("^([A-Z]+|[0-9])")


COMPONENTS: Mapping[str, Callable[[], pl.Expr]] = MappingProxyType(
    {
        "forename": _forename,
        "surname": _surname,
        "std_forename": _std_forename,
        "full_name": _full_name,
        "alphaname": lambda: sorted_letters(pl.concat_str(_forename(), _surname())),
        "alpha_full_name": _alpha_full_name,
        "soundex_forename": lambda: on_distinct(_forename(), soundex),
        "soundex_surname": lambda: on_distinct(_surname(), soundex),
        _UNORDERED: _soundex_unordered,
        "initial": lambda: pl.col("clean_forename").str.slice(0, 1),
        "forename2": lambda: _prefix(_forename(), 2),
        "forename3": lambda: _prefix(_forename(), 3),
        "surname2": lambda: _prefix(_surname(), 2),
        "second_forename": _second_forename,
        "dob": _dob,
        "dob_swapped": _dob_swapped,
        "dob_unordered": _dob_unordered,
        "birth_month": _birth_month,
        "birth_day_and_month": _birth_day_and_month,
        "birth_year_and_day": _birth_year_and_day,
        "birth_year": lambda: pl.col("clean_dob").dt.year().cast(pl.String),
        "sex": lambda: pl.col("clean_sex"),
        "postcode": _whole_code,
        "sector": lambda: _without_end(british=2, other=1),
        "district": lambda: _without_end(british=3, other=2),
        "area": _area,
    }
)
"""Every component by name, as a maker of an expression (String) over the columns of `normalise`.

| component | what it is | null also when |
|---|---|---|
| forename, surname | the clean name without spaces | the forename is an initial |
| std_forename | the forename's standard form (`canonical_forenames`), or the forename | |
| full_name | forename, middle names if any, surname, as one word, however divided | |
| alphaname | letters of forename and surname, sorted: catches names or letters exchanged | |
| alpha_full_name | letters of all names, sorted: catches a middle name used | there is no middle name |
| soundex_forename, soundex_surname | Soundex | |
| soundex_unordered | both of them, in alphabetical order: for names that were exchanged | one of the names is missing |
| initial | first letter of the forename; an initial will do | |
| forename2, forename3, surname2 | first two or three letters | the name has fewer |
| second_forename | first of the middle names | it is an initial |
| dob, birth_year | date of birth as 2001-02-03; its year | |
| dob_swapped | the same with day and month exchanged | the day is over 12 |
| dob_unordered | date of birth, or the same with day and month exchanged, whichever is earlier | |
| birth_month, birth_day_and_month, birth_year_and_day | two of the three parts: for a third that is wrong | |
| sex | F or M | |
| postcode | postcode | it is only part of a British one |
| sector | SE137 of SE13 7AB; any other code less its last character (422 of 4223) | so is the postcode |
| district | SE13 of SE13 7AB; any other code less its last two (42 of 4223) | so is the postcode |
| area | SE of SE13 7AB; leading letters or the first digit of any other (4 of 4223) | |
"""


def components(normalised: pl.DataFrame, names: Collection[str]) -> pl.DataFrame:
    """The named components (String columns, in that order) of rows of `normalise`; same rows, same order.

    Raises `KeyError` for a component that does not exist.
    """
    made = normalised.lazy().select(COMPONENTS[name]().alias(name) for name in names if name != _UNORDERED)
    sounds = ("soundex_forename", "soundex_surname")
    if _UNORDERED in names and all(sound in names for sound in sounds):  # they are the most work of all
        return made.with_columns(_in_order(*map(pl.col, sounds)).alias(_UNORDERED)).select(names).collect()
    return normalised.lazy().select(COMPONENTS[name]().alias(name) for name in names).collect()
