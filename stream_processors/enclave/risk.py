"""Disclosure risk of what the enclave holds: k-anonymity, l-diversity, and whom a motivated intruder singles out.

An equivalence class is the persons who share all quasi-identifiers; a missing value is a value like any other.

- k: the size of the smallest class (Sweeney, "k-anonymity", 2002).
- l of a sensitive attribute: the fewest distinct values in a class (Machanavajjhala et al., "l-diversity", 2007:
  distinct l-diversity). Over several attributes the least of them, each looked at by itself, as pycanon has it.
- singled out: the share of persons who are alone in their class, whom somebody would find who knows their birth year,
  sex and area from elsewhere (ICO, "Anonymisation: managing data protection risk", 2012: the motivated intruder).
"""

# ruff: noqa: S608  (names in the SQL are columns that were looked up in the file, quoted)

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from stream_processors.areas import LEVELS, Areas
from stream_processors.enclave import tables
from stream_processors.enclave.tables import KEY, PERSONS, quoted

QUASI = ("birth_year", "sex", "area")
STATUS = "programme_status"


class UnknownColumnError(ValueError):
    """The table persons has no such column."""


@dataclass(frozen=True)
class Risk:
    """Of one choice of quasi-identifiers and one level of area.

    `l` by sensitive attribute; `alone` persons of classes of one; `below` persons in classes smaller than each size.
    """

    quasi: tuple[str, ...]
    level: str
    persons: int
    classes: int
    k: int
    l: dict[str, int]  # noqa: E741  (its name in the literature)
    alone: int
    below: dict[int, int]

    @property
    def l_diversity(self) -> int:
        """The least l of all sensitive attributes."""
        return min(self.l.values(), default=0)

    @property
    def singled_out(self) -> float:
        """Share of persons who are alone in their class."""
        return self.alone / self.persons if self.persons else 0.0


def sensitive() -> dict[str, str]:
    """Sensitive attributes as SQL over persons: the programme, and whether there is anything of each dataset."""
    events = (t.name for t in tables.tables() if t.field)
    seen = {f"any_{name}": f"{KEY} IN (SELECT {KEY} FROM {quoted(name)})" for name in events}
    return {STATUS: quoted(STATUS), **seen}


def measure(
    connection: duckdb.DuckDBPyConnection,
    areas: Areas | None = None,
    quasi: Sequence[str] = QUASI,
    sizes: Sequence[int] = (3, 5, 10),
) -> list[Risk]:
    """The risk with area as it is held, and at each level that it could be widened to.

    Args:
        connection: with the enclave's tables.
        areas: to widen by; without, as held only.
        quasi: columns of persons.
        sizes: of classes, for `below`.

    Raises:
        UnknownColumnError: persons has no such column.
    """
    known = {c.name for c in tables.tables()[0].columns}
    unknown = [name for name in quasi if name not in known]
    if unknown:
        raise UnknownColumnError(f"persons has no column {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    out = [_measure(connection, tuple(quasi), "as held", None, sizes)]
    if areas is not None and "area" in quasi:
        for level, name in enumerate(LEVELS[1:], 1):
            wider = pa.table(
                {"area": pa.array(areas.wider, pa.string()), "wider": [w[level] for w in areas.wider.values()]}
            )
            out.append(_measure(connection, tuple(quasi), name, wider, sizes))
    return out


def _measure(
    connection: duckdb.DuckDBPyConnection,
    quasi: tuple[str, ...],
    level: str,
    wider: pa.Table | None,
    sizes: Sequence[int],
) -> Risk:
    attributes = sensitive()
    columns = [f"p.{quoted(q)}" if q != "area" or wider is None else "coalesce(w.wider, p.area)" for q in quasi]
    counted = "".join(
        # A missing value counts as one: distinct leaves nulls out.
        f", count(DISTINCT s{i}) + max((s{i} IS NULL)::INTEGER) AS l{i}"
        for i in range(len(attributes))
    )
    values = ", ".join(f"({sql}) AS s{i}" for i, sql in enumerate(attributes.values()))
    join = "LEFT JOIN lethe_wider w ON w.area = p.area" if wider is not None else ""
    names = [f"q{i}" for i in range(len(quasi))]
    keyed = ", ".join(f"{sql} AS {name}" for sql, name in zip(columns, names, strict=True))
    group = f" GROUP BY {', '.join(names)}" if names else ""
    least = "".join(f", min(l{i})" for i in range(len(attributes)))
    below = "".join(f", coalesce(sum(n) FILTER (n < {int(size)}), 0)" for size in sizes)
    if wider is not None:
        connection.register("lethe_wider", wider)
    try:
        (row,) = connection.execute(
            f"WITH person AS (SELECT {', '.join(filter(None, (keyed, values)))} FROM {PERSONS} p {join}), "
            f"class AS (SELECT count(*) AS n{counted} FROM person{group}) "
            "SELECT coalesce(sum(n), 0), count(*), coalesce(min(n), 0), "
            f"coalesce(sum(n) FILTER (n = 1), 0){below}{least} FROM class"
        ).fetchall()
    finally:
        if wider is not None:
            connection.unregister("lethe_wider")
    persons, classes, k, alone, *rest = (int(n or 0) for n in row)
    return Risk(
        quasi,
        level,
        persons,
        classes if persons else 0,
        k,
        dict(zip(attributes, rest[len(sizes) :], strict=True)),
        alone,
        dict(zip(sizes, rest, strict=False)),
    )
