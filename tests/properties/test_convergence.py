"""Invariants 1, 4 and 5 without a broker: whatever happens on the way, what is at rest is the oracle's.

Anything may happen in any order: records, corrections, tombstones, duplicates, records that nobody can read; tasks that
take what they like, die before or after a commit, or lose their state; logs that are compacted while somebody lags.
"""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from schemas.contracts import identified, identified_topic
from stream_processors import ledger
from stream_processors.retention import HEAD_ROW
from stream_processors.runtime.driver import reads_topic
from stream_processors.topology import NAMES
from tests.examples import examples
from tests.stream_processors.tables import CONTEXT, PARTITIONS, Flow, decoded, framed

QUICK = settings(deadline=None, max_examples=examples(9), suppress_health_check=list(HealthCheck))
QUICKER = settings(QUICK, max_examples=examples(5))

# A population so small that people collide: twins, namesakes, the same person twice, and wrong dates of birth.
DAYS = st.sampled_from([None, datetime.date(2013, 5, 6), datetime.date(2013, 7, 1), datetime.date(1900, 1, 1)])
SUBJECTS = {
    "council-northam": ("n1", "n2", "n3"),
    "council-southam": ("s1", "s2"),
    "dfe": ("u1", "u2", "u3"),
    "dwp": ("x1", "x2"),
}
IDENTITY: dict[str, st.SearchStrategy[Any]] = {
    "forename": st.sampled_from(["Anna", "Ann", "Beth", "A", None]),
    "middle_names": st.sampled_from([None, None, "Rose"]),
    "surname": st.sampled_from(["Smith", "Smyth", "Smith"]),
    "date_of_birth": st.sampled_from(
        [datetime.date(2001, 3, 4)] * 4
        + [datetime.date(2001, 4, 3), None, datetime.date(1850, 1, 2), datetime.date(1900, 1, 1)]
    ),
    "sex": st.sampled_from(["F", "M", "X", None]),
    "postcode": st.sampled_from(["SE6 1AA", "SE6 1AB", "SE6 2AA", None]),
}
ANNA = {
    "forename": "Anna",
    "surname": "Smith",
    "date_of_birth": datetime.date(2001, 3, 4),
    "sex": "F",
    "postcode": "SE6 1AA",
}
KNOWN: list[dict[str, Any]] = [
    ANNA,
    ANNA,
    ANNA | {"middle_names": "Rose"},
    ANNA | {"sex": None},  # k03: strict, but less so
    ANNA | {"postcode": "SE6 2AA"},  # k08: moved house
    ANNA | {"surname": "Jones"},  # k07: another surname
    ANNA | {"surname": "Smyth", "postcode": "SE6 1AB"},  # k10: sounds alike
    ANNA | {"forename": "Beth"},  # a twin
    ANNA | {"date_of_birth": datetime.date(2001, 4, 3)},  # another block; pass 2 finds day and month exchanged
    ANNA | {"date_of_birth": datetime.date(2001, 4, 3), "postcode": "SE6 2AA"},  # pass 3: and the person moved
    ANNA | {"date_of_birth": None},  # no block
]
"""Details that match each other by several keys, so that clusters, ambiguity and contests happen."""
COUNTS = st.sampled_from([None, 0, 3])
DATASETS: dict[tuple[str, str], dict[str, st.SearchStrategy[Any]]] = {
    **{
        (council, "person"): IDENTITY
        | {
            "family_id": st.sampled_from(["f1", "f2", None]),
            "programme_status": st.sampled_from(["participant", "comparison"]),
            "programme_start": DAYS,
            "criterion_crime": st.sampled_from([None, True, False]),
        }
        for council in ("council-northam", "council-southam")
    },
    ("council-northam", "safeguarding"): {
        "episode": st.sampled_from(["CIN", "LAC"]),
        "start_date": DAYS,
        "end_date": DAYS,
    },
    ("dfe", "person"): IDENTITY,
    ("dfe", "absence"): {"PeriodEnd": DAYS, "SessionsPossible_3Term": COUNTS},
    ("dwp", "person"): IDENTITY,
    ("dwp", "benefit"): {"benefit_type": st.sampled_from(["UC", "JSA"]), "start_date": DAYS},
}
BAD = (b"\x01nonsense", b"", b"\x00\x00\x00\x00\x01\x02")

Change = tuple[str, str, tuple[str, ...], bytes | None]
"""Supplier, dataset, ids, value."""
People = st.sampled_from([(s, d) for s, d in DATASETS for _ in range(4 if d == "person" else 1)])


@st.composite
def changes(draw: st.DrawFn, *of: str) -> Change:
    """One supplier record, or the end of one; `of`: supplier, dataset and subject, of which a record it must be."""
    supplier, dataset = draw(People) if not of else of[:2]
    contract = identified(supplier, dataset)
    ids = [of[2] if of else draw(st.sampled_from(SUBJECTS[supplier]))]
    if contract.record_field:
        ids.append(draw(st.sampled_from(["r1", "r2"])))
    kind = draw(st.sampled_from(["upsert"] * 6 + ["delete"] * 2 + ["bad"])) if not of else "upsert"
    if kind == "delete":
        return supplier, dataset, tuple(ids), None
    if kind == "bad":
        return supplier, dataset, tuple(ids), draw(st.sampled_from(BAD))
    named = dict(zip((n for n in (contract.subject_field, contract.record_field) if n), ids, strict=True))
    row = named | {name: draw(values) for name, values in DATASETS[supplier, dataset].items()}
    if dataset == "person" and draw(st.integers(0, 6)):
        row |= dict.fromkeys(IDENTITY) | draw(st.sampled_from(KNOWN))
    return supplier, dataset, tuple(ids), framed(identified_topic(supplier, dataset), row)


def fates() -> st.SearchStrategy[tuple[str, Any]]:
    """What happens besides records: steps with and without a crash, and with a second one ahead; lost state,
    compaction, lag, an outage, and the stages of a rotation of keys.

    In an outage one processor stands still while records come and those before it go on; then logs are compacted and
    its state is lost.
    """
    which = st.integers(0, len(NAMES) * PARTITIONS - 1)
    return st.one_of(
        st.tuples(
            st.just("step"),
            st.tuples(
                which,
                st.integers(1, 5),
                st.sampled_from([None, None, "before", "after", "abort"]),
                st.sampled_from([0, 1, 3]),
            ),
        ),
        *[st.tuples(st.just("run"), st.integers(1, 50))] * 2,
        st.tuples(st.just("crash"), st.tuples(which, st.booleans())),
        st.tuples(st.just("compact"), st.tuples(st.integers(0, 1_000), st.booleans())),
        st.tuples(st.sampled_from(["lag", "replay"]), which),
        st.tuples(st.just("outage"), st.tuples(st.sampled_from(NAMES), st.booleans(), st.lists(changes(), max_size=4))),
        st.tuples(st.just("again"), st.integers(0, 1_000)),
        st.tuples(st.just("rotate"), st.none()),
    )


@st.composite
def populations(draw: st.DrawFn) -> list[Change]:
    """Most subjects, most of whom match somebody, and some of what they did."""
    out = []
    for supplier, subjects in SUBJECTS.items():
        for subject in subjects:
            if draw(st.integers(0, 4)):
                out.append(draw(changes(supplier, "person", subject)))
                dataset = {"dfe": "absence", "dwp": "benefit"}.get(supplier)
                if dataset:
                    out.append(draw(changes(supplier, dataset, subject)))
    return out


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, Any]]:
    """A population, and what becomes of it."""
    start = [("record", change) for change in draw(populations())]
    then = st.lists(st.one_of(st.tuples(st.just("record"), changes()), fates()), max_size=20)
    return [*start, ("run", draw(st.integers(1, 50))), *draw(then)]


EVENTS = histories()


def happen(flow: Flow, event: tuple[str, Any]) -> None:
    """Let one thing happen to the flow."""
    driver, (kind, what) = flow.driver, event
    if kind == "record":
        flow.raw(*what)
    elif kind == "again":
        supplied = [(t, p) for t in driver.topics for p in range(PARTITIONS) if t.startswith("identified.")]
        records = [(t, p, r) for t, p in supplied if "quarantine" not in t for r in driver.log(t, p).records]
        if records:
            topic, partition, _ = records[what % len(records)]
            key = records[what % len(records)][2].key
            last = next(r for r in reversed(driver.log(topic, partition).records) if r.key == key)
            driver.append(topic, partition, last.key, last.value)
    elif kind == "step":
        task = driver.tasks[what[0]]
        driver.step(task, *what[1:])
    elif kind == "run":
        driver.run(batch=what)
    elif kind == "crash":
        driver.crash(driver.tasks[what[0]], lose_state=what[1])
    elif kind == "rotate":
        flow.rotate()
    elif kind == "replay":
        driver.replay(driver.tasks[what])
    elif kind == "lag":
        driver.lag(driver.tasks[what])
    elif kind == "outage":
        name, drop_tombstones, meanwhile = what
        driver.run()
        for change in meanwhile:
            flow.raw(*change)
        driver.run(only=NAMES[: NAMES.index(name)])
        for logs in driver.topics.values():
            for log in logs:
                log.compact(drop_tombstones)
        for task in driver.tasks:
            if drop_tombstones and task[0] in NAMES[NAMES.index(name) :]:
                driver.lag(task)
            else:
                driver.crash(task, lose_state=task[0] == name)
    elif driver.topics:
        compact(flow, *what)


def compact(flow: Flow, which: int, drop_tombstones: bool) -> None:
    """Compact one partition; who had not read a tombstone that is dropped has lagged, and must know."""
    driver = flow.driver
    topic = list(driver.topics)[which % len(driver.topics)]
    partition = which // len(driver.topics) % PARTITIONS
    behind = [
        task
        for task in driver.tasks
        if task[1] == partition and reads_topic(driver.declaration(task[0]).reads, topic) and driver.behind(task, topic)
    ]
    driver.log(topic, partition).compact(drop_tombstones)
    if drop_tombstones:
        for task in behind:
            driver.lag(task)


@QUICK
@given(EVENTS, st.integers(0, 3), st.integers(1, 30))
def test_at_rest_all_is_as_the_oracle_says_and_as_in_a_fresh_run(
    events: list[tuple[str, Any]], seed: int, batch: int
) -> None:
    flow = Flow(seed)
    for event in events:
        happen(flow, event)
    flow.run(batch)
    fresh = Flow(seed + 1, flow.context)
    assert flow.differences() == []
    for topic, logs in flow.driver.topics.items():
        if topic.startswith("identified.") and not topic.endswith("quarantine"):
            for partition, log in enumerate(logs):
                for key, value in flow.live_values(log):
                    fresh.driver.append(topic, partition, key, value)
    fresh.run()
    for topic in ("linkage.identity", "linkage.candidate", "linkage.link", "linkage.activity", "linkage.contribution"):
        assert flow.driver.table(topic) == fresh.driver.table(topic), topic
    assert flow.driver.table("research.person") == fresh.driver.table("research.person")
    kept = {task: unpacked(flow.driver.state(task)) for task in flow.driver.tasks}
    for task, state in kept.items():
        assert state == unpacked(fresh.driver.state(task)), task
    assert ledger_faults(flow) == []
    assert fresh.driver.table(ledger.TOPIC) == {}
    ends = chain_ends(flow)
    for task in flow.driver.tasks:
        flow.driver.crash(task, lose_state=True)
    flow.run(batch)
    assert {task: unpacked(flow.driver.state(task)) for task in flow.driver.tasks} == kept
    assert chain_ends(flow) == ends


@pytest.mark.parametrize("k", [2, 3])
@QUICKER
@given(EVENTS, st.integers(0, 3), st.integers(1, 30))
def test_areas_that_are_widened_end_as_the_oracle_says(
    k: int, events: list[tuple[str, Any]], seed: int, batch: int
) -> None:
    flow = Flow(seed, replace(CONTEXT, k_anonymity=k))
    for event in events:
        happen(flow, event)
    flow.run(batch)
    assert flow.differences() == []


SAYS = {
    "pseudonymise": "linkage.activity",
    "route": "linkage.candidate",
    "link": "linkage.link",
    "join": "linkage.contribution",
    "publish": "research.person",
}


@pytest.mark.parametrize("name", SAYS)
@settings(QUICK, max_examples=examples(5))
@given(populations(), st.integers(0, 1_000))
def test_a_replay_says_again_what_was_lost_on_the_way(name: str, people: list[Change], which: int) -> None:
    flow = Flow()
    for change in people:
        flow.raw(*change)
    flow.run()
    before = flow.driver.table(SAYS[name])
    assume(before)
    lost = sorted(before)[which % len(before)]
    for log in flow.driver.topics[SAYS[name]]:
        log.records[:] = [r for r in log.records if r.key != lost]
    for task in flow.driver.tasks:
        if task[0] == name:
            flow.driver.replay(task)
    flow.run()
    assert flow.driver.table(SAYS[name]) == before
    assert flow.differences() == []


PEOPLE = [(supplier, subject) for supplier, subjects in SUBJECTS.items() for subject in subjects]
DELETIONS = st.one_of(
    st.sampled_from(PEOPLE).map(lambda p: (p[0], "person", (p[1],), None)),
    st.sampled_from([("dfe", "absence", (u, r), None) for u in SUBJECTS["dfe"] for r in ("r1", "r2")]),
)


@pytest.mark.parametrize("name", NAMES)
@settings(QUICK, max_examples=examples(5))
@given(populations(), st.lists(st.one_of(DELETIONS, changes()), min_size=4, max_size=10))
def test_who_was_out_and_lost_its_state_takes_back_what_it_had_said(
    name: str, people: list[Change], meanwhile: list[Change]
) -> None:
    flow = Flow()
    for change in people:
        flow.raw(*change)
    happen(flow, ("outage", (name, False, meanwhile)))
    flow.run()
    assert flow.differences() == []


def _unplaced(row: bytes) -> Any:
    return msgpack.unpackb(row)[:-1] if row else row  # of the join's calendar, only the keys say something


def unpacked(tables: dict[str, dict[bytes, bytes]]) -> dict[str, dict[bytes, Any]]:
    """State without what says nothing: the order in which a person's contributions are packed, and where in the log a
    record lies that is due (the last item). Nor does it hold where the ledger's chains end: the ledger is of what was
    deleted, so it is the one thing that depends on more than what lives. `ledger_faults` holds the ends to it."""
    told = {"persons": msgpack.unpackb, "due": _unplaced, "calendar": _unplaced}
    return {
        t: {k: told.get(t, bytes)(v) for k, v in rows.items() if (t, k) != ("said", HEAD_ROW)}
        for t, rows in tables.items()
    }


def chain_ends(flow: Flow) -> dict[ledger.Chain, ledger.Head]:
    """Where retention has it that each chain of the ledger ends."""
    ends: dict[ledger.Chain, ledger.Head] = {}
    for name, partition in flow.driver.tasks:
        processor, _, kind = name.partition(".")
        if processor == "retention":
            row = flow.driver.state((name, partition))["said"].get(HEAD_ROW)
            _marks, *end = msgpack.unpackb(row) if row else (0,)
            ends[kind, partition] = ledger.Head(*end)
    return ends


def ledger_faults(flow: Flow) -> list[str]:
    """Where the ledger is not one line for each record that went, in chains that end where retention says."""
    records = [r for log in flow.driver.topics.get(ledger.TOPIC, []) for r in log.records]
    lines = [decoded(ledger.TOPIC, r.value) for r in records if r.value is not None]
    places = [(line["topic"], line["partition"], line["offset"]) for line in lines]
    twice = [f"{place}: two lines" for place in sorted(set(places)) if places.count(place) > 1]
    return ledger.verify(lines, chain_ends(flow)) + twice


@QUICKER
@given(st.lists(changes(), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_the_order_of_suppliers_and_subjects_changes_nothing(records: list[Change], shuffle: Any) -> None:
    last = {r[:3]: r for r in records}
    one, other = Flow(1), Flow(2)
    for r in last.values():
        one.raw(*r)
    mixed = list(last.values())
    shuffle.shuffle(mixed)
    for r in mixed:
        other.raw(*r)
        other.driver.run(1)
    one.run()
    assert one.driver.table("research.person") == other.driver.table("research.person")


@QUICKER
@given(st.lists(changes(), min_size=1, max_size=30))
def test_when_every_record_is_deleted_nothing_is_left(
    records: list[Change],
) -> None:
    flow = Flow()
    for r in records:
        flow.raw(*r)
    flow.run(3)
    for supplier, dataset, ids, _ in records:
        flow.delete(supplier, dataset, *ids)
    flow.run(5)
    # What says that it was there: the ledger, and where its chains end.
    ends = {"state.retention.identity", "state.retention.activity"}
    left = {topic for topic in flow.driver.topics if flow.driver.table(topic)}
    assert left <= {"governance.quarantine", "governance.ledger", *ends}
    assert {key for topic in ends for key in flow.driver.table(topic)} <= {HEAD_ROW}
    for task in flow.driver.tasks:
        tables = flow.driver.state(task)
        tables.pop("heard", None)  # how far join has read: topics and times
        assert {key for rows in tables.values() for key in rows} <= {HEAD_ROW}, task


@QUICKER
@given(st.lists(changes(), min_size=1, max_size=30))
def test_what_is_said_again_changes_nothing(
    records: list[Change],
) -> None:
    assume(any(r[3] for r in records))
    flow = Flow()
    for r in records:
        flow.raw(*r)
    flow.run()
    before = {topic: [log.end for log in logs] for topic, logs in flow.driver.topics.items()}
    for r in {r[:3]: r for r in records}.values():
        flow.raw(*r)
    flow.run()
    for topic in ("linkage.candidate", "linkage.link", "research.person", "state.route", "state.link", "state.join"):
        ends = [log.end for log in flow.driver.topics.get(topic, [])]
        assert ends == before.get(topic, []), topic


@pytest.mark.parametrize("drop_tombstones", [False, True])
def test_a_link_that_is_compacted_away_before_it_is_followed_is_still_taken_back(drop_tombstones: bool) -> None:
    flow = Flow()
    person = {"forename": "Anna", "surname": "Smith", "date_of_birth": datetime.date(2001, 3, 4), "postcode": "SE6 1AA"}
    flow.put("council-northam", "person", person_id="n1", programme_status="participant", **person)
    flow.put("dfe", "person", UPN="u1", **person)
    flow.put("dfe", "absence", UPN="u1", record_id="r1", SessionsPossible_3Term=300)
    flow.run()
    flow.put("dfe", "person", UPN="u1", **person | {"forename": "Grace", "date_of_birth": datetime.date(1993, 7, 21)})
    flow.driver.run(until=lambda: False, only={"pseudonymise", "route", "link"})
    for logs in flow.driver.topics.values():
        for log in logs:
            log.compact(drop_tombstones)
    for task in flow.driver.tasks:
        if drop_tombstones:
            flow.driver.lag(task)
        else:
            flow.driver.crash(task, lose_state=True)
    flow.run()
    assert flow.differences() == []
    assert [r["absence"] for r in flow.research().values()] == [[]]
