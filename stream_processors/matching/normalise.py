"""Clean person details, so that the same person is written the same way by every supplier.

The rules are those of the ONS linkage of the 2021 Census to its coverage survey (Data-Linkage/ccslink): upper case, A to Z only, hyphen to
space, sentinels and blanks to null. All are polars expressions over whole columns; none looks at another row.
"""

from __future__ import annotations

from datetime import date

import polars as pl

LONGEST_NAME = 100
"""Letters kept of a name; what follows is noise, and a bound keeps memory bounded."""

APOSTROPHES = "'’‘ʼʹ`´＇′"
"""Removed from names: O'BRIEN is OBRIEN."""

FOLDED = {"Æ": "AE", "Œ": "OE", "Ø": "O", "Ł": "L", "Đ": "D", "Ð": "D", "Þ": "TH", "Ħ": "H", "Ŧ": "T", "Ŋ": "N", "Ə": "A", "ẞ": "SS"}
"""Letters that Unicode does not take apart into a base letter and an accent, after upper case (which makes SS of ß)."""

NO_NAME = (
    "ANON", "ANONYMOUS", "BLANK", "DECEASED", "DUMMY", "FORENAME", "MISSING", "N A", "N K", "NIL", "NO FORENAME", "NO NAME",
    "NO SURNAME", "NONE", "NOT APPLICABLE", "NOT AVAILABLE", "NOT GIVEN", "NOT KNOWN", "NOT RECORDED", "NOT STATED", "NULL",
    "REFUSED", "SURNAME", "TBA", "TBC", "TEST", "UNK", "UNKNOWN", "UNNAMED", "WITHHELD", "ZZZ", "ZZZZ",
)  # fmt: skip
"""Clean names that say that there is none, in any name field."""

NO_FORENAME = (*NO_NAME, "BOY", "FEMALE", "GIRL", "MALE", "NA")
"""The same for forenames only: MALE, BOY and NA are surnames of real people."""

_NO_FORENAME_PATTERN = r"^(BABY|INFANT|NEWBORN|TWIN|TRIPLET|UNBORN)( .*)?$"
_REPEATED_X_PATTERN = r"^X( ?X)+$"

DEFAULT_DATES = (
    date(1, 1, 1), date(1111, 11, 11), date(1582, 10, 14), date(1582, 10, 15), date(1753, 1, 1), date(1800, 1, 1),
    date(1899, 12, 30), date(1899, 12, 31), date(1900, 1, 1), date(2099, 12, 31), date(2999, 12, 31),
    date(8888, 8, 8), date(9999, 1, 1), date(9999, 9, 9), date(9999, 12, 31),
)  # fmt: skip
"""What systems store for 'not known'. 1 January 1970 is not among them: people were born on it."""

SENTINEL_POSTCODE_PATTERN = r"^(ZZ99.*|0+|9+)$"
"""NHS and ONS pseudo-postcodes (ZZ99 3VZ: no fixed abode, ZZ99 3WZ: unknown...) and fillers."""


def normalise(persons: pl.DataFrame) -> pl.DataFrame:
    """Add clean columns to person records; rows, their order and all other columns stay as they are.

    Reads forename, middle_names, surname, sex, postcode (String) and date_of_birth (Date); any value may be null. A column of nulls may have
    the type Null. Adds, null where nothing usable is left:

    - `clean_forename`, `clean_middle_names`, `clean_surname` (String): words of A to Z, one space between; at most 100 characters. Accents are
      folded, apostrophes and digits removed, every other character is a space. An initial stays: what it may serve for, components decide.
      A name in another script than Latin has no letter left and is null.
    - `clean_dob` (Date): without default dates. Any other calendar date of any century stays.
    - `clean_sex` (String): F or M. X and anything else is null, for it says nothing that two records could agree on.
    - `clean_postcode` (String): letters and digits, upper case, at least one digit, 2 to 10 characters; British or not.

    Cleaning what is clean changes nothing. Raises `polars.exceptions.ColumnNotFoundError` if a column is missing.
    """
    return persons.with_columns(
        clean_forename=_name(pl.col("forename"), forename=True),
        clean_middle_names=_name(pl.col("middle_names"), forename=True),
        clean_surname=_name(pl.col("surname"), forename=False),
        clean_dob=_date(pl.col("date_of_birth")),
        clean_sex=_sex(pl.col("sex")),
        clean_postcode=_postcode(pl.col("postcode")),
    )


def _name(raw: pl.Expr, *, forename: bool) -> pl.Expr:
    """Clean name of a raw one, or null."""
    letters = (
        raw.cast(pl.String)
        .str.replace_all(f"[{APOSTROPHES}]", "")
        .str.normalize("NFKD")
        .str.to_uppercase()
        .str.replace_many(list(FOLDED), list(FOLDED.values()))
        .str.replace_all(rf"[\p{{M}}0-9{APOSTROPHES}]", "")
        .str.replace_all("[^A-Z]+", " ")
        .str.strip_chars(" ")
        .str.slice(0, LONGEST_NAME)
        .str.strip_chars_end(" ")
    )
    said_none = letters.is_in(NO_FORENAME if forename else NO_NAME) | letters.str.contains(_REPEATED_X_PATTERN)
    if forename:
        said_none |= letters.str.contains(_NO_FORENAME_PATTERN)
    return pl.when((letters != "") & ~said_none).then(letters)


def _date(raw: pl.Expr) -> pl.Expr:
    """Date of birth, null for a default date."""
    born = raw.cast(pl.Date)
    return pl.when(~born.is_in(DEFAULT_DATES)).then(born)


def _sex(raw: pl.Expr) -> pl.Expr:
    """F, M or null."""
    sex = raw.cast(pl.String).str.strip_chars().str.to_uppercase()
    return pl.when(sex.is_in(["F", "M"])).then(sex)


def _postcode(raw: pl.Expr) -> pl.Expr:
    """Postcode without spaces, or null."""
    code = raw.cast(pl.String).str.to_uppercase().str.replace_all("[^A-Z0-9]", "")
    real = (
        code.str.contains("[0-9]")
        & code.str.len_bytes().is_between(2, 10)
        & ~code.str.contains(SENTINEL_POSTCODE_PATTERN)
    )
    return pl.when(real).then(code)
