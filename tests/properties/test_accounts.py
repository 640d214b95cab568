"""Invariant 7 as a property: whatever is crashed, compacted, lost or late, nothing is alarmed that is not wrong."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from stream_processors.frequency import is_frequent
from stream_processors.runtime.driver import Driver
from stream_processors.topology import NAMES, build
from tests.properties.test_convergence import ANNA, EVENTS, QUICKER, happen
from tests.stream_processors.accounted import report_of
from tests.stream_processors.tables import CONTEXT, PARTITIONS, REGISTRY, Flow


@QUICKER
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


def test_a_token_that_too_many_share_is_no_claim() -> None:
    flow = Flow()
    flow.driver = Driver([build(n, CONTEXT) for n in NAMES], PARTITIONS, accounts=REGISTRY)
    for n in range(8):
        flow.put("council-northam", "person", person_id=f"n{n}", programme_status="participant", **ANNA)
    flow.run()
    rows = [key for log in flow.driver.topics["state.link"] for r in log.records if (key := r.key) is not None]
    assert any(is_frequent(key) for key in rows)
    assert [f.text for f in report_of(flow.driver).findings] == []
