"""Grants follow from the topology, and from nothing else; what contradicts the separation principle is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from infra.settings import Settings
from infra.topics import load, topics_of
from stream_processors.access import CLUSTER, Grant, grants, principals, validate
from stream_processors.topology import TOPOLOGY, TopologyError

TOPICS = [s.name for s in topics_of(Settings(), load().suppliers)]
GRANTS = grants(TOPICS)


def test_everybody_who_runs_has_grants_and_nobody_else() -> None:
    asked = set(principals(load().suppliers)) - {"admin", "broker"}
    assert {g.principal for g in GRANTS} == asked


def test_no_grant_changes_the_cluster() -> None:
    """Topics, settings and grants are made by admin alone, which is asked for none."""
    assert {g.operation for g in GRANTS} == {"read", "write", "describe", "describe configs"}
    looks = {Grant("operator", "cluster", CLUSTER, o) for o in ("describe", "describe configs")}
    assert {g for g in GRANTS if g.kind == "cluster"} == looks


def test_a_new_supplier_changes_its_own_grants_and_those_of_its_one_reader() -> None:
    more = [s.name for s in topics_of(Settings(), [*load().suppliers, "council-new"])]
    new = grants(more) - GRANTS
    assert grants(more) >= GRANTS
    assert {(g.principal, g.operation) for g in new if g.operation in ("read", "write")} == {
        ("supplier.council-new", "write"),
        ("pseudonymise", "read"),
        ("pseudonymise", "write"),
        ("quarantine", "read"),
        ("quarantine", "write"),
        ("control", "write"),
    }
    assert all("council-new" in g.name for g in new if g.principal != "supplier.council-new")


def test_a_topic_that_nothing_declares_is_open_to_nobody() -> None:
    for topic in ("identified.dfe.copy", "linkage.backup", "research.person.v2", "other"):
        found = {(g.principal, g.operation) for g in grants([*TOPICS, topic]) if g.name == topic}
        assert not [p for p, o in found if o == "read"], topic
        assert [p for p, o in found if o == "write"] == ["control"], "for heartbeats, where it is declared at all"


@pytest.mark.parametrize(
    ("grant", "why"),
    [
        (Grant("link", "topic", "identified.dfe.person", "read"), "link may not read the identified zone"),
        (Grant("operator", "topic", "identified.dfe.quarantine", "read"), "operator may not read the identified zone"),
        (Grant("link", "topic", "linkage.activity", "read"), "link would see tokens beside attributes"),
        (Grant("join", "topic", "linkage.identity", "read"), "join would see tokens beside attributes"),
        (Grant("operator", "topic", "research.person", "read"), "operator may not read the research zone"),
        (Grant("enclave", "topic", "linkage.link", "read"), "the enclave reads the research zone and nothing else"),
        (Grant("enclave", "topic", "governance.answer", "read"), "the enclave reads the research zone"),
        (Grant("enclave", "topic", "research.person", "write"), "the enclave writes acknowledgements"),
        (
            Grant("supplier.dfe", "topic", "identified.dfe.person", "read"),
            "supplier.dfe may not read the identified zone",
        ),
        (Grant("supplier.dfe", "topic", "governance.reconciliation", "read"), "supplier.dfe may read nothing"),
        (Grant("supplier.dfe", "topic", "identified.moj.person", "write"), "supplier.dfe may write its own records"),
        (Grant("supplier.dfe", "topic", "linkage.identity", "write"), "supplier.dfe may write its own records only"),
        (Grant("join", "topic", "research.person", "write"), "join may not write the research zone"),
        (Grant("link", "topic", "linkage.", "read", prefixed=True), "by its own name only"),
        (Grant("operator", "cluster", "kafka", "describe", prefixed=True), "by its own name only"),
        (Grant("admin", "topic", "research.person", "read"), "admin is asked for no grants"),
        (Grant("route", "transactional id", "lethe.link.a", "write", prefixed=True), "link could fence route"),
        (Grant("operator", "transactional id", "lethe.", "write", prefixed=True), "operator could fence"),
    ],
)
def test_what_contradicts_the_separation_principle_is_refused(grant: Grant, why: str) -> None:
    with pytest.raises(TopologyError, match=why):
        validate({*GRANTS, grant})


def test_a_declaration_that_reads_too_much_gets_no_grants_at_all() -> None:
    topology = tuple(replace(d, reads=(*d.reads, "linkage.activity")) if d.name == "link" else d for d in TOPOLOGY)
    with pytest.raises(TopologyError, match="link would see tokens beside attributes"):
        grants(TOPICS, topology)
