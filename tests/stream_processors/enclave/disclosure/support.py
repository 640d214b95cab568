"""Tables as text, and an attacker who knows the rules and every published number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from scipy.optimize import linprog

from stream_processors.enclave.disclosure import Output, Policy, Relation, Release
from stream_processors.enclave.disclosure.outputs import Place

POLICY = Policy()


def frequencies(id_: str, counts: Mapping[str, int]) -> Output:
    """A table of persons by one key."""
    cells = pl.DataFrame(
        {"group": list(counts), "persons": list(counts.values())}, schema={"group": pl.String, "persons": pl.Int64}
    )
    return Output(id_, id_, "count", f"SELECT ... -- {id_}", cells, ("group",), ("persons",), ("persons",))


def same_people(*outputs: Output) -> list[Relation]:
    """All of them are of the same people."""
    first, *others = outputs
    return [Relation(places(first), places(o)) for o in others]


def places(output: Output) -> tuple[Place, ...]:
    return tuple((output.id, key, "persons") for key in output.row_keys())


def shown(released: Release, column: str = "persons") -> dict[Place, int]:
    """Every published number."""
    out: dict[Place, int] = {}
    for id_, p in released.published.items():
        if column in p.cells.columns:
            for row in p.cells.iter_rows(named=True):
                if row[column] is not None:
                    keys = tuple(str(v) for k, v in row.items() if not isinstance(v, int))
                    out[id_, keys, column] = row[column]
    return out


def attack(
    hidden: Sequence[Place], published: Mapping[Place, int], relations: Sequence[Relation], policy: Policy = POLICY
) -> dict[Place, tuple[float, float]]:
    """The least and the most of each hidden number, by linear programmes of the attacker's own.

    What is published lies within half a base of what it was, and is no less than the threshold.
    """
    every = sorted({*hidden, *published, *(p for r in relations for p in (*r.left, *r.right))})
    at = {p: i for i, p in enumerate(every)}
    half = policy.base // 2
    limits = [
        (max(policy.threshold, published[p] - half), published[p] + half) if p in published else (0, None)
        for p in every
    ]
    equations = np.zeros((len(relations), len(every)))
    for i, r in enumerate(relations):
        for sign, side in ((1, r.left), (-1, r.right)):
            for p in side:
                equations[i, at[p]] += sign
    out: dict[Place, tuple[float, float]] = {}
    for p in hidden:
        ends = []
        for sign in (1, -1):
            aim = np.zeros(len(every))
            aim[at[p]] = sign
            found = linprog(aim, A_eq=equations, b_eq=np.zeros(len(relations)), bounds=limits)
            assert found.status in (0, 3), found.message
            ends.append(sign * float(found.fun) if found.status == 0 else math.inf)
        # Whole numbers lie inside what fractions can be.
        out[p] = (math.ceil(ends[0] - 1e-6), math.floor(ends[1] + 1e-6) if ends[1] < math.inf else math.inf)
    return out


def hidden_of(outputs: Sequence[Output], published: Mapping[Place, int]) -> list[Place]:
    return [p for o in outputs for p in places(o) if p not in published]


def entry(released: Release, id_: str) -> Any:
    return next(e for e in released.log if e.id == id_)
