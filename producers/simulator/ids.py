"""Local ids that look like the real ones, differ between suppliers and say nothing of the person.

UPN: check letter, local authority, school, year and serial number (DfE, "Unique pupil numbers"; the check letter is
that of the twelve digits weighted 2 to 13, modulo 23), all drawn at random: a real one tells the authority and the year
that gave it, and so nearly the age. NHS number: ten digits, the last a check modulo 11. National Insurance number:
prefixes that are never given out.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from producers.simulator.config import Ints

_UPN_LETTERS = "ABCDEFGHJKLMNPQRTUVWXYZ"
_AUTHORITIES = (209, 201, 301, 330, 383, 420, 801, 840, 865, 886, 919, 938, 999)
_PREFIXES = ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ")
_SUFFIXES = "ABCD"
_COUNCIL_SHAPES = (("P{:07d}", "F{:06d}"), ("{:08d}", "H{:07d}"), ("SC-{:07d}", "FAM-{:06d}"), ("{:07d}X", "{:07d}F"))


def distinct(rng: np.random.Generator, n: int, space: int) -> Ints:
    """That many different numbers from 0 to below `space`, in no order.

    Raises:
        ValueError: there are not so many.
    """
    if not n:
        return np.empty(0, np.int64)
    step = space // n
    if step < 1:
        raise ValueError(f"only {space} ids for {n} rows")
    return rng.permutation(n) * step + rng.integers(0, step, n)


def _shaped(shape: str, numbers: Ints) -> pl.Series:
    return pl.Series([shape.format(number) for number in numbers.tolist()], dtype=pl.String)


def council_ids(rng: np.random.Generator, council: int, persons: int, families: int) -> tuple[pl.Series, pl.Series]:
    """Ids of persons and of families."""
    person, family = _COUNCIL_SHAPES[council % len(_COUNCIL_SHAPES)]
    return (
        _shaped(person, distinct(rng, persons, 9_000_000) + 1_000_000),
        _shaped(family, distinct(rng, families, 900_000) + 100_000),
    )


def upns(rng: np.random.Generator, n: int) -> pl.Series:
    """Of pupils."""
    serial = distinct(rng, n, 4_000_000)
    authority = np.array(_AUTHORITIES)[rng.integers(0, len(_AUTHORITIES), n)]
    year = rng.integers(0, 19, n)
    body = authority * 10**9 + (2000 + serial // 1000) * 10**5 + year * 1000 + serial % 1000
    check = np.zeros(n, np.int64)
    for place in range(12):
        check += body // 10 ** (11 - place) % 10 * (place + 2)
    letters = np.array(list(_UPN_LETTERS), object)[check % 23]
    return pl.Series([f"{c}{b:012d}" for c, b in zip(letters, body.tolist(), strict=True)], dtype=pl.String)


def offender_ids(rng: np.random.Generator, n: int) -> pl.Series:
    """Of the linked extract."""
    return _shaped("{:09d}", distinct(rng, n, 900_000_000) + 100_000_000)


def insurance_numbers(rng: np.random.Generator, n: int) -> pl.Series:
    """Two letters, six digits, a letter."""
    numbers = distinct(rng, n, len(_PREFIXES) * 1_000_000 * len(_SUFFIXES))
    text = [f"{_PREFIXES[k // 4_000_000]}{k // 4 % 1_000_000:06d}{_SUFFIXES[k % 4]}" for k in numbers.tolist()]
    return pl.Series(text, dtype=pl.String)


def nhs_numbers(rng: np.random.Generator, n: int) -> pl.Series:
    """Ten digits that begin with 9."""
    body = 900_000_000 + distinct(rng, n, 49_000_000) * 2
    for _ in range(2):
        check = np.zeros(n, np.int64)
        for place in range(9):
            check += body // 10 ** (8 - place) % 10 * (10 - place)
        check = (11 - check % 11) % 11
        body = np.where(check == 10, body + 1, body)  # that check digit is not used; the next number has another
    return _shaped("{:010d}", body * 10 + check)


def record_ids(rng: np.random.Generator, shape: str, n: int) -> pl.Series:
    """Of events; `shape` formats a number of at most ten digits."""
    return _shaped(shape, distinct(rng, n, 9_000_000_000) + 1_000_000_000)
