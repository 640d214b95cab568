"""What a replay reads again. Pure: offsets in, offsets out."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from infra.errors import EXIT_USAGE
from stream_processors.runtime.kafka import matches
from stream_processors.runtime.processor import Declaration
from stream_processors.topology import TOPOLOGY

_COLUMNS = ("processor", "topic", "partition", "offset")


class ReplayError(ValueError):
    """The replay that was asked for makes no sense. The message says why, and what would."""

    code = EXIT_USAGE


class At(NamedTuple):
    """One partition of one input of a processor."""

    processor: str
    topic: str
    partition: int


@dataclass(frozen=True)
class Span:
    """One partition of one input: the log begins at `low`, the group has committed `committed`, and reads again from
    `since`; all of it, if that is where the log begins. `named`: whether the replay is about it."""

    at: At
    low: int
    committed: int
    metadata: str = ""
    since: int = 0
    named: bool = False

    @property
    def again(self) -> int:
        """Offsets that are read again; at most so many records."""
        return self.committed - self.since if self.named else 0


def chosen(target: str, topics: Iterable[str]) -> list[tuple[Declaration, list[str]]]:
    """Processors that a target names, each with the inputs that it is about.

    Args:
        target: a processor, `retention` for both of its halves, or a topic: then every processor that reads it.
        topics: what the cluster has.

    Raises:
        ReplayError: no such processor or topic.
    """
    topics = sorted(topics)
    named = [d for d in TOPOLOGY if target in (d.name, d.name.partition(".")[0])]
    if named:
        return [(d, [t for t in topics if matches(d.reads, t)]) for d in named]
    readers = [(d, [target]) for d in TOPOLOGY if matches(d.reads, target)]
    if target in topics and readers:
        return readers
    names = ", ".join(d.name for d in TOPOLOGY)
    raise ReplayError(f"{target} is no processor, and no topic that one reads; processors are {names}")


def planned(
    spans: Sequence[Span],
    about: Mapping[str, Sequence[str]],
    partitions: Sequence[int] | None,
    start: Callable[[Span], int],
) -> list[Span]:
    """The spans of those partitions that a replay is about, with where each is read again from.

    A partition number is replayed as a whole: beside an input that is named, its other inputs are there with nothing
    to read again, since the state of all is rebuilt.

    Args:
        spans: every partition of every input of the processors.
        about: processor to its inputs that are meant.
        partitions: numbers; None for all.
        start: the offset that was asked for; one before the log's beginning means its beginning.

    Raises:
        ReplayError: an offset lies beyond what was committed: that would skip records.
    """
    if partitions is not None and (unknown := set(partitions) - {s.at.partition for s in spans}):
        raise ReplayError(f"no such partition: {', '.join(map(str, sorted(unknown)))}")
    out = []
    for span in spans:
        if partitions is not None and span.at.partition not in partitions:
            continue
        named = span.at.topic in about[span.at.processor]
        since = start(span) if named else span.committed
        if since > span.committed:
            raise ReplayError(
                f"{span.at.topic} {span.at.partition}: {since} lies beyond {span.committed}, which {span.at.processor} "
                "has committed; a replay goes back, never forward"
            )
        # Offset 0 says all of it, whatever the cleaner has removed at the beginning.
        out.append(replace(span, since=0 if named and since <= span.low else since, named=named))
    return out


def to_csv(spans: Iterable[Span]) -> str:
    """The offsets of a plan, as `--from-file` takes them."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows((*s.at, s.since) for s in spans if s.named)
    return out.getvalue()


def from_csv(text: str) -> dict[At, int]:
    """Offsets by partition.

    Raises:
        ReplayError: a line is not processor, topic, partition, offset; the message names its number.
    """
    rows = csv.reader(io.StringIO(text))
    if tuple(next(rows, ())) != _COLUMNS:
        raise ReplayError(f"line 1: must be {','.join(_COLUMNS)}")
    out: dict[At, int] = {}
    for number, row in enumerate(rows, 2):
        if len(row) != len(_COLUMNS) or not (row[2].isdecimal() and row[3].isdecimal()):
            raise ReplayError(f"line {number}: must be processor, topic, partition, offset")
        out[At(row[0], row[1], int(row[2]))] = int(row[3])
    return out
