"""Erasure without a broker: whatever comes in whatever order, research.person = F(what was published less whom an
entry refuses), and nothing of them is left anywhere."""

from __future__ import annotations

from typing import Any

import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.contracts import identified
from stream_processors import ledger, oracle
from stream_processors.enquiry.person import PersonAsked
from stream_processors.erasure.order import Action, Target
from stream_processors.erasure.suppression import SuppressionKeys
from tests.examples import examples
from tests.properties.test_convergence import KNOWN, SUBJECTS, Change, changes, fates, happen, histories
from tests.stream_processors.tables import CONTEXT, PARTITIONS, RESEARCH_KEY, TOKEN_KEY, Flow, decoded, framed

QUICK = settings(deadline=None, max_examples=examples(8), suppress_health_check=list(HealthCheck))
KEYS = SuppressionKeys(TOKEN_KEY, CONTEXT.catalogue)
Event = tuple[str, Any]

TARGETS = st.one_of(
    st.sampled_from([(s, id_) for s, ids in SUBJECTS.items() for id_ in ids]).map(lambda t: Target(*t)),
    st.sampled_from(KNOWN).map(lambda details: Target(person=PersonAsked(**details))),
)
ORDERS = st.tuples(st.just("order"), st.tuples(st.sampled_from(["erase", "erase", "preview"]), TARGETS))


@st.composite
def stories(draw: st.DrawFn) -> list[Event]:
    """A population, then orders among records and whatever else may happen."""
    start = draw(histories())
    then = st.lists(st.one_of(ORDERS, st.tuples(st.just("record"), changes()), fates()), min_size=2, max_size=15)
    return [*start, draw(ORDERS), *draw(then)]


class Told(Flow):
    """A flow that remembers what suppliers have published."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.published: dict[tuple[str, str], dict[tuple[str, ...], bytes | None]] = {}
        self.orders = 0

    def raw(self, supplier: str, dataset: str, ids: Any, value: bytes | None) -> None:
        self.published.setdefault((supplier, dataset), {})[tuple(ids)] = value
        super().raw(supplier, dataset, ids, value)

    def take(self, event: Event) -> None:
        if event[0] == "order":
            action, target = event[1]
            self.command(action, target)
        else:
            happen(self, event)

    def command(self, action: Action, target: Target) -> None:
        """As `lethe erase` does: a person is looked for first, and erased if nobody needs to look closer."""
        self.orders += 1
        order_id = f"{self.orders:032x}"
        if target.person is not None:
            self.order(order_id, "preview", target)
            self.run()
            findings = {k: v for k, v in self.driver.table("governance.finding").items() if k[:32].decode() == order_id}
            outcomes = {decoded("governance.finding", v)["outcome"] for v in findings.values()}
            assert len(findings) == PARTITIONS
            if action == "preview" or outcomes - {"found", "nobody"}:
                return
        self.order(order_id, action, target)

    def should(self) -> oracle.Oracle:
        """F of the last of what was published of each key, less whom the entries refuse."""
        records: dict[str, dict[str, list[dict[str, Any]]]] = {}
        for (supplier, dataset), values in self.published.items():
            live = [v for v in values.values() if v is not None]
            records.setdefault(supplier, {})[dataset] = oracle.rows_of(identified(supplier, dataset), live)
        return oracle.research(
            records,
            TOKEN_KEY,
            RESEARCH_KEY,
            CONTEXT.catalogue,
            CONTEXT.areas.by_postcode,
            suppressed=self.suppressed(),
        )

    def left(self) -> list[str]:
        """Topics of the identified zone that still hold somebody who is refused."""
        refused, out = self.suppressed(), []
        for topic in self.driver.topics:
            zone, supplier, *_ = [*topic.split("."), ""]
            if zone != "identified":
                continue
            keys = [k.decode().removeprefix("@") for k in self.driver.table(topic)]
            at = 1 if topic.endswith("quarantine") else 0
            subjects = pl.DataFrame({"id": pl.Series([k.split("|")[at] for k in keys], dtype=pl.String)})
            out += [topic for h in subjects.select(KEYS.subject(supplier, pl.col("id"))).to_series() if h in refused]
        return out


@QUICK
@given(stories(), st.integers(0, 3), st.integers(1, 30))
def test_at_rest_all_is_as_if_who_is_refused_had_never_been_published(
    events: list[Event], seed: int, batch: int
) -> None:
    flow = Told(seed)
    for event in events:
        flow.take(event)
    flow.run(batch)
    expected = flow.should()
    assert oracle.equal(expected, flow.research()) + oracle.equal_links(expected, flow.links()) == []
    assert flow.differences() == []
    assert flow.left() == []
    lines = [
        decoded(ledger.TOPIC, r.value)
        for p in range(PARTITIONS)
        for r in flow.driver.log(ledger.TOPIC, p).records
        if r.value is not None
    ]
    assert ledger.verify(lines) == []
    for partition in range(PARTITIONS):
        flow.driver.lag(("pseudonymise", partition))
    flow.run(batch)
    assert oracle.equal(expected, flow.research()) == []
    assert flow.left() == []


@settings(QUICK, max_examples=examples(6))
@given(st.lists(changes(), min_size=1, max_size=20), TARGETS, st.randoms(use_true_random=False))
def test_an_entry_takes_back_what_came_before_it_and_refuses_what_comes_after(
    records: list[Change], target: Target, shuffle: Any
) -> None:
    """The same entries, wherever among the records they come: only the entries go over, not what they have done."""
    first = Told(1)
    for record in records:
        first.raw(*record)
    first.command("erase", target)
    first.run()
    entries = first.driver.table("linkage.suppression")
    other = Told(2)
    events: list[Any] = [*({r[:3]: r for r in records}.values()), *entries.items()]
    shuffle.shuffle(events)
    for event in events:
        if len(event) == 2:
            for partition in range(PARTITIONS):
                row = decoded("linkage.suppression", event[1]) | {"looked_in": -1}
                other.driver.append("linkage.suppression", partition, event[0], framed("linkage.suppression", row))
        else:
            other.raw(*event)
        other.driver.run(1)
    other.run()
    expected = other.should()
    assert oracle.equal(expected, other.research()) + oracle.equal_links(expected, other.links()) == []
    assert other.left() == []
