"""What somebody could work out about suppressed numbers from the published ones, and what else has to go.

Tables of the same people add up to the same totals, so a blank in one may follow from the others. The audit knows what
a reader knows (every published number, how it was rounded, which sums are equal) and asks, for each suppressed number,
for the least and the most that it can be: two integer programmes. Method: the audit of cell suppression, Fischetti and
Salazar (2001), doi:10.1287/mnsc.47.7.1008.9805; solver: HiGHS, in scipy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from stream_processors.enclave.disclosure.outputs import Key, Place, Policy, Relation
from stream_processors.enclave.disclosure.rules import bounds

Row = tuple[str, Key]
"""Id of an output and key of a row: a row is suppressed whole."""


def row_of(place: Place) -> Row:
    """The row that a number stands in."""
    return place[0], place[1]


def intervals(
    wanted: Sequence[Place], published: Mapping[Place, int], relations: Sequence[Relation], policy: Policy
) -> dict[Place, tuple[int, float]]:
    """The least and the most that each wanted number can be, given what is published (rounded) and what adds up.

    A number that is not published can be any whole number from 0; the most is infinite where nothing bounds it.
    """
    out: dict[Place, tuple[int, float]] = {}
    for component in _components(relations):
        places = sorted({p for r in component for p in (*r.left, *r.right)})
        at = {p: i for i, p in enumerate(places)}
        mine = [p for p in wanted if p in at]
        if mine:
            solved = _Programme(places, at, published, component, policy)
            out |= {p: solved.interval(at[p]) for p in mine}
    return {p: out.get(p, (0, math.inf)) for p in wanted}


class _Programme:
    """The integer programme of one component: a variable per number, an equation per relation."""

    def __init__(
        self,
        places: Sequence[Place],
        at: Mapping[Place, int],
        published: Mapping[Place, int],
        relations: Sequence[Relation],
        policy: Policy,
    ) -> None:
        shown = {p: bounds(published[p], policy) for p in places if p in published}
        # Higher than any number that is bounded can get; the solver wants a bound of every one.
        self._unbounded = sum(hi for _, hi in shown.values()) + 100 * policy.threshold
        limits = [shown.get(p, (0, self._unbounded)) for p in places]
        self._bounds = Bounds(np.array([lo for lo, _ in limits], float), np.array([hi for _, hi in limits], float))
        entries = [
            (i, at[p], sign)
            for i, r in enumerate(relations)
            for sign, side in ((1.0, r.left), (-1.0, r.right))
            for p in side
        ]
        rows, columns, signs = (np.array(c) for c in zip(*entries, strict=True))
        equations = coo_array((signs, (rows, columns)), shape=(len(relations), len(places)))
        self._equations = LinearConstraint(equations.tocsr(), 0, 0)
        self._count = len(places)

    def interval(self, i: int) -> tuple[int, float]:
        """The least and the most that a variable can be."""
        least, most = (self._solve(i, sign) for sign in (1.0, -1.0))
        return least, math.inf if most >= self._unbounded else most

    def _solve(self, i: int, sign: float) -> int:
        aim = np.zeros(self._count)
        aim[i] = sign
        found = milp(aim, integrality=np.ones(self._count), bounds=self._bounds, constraints=self._equations)
        if found.x is None:  # numbers that are true together are feasible
            raise UnsoundRelationError(f"the audit cannot be solved ({found.message})")
        return round(float(found.x[i]))


class UnsoundRelationError(ValueError):
    """A relation between outputs does not hold of the numbers."""


def _components(relations: Sequence[Relation]) -> list[list[Relation]]:
    """Relations that share numbers, together."""
    parent = list(range(len(relations)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[Place, int] = {}
    for i, r in enumerate(relations):
        for p in (*r.left, *r.right):
            parent[root(i)] = root(first.setdefault(p, i))
    groups: dict[int, list[Relation]] = {}
    for i, r in enumerate(relations):
        groups.setdefault(root(i), []).append(r)
    return list(groups.values())


def secondary(
    suppressed: Set[Row],
    true: Mapping[Place, int],
    published: Mapping[Place, int],
    relations: Sequence[Relation],
    policy: Policy,
) -> set[Row]:
    """Rows that have to go besides, so that no suppressed number is known to within less than the threshold.

    Args:
        suppressed: rows that the rules have already taken out.
        true: every number that a relation names, suppressed or not.
        published: the same, rounded, of the rows that are not suppressed.
        relations: what adds up.
        policy: the threshold and the base.

    Returns:
        More rows; with them gone, each suppressed number can be anything in an interval of the threshold's width.
    """
    for r in relations:
        if sum(true[p] for p in r.left) != sum(true[p] for p in r.right):
            raise UnsoundRelationError(f"numbers of {r.left[0][0]} and {r.right[0][0]} do not add up to the same")
    gone = set(suppressed)
    shown = {p: v for p, v in published.items() if row_of(p) not in gone}
    while True:
        involved = [r for r in relations if any(row_of(p) in gone for p in (*r.left, *r.right))]
        hidden = sorted({p for r in involved for p in (*r.left, *r.right) if row_of(p) in gone})
        found = intervals(hidden, shown, relations, policy)
        bare = [p for p in hidden if found[p][1] - found[p][0] < policy.threshold]
        if not bare:
            return gone - suppressed
        beside = {(q, p[0]) for p in bare for r in involved if p in (*r.left, *r.right) for q in (*r.left, *r.right)}
        # The smallest of the same table first: a blank there takes nothing from the others.
        candidates = sorted((q[0] != of, true[q], q) for q, of in beside if q in shown)
        if not candidates:  # no published number near: cannot be bounded by anything published
            raise UnsoundRelationError("a suppressed number is bounded by nothing that is published")
        gone.add(row_of(candidates[0][2]))
        shown = {p: v for p, v in shown.items() if row_of(p) not in gone}
