"""A supplier's batch is accounted for to the record, as soon as pseudonymise has taken in all of it."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.rows import to_value
from stream_processors.control.reconcile import reconciled
from stream_processors.runtime.account import REQUEUED, Account
from tests.stream_processors.tables import REGISTRY

PUBLICATION = "0" * 15 + "1"
BATCH: dict[str, Any] = {
    "supplier": "dfe",
    "dataset": "absence",
    "batch_id": "b" * 32,
    "read": 12,
    "published": 10,
    "rejected": 2,
    "starts": [100, 0, 7],
    "ends": [106, 4, 7],
    "counts": [6, 4, 0],
    "digests": ["0" * 16] * 3,
    "publication": PUBLICATION,
    "open": False,
    "published_ms": 0,
    "duplicates": 0,
    "warnings": 0,
}
READ = [6, 4, 0]


def accounts(read: list[int], quarantined: int = 0, requeued: int = 0, failed_again: int = 0) -> list[Account]:
    """Of all three partitions; what was quarantined lies in the first."""
    out = []
    for partition, (since, n) in enumerate(zip(BATCH["starts"], read, strict=True)):
        failed = quarantined if not partition else 0
        back = requeued if not partition else 0
        again = failed_again if not partition else 0
        counts = {"accepted": n - failed + back - again, "quarantined": failed + again, REQUEUED: back}
        whole = Account("pseudonymise", "identified.dfe.absence", partition, "", 0, since + n)
        out += [whole, Account("pseudonymise", whole.topic, partition, PUBLICATION, since, since + n, n, counts=counts)]
    return out


@pytest.mark.parametrize(
    ("change", "counted", "gives"),
    [
        ({}, accounts(READ), ("agreed", 10, 0)),
        ({}, accounts(READ, quarantined=2), ("agreed", 8, 2)),
        ({}, accounts(READ, quarantined=2, requeued=2), ("agreed", 10, 0)),  # they ended well, after all
        ({}, accounts(READ, quarantined=2, requeued=2, failed_again=1), ("agreed", 9, 1)),
        ({}, accounts(READ, quarantined=0, requeued=2), ("agreed", 10, 0)),  # all was read anew, after the fix
        ({}, accounts([5, 4, 0], quarantined=1), ("pending", 0, 1)),
        ({}, [], ("pending", 0, 0)),
        ({"read": 13}, accounts(READ), ("differs", 0, 0)),
        ({"read": 22, "published": 20}, accounts(READ), ("differs", 0, 0)),  # fewer lie in the partitions
        ({"counts": [7, 3, 0]}, accounts(READ), ("differs", 0, 0)),
        ({"digests": ["1" * 16] * 3}, accounts(READ), ("differs", 0, 0)),
        ({"read": 0, "published": 0, "rejected": 0, "counts": [0, 0, 0], "ends": [100, 0, 7]}, [], ("agreed", 0, 0)),
    ],
)
def test_what_became_of_a_batch(change: dict[str, Any], counted: list[Account], gives: tuple[str, int, int]) -> None:
    row = reconciled(BATCH | change, counted, 0)
    assert (row["state"], row["accepted"], row["quarantined"]) == gives
    to_value("governance.reconciliation", row, REGISTRY)
