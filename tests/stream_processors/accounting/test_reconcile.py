"""Reconciliation of the whole flow without a broker: what balances, what waits, and what is named when it does not."""

from __future__ import annotations

import random

import pytest

from infra.bench import load
from producers.rejected import Rejected
from stream_processors.accounting.page import page
from stream_processors.runtime.account import ATTEMPTS, BATCH_HEADER
from stream_processors.runtime.partition import partition_of
from tests.stream_processors.accounted import flow, publish, published, records, report_of
from tests.stream_processors.tables import PARTITIONS


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


def test_records_with_a_value_carry_their_publication_as_far_as_the_head_of_the_linkage_zone_and_nothing_else() -> None:
    driver = flow()
    published(driver)
    driver.run(100)
    carried = {
        topic: {name for log in logs for r in log.records if r.value is not None for name, _ in r.headers}
        for topic, logs in driver.topics.items()
        if topic.startswith(("linkage.", "research."))
    }
    assert carried.pop("linkage.identity") == {BATCH_HEADER}
    assert carried.pop("linkage.activity") == {BATCH_HEADER}
    assert {"linkage.candidate", "linkage.link", "linkage.contribution", "research.person"} <= carried.keys()
    assert not any(carried.values())


def test_the_page_says_what_became_of_each_batch_and_why_rows_were_rejected() -> None:
    driver = flow()
    ids = published(driver)
    driver.run(100)
    found = report_of(driver).of("dfe", None)
    text = page(found, {ids["absences"]: [Rejected(7, "UPN", "<blank>")]}, 0, "dfe")
    assert text.count("<section") == len(found.batches) == 4
    assert '<td class="number">7</td><td>UPN</td><td>&lt;blank&gt;</td>' in text
    assert "council-northam" not in text
    assert not any(word in text for word in ("<script", "http:", "https:", "src="))


def test_a_supplier_sees_its_own_batches_and_nothing_of_the_flow() -> None:
    driver = flow()
    ids = published(driver)
    driver.run(100)
    whole = report_of(driver)
    assert {b.supplier for b in whole.of("council-northam", None).batches} == {"council-northam"}
    (one,) = whole.of(None, ids["absences"][:8]).batches
    assert one.batch_id == ids["absences"]
    assert whole.of(None, "zz").batches == []


@pytest.mark.parametrize("good", [True, False], ids=["good now", "fails again"])
def test_a_record_that_goes_back_from_quarantine_is_counted_in_its_batch_where_it_ends(good: bool) -> None:
    driver = flow()
    published(driver)
    *sound, (subject, key, value) = records("dfe", "absence", load.absences(30, 20, seed=8))
    id_ = publish(driver, "dfe", "absence", [*sound, (subject, key, b"nonsense")], name="failing")
    driver.run(100)

    def batch() -> tuple[str, int, int, int]:
        (found,) = [b for b in report_of(driver).batches if b.batch_id == id_]
        assert found.accepted == found.replaced_at_once + sum(found.outcomes.values()) + found.no_longer_held
        return found.state, found.published, found.accepted, found.quarantined

    assert batch() == ("balanced", 30, 29, 1)
    partition = partition_of(subject, PARTITIONS)
    log = driver.log("identified.dfe.absence", partition)
    failed = next(r for r in log.records if r.key == key and r.value == b"nonsense")
    (kept,) = [
        r for r in driver.log("identified.dfe.quarantine", partition).records if r.key == b"absence|" + key and r.value
    ]
    (belonging,) = [h for h in kept.headers if h[0] == BATCH_HEADER]
    assert belonging in failed.headers
    headers = [(ATTEMPTS, b"1"), belonging]
    driver.append("identified.dfe.absence", partition, key, value if good else b"still nonsense", 0, headers)
    driver.run(100)
    assert batch() == (("balanced", 30, 30, 0) if good else ("balanced", 30, 29, 1))
    assert report_of(driver).state == "balanced"
