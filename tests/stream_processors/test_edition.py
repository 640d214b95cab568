"""Editions: whose topic a name is, and what is shared."""

from __future__ import annotations

import pytest

from infra.rollout.retire import removable
from infra.settings import Settings
from infra.topics import topics_of
from stream_processors.access import Grant, grants, in_edition, validate
from stream_processors.edition import Edition, editions_of

V2 = Edition("v2")
SHARED = [
    "research.edition",
    "identified.dfe.person",
    "identified.council-northam.enquiry",
    "governance.clock",
    "governance.batch",
    "governance.operation",
    "governance.acknowledgement",
]
OWN = [
    "identified.dfe.quarantine",
    "linkage.identity",
    "linkage.sought",
    "research.person",
    "state.retention.identity",
    "governance.quarantine",
    "governance.account",
    "governance.ledger",
    "governance.finding",
]


@pytest.mark.parametrize("topic", SHARED)
def test_what_suppliers_and_operators_write_is_shared(topic: str) -> None:
    assert V2.topic(topic) == V2.plain(topic) == topic
    assert not V2.holds(topic)
    assert not Edition().holds(topic)


@pytest.mark.parametrize("topic", OWN)
def test_what_processors_write_is_an_editions_own(topic: str) -> None:
    assert V2.topic(topic) == f"{topic}.v2"
    assert V2.plain(f"{topic}.v2") == topic
    assert V2.holds(f"{topic}.v2")
    assert Edition().topic(topic) == topic
    assert Edition().holds(topic)
    assert not V2.holds(topic)
    assert not Edition().holds(f"{topic}.v2")
    assert not Edition("v3").holds(f"{topic}.v2")


def test_groups_and_transactional_ids_are_an_editions_own() -> None:
    assert (Edition().group("join"), V2.group("join")) == ("lethe.join", "lethe.join.v2")
    assert Edition().transactional_id("join", "m-1") == "lethe.join.m-1"
    assert V2.transactional_id("join", "m-1") == "lethe.join.v2.m-1"
    assert (Edition().folder("join"), V2.folder("join")) == ("join", "join@v2")


def test_editions_are_known_by_their_research_topic() -> None:
    assert editions_of(["research.person.v2", "research.person", "linkage.link.v9", "research.persons"]) == [
        Edition(),
        V2,
    ]


def test_the_topics_of_an_edition_stand_beside_the_plain_ones() -> None:
    plain, other = Settings(), Settings(edition="v2")
    names, others = ({s.name for s in topics_of(s, ["dfe", "council-northam"])} for s in (plain, other))
    assert names & others == {n for n in names if not Edition().holds(n)}
    assert {V2.plain(n) for n in others} == names
    assert {s.contract.name for s in topics_of(other, ["dfe"]) if s.name == "research.person.v2" and s.contract} == {
        "research/person"
    }


def test_a_retired_edition_leaves_what_is_shared_and_its_ledger() -> None:
    names = [s.name for e in ("", "v2") for s in topics_of(Settings(edition=e), ["dfe"])]
    gone = removable(V2, names)
    assert all(n.endswith(".v2") for n in gone)
    assert "governance.ledger.v2" not in gone
    assert "research.person.v2" in gone
    assert not [n for n in removable(Edition(), names) if n.endswith(".v2") or n in SHARED]


def test_an_edition_has_the_grants_of_its_own_topics() -> None:
    plain = grants(s.name for s in topics_of(Settings(), ["dfe"]))
    found = in_edition(plain, V2)
    assert in_edition(plain, Edition()) == plain
    assert Grant("enclave", "topic", "research.person.v2", "read") in found
    assert Grant("enclave", "topic", "research.person", "read") not in found
    assert Grant("join", "group", "lethe.join.v2", "read") in found
    assert Grant("pseudonymise", "topic", "identified.dfe.person", "read") in found
    validate(plain)
