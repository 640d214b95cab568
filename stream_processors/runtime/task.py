"""One partition of one processor, without Kafka: the same object runs in a worker and in the brokerless driver."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from stream_processors.runtime.processor import CountsHeld, Processor
from stream_processors.runtime.records import HEARTBEAT_KEY, Emit, Inputs, Outputs
from stream_processors.runtime.state import Ahead, History, Position, Store, View, Writes, no_history

_AT_ONCE = 20_000
"""Keys that are said anew in one transaction."""


@dataclass(frozen=True)
class Step:
    """What one batch did, not committed yet: commit the outputs first, then `Task.commit` the writes."""

    outputs: Outputs
    writes: Writes


class Task:
    """Holds: outside of `step` and `commit`, the store is what the committed inputs and outputs make of it."""

    def __init__(self, processor: Processor, partition: int, store: Store, history: History = no_history) -> None:
        self.processor = processor
        self.partition = partition
        self.store = store
        self.history = history

    def step(self, inputs: Sequence[Inputs], after: Step | None = None) -> Step:
        """Take a batch in; the changelog's records are among the outputs.

        `after`: the step before, if it is not committed yet: this one holds only if that one is, and applied first.
        """
        return self._settled(inputs, None, after)

    def reconcile(self) -> Step:
        """Settle every key anew: what was said of keys that are gone is taken back."""
        return self._settled((), self.processor.everything(self._view()))

    def anew(self, touched: Iterable[bytes] | None = None) -> Iterator[Step]:
        """Say again what is true of these keys (of all), whether it was said before or not, some at a time.

        Each step must be committed before the next is asked for. What was said of what is no more is not taken back
        here: `reconcile` first.
        """
        declaration = self.processor.declaration
        said = next((t for t in declaration.keeps if t.kind == "said"), None)
        if said is None or not declaration.says_anew:
            return
        keys = sorted(self.processor.everything(self._view()) if touched is None else touched)
        for low in range(0, len(keys), _AT_ONCE):
            view = View(self.store, declaration.keeps, self.partition, forgotten=said)
            outputs = self.processor.settle(view, set(keys[low : low + _AT_ONCE]), ())
            yield self._with_changelog(view, outputs)

    def held(self) -> Mapping[str, Mapping[str, int]]:
        """What the state holds, by topic and name, of a processor that counts it; nothing of another."""
        if not self.processor.declaration.counts_held:
            return {}
        return cast(CountsHeld, self.processor).held(self._view())

    def commit(self, step: Step, position: Position) -> None:
        """Apply a step whose outputs are committed."""
        self.store.apply(step.writes, position)

    def restore_inputs(self, inputs: Sequence[Inputs], position: Position) -> set[bytes]:
        """Fold committed inputs into what is true, saying nothing. Returns the keys of which something differs."""
        view = self._view()
        touched = self.processor.absorb(view, [_without_heartbeats(i) for i in inputs])
        true = {t.name for t in self.processor.declaration.keeps if t.kind != "said"}
        self.store.apply({name: rows for name, rows in view.writes.items() if name in true}, position)
        return touched

    def restore_said(self, records: Iterable[tuple[bytes, bytes | None]], position: Position) -> None:
        """Take in records of the changelog, in log order."""
        said = self.processor.declaration.said
        if said is None:
            return
        rows = {k: v for k, v in records if k != HEARTBEAT_KEY}
        # A delete of what is not there would lie in RocksDB's way: seeks walk over deletes one by one.
        gone = [k for k, v in rows.items() if v is None]
        for key, held in zip(gone, self.store.get_many(said, gone), strict=True):
            if held is None:
                del rows[key]
        self.store.apply({said: rows}, position)

    def _view(self, after: Step | None = None) -> View:
        store = self.store if after is None else Ahead(self.store, after.writes)
        return View(store, self.processor.declaration.keeps, self.partition, history=self._before)

    def _before(self, pattern: str) -> Iterable[Inputs]:
        return map(_without_heartbeats, self.history(pattern))

    def _settled(self, inputs: Sequence[Inputs], also: set[bytes] | None, after: Step | None = None) -> Step:
        view = self._view(after)
        inputs = [_without_heartbeats(i) for i in inputs]
        touched = self.processor.absorb(view, inputs)
        return self._with_changelog(view, self.processor.settle(view, touched | also if also else touched, inputs))

    def _with_changelog(self, view: View, outputs: Outputs) -> Step:
        changelog, said = self.processor.declaration.changelog, self.processor.declaration.said
        if changelog and said and view.writes[said]:
            rows: Mapping[bytes, bytes | None] = view.writes[said]
            outputs.emits.append(Emit(changelog, self.partition, list(rows), list(rows.values())))
        return Step(outputs, view.writes)


def _without_heartbeats(inputs: Inputs) -> Inputs:
    if HEARTBEAT_KEY not in inputs.keys:
        return inputs
    return inputs.only([i for i, k in enumerate(inputs.keys) if k != HEARTBEAT_KEY])
