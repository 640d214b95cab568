"""How a supplier writes a person down: what is misspelt, mistaken, out of date, abbreviated or left out.

Every mistake is noted: its kind and the row that it was made in. Mistakes in names fall more often on names that a
clerk did not grow up with (`UNFAMILIAR`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from producers.simulator.config import NO_DATE, Bools, Floats, Ints, Texts, day, parts_of_days
from producers.simulator.names import nicknames, spellings

UNFAMILIAR = 1.8
"""Mistakes in names of other than British origin, as a multiple."""
_DEFAULTS = (day(1900), day(1900), day(1900), day(1970))
_NEIGHBOURS = {
    "a": "qsz", "b": "vgn", "c": "xvd", "d": "sfe", "e": "wrd", "f": "dgr", "g": "fht", "h": "gjy", "i": "uok",
    "j": "hku", "k": "jli", "l": "kop", "m": "nj", "n": "bmh", "o": "ipl", "p": "ol", "q": "wa", "r": "etf",
    "s": "adw", "t": "ryg", "u": "yij", "v": "cbf", "w": "qes", "x": "zcs", "y": "tuh", "z": "xa",
}  # fmt: skip


@dataclass(frozen=True)
class Habits:
    """Of one supplier: the share of records with each mistake."""

    nickname: float = 0.04
    spelling: float = 0.10
    typo: float = 0.015
    swapped_names: float = 0.004
    wrong_birth_date: float = 0.008
    swapped_day_month: float = 0.006
    default_birth_date: float = 0.003
    missing_birth_date: float = 0.003
    missing_forename: float = 0.002
    missing_surname: float = 0.001
    missing_postcode: float = 0.015
    wrong_postcode: float = 0.01
    missing_sex: float = 0.008
    wrong_sex: float = 0.003
    unclear_sex: float = 0.003
    initial_only: float = 0.002
    middle_names: float = 0.6
    """Share of the middle names there are that are held."""
    earlier_surname: float = 0.4
    """Share of those with two surnames who are held under the other."""
    earlier_postcode: float = 0.4
    """Share of those who moved who are held at the earlier address."""
    upper_case: bool = False


@dataclass
class Records:
    """Persons as one supplier has them; "" and `NO_DATE` are missing. `sex` is F, M, X or ""."""

    forename: Texts
    middle_names: Texts
    surname: Texts
    born: Ints
    sex: Texts
    postcode: Texts

    def __len__(self) -> int:
        """Number of records."""
        return len(self.born)


Noted = Callable[[str, Ints], None]
"""Takes the kind of a mistake and the rows that have it."""


def make_mistakes(rng: np.random.Generator, clean: Records, habits: Habits, unfamiliar: Bools, noted: Noted) -> Records:
    """The records as the supplier writes them. `clean` is used up."""
    n = len(clean)
    out = clean
    more: Floats = np.where(unfamiliar, UNFAMILIAR, 1.0)

    def some(rate: float, among: Bools | None = None, times: Floats | None = None) -> Ints:
        drawn = rng.random(n) < (rate if times is None else rate * times)
        return np.flatnonzero(drawn if among is None else drawn & among)

    out.middle_names[some(1 - habits.middle_names)] = ""
    familiar = np.array([name in nicknames() for name in out.forename], bool)
    at = some(habits.nickname / 0.6, familiar)
    out.forename[at] = _one_of(rng, out.forename[at], nicknames())
    noted("nickname", at)
    for names in (out.forename, out.surname):
        at = some(habits.spelling, np.array([name in spellings() for name in names], bool), more)
        names[at] = _one_of(rng, names[at], spellings())
        noted("spelling", at)
    for names in (out.forename, out.surname):
        at = some(habits.typo, np.array([len(name) > 2 for name in names], bool), more)
        names[at] = [_typo(name, draw) for name, draw in zip(names[at], rng.random((len(at), 3)).tolist(), strict=True)]
        noted("typo", at)
    at = some(habits.initial_only)
    out.forename[at] = [name[:1] for name in out.forename[at]]
    noted("initial_only", at)
    double = np.array(["-" in name for name in out.surname], bool)
    at = some(0.25, double)
    out.surname[at] = [name.replace("-", " ") for name in out.surname[at]]
    at = some(0.15, double)
    out.surname[at] = [name.replace("-", " ").split(" ")[-1] for name in out.surname[at]]
    noted("half_of_double_surname", at)
    at = some(habits.swapped_names, times=more)
    out.forename[at], out.surname[at] = out.surname[at], out.forename[at]
    noted("swapped_names", at)
    _birth_dates(rng, out, habits, some, noted)
    _the_rest(rng, out, habits, some, noted)
    if habits.upper_case:
        for names in (out.forename, out.middle_names, out.surname):
            names[:] = [name.upper() for name in names]
    return out


def _birth_dates(
    rng: np.random.Generator, out: Records, habits: Habits, some: Callable[..., Ints], noted: Noted
) -> None:
    year, month, of_month = parts_of_days(out.born)
    at = some(habits.swapped_day_month, (of_month <= 12) & (of_month != month))
    parts = zip(year[at].tolist(), month[at].tolist(), of_month[at].tolist(), strict=True)
    out.born[at] = [day(y, d, m) for y, m, d in parts]
    noted("swapped_day_month", at)
    swapped = np.zeros(len(out), bool)
    swapped[at] = True
    at = some(habits.wrong_birth_date, ~swapped)
    kind, step = rng.integers(0, 4, len(at)), rng.choice([-2, -1, 1, 2], len(at))
    wrong = []
    for y, m, d, k, s in zip(
        year[at].tolist(), month[at].tolist(), of_month[at].tolist(), kind.tolist(), step.tolist(), strict=True
    ):
        if k == 0:
            wrong.append(day(y, m, (d - 1 + s * 5) % 28 + 1 if (d - 1 + s * 5) % 28 + 1 != d else d % 28 + 1))
        elif k == 1:
            wrong.append(day(y, (m - 1 + s) % 12 + 1, min(d, 28)))
        elif k == 2:
            wrong.append(day(y + s, m, min(d, 28)))
        else:
            wrong.append(day(y, 1, 1) if (m, d) != (1, 1) else day(y, 1, 2))
    out.born[at] = np.minimum(np.array(wrong, np.int64), day(2018, 12, 31))
    noted("wrong_birth_date", at)
    at = some(habits.default_birth_date)
    out.born[at] = np.array(_DEFAULTS)[rng.integers(0, len(_DEFAULTS), len(at))]
    noted("default_birth_date", at)
    at = some(habits.missing_birth_date)
    out.born[at] = NO_DATE
    noted("missing_birth_date", at)


def _the_rest(rng: np.random.Generator, out: Records, habits: Habits, some: Callable[..., Ints], noted: Noted) -> None:
    at = some(habits.wrong_postcode)
    letters = "ABDEFGHJLNPQRSTUWXYZ"
    out.postcode[at] = [
        code[:-1] + letters[(letters.find(code[-1]) + k) % len(letters)]
        for code, k in zip(out.postcode[at], rng.integers(1, len(letters) - 1, len(at)).tolist(), strict=True)
    ]
    noted("wrong_postcode", at)
    at = some(habits.wrong_sex)
    out.sex[at] = [{"F": "M", "M": "F"}.get(sex, sex) for sex in out.sex[at]]
    noted("wrong_sex", at)
    for kind, column, value in (
        ("missing_postcode", out.postcode, ""),
        ("missing_forename", out.forename, ""),
        ("missing_surname", out.surname, ""),
        ("unclear_sex", out.sex, "X"),
        ("missing_sex", out.sex, ""),
    ):
        at = some(getattr(habits, kind))
        column[at] = value
        noted(kind, at)
    squeezed = some(0.02)
    out.postcode[squeezed] = [code.replace(" ", "") for code in out.postcode[squeezed]]


def _one_of(rng: np.random.Generator, names: Texts, table: dict[str, tuple[str, ...]] | object) -> list[str]:
    found = [table[name] for name in names]  # type: ignore[index]
    return [others[int(u * len(others))] for others, u in zip(found, rng.random(len(names)).tolist(), strict=True)]


def _typo(name: str, draw: list[float]) -> str:
    """One slip, never in the first letter: a neighbouring key, a letter left out, doubled, or two turned round."""
    at = 1 + int(draw[0] * (len(name) - 1))
    kind = int(draw[1] * 4)
    letter = name[at]
    if kind == 0:
        near = _NEIGHBOURS.get(letter.lower(), "e")
        return name[:at] + near[int(draw[2] * len(near))] + name[at + 1 :]
    if kind == 1:
        return name[:at] + name[at + 1 :]
    if kind == 2 and at + 1 < len(name) and name[at + 1] != letter:
        return name[:at] + name[at + 1] + letter + name[at + 2 :]
    return name[:at] + letter + name[at:]
