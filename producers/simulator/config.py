"""What a run is made from: its size, its seed, the years it covers and the effects that it plants."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Texts = npt.NDArray[np.object_]
"""Strings; "" where there is none."""

OnProgress = Callable[[str, int, int], None]
"""Called with what is being done, how many steps are done and how many there are."""

NO_DATE = np.iinfo(np.int64).min
"""Stands for a missing date among days."""


def day(year: int, month: int = 1, of_month: int = 1) -> int:
    """Days from 1970-01-01."""
    return (date(year, month, of_month) - date(1970, 1, 1)).days


def month_index(year: int, month: int) -> int:
    """Months from January 1970."""
    return (year - 1970) * 12 + month - 1


def days_of_months(months: Ints) -> Ints:
    """First day of each month."""
    return months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)


def parts_of_days(days: Ints) -> tuple[Ints, Ints, Ints]:
    """Year, month (1 to 12) and day of the month."""
    as_dates = days.astype("datetime64[D]")
    months = as_dates.astype("datetime64[M]")
    index = months.astype(np.int64)
    of_month = (as_dates - months.astype("datetime64[D]")).astype(np.int64) + 1
    return 1970 + index // 12, index % 12 + 1, of_month


FIRST_YEAR, LAST_YEAR = 2010, 2018
FIRST_DAY, LAST_DAY = day(FIRST_YEAR), day(LAST_YEAR, 12, 31)
FIRST_START, LAST_START = month_index(2012, 4), month_index(2015, 9)
"""Months in which programmes and waits start."""
NEVER = month_index(2200, 1)
"""The start of those who are in no cohort."""

COUNCILS = ("council-northam", "council-southam")
"""Suppliers of cohort files."""


@dataclass(frozen=True)
class Config:
    """One run. The same families and seed give the same files, byte for byte."""

    families: int
    seed: int

    def __post_init__(self) -> None:
        """Hold the numbers to what can be simulated.

        Raises:
            ValueError: fewer than 1 family or more than a million, or a seed that is negative.
        """
        if not 1 <= self.families <= 1_000_000:
            raise ValueError("families must be from 1 to 1,000,000")
        if self.seed < 0:
            raise ValueError("the seed must not be negative")

    def stream(self, name: str) -> np.random.Generator:
        """Random numbers for one purpose: a change to one part leaves what the others draw as it was."""
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, zlib.crc32(name.encode())])))
