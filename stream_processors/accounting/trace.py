"""One record through every topic, by its references: where it is, what was decided about it, and why. No value is read.

Who asks gives the supplier's ids; the references that follow from them are made at the edge, with the token key.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from schemas.contracts import identified_topic
from schemas.registry import SchemaIds
from schemas.rows import from_value
from stream_processors import quarantine
from stream_processors.accounting.batches import short_batch
from stream_processors.accounting.tables import Record
from stream_processors.envelope import envelope
from stream_processors.erasure.overdue import MARK
from stream_processors.refs import REF_WIDTH
from stream_processors.runtime.account import ATTEMPTS, publication_of
from stream_processors.runtime.partition import partition_of

Source = Callable[[str, int | None], Iterable[Record]]
"""Records of a topic, of one partition or of all; nothing for a topic that is not there."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PASSES = {
    "0": "by no block (no usable date of birth, postcode or name)",
    "1": "by date of birth",
    "2": "by postcode sector",
    "3": "by the sound of the names",
}
_ADVICE = {
    "BadMagicByte": "the supplier's system does not write the registry's format: have it publish with `lethe publish`",
    "UnknownSchemaId": "the supplier's system writes with a schema that is not registered: have it use this registry's",
    "Undecodable": "the record does not fit its schema: have the supplier publish it anew",
    "RecordTooLarge": "the record is over 1 MB: have the supplier publish it without what does not belong into it",
    "KeyMismatch": "the key is not the ids in the record: have the supplier publish it anew with `lethe publish`",
    "BadId": "an id is blank or holds a bar: have the supplier correct it",
    "WrongPartition": "another partitioner was used: have the supplier publish it anew with `lethe publish`, then "
    "`lethe quarantine drop --error WrongPartition`",
    "OutOfDomain": "a number is outside its range: have the supplier correct it",
    "RefusedByGuard": "a value is not allowed in the research zone: look at the field's domain in guard.yaml",
    "Expired": "the clock says that it must be gone: nothing to do",
}
_STAYS = frozenset({"WrongPartition"})
"""Classes that would fail again, whatever is put right here."""
DROPPED = "lethe.dropped"
"""Header of a deletion that `lethe quarantine drop` writes in the supplier's place: the operation."""
_AT_SOURCE = frozenset({"expiry", "hard_stop", "late", "erasure", "window"})
"""Why pseudonymise deletes a supplier's record in its own topic."""
_TAKEN_BACK = {
    "erasure": ("An order erased it.", "Nothing: the ledger says who gave the order and why."),
    "withdrawal": ("It was withdrawn.", "To have it in again, the supplier has to publish it again."),
    "correction": (
        "What the supplier sent in its place could not be read.",
        "See `lethe quarantine ls`; have the supplier publish it again.",
    ),
    "refused": (
        "It is of somebody whom an order has erased, and was refused.",
        "Nothing: the ledger says who gave the order and why; `lethe erase --lift` takes an order back.",
    ),
}
"""Of what pseudonymise took back: why it is not there, and what to do."""


@dataclass(frozen=True)
class Traced:
    """Which record: the supplier's key for it, where that lies, and its references."""

    supplier: str
    dataset: str
    key: bytes
    home: int
    subject_ref: str
    record_ref: str


@dataclass(frozen=True)
class Step:
    """What one topic has of it. `at_ms`: when the broker took it."""

    topic: str
    partition: int
    offset: int
    at_ms: int
    what: str


@dataclass
class Trace:
    """`answer`: whether the record is in the research topic, and if not why, in plain words; `advice`: what to do."""

    steps: list[Step] = field(default_factory=list)
    published: bool = False
    answer: str = ""
    advice: str = ""
    events: dict[str, int] = field(default_factory=dict)

    def say(self, answer: str, advice: str) -> Trace:
        """Come to an end."""
        self.answer, self.advice = answer, advice
        return self


def trace(source: Source, of: Traced, ids: SchemaIds, partitions: int) -> Trace:
    """Follow the record to where it ends."""
    return _Follow(source, of, ids, partitions).all()


class _Follow:
    def __init__(self, source: Source, of: Traced, ids: SchemaIds, partitions: int) -> None:
        self._source, self._of, self._ids, self._partitions = source, of, ids, partitions
        self._out = Trace()
        self._downstream = f"{of.subject_ref}|{of.record_ref}".encode()

    def all(self) -> Trace:
        of, out = self._of, self._out
        topic = identified_topic(of.supplier, of.dataset)
        last = self._arrivals(topic)
        activity = self._last("linkage.activity", of.home, self._downstream)
        destroyed = self._destroyed(self._downstream)
        if last is None and activity is None and destroyed is None:
            return out.say(
                "Nothing lies under these ids: it was never published, was rejected before it was, or was deleted so "
                "long ago that nothing of it is left.",
                f"Compare the ids letter by letter with the supplier's; see `lethe reconcile --supplier {of.supplier} "
                "--json` for rejected rows; if it was never sent, have the supplier publish it.",
            )
        if last is not None and last.value is None and destroyed is not None and destroyed["why"] in _AT_SOURCE:
            return self._not_said(activity, destroyed)  # it was deleted here, not by the supplier
        if last is not None and last.value is None and DROPPED in _names(last):
            return out.say(
                "It was in quarantine, and an operator has dropped it.",
                "See `lethe operations` for who and why; to have it in, the supplier has to publish it again.",
            )
        if last is not None and last.value is None:
            return out.say("The supplier has deleted it.", "Nothing. If that was a mistake, have it published again.")
        if last is not None:
            error = self._quarantined(topic, last)
            if error is not None:
                name = error.partition(",")[0]
                advice = _ADVICE.get(name, "look at docs/operations.md, Quarantine")
                if name not in _STAYS:
                    advice += f"; or correct the cause here and `lethe quarantine requeue --supplier {of.supplier}`"
                return out.say(f"It is in quarantine: {error}.", f"{advice}.")
        if activity is None or activity.value is None:
            return self._not_said(activity, destroyed)
        self._step("linkage.activity", activity, "generalised; " + self._until(activity))
        return self._linkage()

    def _arrivals(self, topic: str) -> Record | None:
        """The record as it came, each time; the last of them."""
        last = None
        names = self._batches()
        # With another partitioner it lies elsewhere; looked for only then, since that reads the whole topic.
        for record in self._all(topic, self._of.home, self._of.key) or self._all(topic, None, self._of.key):
            last = record
            if MARK in _names(record):
                what = "deleted, since it has expired" if record.value is None else "written again, since it has not"
            elif record.value is None:
                what = "dropped from quarantine" if DROPPED in _names(record) else "deleted"
            elif ATTEMPTS in _names(record):
                what = "put back from quarantine"
            else:
                what = "published" + names.get(_publication(record), "")
            self._step(topic, record, what)
        return last

    def _batches(self) -> dict[str, str]:
        """Of each publication; while it goes on it has a name that nobody else knows."""
        whole: dict[str, str] = {}
        going: set[str] = set()
        for record in self._source("governance.batch", None):
            if record.value is not None:
                row = from_value("governance.batch", record.value, self._ids)
                if row["open"]:
                    going.add(row["publication"])
                else:
                    whole[row["publication"]] = f" in batch {short_batch(row['batch_id'])}"
        return dict.fromkeys(going, " in a batch that is not whole") | whole

    def _quarantined(self, topic: str, last: Record) -> str | None:
        told = quarantine.told_key(topic, last.partition, self._downstream, last.offset)
        found = self._last(quarantine.TOPIC, None, told)
        if found is None or found.value is None:
            return None
        row = from_value(quarantine.TOPIC, found.value, self._ids)
        if row["offset"] != last.offset:
            return None  # what failed was an earlier version
        error = str(row["error"]) + (f", field {row['field']}" if row["field"] else "")
        self._step(quarantine.TOPIC, found, error)
        return error

    def _destroyed(self, key: bytes) -> dict[str, Any] | None:
        """The last line of the ledger about it."""
        digest, line = hashlib.sha256(key).hexdigest(), None
        for record in self._source("governance.ledger", self._of.home):
            if record.value is None:
                continue
            row = from_value("governance.ledger", record.value, self._ids)
            if row["record"] == digest:
                line = row
                what = f"{'refused' if row['refused'] else 'destroyed'}: {row['why']}"
                what += f", due {row['expires_on']}, as of {row['as_of']}" if row["tombstone"] is None else ""
                self._step("governance.ledger", record, what)
        return line

    def _not_said(self, activity: Record | None, destroyed: dict[str, Any] | None) -> Trace:
        of, out = self._of, self._out
        if destroyed is not None:
            words = {
                "expiry": f"Its period ended on {destroyed['expires_on']}",
                "hard_stop": "Nothing may be held any longer",
                "late": "It had expired when it came",
                "window": "Its subject had matched nobody when the linkage window ended",
            }
            why = words.get(destroyed["why"])
            if why is None:
                return out.say(*_TAKEN_BACK["refused" if destroyed["refused"] else destroyed["why"]])
            return out.say(f"{why}: it was destroyed, as of {destroyed['as_of']}.", "Nothing: the ledger has the line.")
        if activity is not None:
            self._step("linkage.activity", activity, "taken back")
            return out.say(
                "It was taken back after it came: by a deletion, an erasure or a record that could not be read.",
                f"See `lethe reconcile --supplier {of.supplier}`; to have it in again, have it published again.",
            )
        return out.say(
            "It was published, and pseudonymise has said nothing of it yet.",
            "Wait until the flow is at rest; if it is, `lethe reconcile` names the offsets that were passed over.",
        )

    def _until(self, activity: Record) -> str:
        assert activity.value is not None
        found = envelope("linkage.activity", activity.value)
        return f"held until {(_EPOCH + timedelta(found.expires_on)).date()}"

    def _linkage(self) -> Trace:
        of, out = self._of, self._out
        subject = of.subject_ref.encode()
        identity = self._last("linkage.identity", of.home, subject)
        if identity is None or identity.value is None:
            return out.say(
                "Its subject has no person record, so nobody knows whose it is.",
                f"Have {of.supplier} publish the person record of this subject, or look at it: "
                f"`lethe trace --supplier {of.supplier} --subject ID`.",
            )
        self._step("linkage.identity", identity, "tokens, by which its subject is linked")
        links = self._links(subject)
        if not links:
            return out.say(
                "No block has answered yet for its subject.",
                "Wait until the flow is at rest; if it is, `lethe reconcile` names who left it standing.",
            )
        named = [(number, row) for number, row in links if row["person_ref"] is not None]
        number, row = named[0] if named else links[-1]
        if row["outcome"] != "linked":
            return self._unlinked(number, row, [n for n, _ in links])
        how = "it is of the cohort itself" if row["match_key"] == "cohort" else f"match key {row['match_key']}"
        return self._contribution(row["person_ref"], f"linked in pass {number} ({how})")

    def _links(self, subject: bytes) -> list[tuple[str, dict[str, Any]]]:
        """Pass and decision, in order of passes."""
        live: dict[bytes, Record] = {}
        for record in self._source("linkage.link", self._of.home):
            if record.key[:REF_WIDTH] == subject:
                live[record.key] = record
        out = []
        for key, record in sorted(live.items(), key=lambda item: item[0][REF_WIDTH + 1 :].partition(b":")[0]):
            number = key[REF_WIDTH + 1 :].decode().partition(":")[0]
            if record.value is None:
                continue
            row = from_value("linkage.link", record.value, self._ids)
            by = f" by {row['match_key']}" if row["match_key"] else ""
            pass_ = f"pass {number}, {_PASSES.get(number, '')}"
            self._step("linkage.link", record, f"{pass_}: {row['outcome']}{by}")
            out.append((number, row))
        return out

    def _unlinked(self, number: str, row: dict[str, Any], passes: Sequence[str]) -> Trace:
        out, tried = self._out, ", ".join(_PASSES.get(n, n) for n in passes)
        if row["outcome"] == "ambiguous":
            return out.say(
                f"Its subject fits several people of the cohort equally well (pass {number}), so it is given to none.",
                "Have the supplier complete the details that tell them apart: middle names, postcode, sex. "
                "docs/operations.md, How subjects are linked, says by what people are told apart.",
            )
        if row["outcome"] == "contested":
            return out.say(
                f"Another subject of its supplier has an equal or better claim to the same person (pass {number}).",
                "Have the supplier look for duplicates of this person among its own subjects, and merge them.",
            )
        if number == "0":
            return out.say(
                "Its subject has no usable date of birth, postcode or name: it can be compared with nobody.",
                "Have the supplier complete the person record.",
            )
        return out.say(
            f"Its subject is waiting: nobody of the cohort agrees with it on any match key; tried: {tried}.",
            "If the person is of the cohort, compare date of birth, names and postcode at the council and at the "
            "supplier, correct the wrong one, and have it published again. If not, there is nothing to do.",
        )

    def _contribution(self, person: str, how: str) -> Trace:
        of, out = self._of, self._out
        partition = partition_of(person, self._partitions)
        contribution = self._last("linkage.contribution", partition, f"{person}|{of.record_ref}".encode())
        if contribution is None or contribution.value is None:
            return out.say(
                f"Its subject is {how}, but the record is not attached to the person yet.",
                "Wait until the flow is at rest; if it is, `lethe reconcile` names what join left standing.",
            )
        self._step("linkage.contribution", contribution, f"attached to its person: {how}")
        error = self._quarantined("linkage.contribution", contribution)
        if error is not None:
            return out.say(
                f"Its subject is {how}, but the guard refused the record: {error}.",
                _ADVICE.get(error.partition(",")[0], "look at docs/operations.md, Quarantine") + ".",
            )
        said = self._last("state.publish", partition, person.encode())
        if said is None or said.value is None:
            return out.say(
                f"Its subject is {how}, but the person has no live record of the cohort: nothing is published of it.",
                "See whether the council has deleted the family, or its record has expired or was refused: trace the "
                "council's person record.",
            )
        self._step("state.publish", said, "its person is published")
        out.published = True
        self._count_events()
        return out.say(f"It is in the research topic: its subject is {how}.", "Nothing.")

    def _count_events(self) -> None:
        """Of a person record: how many live records of each dataset its subject has."""
        if self._of.dataset != "person":
            return
        subject, live = self._of.subject_ref.encode(), dict[bytes, str]()
        for record in self._source("linkage.activity", self._of.home):
            if record.key[:REF_WIDTH] == subject:
                live.pop(record.key, None)
                if record.value is not None:
                    live[record.key] = envelope("linkage.activity", record.value).dataset or "person"
        self._out.events = dict(sorted(Counter(live.values()).items()))

    # Reading.

    def _all(self, topic: str, partition: int | None, key: bytes) -> list[Record]:
        return [record for record in self._source(topic, partition) if record.key == key]

    def _last(self, topic: str, partition: int | None, key: bytes) -> Record | None:
        found = self._all(topic, partition, key)
        return found[-1] if found else None

    def _step(self, topic: str, record: Record, what: str) -> None:
        self._out.steps.append(Step(topic, record.partition, record.offset, record.time, what))


def _names(record: Record) -> set[str]:
    return {name for name, _ in record.headers or ()}


def _publication(record: Record) -> str:
    return publication_of(record.headers).hex() or "-"
