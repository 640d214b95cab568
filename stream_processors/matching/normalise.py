"""Clean person details, so that the same person is written the same way by every supplier.

The rules are those of the ONS linkage of the 2021 Census to its coverage survey (Data-Linkage/ccslink): upper
case, A to Z only, hyphen to space, sentinels and blanks to null. All are polars expressions over whole
columns; none looks at another row.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import polars as pl

LONGEST_NAME = 100
"""Letters kept of a name; what follows is noise, and a bound keeps memory bounded."""

APOSTROPHES = "'’‘ʼʹ`´＇′"
"""Removed from names: O'BRIEN is OBRIEN."""

FOLDED = {
    "Æ": "AE", "Œ": "OE", "Ø": "O", "Ł": "L", "Đ": "D", "Ð": "D", "Þ": "TH", "Ħ": "H", "Ŧ": "T", "Ŋ": "N",
    "Ə": "A", "ẞ": "SS",
}  # fmt: skip
"""Letters that Unicode does not take apart into a base letter and an accent.

Met after upper case, which makes SS of ß.
"""

NO_NAME = (
    "ANON", "ANONYMOUS", "BLANK", "DECEASED", "DUMMY", "FORENAME", "MISSING", "N A", "N K", "NIL",
    "NO FORENAME", "NO NAME", "NO SURNAME", "NONE", "NOT APPLICABLE", "NOT AVAILABLE", "NOT GIVEN",
    "NOT KNOWN", "NOT RECORDED", "NOT STATED", "NULL", "REFUSED", "SURNAME", "TBA", "TBC", "TEST", "UNK",
    "UNKNOWN", "UNNAMED", "WITHHELD", "ZZZ", "ZZZZ",
)  # fmt: skip
"""Clean names that say that there is none, in any name field."""

NO_FORENAME = (*NO_NAME, "BOY", "FEMALE", "GIRL", "MALE", "NA")
"""The same for forenames only: MALE, BOY and NA are surnames of real people."""

NO_NAME_PATTERN = r"^X( ?X)+$"
NO_FORENAME_PATTERN = r"^X( ?X)+$|^(BABY|INFANT|NEWBORN|TWIN|TRIPLET|UNBORN)( .*)?$"
"""And those with anything after them: BABY GIRL, TWIN TWO."""

DEFAULT_DATES = (
    date(1, 1, 1), date(1111, 11, 11), date(1582, 10, 14), date(1582, 10, 15), date(1753, 1, 1),
    date(1800, 1, 1), date(1899, 12, 30), date(1899, 12, 31), date(1900, 1, 1), date(2099, 12, 31),
    date(2999, 12, 31), date(8888, 8, 8), date(9999, 1, 1), date(9999, 9, 9), date(9999, 12, 31),
)  # fmt: skip
"""What systems store for 'not known'. 1 January 1970 is not among them: people were born on it."""

PSEUDO_POSTCODES = "ZZ99"
"""How the pseudo-postcodes of the NHS and ONS begin (ZZ99 3VZ: no fixed abode, ZZ99 3WZ: unknown...)."""


def normalise(persons: pl.DataFrame) -> pl.DataFrame:
    """Add clean columns to person records; rows, their order and all other columns stay as they are.

    Reads forename, middle_names, surname, sex, postcode (String) and date_of_birth (Date); any value may be
    null. A column of nulls may have the type Null. Adds, null where nothing usable is left:

    - `clean_forename`, `clean_middle_names`, `clean_surname` (String): words of A to Z, one space between; at
      most 100 characters. Accents are folded, apostrophes and digits removed, every other character is a
      space. An initial stays: what it may serve for, components decide. A name in another script than Latin
      has no letter left and is null.
    - `clean_dob` (Date): without default dates. Any other calendar date of any century stays.
    - `clean_sex` (String): F or M. X and anything else is null, for it says nothing that two records could
      agree on.
    - `clean_postcode` (String): letters and digits, upper case, at least one digit, 2 to 10 characters;
      British or not.

    Cleaning what is clean changes nothing. Raises `polars.exceptions.ColumnNotFoundError` if a column is
    missing.
    """
    return persons.with_columns(
        clean_forename=on_distinct(pl.col("forename"), _forename),
        clean_middle_names=on_distinct(pl.col("middle_names"), _forename),
        clean_surname=on_distinct(pl.col("surname"), _surname),
        clean_dob=_date(pl.col("date_of_birth")),
        clean_sex=_sex(pl.col("sex")),
        clean_postcode=postcode(pl.col("postcode")),
    )


def on_distinct(column: pl.Expr, make: Callable[[pl.Expr], pl.Expr]) -> pl.Expr:
    """`make` of a column of text, worked out once for each distinct value: names repeat, and this is cheaper.

    `make` must map text to text one value at a time, and null to null.
    """

    def apply(values: pl.Series) -> pl.Series:
        distinct = values.drop_nulls().unique()
        if distinct.is_empty():
            return pl.Series(values.name, [None] * len(values), dtype=pl.String)
        made = distinct.to_frame("value").select(make(pl.col("value"))).to_series()
        return values.replace_strict(distinct, made, default=None, return_dtype=pl.String)

    return column.cast(pl.String).map_batches(apply, return_dtype=pl.String, is_elementwise=True)


def _name(raw: pl.Expr, *, none: tuple[str, ...], none_pattern: str) -> pl.Expr:
    """Clean name of a raw one, or null if it is blank, in `none` or matches `none_pattern`."""
    letters = (
        raw.str.replace_all(f"[{APOSTROPHES}]", "")
        .str.normalize("NFKD")
        .str.to_uppercase()
        .str.replace_many(list(FOLDED), list(FOLDED.values()))
        .str.replace_all(rf"[\p{{M}}0-9{APOSTROPHES}]", "")
        .str.replace_all("[^A-Z]+", " ")
        .str.strip_chars(" ")
        .str.slice(0, LONGEST_NAME)
        .str.strip_chars_end(" ")
    )
    usable = (letters != "") & ~letters.is_in(none) & ~letters.str.contains(none_pattern)
    return pl.when(usable).then(letters)


def _forename(raw: pl.Expr) -> pl.Expr:
    return _name(raw, none=NO_FORENAME, none_pattern=NO_FORENAME_PATTERN)


def _surname(raw: pl.Expr) -> pl.Expr:
    return _name(raw, none=NO_NAME, none_pattern=NO_NAME_PATTERN)


def _date(raw: pl.Expr) -> pl.Expr:
    """Date of birth, null for a default date."""
    born = raw.cast(pl.Date)
    return pl.when(~born.is_in(DEFAULT_DATES)).then(born)


def _sex(raw: pl.Expr) -> pl.Expr:
    """F, M or null."""
    sex = raw.cast(pl.String).str.strip_chars().str.to_uppercase()
    return pl.when(sex.is_in(["F", "M"])).then(sex)


def postcode(raw: pl.Expr) -> pl.Expr:
    """Clean postcode of a raw one, as `normalise` has it: without spaces, or null."""
    code = raw.cast(pl.String).str.to_uppercase().str.replace_all("[^A-Z0-9]", "")
    real = (
        code.str.contains("[0-9]")
        & code.str.len_bytes().is_between(2, 10)
        & ~code.str.starts_with(PSEUDO_POSTCODES)
        & (code.str.strip_chars("0") != "")
        & (code.str.strip_chars("9") != "")
    )
    return pl.when(real).then(code)
