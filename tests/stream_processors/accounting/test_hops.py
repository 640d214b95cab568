"""What reconciliation takes links to say of a subject: the same that the join follows."""

from __future__ import annotations

import polars as pl
import pytest

from stream_processors.accounting.hops import outcomes_of, persons_of

SUBJECT = "5" * 32


def links(rows: str) -> pl.DataFrame:
    """Links of one subject: block, role, outcome, person, match key, epoch and the epoch that leads, `-` for null."""
    names = ("block", "role", "outcome", "person_ref", "match_key", "epoch", "leading")
    cells = [[None if c == "-" else c for c in line.split()] for line in rows.strip().splitlines()]
    frame = pl.DataFrame(cells, schema=dict.fromkeys(names, pl.String), orient="row")
    return frame.with_columns(
        pl.col("epoch", "leading").cast(pl.Int64), key=SUBJECT + "|" + pl.col("block"), supplier=pl.lit("dwp")
    )


@pytest.mark.parametrize(
    ("rows", "person", "outcome"),
    [
        pytest.param("1:a department waiting - - 1 1", None, "waiting", id="nobody"),
        pytest.param(
            """1:a department waiting - - 1 1
               2:b department linked p k14 1 1""",
            "p",
            "linked",
            id="of a later pass",
        ),
        pytest.param(
            """1:a department waiting - - 1 1
               2:b department waiting - - 1 1
               2:c department linked p near2 2 1""",
            None,
            "waiting",
            id="of the epoch that is coming: nobody follows it yet",
        ),
        pytest.param(
            """1:a department linked p k01 1 2
               1:c department linked q k01 2 2
               2:d department linked p k14 1 1""",
            "q",
            "linked",
            id="of the epoch that was said last to lead",
        ),
        pytest.param("0:x cohort linked p closed 0 1", "p", "linked", id="of no epoch"),
    ],
)
def test_who_a_subject_is_while_keys_are_rotated(rows: str, person: str | None, outcome: str) -> None:
    table = links(rows)
    found = dict(persons_of(table).iter_rows())
    assert found.get(SUBJECT) == person
    assert outcomes_of(table)["outcome"].to_list() == [outcome]
