"""Forenames and surnames with frequencies like those of the United Kingdom, by origin, sex and year of birth.

Forenames: weight times a bell curve around the peak year. Surnames: Zipf-Mandelbrot by rank, 1 / (rank + offset) **
slope, set so that Smith has 1.2% of British ones, with a long tail of place surnames made of stems and endings.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

import stream_processors.matching
from producers.simulator.config import Bools, Floats, Ints, Texts

ORIGINS = ("british", "south_asian", "african", "east_european")
_DATA = Path(__file__).with_name("data")
_NICKNAMES = Path(stream_processors.matching.__file__).with_name("nicknames.csv")
_TAIL = 0.50
"""Share of British surnames that are outside the table."""
_BRITISH_FORENAME = {"african": 0.25, "south_asian": 0.04, "east_european": 0.06}
"""Share of forenames that are British ones, by origin of the surname."""
_YEARS = (1930, 2016)
_STEPS = 2
"""Fashion is looked up every so many years."""
_BACKGROUND = 0.02
"""Of a name's peak, in use at any time."""

_STEMS = [
    "Ash",
    "Beck",
    "Birch",
    "Black",
    "Bram",
    "Brad",
    "Brock",
    "Brom",
    "Buck",
    "Burn",
    "Car",
    "Chat",
    "Clay",
    "Clif",
    "Col",
    "Cran",
    "Cres",
    "Crom",
    "Dal",
    "Den",
    "Der",
    "Dun",
    "Eck",
    "El",
    "Fair",
    "Farn",
    "Fen",
    "Flax",
    "Gar",
    "Gos",
    "Grim",
    "Had",
    "Hal",
    "Ham",
    "Har",
    "Hart",
    "Haw",
    "Hazel",
    "Hen",
    "Hex",
    "Hol",
    "Hors",
    "Hut",
    "Ing",
    "Kel",
    "Ken",
    "Kirk",
    "Lang",
    "Lin",
    "Lit",
    "Lock",
    "Long",
    "Mal",
    "Mars",
    "Mel",
    "Mid",
    "Mor",
    "Nor",
    "Nut",
    "Oak",
    "Or",
    "Ox",
    "Pad",
    "Pem",
    "Pens",
    "Pick",
    "Rad",
    "Rams",
    "Red",
    "Rish",
    "Roth",
    "Rush",
    "Sal",
    "Sand",
    "Sed",
    "Shel",
    "Ship",
    "Sil",
    "Stan",
    "Staple",
    "Stock",
    "Sut",
    "Tar",
    "Thorn",
    "Tun",
    "Up",
    "Wal",
    "War",
    "Wat",
    "Wel",
    "West",
    "Whit",
    "Wick",
    "Wil",
    "Win",
    "Wood",
    "Wool",
    "Wor",
    "Yar",
]
_ENDINGS = [
    "ton",
    "ley",
    "ford",
    "ham",
    "worth",
    "field",
    "well",
    "by",
    "wood",
    "bury",
    "more",
    "ridge",
    "den",
    "combe",
    "croft",
    "land",
    "stead",
    "hurst",
    "shaw",
    "don",
    "burn",
    "man",
    "er",
    "gate",
    "brook",
]


@dataclass(frozen=True)
class Table:
    """Names and the cumulative share up to each."""

    names: Texts
    cumulative: Floats

    def draw(self, rng: np.random.Generator, n: int) -> Texts:
        """That many names."""
        at = np.searchsorted(self.cumulative, rng.random(n), side="right")
        return self.names[np.minimum(at, len(self.names) - 1)]


def _table(names: list[str], weights: Floats) -> Table:
    return Table(np.array(names, object), np.cumsum(weights / weights.sum()))


def _zipf(n: int, offset: float, slope: float) -> Floats:
    weights = np.asarray(1.0 / (np.arange(1, n + 1) + offset) ** slope, np.float64)
    return np.asarray(weights / weights.sum(), np.float64)


def _rows(name: str) -> list[dict[str, str]]:
    with (_DATA / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@cache
def _surnames() -> Mapping[str, Table]:
    by_origin: dict[str, list[str]] = {origin: [] for origin in ORIGINS}
    for row in _rows("surnames.csv"):
        by_origin[row["origin"]].append(row["name"])
    out = {o: _table(names, _zipf(len(names), 3.0, 0.9)) for o, names in by_origin.items()}
    head = by_origin["british"]
    tail = sorted({s + e for s in _STEMS for e in _ENDINGS} - set(head))
    shuffled = [tail[i] for i in np.random.Generator(np.random.PCG64(1)).permutation(len(tail))]
    shares = ((1 - _TAIL) * _zipf(len(head), 8.0, 0.85), _TAIL * _zipf(len(shuffled), 400.0, 1.0))
    out["british"] = _table(head + shuffled, np.concatenate(shares))
    return out


@cache
def _forenames() -> Mapping[tuple[str, str, int], Table]:
    """By origin, sex and step of years."""
    rows = _rows("forenames.csv")
    out = {}
    for origin in ORIGINS:
        for sex in "FM":
            mine = [r for r in rows if r["origin"] == origin and r["sex"] == sex]
            names = [r["name"] for r in mine]
            peak, spread, weight = (np.array([float(r[c]) for r in mine]) for c in ("peak", "spread", "weight"))
            for step in range(_step(_YEARS[0]), _step(_YEARS[1]) + 1):
                bell = np.exp(-0.5 * ((step * _STEPS - peak) / spread) ** 2)
                out[origin, sex, step] = _table(names, weight * (bell + _BACKGROUND))
    return out


def _step(year: int) -> int:
    return year // _STEPS


@cache
def nicknames() -> Mapping[str, tuple[str, ...]]:
    """Nicknames by forename, both capitalised, sorted."""
    found: dict[str, set[str]] = {}
    with _NICKNAMES.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            name, nick = row["name1"].strip(), row["name2"].strip()
            if row["relationship"] == "has_nickname" and name != nick:
                found.setdefault(name.capitalize(), set()).add(nick.capitalize())
    return {name: tuple(sorted(nicks)) for name, nicks in found.items()}


@cache
def spellings() -> Mapping[str, tuple[str, ...]]:
    """Other spellings of a name, in the order of the table."""
    found: dict[str, tuple[str, ...]] = {}
    for row in _rows("spellings.csv"):
        group = row["names"].split()
        for name in group:
            found[name] = tuple(n for n in (*found.get(name, ()), *group) if n != name)
    return found


@cache
def real_postcodes() -> tuple[str, ...]:
    """Postcodes in use of one borough, in the order of the table."""
    return tuple(row["sector"] + unit for row in _rows("postcodes.csv") for unit in row["units"].split())


def draw_surnames(rng: np.random.Generator, origin: Ints) -> Texts:
    """A surname for each; `origin` indexes `ORIGINS`."""
    out = np.empty(len(origin), object)
    for code, name in enumerate(ORIGINS):
        at = np.flatnonzero(origin == code)
        out[at] = _surnames()[name].draw(rng, len(at))
    return out


def draw_forenames(rng: np.random.Generator, origin: Ints, male: Bools, birth_year: Ints) -> Texts:
    """A forename for each."""
    british = rng.random(len(origin)) < np.array([_BRITISH_FORENAME.get(o, 0.0) for o in ORIGINS])[origin]
    table_of = np.where(british, 0, origin)
    step = np.clip(birth_year, *_YEARS) // _STEPS
    first, last = _step(_YEARS[0]), _step(_YEARS[1])
    group = (table_of * 2 + male) * (last - first + 1) + step - first
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    out = np.empty(len(origin), object)
    for at in np.split(order, starts[1:]) if len(order) else []:
        one = at[0]
        table = _forenames()[ORIGINS[table_of[one]], "M" if male[one] else "F", int(step[one])]
        out[at] = table.draw(rng, len(at))
    return out
