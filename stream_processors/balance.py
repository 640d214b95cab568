"""What must balance in every transaction of each processor: records in against what it says became of them.

Pure functions over one step of one partition. What is counted here is counted apart from the processors' own code, so
that one that drops or doubles a record is found in the transaction in which it does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from schemas.contracts import ENQUIRY
from stream_processors import ledger, quarantine
from stream_processors.frequency import is_frequent
from stream_processors.publish import NOT_PERSONS
from stream_processors.runtime.account import Balance, Rule, Said
from stream_processors.runtime.records import HEARTBEAT_KEY, Inputs, Outputs
from stream_processors.runtime.state import Writes
from stream_processors.unmatched import TOPIC as UNMATCHED

TAKEN = ("accepted", "deletions", "refused", "quarantined")
"""What becomes of a supplier's record: one of these."""


def pseudonymise(inputs: Sequence[Inputs], outputs: Outputs, said: Said, writes: Writes) -> Iterable[Rule]:  # noqa: ARG001
    """Every record is accepted, a deletion, refused or quarantined; every key has one activity or its end, and a
    person's an identity besides."""
    if not inputs:  # what is said at the end of a reading anew: ends of keys that nothing stands behind any more
        return
    keys = persons = failed = 0
    for batch in inputs:
        if not _supplied(batch):
            continue
        tally = outputs.tallies.get((batch.topic, ""), {})
        records = len(batch.keys) - batch.keys.count(HEARTBEAT_KEY)
        yield (
            f"{batch.topic}: records read are accepted, deletions, refused or quarantined",
            records,
            sum(tally.get(name, 0) for name in TAKEN),
        )
        distinct = len(_keys(batch) - {None, HEARTBEAT_KEY})
        keys += distinct
        persons += distinct if batch.topic.endswith(".person") else 0
        failed += tally.get("quarantined", 0)
    for rule, topic, expected in (
        ("each key read is said as an activity", "linkage.activity", keys),
        ("each person read is said as an identity", "linkage.identity", persons),
    ):
        found = sum(_of(said, topic))
        if found != expected:
            expected -= _unreadable(inputs, persons=topic == "linkage.identity") if topic.startswith("linkage") else 0
        yield rule, expected, found
    kept = sum(n for topic, (n, _) in said.items() if topic.startswith("identified.") and topic.endswith(".quarantine"))
    yield "each quarantined record is kept", failed, kept
    yield "each quarantined record is told", failed, _of(said, quarantine.TOPIC)[0]


def _keys(batch: Inputs) -> set[bytes | None]:
    """Keys of which something is to be said: of what a later record replaces, that one says it."""
    if not batch.superseded:
        return set(batch.keys)
    return {k for k, at in zip(batch.keys, batch.offsets, strict=True) if at not in batch.superseded}


def _unreadable(inputs: Sequence[Inputs], *, persons: bool) -> int:
    """Keys that are not UTF-8: nothing can have been said of them."""
    bad = 0
    for batch in inputs:
        if not _supplied(batch) or (persons and not batch.topic.endswith(".person")):
            continue
        for key in _keys(batch):
            try:
                _ = (key or b"").decode()
            except UnicodeDecodeError:
                bad += 1
    return bad


def _supplied(batch: Inputs) -> bool:
    """Whether it is of a supplier's records."""
    return batch.topic.startswith("identified.") and not batch.topic.endswith("." + ENQUIRY)


def route(inputs: Sequence[Inputs], outputs: Outputs, said: Said, writes: Writes) -> Iterable[Rule]:  # noqa: ARG001
    """Every stop and every block that is left is said."""
    values, gone = _of(said, "linkage.candidate")
    yield "each stop is said as a candidate", outputs.counts.get("sent", 0), values
    yield "each block that is left is said", outputs.counts.get("left", 0), gone


def link(inputs: Sequence[Inputs], outputs: Outputs, said: Said, writes: Writes) -> Iterable[Rule]:  # noqa: ARG001
    """Every claim that is remembered is said, and every one that is forgotten is taken back."""
    values, gone = _of(said, "linkage.link")
    claims = {k: v for k, v in writes.get("claims", {}).items() if not is_frequent(k)}
    kept = _values(claims.values())
    yield "each claim is said as a link", kept, values
    yield "each claim that ends is taken back", len(claims) - kept + outputs.counts.get("moved", 0), gone


def join(inputs: Sequence[Inputs], outputs: Outputs, said: Said, writes: Writes) -> Iterable[Rule]:  # noqa: ARG001
    """Every attached activity is said as a contribution, every detached one is taken back, and every subject whose
    window has ended is told."""
    values, gone = _of(said, "linkage.contribution")
    yield "each attached activity is said as a contribution", outputs.counts.get("attached", 0), values
    yield "each detached activity is taken back", outputs.counts.get("detached", 0), gone
    yield "each subject whose window has ended is told", outputs.counts.get("unmatched", 0), _of(said, UNMATCHED)[0]


def publish(inputs: Sequence[Inputs], outputs: Outputs, said: Said, writes: Writes) -> Iterable[Rule]:  # noqa: ARG001
    """Every person whose record differs is said, and every person who is no more is taken back."""
    values, gone = _of(said, "research.person")
    persons = [v for k, v in writes.get("published", {}).items() if not k.startswith(NOT_PERSONS)]
    kept = _values(persons)
    yield "each person published is said", kept, values
    yield "each person withdrawn is taken back", len(persons) - kept, gone


def retention(inputs: Sequence[Inputs], outputs: Outputs, said: Said, writes: Writes) -> Iterable[Rule]:  # noqa: ARG001
    """Every record that is destroyed, taken back or refused has a line in the ledger."""
    lines, _ = _of(said, ledger.TOPIC)
    destroyed = sum(n for name, n in outputs.counts.items() if name.startswith(("destroyed.", "refused.")))
    yield "each destroyed record has a line", destroyed, lines


BALANCES: Mapping[str, Balance] = MappingProxyType(
    {
        "pseudonymise": pseudonymise,
        "route": route,
        "link": link,
        "join": join,
        "publish": publish,
        "retention.identity": retention,
        "retention.activity": retention,
    }
)


def _of(said: Said, topic: str) -> tuple[int, int]:
    """Values and tombstones for a topic."""
    return said.get(topic, (0, 0))


def _values(values: Iterable[bytes | None]) -> int:
    return sum(v is not None for v in values)
