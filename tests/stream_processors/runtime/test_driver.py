"""The brokerless driver is Kafka enough: logs, compaction, transactions, crashes."""

from __future__ import annotations

import datetime

import msgpack
import pytest

from stream_processors.runtime.driver import Driver, Log, reads_topic
from tests.stream_processors.tables import Flow

WHO = {"forename": "Anna", "surname": "Smith", "date_of_birth": datetime.date(2001, 3, 4), "postcode": "SE6 1AA"}


def log_of(*records: tuple[bytes, bytes | None]) -> Log:
    log = Log()
    for key, value in records:
        log.append(key, value, 0)
    return log


def test_compaction_keeps_the_last_of_each_key_at_its_offset() -> None:
    log = log_of((b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"b", None))
    log.compact(drop_tombstones=False)
    assert [(r.offset, r.key, r.value) for r in log.records] == [(2, b"a", b"3"), (3, b"b", None)]
    log.compact(drop_tombstones=True)
    assert [(r.offset, r.key) for r in log.records] == [(2, b"a")]
    assert log.end == 4


def test_a_log_is_read_from_an_offset_up_to_another() -> None:
    log = log_of(*((bytes([i]), b"") for i in range(5)))
    log.compact(drop_tombstones=False)
    assert [r.offset for r in log.read(1, count=2)] == [1, 2]
    assert [r.offset for r in log.read(1, stop=4)] == [1, 2, 3]
    assert log.read(5) == []


def test_a_table_is_the_last_value_of_each_live_key() -> None:
    driver = Driver([], 2)
    for partition, key, value in ((0, b"a", b"1"), (1, b"b", b"2"), (0, b"a", b"3"), (1, b"b", None)):
        driver.append("t", partition, key, value)
    assert driver.table("t") == {b"a": b"3"}
    assert driver.table("unheard") == {}


def test_patterns_name_topics_and_nobody_reads_quarantine() -> None:
    assert reads_topic(["identified.*"], "identified.dfe.person")
    assert not reads_topic(["identified.*"], "identified.dfe.quarantine")
    assert not reads_topic(["linkage.link"], "linkage.links")


def populated() -> Flow:
    flow = Flow()
    flow.put("council-northam", "person", person_id="n1", programme_status="participant", **WHO)
    flow.put("dfe", "person", UPN="u1", **WHO)
    flow.put("dfe", "absence", UPN="u1", record_id="r1", SessionsPossible_3Term=300)
    return flow


def test_at_rest_nothing_is_left_to_do() -> None:
    flow = populated()
    assert flow.driver.run() > 0
    assert flow.driver.run() == 0
    assert not any(flow.driver.behind(t, topic) for t in flow.driver.tasks for topic in flow.driver.topics)


def test_only_those_that_are_named_run() -> None:
    flow = populated()
    flow.driver.run(only={"pseudonymise"})
    assert flow.driver.table("linkage.identity")
    assert not flow.driver.table("linkage.candidate")


@pytest.mark.parametrize("crash", ["before", "after"])
def test_each_step_may_crash_once_and_the_end_is_the_same(crash: str) -> None:
    plain, crashing = populated(), populated()
    plain.run()
    for _ in range(40):
        for task in crashing.driver.tasks:
            crashing.driver.step(task, 1, crash)
            if crash == "before":
                crashing.driver.step(task, 1)
    crashing.run()
    assert_alike(crashing, plain)


@pytest.mark.parametrize("crash", [None, "before", "after", "abort"])
def test_a_step_ahead_of_the_commit_changes_nothing(crash: str | None) -> None:
    plain, ahead = populated(), populated()
    plain.run()
    for _ in range(20):
        for task in ahead.driver.tasks:
            ahead.driver.step(task, 1, crash, ahead=2)
            if crash in ("before", "abort"):
                ahead.driver.step(task, 1)
    ahead.run()
    assert_alike(ahead, plain)


def test_a_crash_before_the_commit_leaves_no_trace() -> None:
    flow = populated()
    flow.driver.run(only={"pseudonymise"})
    before = {topic: [log.end for log in logs] for topic, logs in flow.driver.topics.items()}
    for partition in range(flow.driver.partitions):
        flow.driver.step(("route", partition), 10, "before")
        assert not any(flow.driver.state(("route", partition)).values())
    assert {t: ends for t, ends in before.items() if any(ends)} == {
        t: [log.end for log in logs] for t, logs in flow.driver.topics.items() if any(log.end for log in logs)
    }


def test_state_that_is_lost_is_rebuilt_without_a_word() -> None:
    flow = populated()
    flow.run()
    state = {task: flow.driver.state(task) for task in flow.driver.tasks}
    before = {topic: [log.end for log in logs] for topic, logs in flow.driver.topics.items()}
    for task in flow.driver.tasks:
        flow.driver.crash(task, lose_state=True)
        assert flow.driver.state(task) == state[task]
    flow.driver.run()  # asks those that say in parts whether there is more
    assert {topic: [log.end for log in logs] for topic, logs in flow.driver.topics.items()} == before


@pytest.mark.parametrize("name", ["pseudonymise", "route", "link", "join", "publish"])
def test_who_missed_tombstones_takes_back_what_is_gone(name: str) -> None:
    flow = populated()
    flow.run()
    flow.delete("council-northam", "person", "n1")
    flow.delete("dfe", "person", "u1")
    flow.delete("dfe", "absence", "u1", "r1")
    before = ["pseudonymise", "route", "link", "join", "publish"]
    flow.driver.run(only=set(before[: before.index(name)]))
    for logs in flow.driver.topics.values():
        for log in logs:
            log.compact(drop_tombstones=True)
    for task in flow.driver.tasks:
        if task[0] == name:
            flow.driver.lag(task)
    flow.run()
    for topic in ("linkage.identity", "linkage.candidate", "linkage.link", "linkage.contribution", "research.person"):
        assert flow.driver.table(topic) == {}, topic


def test_one_seed_gives_one_order() -> None:
    logs = []
    for _ in range(2):
        flow = populated()
        flow.run(3)
        logs.append(
            {t: [[(r.key, r.value) for r in log.records] for log in of] for t, of in flow.driver.topics.items()}
        )
    assert logs[0] == logs[1]


def assert_alike(flow: Flow, other: Flow) -> None:
    """Both have said the same, and remember the same."""
    for topic in ("linkage.contribution", "linkage.link", "research.person"):
        assert flow.driver.table(topic) == other.driver.table(topic)
    for task in other.driver.tasks:
        assert _unordered(flow.driver.state(task)) == _unordered(other.driver.state(task))


def _unordered(state: dict[str, dict[bytes, bytes]]) -> dict[str, dict[bytes, object]]:
    """A person's contributions are held in the order in which they came, which is nobody's business."""
    return {
        table: {key: msgpack.unpackb(value) if table == "persons" else value for key, value in rows.items()}
        for table, rows in state.items()
    }
