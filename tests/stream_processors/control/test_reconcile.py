"""A supplier's batch is accounted for to the record, as soon as pseudonymise has taken in all of it."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.rows import to_value
from stream_processors.control.reconcile import reconciled
from tests.stream_processors.tables import REGISTRY

BATCH: dict[str, Any] = {
    "supplier": "dfe",
    "dataset": "absence",
    "batch_id": "b" * 32,
    "read": 12,
    "published": 10,
    "rejected": 2,
    "starts": [100, 0, 7],
    "ends": [106, 4, 7],
}


@pytest.mark.parametrize(
    ("change", "failed", "committed", "gives"),
    [
        ({}, [], [106, 4, 0], ("agreed", 10, 0)),
        ({}, [(0, 105), (1, 0), (1, 0)], [106, 4, 7], ("agreed", 8, 2)),
        ({}, [(0, 99), (0, 106), (2, 7), (9, 1)], [106, 4, 7], ("agreed", 10, 0)),  # others' records
        ({}, [(0, 105)], [105, 4, 7], ("pending", 0, 1)),
        ({}, [], [106], ("pending", 0, 0)),
        ({"read": 13}, [], [106, 4, 7], ("differs", 0, 0)),
        ({"read": 22, "published": 20}, [], [106, 4, 7], ("differs", 0, 0)),  # the log holds fewer than were published
        ({"read": 0, "published": 0, "rejected": 0, "ends": [100, 0, 7]}, [], [0, 0, 0], ("agreed", 0, 0)),
    ],
)
def test_what_became_of_a_batch(
    change: dict[str, Any], failed: list[tuple[int, int]], committed: list[int], gives: tuple[str, int, int]
) -> None:
    row = reconciled(BATCH | change, failed, committed)
    assert (row["state"], row["accepted"], row["quarantined"]) == gives
    to_value("governance.reconciliation", row, REGISTRY)
