"""widen: areas grow until k people share birth year, sex and area, and shrink again as people come."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream_processors import oracle
from stream_processors.areas import AUTHORITY, LSOA, MSOA
from stream_processors.widen import HIDDEN, levels
from tests.stream_processors.tables import CONTEXT, Bench, decoded, wide

AREAS = CONTEXT.areas
_MSOAS: dict[str, list[str]] = {}
for _lsoa, (_, _msoa, _) in sorted(AREAS.wider.items()):
    _MSOAS.setdefault(_msoa, []).append(_lsoa)
_IN_A, _IN_B = [lsoas for lsoas in _MSOAS.values() if len(lsoas) > 2][:2]
(A1, A2, A3), (B1, B2) = _IN_A[:3], _IN_B[:2]
MSOA_A, MSOA_B = AREAS.wider[A1][1], AREAS.wider[B1][1]
LONDON = "E09000023"


@pytest.mark.parametrize(
    ("counts", "k", "expected"),
    [
        ({}, 3, {}),
        ({A1: 3, B1: 5}, 3, {A1: LSOA, B1: LSOA}),
        ({A1: 2, A2: 1, B1: 5}, 3, {A1: MSOA, A2: MSOA, B1: LSOA}),
        ({A1: 2, A2: 5, A3: 1}, 3, {A1: MSOA, A2: LSOA, A3: MSOA}),
        ({A1: 2, B1: 1}, 3, {A1: AUTHORITY, B1: AUTHORITY}),
        ({A1: 1, B1: 5, B2: 3}, 3, {A1: AUTHORITY, B1: LSOA, B2: AUTHORITY}),
        ({A1: 1, A2: 2, B1: 1, B2: 9}, 3, {A1: AUTHORITY, A2: AUTHORITY, B1: AUTHORITY, B2: LSOA}),
        ({A1: 1, B1: 1}, 3, {A1: HIDDEN, B1: HIDDEN}),
        ({"northam": 2}, 3, {"northam": HIDDEN}),
        ({"northam": 3}, 3, {"northam": LSOA}),
    ],
)
def test_each_area_goes_up_only_as_far_as_it_must(counts: dict[str, int], k: int, expected: dict[str, int]) -> None:
    assert levels(counts, k, AREAS) == expected


COUNTS = st.dictionaries(st.sampled_from(list(AREAS.wider)[:30]), st.integers(1, 12), max_size=20)


@settings(max_examples=300, deadline=None)
@given(COUNTS, st.integers(2, 15))
def test_every_published_class_has_k_people_and_the_oracle_says_the_same(counts: dict[str, int], k: int) -> None:
    found = levels(counts, k, AREAS)
    published: Counter[str | None] = Counter()
    for area, n in counts.items():
        published[None if found[area] == HIDDEN else AREAS.widened(area, found[area])] += n
    assert all(n >= k for code, n in published.items() if code is not None)
    assert None not in published or sum(counts.values()) < k
    rows = [{"birth_year": 2001, "sex": "F", "area": area} for area, n in counts.items() for _ in range(n)]
    oracle.widen_areas(rows, oracle.Widen(k, lambda _: 0, AREAS.wider))
    assert Counter(row["area"] for row in rows) == published


class Publisher(Bench):
    """publish with k of 3, and the areas that it has published."""

    def __init__(self, k: int = 3) -> None:
        super().__init__("publish", context=replace(CONTEXT, k_anonymity=k))
        self.areas: dict[str, str | None] = {}

    def live(self, **people: str | None) -> dict[str, str | None]:
        """Put people with their LSOA (None deletes); what is said of areas now, by pseudonym."""
        rows = [
            f"{name} | c | person | comparison | 2001 | F | {area} |" if area else f"{name} | c | | | | | | gone"
            for name, area in people.items()
        ]
        head = "person | record | dataset | programme_status | birth_year | sex | area | "
        said = self.take([("linkage.contribution", self.records("linkage.contribution", "\n".join([head, *rows])))])
        changed: dict[str, str | None] = {}
        for s in said:
            assert s.topic == "research.person"
            changed[s.key.decode()] = decoded(s.topic, s.value)["area"] if s.value else "gone"
        self.areas.update(changed)
        self.areas = {p: a for p, a in self.areas.items() if a != "gone"}
        return changed

    def shown(self) -> Counter[Any]:
        return Counter(self.areas.values())


def test_a_class_moves_both_ways_as_people_come_and_go() -> None:
    publish = Publisher()
    publish.live(p1=A1, p2=A1)
    assert publish.shown() == {None: 2}, "two people in all: hidden"
    publish.live(p3=B1)
    assert publish.shown() == {LONDON: 3}
    publish.live(p4=A2)
    assert publish.shown() == {LONDON: 4}, "B1 is alone in its MSOA, and the class of three joins it"
    publish.live(p5=A1, p6=A1, p7=B1, p8=B1)
    assert publish.shown() == {A1: 4, LONDON: 4}, "A2 has one, and the smallest other class, B1's three, join it"
    publish.live(p4=None)
    assert publish.shown() == {A1: 4, B1: 3}
    publish.live(p1=None, p2=None)
    assert publish.shown() == {LONDON: 5}, "two in A1 are too few, and the three of B1 join them"
    publish.live(p1=A1)
    assert publish.shown() == {A1: 3, B1: 3}


def test_only_those_whose_area_changes_are_published_again() -> None:
    publish = Publisher()
    publish.live(p1=A1, p2=A1, p3=A1, q1=B1, q2=B1, q3=B1)
    assert len(publish.live(p4=A1)) == 1
    assert len(publish.live(q1=None)) == 1 + 2 + 4, "B1's two go up, and A1's four with them"


def test_people_of_other_years_and_sexes_do_not_count() -> None:
    publish = Publisher(k=2)
    text = f"""
        person | record | dataset | programme_status | birth_year | sex | area
        p1     | c      | person  | comparison       | 2001       | F   | {A1}
        p2     | c      | person  | comparison       | 2002       | F   | {A1}
        p3     | c      | person  | comparison       | 2001       | M   | {A1}
        p4     | c      | person  | comparison       | 2001       | F   | {A1}
    """
    said = publish.take([("linkage.contribution", publish.records("linkage.contribution", text))])
    shown = [tuple(decoded(s.topic, s.value)[q] for q in ("birth_year", "sex", "area")) for s in said if s.value]
    assert sorted(shown, key=str) == [(2001, "F", A1)] * 2 + [(None, None, None)] * 2, "alone, they are hidden"


def test_another_k_is_followed_at_the_next_record_also_with_state_of_before() -> None:
    publish = Publisher(k=0)
    publish.live(p1=A1, p2=A2, p3=A3)
    assert publish.shown() == {A1: 1, A2: 1, A3: 1}
    for k, shown in ((3, {MSOA_A: 3}), (4, {None: 3}), (0, {A1: 1, A2: 1, A3: 1}), (3, {MSOA_A: 3})):
        other = Publisher(k=k)
        other.task.store, other.areas = publish.task.store, publish.areas
        for s in other.take([("linkage.contribution", [])]):
            other.areas[s.key.decode()] = decoded(s.topic, s.value)["area"] if s.value else "gone"
        assert other.reconcile() == []
        assert other.shown() == shown
        publish = other


STEPS = st.lists(
    st.tuples(st.integers(0, 14), st.sampled_from([A1, A1, A2, A3, B1, B2, "northam", None])), min_size=1, max_size=40
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(STEPS, st.integers(1, 5))
def test_after_any_comings_and_goings_areas_are_as_the_oracle_says(
    steps: list[tuple[int, str | None]], size: int
) -> None:
    publish = Publisher()
    live: dict[str, str] = {}
    for at in range(0, len(steps), size):
        part = {f"p{n}": area if area != "northam" else LONDON for n, area in steps[at : at + size]}
        publish.live(**part)
        live = {p: a for p, a in {**live, **part}.items() if a}
    rows = [{"person": wide(p), "birth_year": 2001, "sex": "F", "area": area} for p, area in live.items()]
    oracle.widen_areas(rows, oracle.Widen(3, lambda _: 0, AREAS.wider))
    assert Counter(row["area"] for row in rows) == publish.shown()
