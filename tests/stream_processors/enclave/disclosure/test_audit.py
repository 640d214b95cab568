"""No number that is withheld can be told from what is published, whoever does the sums."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_processors.enclave.disclosure import Output, Relation, release
from stream_processors.enclave.disclosure.audit import UnsoundRelationError
from tests.examples import examples
from tests.stream_processors.enclave.disclosure.support import (
    POLICY,
    attack,
    entry,
    frequencies,
    hidden_of,
    places,
    same_people,
    shown,
)

CELL = st.one_of(st.integers(0, 25), st.integers(10, 400))


def test_one_blank_that_another_table_gives_away_gets_company() -> None:
    sex = frequencies("sex", {"F": 500, "not known": 4})
    area = frequencies("area", {"north": 504})
    alone = release([sex], [], [], {}, "now")
    assert alone.published["sex"].cells["persons"].to_list() == [500, None]
    both = release([sex, area], same_people(sex, area), [], {}, "now")
    assert "sex" not in both.published
    assert entry(both, "sex").refused_by == "secondary suppression"


def test_blanks_that_together_are_few_get_company() -> None:
    """Three and four would be known to be seven in all."""
    many = frequencies("many", {"a": 3, "b": 4, "c": 100, "d": 200, "e": 300})
    few = frequencies("few", {"x": 307, "y": 300})
    outputs, relations = [many, few], same_people(many, few)
    published = shown(release(outputs, relations, [], {}, "now"))
    for low, high in attack(hidden_of(outputs, published), published, relations).values():
        assert high - low >= POLICY.threshold


def test_nothing_more_goes_where_nothing_can_be_told() -> None:
    many = frequencies("many", {str(i): 50 + i for i in range(10)} | {"small": 5})
    few = frequencies("few", {"x": 300, "y": sum(50 + i for i in range(10)) + 5 - 300})
    released = release([many, few], same_people(many, few), [], {}, "now")
    assert [len(p.cells) - p.cells["persons"].null_count() for p in released.published.values()] == [10, 2]


@settings(max_examples=examples(25), deadline=None)
@given(st.data())
def test_no_withheld_number_of_tables_of_the_same_people_can_be_told(data: st.DataObject) -> None:
    """Several tables of the same people, each split its own way."""
    people = data.draw(st.lists(CELL, min_size=2, max_size=6))
    outputs = [frequencies("t0", {f"g{i}": n for i, n in enumerate(people)})]
    for t in range(1, data.draw(st.integers(2, 3))):
        cuts = sorted(data.draw(st.lists(st.integers(0, sum(people)), max_size=5)))
        parts = [b - a for a, b in zip([0, *cuts], [*cuts, sum(people)], strict=True)]
        outputs.append(frequencies(f"t{t}", {f"g{i}": n for i, n in enumerate(parts)}))
    _attacked(outputs, same_people(*outputs))


@settings(max_examples=examples(20), deadline=None)
@given(st.lists(st.lists(CELL, min_size=3, max_size=3), min_size=2, max_size=4))
def test_no_withheld_number_of_a_table_with_margins_can_be_told(rows: list[list[int]]) -> None:
    """A table of two keys, and its row and column sums as tables of their own."""
    inner = frequencies("inner", {f"r{i}c{j}": n for i, row in enumerate(rows) for j, n in enumerate(row)})
    across = frequencies("across", {f"r{i}": sum(row) for i, row in enumerate(rows)})
    down = frequencies("down", {f"c{j}": sum(row[j] for row in rows) for j in range(3)})
    cell = dict(zip((key for (key,) in inner.row_keys()), places(inner), strict=True))
    relations = [
        *(
            Relation(tuple(cell[f"r{i}c{j}"] for j in range(3)), (("across", (f"r{i}",), "persons"),))
            for i in range(len(rows))
        ),
        *(
            Relation(tuple(cell[f"r{i}c{j}"] for i in range(len(rows))), (("down", (f"c{j}",), "persons"),))
            for j in range(3)
        ),
        *same_people(across, down),
    ]
    _attacked([inner, across, down], relations)


def _attacked(outputs: list[Output], relations: list[Relation]) -> None:
    released = release(outputs, relations, [], {}, "now")
    published = shown(released)
    true = {p: n for o in outputs for p, n in zip(places(o), o.cells["persons"], strict=True)}
    assert all(true[p] >= POLICY.threshold for p in published)
    hidden = hidden_of(outputs, published)
    for place, (low, high) in attack(hidden, published, relations).items():
        assert low <= true[place] <= high, "the attacker reckons rightly"
        assert high - low >= POLICY.threshold


def test_the_attacker_tells_what_is_not_protected() -> None:
    """The test's own attacker is good enough to notice: it finds a lone blank."""
    sex = frequencies("sex", {"F": 500, "M": 400, "not known": 4})
    group = frequencies("group", {"participants": 504, "comparison": 400})
    published = {p: 5 * round(n / 5) for o in (sex, group) for p, n in zip(places(o), o.cells["persons"], strict=True)}
    lone = ("sex", ("not known",), "persons")
    del published[lone]
    low, high = attack([lone], published, same_people(sex, group))[lone]
    assert (low, high) == (0, 13)
    exact = POLICY.__class__(base=1)
    true = {p: n for o in (sex, group) for p, n in zip(places(o), o.cells["persons"], strict=True) if p != lone}
    assert attack([lone], true, same_people(sex, group), exact)[lone] == (4, 4)


def test_numbers_that_do_not_add_up_stop_everything() -> None:
    a, b = frequencies("a", {"x": 100, "y": 3}), frequencies("b", {"x": 100, "y": 50})
    with pytest.raises(UnsoundRelationError, match="a and b"):
        release([a, b], same_people(a, b), [], {}, "now")


def test_what_nothing_bounds_is_unbounded() -> None:
    a, b = frequencies("a", {"x": 3}), frequencies("b", {"y": 3})
    hidden = hidden_of([a, b], {})
    assert all(high == math.inf for _, high in attack(hidden, {}, same_people(a, b)).values())
