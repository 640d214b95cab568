"""Reconciliation of the whole flow without a broker: what balances, what waits, and what is named when it does not."""

from __future__ import annotations

import random

from tests.stream_processors.accounted import flow, published, report_of


def test_a_flow_at_rest_balances_batch_by_batch() -> None:
    driver = flow()
    ids = published(driver)
    driver.run(7)
    found = report_of(driver)
    assert [f.text for f in found.findings] == []
    assert found.state == "balanced"
    by_id = {b.batch_id: b for b in found.batches}
    assert len(by_id) == len(ids)
    absences = by_id[ids["absences"]]
    assert (absences.published, absences.accepted, absences.quarantined) == (95, 93, 2)
    for b in found.batches:
        assert b.published == b.accepted + b.deletions + b.quarantined
        assert b.accepted == b.replaced_at_once + sum(b.outcomes.values()) + b.no_longer_held


def test_before_the_flow_is_at_rest_it_is_pending_and_nothing_is_alarmed() -> None:
    driver, chance = flow(5), random.Random(5)
    published(driver)
    for _ in range(60):
        found = report_of(driver)
        assert [f.text for f in found.findings] == []
        assert found.state == "pending"
        driver.step(chance.choice(driver.ready()), 20)
