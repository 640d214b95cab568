"""Tables of candidates for tests of `claims`.

A letter of `encoding` stands for four bits of the forename's filter, so that `abcd` and `abce` have three quarters in
common. `states` is a sex and forenames. Other fields of an encoding are empty.
"""

from __future__ import annotations

import datetime
from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from stream_processors.claims import Rules
from stream_processors.matching.encodings import ENCODING_BYTES
from stream_processors.matching.near_model import LEVELS, OTHERS, PassWeights
from tests.stream_processors.tables import cells, token, wide

SAME, NEARLY, VERY_ALIKE, ALIKE, DIFFERENT = 10.0, 6.0, 5.5, 3.0, -5.0
FORENAME = (SAME, NEARLY, VERY_ALIKE, ALIKE, 0.0, DIFFERENT, 0.0)
"""Bits of evidence of a forename by its Dice coefficient: 1, from 0.8, from 0.65, from 0.5, from 0.3, below."""


def near(number: int) -> PassWeights:
    """A link takes 5 bits, and the second best person has a bit less."""
    fields = {f: [0.0] * len(of) for f, of in LEVELS.items()} | {"forename": FORENAME}
    return PassWeights.model_validate(
        {
            "pass": number,
            "threshold": 5.0,
            "margin": 1.0,
            "shares": dict.fromkeys(OTHERS, 0.25),
            "against": dict.fromkeys(OTHERS, fields),
        }
    )


RULES = Rules(
    ids=("k01", "k02", "k05", "k08", "p01"),
    strict=np.array([True, True, False, False, False]),
    most=np.array([1, 2, 2, 1, 2], np.int64),
    near={1: near(1), 2: near(2)},
)
NO_NEAR = Rules(RULES.ids, RULES.strict, RULES.most, {})
SCHEMA: dict[str, Any] = {
    "block": pl.String, "subject": pl.String, "supplier": pl.String, "role": pl.String, "person_ref": pl.String,
    "home": pl.Int32, "epoch": pl.Int32, "leading": pl.Int32,
    "expires_on": pl.Date, "tokens": pl.List(pl.String), "claimed": pl.List(pl.String),
    "statement": pl.String, "encoding": pl.String,
}  # fmt: skip
Row = dict[str, Any]


def word(text: str) -> str:
    """A word of a statement: what is equal here is equal there."""
    return text.encode().hex().rjust(8, "0")[:8]


def statement(text: str) -> str:
    """`F ann` as a statement; `-` for a sex that is not stated."""
    sex, *names = text.split() or ["-"]
    return "".join(["0" * 8 if sex == "-" else word(sex), *map(word, names)])


def encoding(letters: str) -> str:
    bits = sum(0xF << 4 * (ord(x) - ord("a")) for x in letters)
    return b64encode(bits.to_bytes(ENCODING_BYTES, "little")).decode() if letters else ""


def candidates(rows: Sequence[Row]) -> pl.DataFrame:
    defaults = {
        "block": "1:a", "supplier": "dfe", "role": "department", "home": 0, "epoch": 1, "leading": 1,
        "expires_on": datetime.date(2030, 1, 1), "tokens": [], "claimed": [], "statement": "0" * 8, "encoding": "",
    }  # fmt: skip
    return pl.DataFrame([defaults | row for row in rows], schema=SCHEMA)


def rows_of(text: str) -> list[Row]:
    """A table of candidates. Subjects whose names begin with c are the cohort's, of council x unless it says so."""
    out = []
    for given_row in cells(text):
        row: Row = {"subject": wide(given_row["subject"])}
        if given_row["subject"].startswith("c"):
            row |= {"role": "cohort", "supplier": "x"}
        for name, value in given_row.items():
            if name in ("tokens", "claimed"):
                row[name] = [token(t) if name == "tokens" else t for t in value.split()]
            elif name == "states":
                row["statement"] = statement(value)
            elif name == "encoding":
                row[name] = encoding(value)
            elif name == "person_ref":
                row[name] = wide(value)
            elif name in ("block", "supplier"):
                row[name] = value
        out.append(row)
    return out
