"""How fast a processor takes records in on this machine, measured on a sample of those that are to be read again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from infra.quarantine.reader import Reader
from infra.replay.plan import Span
from infra.settings import Settings
from stream_processors.edition import Edition
from stream_processors.runtime.processor import Processor
from stream_processors.runtime.restore import inputs_of
from stream_processors.runtime.state import MemoryStore, Position
from stream_processors.runtime.task import Task

_RECORDS = 5_000
_SECONDS = 3.0


def records_per_second(
    settings: Settings, processor: Processor, spans: Sequence[Span], clock: Callable[[], float] = time.monotonic
) -> float | None:
    """Records that the processor reads and works on in a second, on one core; None if there is nothing to measure by.

    Nothing is written, and the state is left alone: a fresh one in memory takes the sample. Writing what follows takes
    time besides.

    Raises:
        KafkaException: the broker is away.
    """
    done, began = 0, clock()
    with Reader(settings.acting_as(processor.declaration.name)) as reader:
        for span in sorted(spans, key=lambda s: -s.again):
            if not span.again:
                break
            task = Task(processor, span.at.partition, MemoryStore())
            topic = Edition(settings.edition).topic(span.at.topic)
            for batch in reader.read(topic, span.at.partition, max(span.since, span.low), span.committed):
                inputs = [inputs_of(span.at.topic, span.at.partition, batch, processor.declaration.headers)]
                task.commit(task.step(inputs), Position({}))
                done += len(batch)
                if done >= _RECORDS or clock() - began > _SECONDS:
                    return done / (clock() - began)
    return done / (clock() - began) if done else None
