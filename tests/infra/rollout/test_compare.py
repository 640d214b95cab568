"""What a new edition would change, in counts."""

from __future__ import annotations

import polars as pl

from infra.rollout.compare import DATASETS, Count, compare


def persons(*rows: tuple[int, int, str, int]) -> pl.DataFrame:
    """Key, digest, group and absences of each person."""
    key, digest, group, absence = zip(*rows, strict=True) if rows else ((), (), (), ())
    none = dict.fromkeys(DATASETS, pl.Series([0] * len(rows), dtype=pl.Int64))
    return pl.DataFrame({"key": key, "digest": digest, "group": group, **none, "absence": absence})


def links(*rows: tuple[int, str, str | None, str | None]) -> pl.DataFrame:
    """Subject, outcome, match key and person of each subject of dfe."""
    names = ("subject", "outcome", "match_key", "person")
    schema = {"subject": pl.Int64, **dict.fromkeys(names[1:], pl.String)}
    return pl.DataFrame(list(rows), schema=schema, orient="row").with_columns(supplier=pl.lit("dfe"))


OLD = persons((1, 10, "participant", 2), (2, 20, "participant", 0), (3, 30, "comparison", 1))
NEW = persons((1, 10, "participant", 2), (2, 21, "participant", 1), (4, 40, "comparison", 1))
OLD_LINKS = links(
    (1, "linked", "k01", "a"), (2, "linked", "k02", "b"), (3, "waiting", None, None), (4, "linked", "k01", "c")
)
NEW_LINKS = links(
    (1, "linked", "k01", "a"), (2, "linked", "k02", "d"), (3, "linked", "k09", "c"), (4, "ambiguous", None, None)
)


def test_persons_are_counted_by_what_becomes_of_them() -> None:
    found = compare(OLD, NEW, OLD_LINKS, NEW_LINKS)
    assert found.persons == {"alike": 1, "changed": 1, "added": 1, "removed": 1}
    assert not found.alike


def test_records_and_match_rates_are_told_of_both() -> None:
    found = compare(OLD, NEW, OLD_LINKS, NEW_LINKS)
    assert Count("absence", 3, 4) in found.records
    assert Count("participant, absence", 0.5, 1.0) in found.match_rate
    assert Count("comparison, persons", 1, 1) in found.match_rate


def test_links_are_counted_by_match_key_and_by_what_becomes_of_them() -> None:
    found = compare(OLD, NEW, OLD_LINKS, NEW_LINKS)
    assert found.links == [
        Count("dfe, ambiguous", 0, 1),
        Count("dfe, k01", 2, 1),
        Count("dfe, k02", 1, 1),
        Count("dfe, k09", 0, 1),
        Count("dfe, waiting", 1, 0),
    ]
    assert found.moves == {"another person": 1, "newly linked": 1, "no longer linked": 1, "same person": 1}


def test_an_edition_is_like_itself() -> None:
    found = compare(OLD, OLD, OLD_LINKS, OLD_LINKS)
    assert found.alike
    assert found.persons == {"alike": 3, "changed": 0, "added": 0, "removed": 0}
