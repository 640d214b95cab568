"""Areas: from a postcode to its LSOA, and from there to the MSOA and the local authority, by a postcode directory.

The directory is a CSV file in the format in which the ONS Postcode Directory (ONSPD) comes, or one with like columns: a
postcode, and codes of LSOA, MSOA and local authority of one census (GSS coding, such as E01003235). Where it has codes
of several, the latest are taken.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import polars as pl

from stream_processors.matching.normalise import postcode

SAMPLE = Path(__file__).with_name("lewisham.csv")
Level = int
LSOA, MSOA, AUTHORITY = 0, 1, 2
LEVELS = ("lsoa", "msoa", "authority")
"""From fine to coarse."""

_POSTCODE = re.compile(r"(pcds?|pcd[278]|postcode[78]?|postcodenatural)$")
_COLUMNS = (
    re.compile(r"lsoa(\d\d)?(cd)?$"),
    re.compile(r"msoa(\d\d)?(cd)?$"),
    re.compile(r"(?:lad(\d\d)?(cd)?|oslaua|laua)$"),
)
_CODE = r"^[EWSNLMJ][0-9]{8}$"
_PSEUDO = r"9{6,8}$"
"""How codes end that stand for no place: the Channel Islands, the Isle of Man, places without small areas."""


class DirectoryError(ValueError):
    """The postcode directory cannot be used. The message names the file and what is wrong, and no row of it."""


@dataclass(frozen=True, eq=False)
class Areas:
    """A directory in memory: columns postcode (clean, ascending, unique), lsoa, msoa, authority (null: unknown)."""

    table: pl.DataFrame

    def lsoa(self, postcodes: pl.Series) -> pl.Series:
        """LSOA of clean postcodes (`normalise.postcode`): same length and order, null where the directory has none.

        A binary search: the directory is not hashed for each batch.
        """
        known = self.table["postcode"]
        if known.is_empty():
            return pl.Series("lsoa", [None] * len(postcodes), dtype=pl.String)
        at = known.search_sorted(postcodes.fill_null("")).clip(0, len(known) - 1)
        found = pl.select(pl.when(known.gather(at).eq_missing(postcodes)).then(self.table["lsoa"].gather(at)))
        return found.to_series().alias("lsoa")

    @cached_property
    def codes(self) -> frozenset[str]:
        """Every code of a level: the closed domain that a published area is of, besides the councils' own codes."""
        return frozenset(code for level in LEVELS for code in self.table[level].drop_nulls().unique().to_list())

    @cached_property
    def wider(self) -> Mapping[str, tuple[str, str, str]]:
        """LSOA to itself, its MSOA and its authority; a level that the directory lacks is the next finer one."""
        return {
            lsoa: (lsoa, msoa or lsoa, authority or msoa or lsoa)
            for lsoa, msoa, authority in self.table.select(LEVELS)
            .sort(LEVELS)
            .unique("lsoa", keep="first", maintain_order=True)
            .rows()
        }

    @cached_property
    def by_postcode(self) -> Mapping[str, str]:
        """Clean postcode to LSOA, as a plain mapping."""
        return dict(self.table.select("postcode", "lsoa").drop_nulls().rows())

    def widened(self, area: str | None, level: Level) -> str | None:
        """An area at a level; one that is no LSOA of the directory (a council's own code) stays as it is."""
        found = self.wider.get(area) if area is not None else None
        return found[level] if found else area


@cache
def load_areas(path: Path = SAMPLE) -> Areas:
    """Read a directory, once. About 100 bytes of memory per postcode.

    Raises:
        DirectoryError: no such file, no CSV with the columns, or no usable row.
    """
    try:
        header = pl.read_csv(path, n_rows=0, infer_schema=False).columns
        names = _columns(path, header)
        raw = pl.read_csv(path, columns=list(names), infer_schema=False)
    except OSError as e:
        raise DirectoryError(f"{path}: cannot be read ({e.strerror or type(e).__name__})") from None
    except pl.exceptions.PolarsError as e:
        raise DirectoryError(f"{path}: is no CSV file of a postcode directory ({type(e).__name__})") from None
    table = (
        raw.rename(names)
        .select(
            postcode(pl.col("postcode")).alias("postcode"),
            *(pl.when(pl.col(c).str.contains(_CODE) & ~pl.col(c).str.contains(_PSEUDO)).then(c) for c in LEVELS),
        )
        .drop_nulls(["postcode", "lsoa"])
        .unique("postcode", keep="first", maintain_order=True)
        .sort("postcode")
    )
    if table.is_empty():
        raise DirectoryError(f"{path}: has no row with a postcode and the code of an LSOA")
    return Areas(table)


def _columns(path: Path, header: list[str]) -> dict[str, str]:
    """The file's columns that are read, with our names for them."""
    low = {name: name.strip().lower().removeprefix("\ufeff") for name in header}
    postcodes = [name for name, text in low.items() if _POSTCODE.match(text)]
    if not postcodes:
        raise DirectoryError(f"{path}: has no column of postcodes (pcds, pcd, PostcodeNatural)")
    out = {postcodes[0]: "postcode"}
    for level, pattern in zip(LEVELS, _COLUMNS, strict=True):
        found = sorted((m[1] or "", name) for name, text in low.items() if (m := pattern.match(text)))
        if not found:
            raise DirectoryError(f"{path}: has no column of the {level} (such as {_example(level)})")
        out[found[-1][1]] = level
    return out


def _example(level: str) -> str:
    return {"lsoa": "lsoa11 or LSOA21CD", "msoa": "msoa11 or MSOA21CD", "authority": "oslaua or LAD23CD"}[level]
