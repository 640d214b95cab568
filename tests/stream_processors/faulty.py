"""Processors that are at fault: what they say, or take in, is spoilt at one record."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from stream_processors.runtime.processor import Processor
from stream_processors.runtime.records import HEARTBEAT_KEY, Emit, Inputs, Outputs
from stream_processors.runtime.state import View
from tests.stream_processors.tables import PARTITIONS

OUTPUTS = {
    "pseudonymise": "linkage.activity",
    "route": "linkage.candidate",
    "link": "linkage.link",
    "join": "linkage.contribution",
    "publish": "research.person",
}
"""What each processor says to the next."""

Spoil = Callable[[Emit, int], Emit]
"""What a fault makes of the records of a topic, at the place of the record that it is about."""


@dataclass
class Patched:
    """A processor whose outputs to one topic, or whose inputs, are spoilt in one partition: always those of the key
    that is met first."""

    inner: Processor
    topic: str
    partition: int
    spoil: Spoil | None
    tombstones: bool = False
    key: bytes | None = None
    times: int = 0

    def __post_init__(self) -> None:
        self.declaration, self.version = self.inner.declaration, self.inner.version

    def absorb(self, view: View, inputs: Sequence[Inputs]) -> set[bytes]:
        return self.inner.absorb(view, self._inputs(view, inputs))

    def everything(self, view: View) -> set[bytes]:
        return self.inner.everything(view)

    def settle(self, view: View, touched: Iterable[bytes], inputs: Sequence[Inputs]) -> Outputs:
        out = self.inner.settle(view, touched, self._inputs(view, inputs))
        if self.spoil is not None and view.partition == self.partition:
            out.emits = [self._spoilt(emit) for emit in out.emits]
        return out

    def _spoilt(self, emit: Emit) -> Emit:
        matches = emit.topic == self.topic or (self.topic.startswith("*") and emit.topic.endswith(self.topic[1:]))
        if not matches or self.spoil is None:
            return emit
        for at, (key, value) in enumerate(zip(emit.keys, emit.values, strict=True)):
            if (value is None) == self.tombstones and self.key in (None, key):
                self.key, self.times = key, self.times + 1
                return self.spoil(emit, at)
        return emit

    def _inputs(self, view: View, inputs: Sequence[Inputs]) -> Sequence[Inputs]:
        """Without one record, if it is inputs that are dropped."""
        if self.spoil is not None or view.partition != self.partition:
            return inputs
        out = []
        for batch in inputs:
            rows = [i for i, key in enumerate(batch.keys) if key != HEARTBEAT_KEY]
            if rows and batch.topic == self.topic and self.key is None:
                self.key = batch.keys[rows[0]]
            keep = [i for i, key in enumerate(batch.keys) if batch.topic != self.topic or key != self.key]
            self.times += len(batch.keys) - len(keep)
            out.append(batch.only(keep))
        return out


def dropped(emit: Emit, at: int) -> Emit:
    return _without(emit, at)


def doubled(emit: Emit, at: int) -> Emit:
    """Once more, under the key of somebody else."""
    key = emit.keys[at]
    other = bytes([key[0] ^ 1]) + key[1:]
    return _with(emit, at, other, emit.values[at], _partition(emit, at))


def misplaced(emit: Emit, at: int) -> Emit:
    """Once more, in another partition."""
    return _with(emit, at, emit.keys[at], emit.values[at], (_partition(emit, at) + 1) % PARTITIONS)


def altered(emit: Emit, at: int) -> Emit:
    value = emit.values[at]
    assert value is not None
    values = list(emit.values)
    values[at] = value[:-1] + bytes([value[-1] ^ 2])
    return replace(emit, values=values)


def of_another(emit: Emit, at: int) -> Emit:
    """With another reference in it."""
    value = emit.values[at]
    assert value is not None
    values = list(emit.values)
    values[at] = re.sub(rb"[0-9a-f]{32}", b"0" * 32, value)
    return replace(emit, values=values)


def _partition(emit: Emit, at: int) -> int:
    return emit.partitions if isinstance(emit.partitions, int) else emit.partitions[at]


def _without(emit: Emit, at: int) -> Emit:
    keep = [i for i in range(len(emit.keys)) if i != at]
    return Emit(
        emit.topic,
        emit.partitions if isinstance(emit.partitions, int) else [emit.partitions[i] for i in keep],
        [emit.keys[i] for i in keep],
        [emit.values[i] for i in keep],
        [emit.headers[i] for i in keep] if emit.headers else None,
    )


def _with(emit: Emit, at: int, key: bytes, value: bytes | None, partition: int) -> Emit:
    n = len(emit.keys)
    partitions = [emit.partitions] * n if isinstance(emit.partitions, int) else list(emit.partitions)
    headers = [*emit.headers, emit.headers[at]] if emit.headers else None
    return Emit(emit.topic, [*partitions, partition], [*emit.keys, key], [*emit.values, value], headers)
