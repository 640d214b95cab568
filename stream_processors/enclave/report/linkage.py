"""Who could be linked: the share of people of whom a supplier's records were found, by group.

The research zone does not know who was looked for. So the share is of those whom the supplier should know: nearly
every child of school age has school records, nearly every adult a spell in work or on a benefit. Of offences and
health contacts most people truly have none; there only differences between like groups tell anything.
"""

# ruff: noqa: S608  (names in the SQL are this package's, and never of a record)

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from stream_processors.enclave.report.source import Source


@dataclass(frozen=True)
class Supplier:
    """One supplier: its tables, and ages (from, up to) at the start of those whom it should know."""

    name: str
    title: str
    tables: tuple[str, ...]
    ages: tuple[int, int]
    of_whom: str
    expects_all: bool


SUPPLIERS = (
    Supplier("dfe", "Schools", ("absence", "exclusion", "attainment"), (5, 14), "children of 5 to 13", True),
    Supplier("dwp", "Benefits and work", ("benefit", "employment"), (20, 65), "adults of 20 to 64", True),
    Supplier("moj", "Offences", ("offence",), (10, 120), "people aged 10 or over", False),
    Supplier("health", "Health services", ("contact",), (0, 120), "everyone", False),
)
_GROUPINGS = {
    "Group": "if(participant, 'Participants', 'Comparison')",
    "Sex": "CASE sex WHEN 'F' THEN 'Female' WHEN 'M' THEN 'Male' ELSE 'Other or not known' END",
    "Born": "(born // 10 * 10)::VARCHAR || 's'",
    "Area": "area_group",
}


def rates(source: Source, supplier: Supplier, area_of: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    """People and those linked, by group, and the query.

    Args:
        source: the tables.
        supplier: whose records.
        area_of: family and area_group.

    Returns:
        Columns grouping, group, persons, linked, unlinked. Every grouping is of the same people.
    """
    youngest, oldest = supplier.ages
    seen = " UNION ".join(f'SELECT DISTINCT person_id FROM "{t}"' for t in supplier.tables)
    parts = " UNION ALL ".join(
        f"SELECT {i} AS place, '{name}' AS grouping, {sql} AS \"group\", linked FROM expected"
        for i, (name, sql) in enumerate(_GROUPINGS.items())
    )
    query = f"""WITH seen AS ({seen}),
expected AS (
    SELECT c.*, a.area_group, s.person_id IS NOT NULL AS linked
    FROM cohort c JOIN area_of a USING (family) LEFT JOIN seen s USING (person_id)
    WHERE start // 12 - born >= {youngest} AND start // 12 - born < {oldest}
)
SELECT grouping, "group", count(*)::BIGINT AS persons, (count(*) FILTER (linked))::BIGINT AS linked,
       (count(*) FILTER (NOT linked))::BIGINT AS unlinked
FROM ({parts}) GROUP BY place, grouping, "group" ORDER BY place, grouping, if("group" = 'Participants', '', "group")"""
    source.connection.register("area_of", area_of.select("family", "area_group").to_arrow())
    try:
        return source.frame(query), query
    finally:
        source.connection.unregister("area_of")
