"""join: attach each activity to the person that its subject belongs to, and move it when the link changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache

import polars as pl

from schemas import contracts, wire
from schemas.codec import decode
from schemas.registry import SchemaIds
from stream_processors import unmatched
from stream_processors.enquiry.finding import Finder
from stream_processors.refs import REF_WIDTH
from stream_processors.retention_policy import RetentionPolicy
from stream_processors.runtime.partition import partitions_of
from stream_processors.runtime.processor import Declaration
from stream_processors.runtime.records import Inputs, Outputs
from stream_processors.runtime.state import Table, View
from stream_processors.unmatched import Windows

JOIN = Declaration(
    name="join",
    by="subject",
    reads=("linkage.activity", "linkage.link", "linkage.sought", *unmatched.READS),
    writes=("linkage.contribution", "governance.finding", "linkage.found", unmatched.TOPIC),
    keeps=(
        Table("activities", "true"),
        Table("links", "true"),
        Table("person_of", "true"),
        Table("subjects_of", "true"),
        *unmatched.TABLES,
        Table("attached", "said", unmatched.RESERVED),
    ),
    form="2",
)
_LINK = contracts.contract("linkage/link")
_SUBJECT = slice(0, REF_WIDTH)
_RECORD = slice(REF_WIDTH + 1, None)
_PASS = slice(REF_WIDTH + 1, REF_WIDTH + 2)


@cache
def _check_same_body() -> None:
    """An activity's body is a contribution's: the join changes the key and the schema id, and decodes nothing."""
    activity, contribution = (contracts.contract(f"linkage/{n}").json["fields"] for n in ("activity", "contribution"))
    if activity != contribution:
        raise ValueError("linkage/activity and linkage/contribution must have the same fields")


class Join:
    """Holds after: each live activity of a linked subject is a contribution of that subject's person, and of no other.

    State: `activities` and `links` as they came (less the cohort's of later passes), `person_of` (subject to its person
    by the best link), `subjects_of` (the same, by person), `attached` (activity to the person that it was sent to); and
    what `Windows` keeps, who is told whose linkage window has ended.
    """

    declaration = JOIN
    version = ""

    def __init__(self, schema_ids: SchemaIds, partitions: int, policy: RetentionPolicy) -> None:
        _check_same_body()
        self._head = wire.header(schema_ids.schema_id("linkage.contribution"))
        self._partitions = partitions
        self._finder = Finder(schema_ids, partitions)
        self._windows = Windows(policy, schema_ids)

    def absorb(self, view: View, inputs: Sequence[Inputs]) -> set[bytes]:
        """Touched are the activities that differ, and all those of a subject whose person differs.

        A rebuilt state may lack a link whose old value was compacted away before the new one is read, and so the person
        that `attached` remembers: what is attached elsewhere is touched whenever a link of its subject changes.
        """
        touched: set[bytes] = set()
        activities: dict[bytes, tuple[bytes | None, bytes | None]] = {}
        for batch in inputs:
            latest = batch.latest()
            keys = list(latest)
            if batch.topic == "linkage.activity":
                held = view.get_many("activities", keys)
                differ = {k: (old, new) for (k, new), old in zip(latest.items(), held, strict=True) if new != old}
                view.put_many("activities", {k: new for k, (_, new) in differ.items()})
                touched |= differ.keys()
                touched.update(k for k, new in latest.items() if new is None)
                activities |= differ
            elif batch.topic == "linkage.link":
                idle = _idle(latest)
                keys = [k for k in keys if k not in idle]
                held = view.get_many("links", keys)
                changed = [k for k, old in zip(keys, held, strict=True) if latest[k] != old or latest[k] is None]
                for key in changed:
                    view.put("links", key, latest[key])
                touched |= self._relinked(view, sorted({k[_SUBJECT] for k in changed}))
        self._windows.absorb(view, activities)
        return touched

    def everything(self, view: View) -> set[bytes]:
        """Activities that live, and activities that were attached."""
        held = {k for table in ("activities", "attached") for k, _ in view.scan(table, b"")}
        return {k for k in held if not k.startswith(unmatched.RESERVED)}

    def settle(self, view: View, touched: Iterable[bytes], inputs: Sequence[Inputs]) -> Outputs:
        """Contributions to the persons that activities belong to now; tombstones where they were before.

        And findings: what is held of whom enquiries are about; and whose linkage window has ended.
        """
        out = Outputs()
        keys = sorted(touched)
        subjects = sorted({k[_SUBJECT] for k in keys})
        person_of = dict(zip(subjects, view.get_many("person_of", subjects), strict=True))
        persons: list[bytes] = []
        records: list[bytes] = []
        values: list[bytes] = []
        takes_back: list[tuple[bytes, bytes]] = []
        attached: dict[bytes, bytes | None] = {}
        for key, value, said in zip(
            keys, view.get_many("activities", keys), view.get_many("attached", keys), strict=True
        ):
            person = person_of[key[_SUBJECT]] if value is not None else None
            if said is not None and said != person:
                takes_back.append((said, key[_RECORD]))
            if person is not None and value is not None:
                persons.append(person)
                records.append(key[_RECORD])
                values.append(self._head + value[wire.HEADER_BYTES :])
            if said != person:
                attached[key] = person
        view.put_many("attached", attached)
        self._emit(out, persons, records, values)
        self._emit(out, [p for p, _ in takes_back], [r for _, r in takes_back], [None] * len(takes_back))
        out.count("attached", len(persons))
        out.count("detached", len(takes_back))
        for batch in inputs:
            if batch.topic == "linkage.sought":
                self._finder.take(view, batch, out)
        self._windows.settle(view, subjects, inputs, out)
        return out

    def _emit(self, out: Outputs, persons: list[bytes], records: list[bytes], values: Sequence[bytes | None]) -> None:
        partitions = partitions_of(pl.Series(persons, dtype=pl.Binary).cast(pl.String), self._partitions).tolist()
        keys = [p + b"|" + r for p, r in zip(persons, records, strict=True)]
        out.emit("linkage.contribution", partitions, keys, values)

    def _relinked(self, view: View, subjects: list[bytes]) -> set[bytes]:
        groups = view.scan_many("links", [s + b"|" for s in subjects], REF_WIDTH + 1)
        flat = [(s, k, v) for s, rows in zip(subjects, groups, strict=True) for k, v in rows]
        best: dict[bytes, tuple[tuple[str, str], bytes]] = {}
        if flat:
            links = decode([v[wire.HEADER_BYTES :] for _, _, v in flat], _LINK)
            names = ("person_ref", "match_key", "epoch", "leading")
            persons, match_keys, epochs, leading = (links.column(n).to_pylist() for n in names)
            deciding: dict[bytes, int] = {}
            for (subject, _, _), leads in zip(flat, leading, strict=True):
                deciding[subject] = max(leads, deciding.get(subject, 0))
            for (subject, key, _), person, match_key, epoch in zip(flat, persons, match_keys, epochs, strict=True):
                # While keys are rotated, the epoch that was said last to lead decides; 0 is of no epoch.
                if person is None or epoch not in (0, deciding[subject]):
                    continue
                # The pass comes first in the block's name; then the rank of the match key, which its id sorts by.
                order = (key[REF_WIDTH + 1 :].decode().partition(":")[0], match_key)
                if subject not in best or order < best[subject][0]:
                    best[subject] = (order, person.encode())
        moved = []
        touched: set[bytes] = set()
        attached = view.scan_many("attached", [s + b"|" for s in subjects], REF_WIDTH + 1)
        for subject, old, rows in zip(subjects, view.get_many("person_of", subjects), attached, strict=True):
            new = best[subject][1] if subject in best else None
            touched.update(k for k, person in rows if person != new)
            if new != old:
                view.put("person_of", subject, new)
                if old is not None:
                    view.put("subjects_of", old + b"|" + subject, None)
                if new is not None:
                    view.put("subjects_of", new + b"|" + subject, b"")
                moved.append(subject + b"|")
        for rows in view.scan_many("activities", moved, REF_WIDTH + 1):
            touched.update(k for k, _ in rows)
        return touched


def _idle(links: Mapping[bytes, bytes | None]) -> set[bytes]:
    """Links that tell the join nothing: a cohort subject's of a later pass, which all name its person of the first."""
    late = [(k, v) for k, v in links.items() if v is not None and k[_PASS] not in (b"0", b"1")]
    if not late:
        return set()
    roles = decode([v[wire.HEADER_BYTES :] for _, v in late], _LINK).column("role").to_pylist()
    return {key for (key, _), role in zip(late, roles, strict=True) if role == "cohort"}
