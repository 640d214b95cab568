"""What balances in every step of the whole flow."""

from __future__ import annotations

from stream_processors.runtime.driver import Driver
from stream_processors.topology import NAMES, build
from tests.stream_processors.accounted import published
from tests.stream_processors.tables import CONTEXT, PARTITIONS, REGISTRY


def imbalances(driver: Driver) -> list[tuple[str, str]]:
    return [
        (processor, i.rule)
        for (processor, _), a in driver.accountants.items()
        for account in a.accounts.values()
        for i in account.imbalances
    ]


def test_a_flow_with_corrections_deletions_and_bad_records_balances_in_every_step() -> None:
    driver = Driver([build(n, CONTEXT) for n in NAMES], PARTITIONS, seed=3, accounts=REGISTRY)
    published(driver)
    driver.run(7)
    assert imbalances(driver) == []
    assert len(driver.table("research.person")) > 0
