"""Postcodes: the first council has those of one real borough, the second well-shaped ones that nobody has."""

from __future__ import annotations

from functools import cache

import numpy as np

from producers.simulator.config import COUNCILS, Ints, Texts
from producers.simulator.names import real_postcodes

_AREAS = ("", "SX")
"""Letters that no post town has, by council; of the first, none are made up."""
ELSEWHERE = "XK"
_LETTERS = "ABDEFGHJLNPQRSTUWXYZ"
_DISTRICTS, _SECTORS, _UNITS = 12, 9, 40
assert len(_AREAS) == len(COUNCILS)


@cache
def postcodes(council: int) -> Texts:
    """All postcodes of a council, by its number; of the rest of the country for -1."""
    if council == 0:
        return np.array(real_postcodes(), object)
    area = ELSEWHERE if council < 0 else _AREAS[council]
    rng = np.random.Generator(np.random.PCG64(100 + council))
    out = []
    for district in range(1, _DISTRICTS + 1):
        for sector in range(1, _SECTORS + 1):
            for unit in np.sort(rng.permutation(len(_LETTERS) ** 2)[:_UNITS]).tolist():
                letters = _LETTERS[unit // len(_LETTERS)] + _LETTERS[unit % len(_LETTERS)]
                out.append(f"{area}{district} {sector}{letters}")
    return np.array(out, object)


def draw_postcodes(rng: np.random.Generator, council: Ints) -> Texts:
    """A postcode of each council; any is as likely as another."""
    out = np.empty(len(council), object)
    for number in range(-1, len(_AREAS)):
        at = np.flatnonzero(council == number)
        if len(at):
            known = postcodes(number)
            out[at] = known[rng.integers(0, len(known), len(at))]
    return out
