"""`topics.yaml`: what it declares, and what it must never declare."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from infra.settings import Settings
from infra.topics import FILE, TopicSpec, load, topics_of
from schemas import contracts

MB = 1024 * 1024


@pytest.fixture
def settings() -> Settings:
    return Settings(partitions=3)


@pytest.fixture
def specs(settings: Settings) -> dict[str, TopicSpec]:
    found = topics_of(settings, load().suppliers)
    assert len({s.name for s in found}) == len(found)
    return {s.name: s for s in found}


def test_every_kind_of_topic_is_there(settings: Settings) -> None:
    assert [s.name for s in topics_of(settings, ["moj", "council-hackney"])] == [
        "identified.moj.person",
        "identified.moj.offence",
        "identified.council-hackney.person",
        "identified.council-hackney.safeguarding",
        "identified.moj.quarantine",
        "identified.council-hackney.quarantine",
        "identified.council-hackney.enquiry",
        "linkage.identity",
        "linkage.activity",
        "linkage.candidate",
        "linkage.link",
        "linkage.contribution",
        "linkage.enquiry",
        "linkage.sought",
        "linkage.found",
        "linkage.unmatched",
        "linkage.suppression",
        "research.person",
        "research.edition",
        "governance.quarantine",
        "governance.clock",
        "governance.enquiry",
        "governance.erasure",
        "governance.finding",
        "governance.answer",
        "governance.audit",
        "governance.operation",
        "governance.batch",
        "governance.reconciliation",
        "governance.account",
        "governance.alert",
        "governance.acknowledgement",
        "governance.ledger",
        "state.route",
        "state.link",
        "state.join",
        "state.publish",
        "state.retention.identity",
        "state.retention.activity",
    ]


def test_every_contract_has_a_topic_and_each_topic_the_contract_of_its_name(specs: dict[str, TopicSpec]) -> None:
    assert {s.contract.name for s in specs.values() if s.contract} == set(contracts.names())
    for spec in specs.values():
        assert spec.contract == contracts.of_topic(spec.name)


def test_all_are_compacted_partitioned_alike_and_on_the_brokers_clock(specs: dict[str, TopicSpec]) -> None:
    for spec in specs.values():
        assert spec.partitions == 3
        assert spec.replication == load().replication
        assert spec.config["cleanup.policy"].split(",")[0] == "compact"
        assert spec.config["message.timestamp.type"] == "LogAppendTime"


def test_old_bytes_go_within_a_day(specs: dict[str, TopicSpec]) -> None:
    for spec in specs.values():
        lag, roll = int(spec.config["max.compaction.lag.ms"]), int(spec.config["segment.ms"])
        assert 0 < lag <= 12 * 3_600_000
        assert roll <= lag, "a segment that does not roll is not cleaned"


PASSING = {
    "identified.council-northam.enquiry",
    "identified.council-southam.enquiry",
    "identified.council-febrl.enquiry",
    "linkage.enquiry",
    "linkage.sought",
    "governance.enquiry",
    "governance.erasure",
    "linkage.found",
    "governance.finding",
    "governance.answer",
}


def test_enquiries_and_answers_are_held_for_an_hour_and_nothing_else_ends_unasked(specs: dict[str, TopicSpec]) -> None:
    ending = {n: int(s.config["retention.ms"]) for n, s in specs.items() if "delete" in s.config["cleanup.policy"]}
    assert ending == dict.fromkeys(PASSING, 3_600_000) | dict.fromkeys(
        ("governance.audit", "governance.operation"), 365 * 86_400_000
    )
    for name in PASSING:
        assert int(specs[name].config["segment.ms"]) <= 3_600_000 // 4, "what ends is whole segments"


def test_the_enclave_may_be_away_for_longer_than_a_worker(specs: dict[str, TopicSpec]) -> None:
    retention = {name: int(spec.config["delete.retention.ms"]) for name, spec in specs.items()}
    assert retention["research.person"] > retention["linkage.contribution"] > retention["state.publish"]


def test_values_of_5_mb_are_taken_in_and_can_be_quarantined(specs: dict[str, TopicSpec]) -> None:
    identified = specs["identified.dfe.person"].config["max.message.bytes"]
    quarantine = specs["identified.dfe.quarantine"].config["max.message.bytes"]
    assert (int(identified), int(quarantine)) == (8 * MB, 9 * MB)


def test_the_enclave_upgrades_when_it_likes(specs: dict[str, TopicSpec]) -> None:
    for spec in specs.values():
        if spec.contract is None:
            assert spec.compatibility is None
        elif spec.contract.zone == "research":
            assert spec.compatibility == "FULL_TRANSITIVE"
        else:
            assert spec.compatibility == "BACKWARD_TRANSITIVE"


def test_an_unknown_supplier_is_refused(settings: Settings) -> None:
    with pytest.raises(contracts.UnknownSupplierError):
        topics_of(settings, ["council"])


def test_a_spec_is_not_to_be_changed(specs: dict[str, TopicSpec]) -> None:
    with pytest.raises(TypeError):
        specs["linkage.link"].config["segment.ms"] = "1"  # type: ignore[index]


@pytest.mark.parametrize(
    "change",
    [
        {"replication": 0},
        {"suppliers": ["council"]},
        {"partitions": 4},
        {"kinds": {"linkage.link": {"contract": "linkage/link"}}},
        {"kinds": {"linkage.link": {"compatibility": "FULL_TRANSITIVE"}}},
        {"kinds": {"linkage.link": {"contract": "linkage/link", "compatibility": "NONE"}}},
    ],
)
def test_a_file_that_is_not_as_it_should_be_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    file = tmp_path / "topics.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(FILE.read_text()), **change}))
    with pytest.raises(ValidationError if "suppliers" not in change else ValueError):
        load(file)
