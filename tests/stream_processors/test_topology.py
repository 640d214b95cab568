"""The declarations hold together, and each way of breaking them is refused before anything runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from stream_processors.runtime.processor import Declaration
from stream_processors.runtime.state import Table
from stream_processors.topology import (
    NAMES,
    PARTITIONED_BY,
    TOPOLOGY,
    WRITERS,
    TopologyError,
    build,
    declaration,
    validate,
)
from tests.stream_processors.tables import CONTEXT


def changed(name: str, **attributes: Any) -> tuple[Declaration, ...]:
    """The topology with one declaration changed."""
    return tuple(replace(d, **attributes) if d.name == name else d for d in TOPOLOGY)


def test_the_topology_is_valid() -> None:
    validate()


@pytest.mark.parametrize(
    ("topology", "said"),
    [
        (changed("join", reads=("linkage.activity", "linkage.candidate")), "partitioned by"),
        (changed("join", by="person"), "partitioned by"),
        (changed("join", reads=("linkage.unheard",)), "partitioned by"),
        (changed("route", reads=("identified.*",), by="subject id"), "may not read the identified zone"),
        (changed("publish", reads=("research.person",), by="research id"), "may not read the research zone"),
        (changed("join", reads=("linkage.activity", "linkage.identity")), "tokens beside attributes"),
        (changed("join", writes=("linkage.link", "linkage.contribution")), "one writer"),
        (changed("route", writes=("linkage.candidate", "linkage.candidate")), "one writer"),
        (changed("join", writes=("linkage.contribution", "research.person")), "one writer"),
        (changed("route", keeps=(Table("a", "said"), Table("b", "said"))), "one changelog"),
        (tuple(d for d in TOPOLOGY if d.name != "route"), "which nobody writes"),
        (changed("publish", writes=("research.unheard",)), "one writer"),
    ],
)
def test_a_topology_that_contradicts_itself_is_refused(topology: tuple[Declaration, ...], said: str) -> None:
    with pytest.raises(TopologyError, match=said):
        validate(topology)


def test_one_zone_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    by = dict(PARTITIONED_BY) | {"identified.*": "subject"}
    monkeypatch.setattr("stream_processors.topology.PARTITIONED_BY", by)
    mixed = changed("pseudonymise", reads=("identified.*", "linkage.link"), by="subject")
    with pytest.raises(TopologyError, match="more than one zone"):
        validate(mixed)


def test_only_publish_may_write_the_research_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_processors.topology.WRITERS", dict(WRITERS) | {"research.person": "join"})
    topology = tuple(
        replace(d, writes=("linkage.contribution", "research.person"))
        if d.name == "join"
        else replace(d, writes=())
        if d.name == "publish"
        else d
        for d in TOPOLOGY
    )
    with pytest.raises(TopologyError, match="may not write the research zone"):
        validate(topology)


def test_every_processor_is_built_as_it_is_declared() -> None:
    for name in NAMES:
        assert build(name, CONTEXT).declaration is declaration(name)
    with pytest.raises(KeyError):
        build("unheard", CONTEXT)


@pytest.mark.parametrize("name", NAMES)
def test_a_key_is_read_by_the_one_processor_that_may_hold_it(name: str) -> None:
    read: list[str] = []

    def key(which: str) -> bytes:
        read.append(which)
        return b"k" * 32

    build(name, replace(CONTEXT, token_key=lambda: key("token"), research_key=lambda: key("research")))
    assert read == {"pseudonymise": ["token"], "publish": ["research"]}.get(name, [])
