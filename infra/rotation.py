"""Rotate the keys of tokens, stage by stage, without losing a link: `lethe keys rotate`.

Nothing here sees a key's record or moves one: the manifest says which epochs are in force, `pseudonymise` follows it
and says every subject again, and the next stage begins once all that follows from the one before has arrived. Where it
was interrupted, the next run goes on from the manifest.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaException, TopicPartition

from infra.catalogue import configured_catalogue
from infra.epochs import Manifest, Stage, destroy_keys, load, new_key, save
from infra.keys import KeyFileError, export_enquiry_key
from infra.rest import Flow, Lag
from infra.settings import Settings
from infra.topic_table import messages
from schemas import contracts, wire
from schemas.codec import decode
from stream_processors.edition import Edition
from stream_processors.runtime import kafka
from stream_processors.runtime.records import HEARTBEAT_KEY
from stream_processors.runtime.restore import told_by

HOLD_TOKENS = {"linkage.identity": "route", "linkage.candidate": "link"}
"""Topics, and the processor that reads each: it is for that one that they are looked at."""
_DECIDES = "pseudonymise"
_CALL_S = 30.0
_POLL_S = 0.25
_DECODE = 5_000


class RotationError(RuntimeError):
    """The rotation cannot go on now. The message says what is awaited; nothing is lost, and another run goes on."""


@dataclass(frozen=True)
class Progress:
    """What a rotation waits for: the stage, who is behind, and on how many partitions."""

    stage: Stage
    behind: str
    partitions: int


def rotate(settings: Settings, seconds: float, on_progress: Callable[[Progress], None]) -> Manifest:
    """Begin a rotation, or go on with the one that was interrupted, until the new epoch is alone.

    Each stage may take `seconds`. Holds after: no live record has a token of the old epoch, and its key is removed
    unless references are made under it.

    Raises:
        RotationError: a stage was not complete in time, or another rotation runs.
        KeyFileError: a key file or the manifest may not be used.
        KafkaException: the broker is away.
    """
    with _alone(settings):
        manifest = load(settings)
        if manifest.stage == Stage.steady:
            manifest = _next(settings, manifest)
        while manifest.stage != Stage.steady:
            _complete(settings, manifest, time.monotonic() + seconds, on_progress)
            manifest = _next(settings, manifest)
        return manifest


def _next(settings: Settings, manifest: Manifest) -> Manifest:
    """Write the manifest of the next stage; a new key before it, an old one's end after it."""
    new = new_key(settings, max(manifest.checks) + 1) if manifest.stage == Stage.steady else None
    after = manifest.after(new)
    save(settings, after)
    if after.stage == Stage.leading:
        export_enquiry_key(settings)  # by now every pseudonymise opens what is sealed to it
    destroy_keys(settings, after)
    return after


def _complete(settings: Settings, manifest: Manifest, deadline: float, on_progress: Callable[[Progress], None]) -> None:
    """Return once all that follows from the manifest has arrived."""
    flow = Flow(settings)
    said = Consumer(
        kafka.consumer_config(settings, Edition(settings.edition).group(_DECIDES))
        | {"isolation.level": "read_uncommitted"}
    )
    try:

        def wait(who: str, behind: Callable[[], int]) -> None:
            while (count := behind()) > 0:
                on_progress(Progress(manifest.stage, who, count))
                if time.monotonic() > deadline:
                    raise RotationError(
                        f"{manifest.stage}: {who} is behind on {count} partitions; see that it runs (`lethe run all`), "
                        "then run the same command again: it goes on from here"
                    )
                time.sleep(_POLL_S)  # Kafka tells nobody that a group has caught up

        wait(_DECIDES, lambda: _unsaid(flow, said, manifest.label))
        # What one pass claims goes to the next: so many rounds, and no change is on its way any more.
        rounds = len(configured_catalogue(settings).passes)
        for name in ("route", *("link", "route") * rounds, "link", "join"):
            marks = flow.ends_of(name)
            wait(name, lambda name=name, marks=marks: len(flow.short_of(name, marks)))  # type: ignore[misc]
        if manifest.stage == Stage.retiring:
            left = _left(live_by_epoch(settings), manifest.leads)
            if left:
                told = ", ".join(f"{count:,} in {topic}" for topic, count in left.items())
                raise RotationError(f"live records of an older epoch are left: {told}; run the command again")
    finally:
        flow.close()
        said.close()


def _left(live: Mapping[str, Counter[int]], leads: int) -> dict[str, int]:
    """Live records of epochs before the leading one, by topic."""
    counts = {topic: sum(n for epoch, n in c.items() if epoch < leads) for topic, c in live.items()}
    return {topic: count for topic, count in counts.items() if count}


def _unsaid(flow: Flow, consumer: Consumer, label: str) -> int:
    """Partitions of supplier records that have not been said anew, to their end, under the epochs of the label."""
    ends = flow.ends_of(_DECIDES)
    found = consumer.committed([TopicPartition(t, p) for t, p in ends], _CALL_S) if ends else []
    behind = 0
    for tp in found:
        if tp.error is not None:
            raise KafkaException(tp.error)
        end = ends[tp.topic, tp.partition]
        if tp.offset < 0:  # nothing was ever taken from it
            behind += len(flow.open([Lag(_DECIDES, tp.topic, tp.partition, 0, end)]))
            continue
        told = told_by(tp.metadata)
        behind += not told.time_ms or told.anew is not None or not told.version.startswith(f"epoch {label},")
    return behind


def live_by_epoch(settings: Settings) -> dict[str, Counter[int]]:
    """Live records of each topic that holds tokens, by key epoch; one under two epochs counts for both.

    Raises:
        KafkaException: the broker is away, or has no such topics.
    """
    return {topic: Counter(e for held in _held(settings, topic).values() for e in held) for topic in HOLD_TOKENS}


def _held(settings: Settings, topic: str) -> Mapping[bytes, tuple[int, ...]]:
    """Key to the epochs of its last value, of keys that have one."""
    contract = contracts.of_topic(topic)
    assert contract is not None
    held: dict[bytes, tuple[int, ...]] = {}
    for keys, bodies in _batches(settings.acting_as(HOLD_TOKENS[topic]), Edition(settings.edition).topic(topic)):
        rows = decode([b[wire.HEADER_BYTES :] for b in bodies if b is not None], contract)
        first = rows.column("epoch").to_pylist()
        also = [None] * len(first)
        if "also" in rows.schema.names:
            also = rows.column("also").field("epoch").to_pylist()
            also = [e if there else None for e, there in zip(also, rows.column("also").is_valid(), strict=True)]
        epochs = iter(zip(first, also, strict=True))
        for key, body in zip(keys, bodies, strict=True):
            if body is None:
                held.pop(key, None)
            else:
                held[key] = tuple(e for e in next(epochs) if e)
    return held


def _batches(settings: Settings, topic: str) -> Iterator[tuple[list[bytes], list[bytes | None]]]:
    keys: list[bytes] = []
    bodies: list[bytes | None] = []
    for message in messages(settings, topic):
        key = message.key()
        if key is None or key == HEARTBEAT_KEY:
            continue
        keys.append(key)
        bodies.append(message.value())
        if len(keys) == _DECODE:
            yield keys, bodies
            keys, bodies = [], []
    yield keys, bodies


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """One rotation at a time on this machine."""
    if not settings.keys.is_dir():
        raise KeyFileError(f"{settings.keys} is missing; `lethe keys init` makes it")
    handle = os.open(settings.keys / "rotation.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RotationError("another `lethe keys rotate` runs on this machine; wait for it") from None
        yield
    finally:
        os.close(handle)
