"""The loop with two batches in hand: one that the broker is committing, and the next, stepped upon it.

However the commit ends, what is said in the end is what one batch after the other says.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException

from infra.settings import Settings
from stream_processors.runtime import worker
from stream_processors.runtime.instance import Instance
from stream_processors.runtime.processor import Declaration
from stream_processors.runtime.records import Inputs, Outputs
from stream_processors.runtime.state import Table, View
from stream_processors.runtime.worker import Worker
from tests.stream_processors.runtime.broker import FIRST_MS, Broker

RECORDS = [b"a", b"b", b"a", b"c", b"b", b"a", b"a"]
BATCH = 2
SAID = [b"a=1", b"b=1", b"a=2", b"c=1", b"a=3", b"b=2", b"a=4"]
"""Of one batch after the other, in order of key within each."""
PATIENCE_S = 20.0
ABORT = KafkaError(KafkaError.INVALID_TXN_STATE, "refused", txn_requires_abort=True)
NOBODY_KNOWS = KafkaError(KafkaError._TIMED_OUT, "no answer")


class Counting:
    """How often each value came: a sum, so that a batch that counts twice or never shows."""

    version = ""
    declaration = Declaration(
        name="counting",
        by="key",
        reads=("came",),
        writes=("counts",),
        keeps=(Table("held", "true"), Table("said", "said")),
    )

    def __init__(self) -> None:
        self.on_step: Callable[[int], None] = lambda _: None
        self.steps = 0

    def absorb(self, view: View, inputs: Sequence[Inputs]) -> set[bytes]:
        touched = set()
        for batch in inputs:
            for value in batch.values:
                assert value is not None
                (held,) = view.get_many("held", [value])
                view.put("held", value, b"%d" % (int(held or 0) + 1))
                touched.add(value)
        return touched

    def settle(self, view: View, touched: Iterable[bytes], inputs: Sequence[Inputs]) -> Outputs:
        out, keys = Outputs(), sorted(touched)
        for key, held, said in zip(keys, view.get_many("held", keys), view.get_many("said", keys), strict=True):
            assert int(held or 0) > int(said or 0)
            view.put("said", key, held)
            out.emit("counts", 0, [key], [held])
        if inputs:
            self.steps += 1
            self.on_step(self.steps)
        return out

    def everything(self, view: View) -> set[bytes]:
        return {key for key, _ in view.scan("held", b"")}


class InParts(Counting):
    """The same, but a step says one value, and that there is more as long as there is."""

    declaration = replace(
        Counting.declaration, keeps=(*Counting.declaration.keeps, Table("unsaid", "true")), says_in_parts=True
    )

    def absorb(self, view: View, inputs: Sequence[Inputs]) -> set[bytes]:
        for value in super().absorb(view, inputs):
            view.put("unsaid", value, b"")
        return set()

    def settle(self, view: View, touched: Iterable[bytes], inputs: Sequence[Inputs]) -> Outputs:
        assert not touched
        unsaid = [key for key, _ in view.scan("unsaid", b"", 2)]
        out = super().settle(view, unsaid[:1], inputs)
        for key in unsaid[:1]:
            view.put("unsaid", key, None)
        out.more = len(unsaid) > 1
        return out


class World:
    """A worker of `Counting` on a broker that holds the records."""

    counts: type[Counting] = Counting

    def __init__(self, tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
        self.settings = Settings(home=tmp_path, security="plaintext", batch_records=BATCH)
        self.broker, self.processor = Broker(), self.counts()
        for i, value in enumerate(RECORDS):
            self.broker.log("came").append(b"%d" % i, value, FIRST_MS)
        self.broker.serve(patch)
        self.stepped: dict[int, threading.Event] = {n: threading.Event() for n in range(1, 100)}
        self.processor.on_step = lambda n: self.stepped[n].set()
        self.batches: list[int] = []

    def until_stepped(self, number: int) -> None:
        """Hold up who calls until so many steps were taken."""
        assert self.stepped[number].wait(PATIENCE_S), "the next batch was not stepped meanwhile"

    def run(self) -> None:
        with Instance.claim(self.settings.state, "counting") as instance:
            self.worker = Worker(
                self.processor,
                self.settings,
                instance,
                on_batch=self.batches.append,
                on_idle=lambda: self.worker.stop(),
                now_ms=lambda: FIRST_MS,
            )
            self.worker.run()

    @property
    def said(self) -> list[bytes]:
        return [(r.key or b"") + b"=" + (r.value or b"") for r in self.broker.log("counts").records]

    @property
    def consumed(self) -> int:
        return self.broker.committed["came"][0]

    def assert_as_one_batch_after_the_other(self) -> None:
        assert self.said == SAID
        assert self.consumed == len(RECORDS)
        changelog = [(r.key or b"") + b"=" + (r.value or b"") for r in self.broker.log("state.counting").records]
        assert changelog == SAID


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    yield World(tmp_path, monkeypatch)
    gc.enable()  # a worker turns the collector off for its process
    gc.unfreeze()


def raising(error: KafkaError) -> None:
    raise KafkaException(error)


def test_the_next_batch_is_stepped_while_the_broker_commits_the_last(world: World) -> None:
    last = -(-len(RECORDS) // BATCH)
    world.broker.committing = lambda n: world.until_stepped(n + 1) if n < last else None
    world.run()
    world.assert_as_one_batch_after_the_other()


@pytest.mark.parametrize("which", [1, 2, 3])
def test_an_abort_takes_the_step_upon_it_along(world: World, which: int) -> None:
    def committing(number: int) -> None:
        if number == which:
            world.until_stepped(number + 1)
            raising(ABORT)

    world.broker.committing = committing
    world.run()
    assert world.processor.steps > -(-len(RECORDS) // BATCH), "both were stepped again"
    world.assert_as_one_batch_after_the_other()


@pytest.mark.parametrize("which", [1, 2, 3])
@pytest.mark.parametrize("it_was", [True, False])
def test_when_nobody_knows_whether_it_was_committed_the_state_is_restored(
    world: World, which: int, it_was: bool
) -> None:
    def answer(number: int) -> None:
        if number == which:
            world.until_stepped(number + 1)
            raising(NOBODY_KNOWS)

    if it_was:
        world.broker.then_say = answer
    else:
        world.broker.committing = answer
    world.run()
    world.assert_as_one_batch_after_the_other()


@pytest.mark.parametrize("error", [None, ABORT, NOBODY_KNOWS])
def test_a_partition_that_is_taken_away_goes_with_the_commit_that_was_under_way(
    world: World, error: KafkaError | None
) -> None:
    world.broker.revokes = True
    held_up = []

    def committing(number: int) -> None:
        if number == 1:
            assert world.broker.revoking.wait(PATIENCE_S)
            assert not world.broker.revoked.wait(0.2), "it was let go before the commit had ended"
            held_up.append(number)
            if error is not None:
                raising(error)

    world.broker.committing = committing
    world.run()
    assert held_up, "the revocation came while the first was being committed"
    world.assert_as_one_batch_after_the_other()


def test_stopped_with_two_in_hand_it_commits_both(world: World) -> None:
    def on_step(number: int) -> None:
        world.stepped[number].set()
        if number == 2:
            world.worker.stop()

    world.processor.on_step = on_step
    world.broker.committing = lambda n: world.until_stepped(2) if n == 1 else None
    world.run()
    assert world.batches == [BATCH, BATCH], "applied, too"
    assert world.consumed == 2 * BATCH
    assert world.said == SAID[:4]
    world.processor.on_step = lambda n: world.stepped[n].set()
    world.run()
    world.assert_as_one_batch_after_the_other()


class WorldInParts(World):
    counts = InParts


@pytest.mark.parametrize("answer", [None, ABORT, NOBODY_KNOWS])
@pytest.mark.parametrize("which", [1, 2, 3])
def test_what_is_said_in_parts_is_said_whole_before_the_records_that_come_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: int, answer: KafkaError | None
) -> None:
    world = WorldInParts(tmp_path, monkeypatch)
    in_store = []

    def committing(number: int) -> None:
        in_store.append(world.broker.committed.get("came", (0, ""))[0])
        if number == which and answer is not None:
            raising(answer)

    world.broker.committing = committing
    world.run()
    world.assert_as_one_batch_after_the_other()
    assert len(in_store) > -(-len(RECORDS) // BATCH), "parts are transactions of their own"


@pytest.mark.parametrize("told", [True, False], ids=["told", "not told"])
def test_a_batch_is_filled_up_until_the_ends_of_all_inputs_are_told(
    world: World, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    monkeypatch.setattr(worker, "_BUSY_RECORDS", 0)
    monkeypatch.setattr(worker, "_BUSY_FILL_S", 0.5)
    monkeypatch.setattr(worker, "_ASK_AGAIN_S", 0.6)
    world.broker.loses_end_of = "" if told else "came"
    began = time.monotonic()
    world.run()
    assert (time.monotonic() - began < 0.4) == told
    world.assert_as_one_batch_after_the_other()


class WithAQuietInput(Counting):
    """The same, with a second input on which nothing comes."""

    declaration = replace(Counting.declaration, reads=("came", "seldom"))


class WorldWithAQuietInput(World):
    counts = WithAQuietInput


def test_an_end_that_the_client_did_not_tell_is_asked_for_though_another_input_has_traffic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_ASK_AGAIN_S", 0.05)
    world = WorldWithAQuietInput(tmp_path, monkeypatch)
    world.broker.loses_end_of = "seldom"
    until = time.monotonic() + PATIENCE_S

    def on_step(_: int) -> None:
        assert time.monotonic() < until, "nobody asked"
        if "seldom" not in world.broker.ends_told:  # traffic, until it is asked again
            world.broker.log("came").append(b"more", b"a", FIRST_MS)

    world.processor.on_step = on_step
    world.run()
    assert world.broker.ends_told == {"came", "seldom"}
    assert world.consumed == world.broker.log("came").end
