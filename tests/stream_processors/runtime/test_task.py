"""A task: one step is a function of store and batch; the changelog moves with the outputs."""

from __future__ import annotations

from stream_processors.runtime.records import HEARTBEAT_KEY, Inputs
from stream_processors.runtime.state import MemoryStore, Position
from stream_processors.runtime.task import Task
from tests.stream_processors.tables import Bench


def stepped() -> Bench:
    """A route with two subjects."""
    bench = Bench("route")
    bench(identity="subject | blocks\n s1 | 1:a\n s2 | 1:b", gives="subject\n s1\n s2")
    return bench


def inputs_of(bench: Bench, text: str) -> Inputs:
    """A table as one batch."""
    records = bench.records("linkage.identity", text)
    places = list(range(len(records)))
    return Inputs("linkage.identity", 0, [k for k, _ in records], [v for _, v in records], places, places)


def test_what_was_said_goes_to_the_changelog_as_the_table_has_it() -> None:
    bench = stepped()
    assert {(s.topic, s.partition) for s in bench.changelog} == {("state.route", bench.partition)}
    assert {s.key: s.value for s in bench.changelog} == dict(bench.task.store.scan("sent_blocks", b""))


def test_a_changelog_restores_what_was_said() -> None:
    bench = stepped()
    again = Task(bench.task.processor, 0, MemoryStore())
    again.restore_said([(s.key, s.value) for s in bench.changelog], Position({}))
    assert dict(again.store.scan("sent_blocks", b"")) == dict(bench.task.store.scan("sent_blocks", b""))
    first = bench.changelog[0].key
    again.restore_said([(first, None), (HEARTBEAT_KEY, None), (b"unheard", None)], Position({}))
    assert first not in dict(again.store.scan("sent_blocks", b""))


def test_inputs_restore_what_is_true_and_nothing_else() -> None:
    bench = stepped()
    again = Bench("route")
    again.task.restore_inputs(
        [inputs_of(again, "subject | blocks\n s1 | 1:a\n s2 | 1:b")], Position({"linkage.identity": 2})
    )
    assert dict(again.task.store.scan("identities", b"")) == dict(bench.task.store.scan("identities", b""))
    assert dict(again.task.store.scan("sent_blocks", b"")) == {}
    assert again.task.store.position() == Position({"linkage.identity": 2})


def test_heartbeats_reach_no_processor() -> None:
    bench = Bench("route")
    assert bench.take([("linkage.identity", [(HEARTBEAT_KEY, None)])]) == []
    assert dict(bench.task.store.scan("identities", b"")) == {}


def test_a_step_that_is_not_committed_changes_nothing() -> None:
    bench = Bench("route")
    inputs = [inputs_of(bench, "subject | blocks\n s1 | 1:a")]
    assert bench.task.step(inputs).outputs.emits == bench.task.step(inputs).outputs.emits
    assert dict(bench.task.store.scan("identities", b"")) == {}


def test_a_step_upon_one_that_is_not_committed_sees_what_that_one_wrote() -> None:
    ahead, plain = Bench("route"), Bench("route")
    batches = ["subject | blocks\n s1 | 1:a\n s2 | 1:b", "subject | blocks\n s1 | 1:c"]
    first = ahead.task.step([inputs_of(ahead, batches[0])])
    second = ahead.task.step([inputs_of(ahead, batches[1])], first)
    ahead.task.commit(first, Position({}))
    ahead.task.commit(second, Position({}))
    for text, step in zip(batches, (first, second), strict=True):
        alone = plain.task.step([inputs_of(plain, text)])
        plain.task.commit(alone, Position({}))
        assert step.outputs.emits == alone.outputs.emits
    assert dict(ahead.task.store.scan("identities", b"")) == dict(plain.task.store.scan("identities", b""))


def test_what_is_true_is_said_anew_though_it_was_said_before() -> None:
    bench = stepped()
    before = dict(bench.task.store.scan("sent_blocks", b""))
    assert bench.reconcile() == [], "nothing differs"
    (step,) = bench.task.anew()
    assert sum(len(e.keys) for e in step.outputs.emits if e.topic == "linkage.candidate") == 2
    bench.task.commit(step, Position({}))
    assert dict(bench.task.store.scan("sent_blocks", b"")) == before
    (step,) = bench.task.anew([sorted(before)[0]])
    assert sum(len(e.keys) for e in step.outputs.emits if e.topic == "linkage.candidate") == 1


def test_a_ledger_is_not_said_anew() -> None:
    assert list(Bench("retention.activity").task.anew()) == []
