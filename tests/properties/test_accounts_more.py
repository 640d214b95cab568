"""Invariant 7 as a property: whatever is crashed, compacted, lost or late, nothing is alarmed that is not wrong."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from stream_processors.runtime.driver import Driver
from stream_processors.topology import NAMES, build
from tests.properties.test_convergence import EVENTS, QUICKER, happen
from tests.stream_processors.accounted import report_of
from tests.stream_processors.tables import CONTEXT, PARTITIONS, REGISTRY, Flow


@settings(QUICKER, max_examples=120)
@given(EVENTS, st.integers(0, 3), st.integers(1, 30))
def test_no_imbalance_is_seen_where_there_is_none(events: list[tuple[str, Any]], seed: int, batch: int) -> None:
    flow = Flow(seed)
    flow.driver = Driver([build(n, CONTEXT) for n in NAMES], PARTITIONS, seed, accounts=REGISTRY)
    for event in events:
        happen(flow, event)
        if event[0] == "run":
            assert [f.text for f in report_of(flow.driver).findings] == []
    flow.run(batch)
    found = report_of(flow.driver)
    assert [f.text for f in found.findings] == []
    assert found.state == "balanced"
