"""Widening areas until enough people share birth year, sex and area: step by step, and back as people come and go.

People of one birth year, sex and local authority are a group. Within it each LSOA starts at its own level; those with
fewer than k people go up together to their MSOA, and those that are still fewer to the local authority. If that would
be fewer than k, too, the smallest of the other classes join it. In a group of fewer than k people no area helps: they
are published without birth year, sex and area. The level of an LSOA is a function of how many people of the group live
in each: no history, no order.

Each partition of `publish` counts its own people, so a key has one writer and there is no loop. A class that has k
people in every partition where it has any has k in all (ADR 16).
"""

from __future__ import annotations

import functools
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import msgpack

from stream_processors.areas import AUTHORITY, LSOA, MSOA, Areas
from stream_processors.runtime.state import View

HIDDEN = 3
CELLS, LEVELS = "cells", "levels"
_WIDTH = 16  # of a group in a key: its digest, so that all prefixes are of one width
_PERSON = -32
_APART = "\x1f"


@dataclass(frozen=True)
class Place:
    """The quasi-identifiers of a person, as texts; empty where missing. `area` is as fine as it is known."""

    year: str
    sex: str
    area: str

    def packed(self) -> bytes:
        """As it is kept beside a person's record."""
        return _APART.join((self.year, self.sex, self.area)).encode()

    @classmethod
    @functools.lru_cache(65_536)  # people share birth years and areas
    def unpacked(cls, packed: bytes) -> Place:
        """Of `packed`."""
        return cls(*packed.decode().split(_APART))


NOWHERE = Place("", "", "")
"""Nothing is published of when somebody was born, of their sex and of where they live."""


def levels(counts: Mapping[str, int], k: int, areas: Areas) -> dict[str, int]:
    """The level of each LSOA (or other finest area) of one group.

    Args:
        counts: people by area, of one birth year, sex and local authority.
        k: fewest people that may share all three.
        areas: what the areas widen to.
    """
    out = {area: LSOA if n >= k else MSOA for area, n in counts.items()}
    by_msoa: Counter[str] = Counter()
    for area, level in out.items():
        if level == MSOA:
            by_msoa[_widened(areas, area, MSOA)] += counts[area]
    for area, level in out.items():
        if level == MSOA and by_msoa[_widened(areas, area, MSOA)] < k:
            out[area] = AUTHORITY
    while True:
        at_authority = sum(counts[area] for area, level in out.items() if level == AUTHORITY)
        if at_authority == 0 or at_authority >= k:
            return out
        classes: Counter[tuple[str, int]] = Counter()
        for area, level in out.items():
            if level != AUTHORITY:
                classes[_widened(areas, area, level), level] += counts[area]
        if not classes:
            return dict.fromkeys(out, HIDDEN)
        _, smallest, at = min((n, code, level) for (code, level), n in classes.items())
        for area, level in out.items():
            if level == at and _widened(areas, area, level) == smallest:
                out[area] = AUTHORITY


def _widened(areas: Areas, area: str, level: int) -> str:
    return areas.widened(area, level) or area


class Widening:
    """Keeps who lives where in `cells` and the levels that follow in `levels`: both are indexes of what is true."""

    def __init__(self, k: int, areas: Areas) -> None:
        """`k` of 0 or 1 widens nothing and keeps nothing."""
        self.k, self._areas = k, areas

    @property
    def on(self) -> bool:
        """Whether anything is widened."""
        return self.k > 1

    def moved(self, view: View, moves: Iterable[tuple[bytes, bytes | None, bytes | None]]) -> set[bytes]:
        """Take in people whose place is another: person, place before, place now (packed).

        Returns:
            Everybody whose level has changed, they themselves included only if theirs has.
        """
        groups: set[bytes] = set()
        for person, before, now in moves:
            for packed, value in ((before, None), (now, b"")):
                if packed is not None and before != now:
                    place = Place.unpacked(packed)
                    group = self._group(place)
                    groups.add(group)
                    view.put(CELLS, group + place.area.encode() + person, value)
        return self._level(view, sorted(groups))

    def shown(self, view: View, places: Iterable[bytes | None]) -> list[Place]:
        """What is published of each place (packed), in order."""
        found = [Place.unpacked(p) if p is not None else None for p in places]
        if not self.on:
            return [p or NOWHERE for p in found]
        groups = [self._group(p) if p is not None else b"" for p in found]
        held = {g: msgpack.unpackb(v) for g, v in zip(groups, view.get_many(LEVELS, groups), strict=True) if v}
        out: list[Place] = []
        for place, group in zip(found, groups, strict=True):
            level = held.get(group, {}).get(place.area, HIDDEN) if place is not None else HIDDEN
            if place is None or level == HIDDEN:
                out.append(NOWHERE)
            else:
                out.append(replace(place, area=self._areas.widened(place.area, level) or ""))
        return out

    def _group(self, place: Place) -> bytes:
        authority = self._areas.widened(place.area, AUTHORITY) or ""
        text = _APART.join((place.year, place.sex, authority))
        return hashlib.blake2b(text.encode(), digest_size=_WIDTH).digest()

    def _level(self, view: View, groups: list[bytes]) -> set[bytes]:
        """Set the levels of groups anew; people of the areas whose level is another."""
        touched: set[bytes] = set()
        before = view.get_many(LEVELS, groups)
        for group, packed, rows in zip(groups, before, view.scan_many(CELLS, groups, _WIDTH), strict=True):
            people: dict[str, list[bytes]] = defaultdict(list)
            for key, _ in rows:
                people[key[_WIDTH:_PERSON].decode()].append(key[_PERSON:])
            new = levels({area: len(of) for area, of in people.items()}, self.k, self._areas)
            old = msgpack.unpackb(packed) if packed else {}
            if new != old:
                view.put(LEVELS, group, msgpack.packb(new) if new else None)
                touched.update(p for area, of in people.items() if old.get(area) != new[area] for p in of)
        return touched
