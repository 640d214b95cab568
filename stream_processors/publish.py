"""publish: one de-identified record per person, behind a guard that refuses what is not allowed by name, type and
domain.

A person's contributions are kept as encoded items of the research record, which is spliced from them
(`stream_processors/splice.py`): nothing stored is decoded again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import date

import msgpack
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from schemas import contracts, wire
from schemas.codec import arrow_schema, decode, decode_each, encode
from schemas.registry import SchemaIds
from stream_processors import clock, quarantine
from stream_processors.areas import Areas
from stream_processors.arrow import one_batch
from stream_processors.clock import Clock
from stream_processors.guard import Guard
from stream_processors.refs import REF_WIDTH, ResearchIds
from stream_processors.runtime.partition import partitions_of
from stream_processors.runtime.processor import Declaration
from stream_processors.runtime.records import Inputs, Outputs
from stream_processors.runtime.state import Table, View
from stream_processors.splice import (
    DATASETS,
    FACTS,
    HEAD_BYTES,
    HEADER,
    HEADER_KEY,
    ITEMS,
    NOT_RECORDS,
    PLACE_KEY,
    QUASI,
    STORED_FACTS,
    check_order,
    month_numbers,
    splice,
    when,
)
from stream_processors.widen import CELLS, LEVELS, Place, Widening

_REFUSED = b"refused|"  # before the key that governance was told of it under
_WIDENED_TO = b"k"  # in both kinds of state: the k that was followed
NOT_PERSONS = (clock.ROW, _WIDENED_TO, _REFUSED)
"""Beginnings of rows of what was said that are of no person (their keys are hex digits of a fixed width)."""
PUBLISH = Declaration(
    name="publish",
    by="person",
    reads=("linkage.contribution", clock.TOPIC),
    writes=("research.person", quarantine.TOPIC),
    keeps=(
        Table("persons", "true"),
        Table(CELLS, "true"),
        Table(LEVELS, "true"),
        Table("published", "said", NOT_PERSONS),
    ),
)
_CONTRIBUTION = contracts.contract("linkage/contribution")
_RESEARCH = contracts.contract("research/person")
_PERSON = slice(0, REF_WIDTH)
_RECORD = slice(REF_WIDTH + 1, None)


class Publish:
    """Holds after: a person is in `research.person` exactly if a live cohort record contributes to it, as `compose`
    has it.

    State: `persons` (person to its contributions, encoded for the research record), `cells` and `levels` (who lives
    where, and how wide each area is, where areas are widened), `published` (person to a digest of the value that was
    published, the clock, and which contributions governance was told were refused).
    """

    declaration = PUBLISH
    version = ""

    def __init__(
        self,
        ids: ResearchIds,
        schema_ids: SchemaIds,
        partitions: int,
        areas: Areas,
        k: int = 0,
    ) -> None:
        """`k`: fewest people of a partition that may share birth year, sex and area; below 2, areas are published as
        they are.

        Raises:
            GuardError: the guard does not allow what the research record would hold.
        """
        self._ids, self._schemas, self._partitions = ids, schema_ids, partitions
        self._guard = Guard(_RESEARCH, areas.codes)
        self._widening = Widening(k, areas)
        check_order()

    def absorb(self, view: View, inputs: Sequence[Inputs]) -> set[bytes]:
        """Contributions by person; touched are the persons of whom one differs."""
        touched = self._follow_k(view)
        today = Clock.unpacked(view.get_many("published", [clock.ROW])[0]).after(inputs).day
        for batch in inputs:
            if batch.topic == clock.TOPIC:
                continue
            latest = batch.latest()
            encoded = self._encoded(latest, view.refused, today)
            people: dict[bytes, list[bytes]] = {}
            for key in latest:
                people.setdefault(key[_PERSON], []).append(key)
            held = view.get_many("persons", list(people))
            changed: dict[bytes, dict[bytes, bytes]] = {}
            other_facts: list[bytes] = []
            for (person, keys), packed in zip(people.items(), held, strict=True):
                items: dict[bytes, bytes] = msgpack.unpackb(packed) if packed else {}
                facts = False
                for key in keys:
                    record, item = key[_RECORD], encoded.get(key)
                    old = items.get(record)
                    if item is None:
                        touched.add(person)  # even where only `said` remembers the person
                    if item == old:
                        continue
                    if item is None:
                        del items[record]
                    else:
                        items[record] = item
                    facts = facts or (item or old or b"")[:1] == FACTS
                    changed[person] = items
                if facts:
                    other_facts.append(person)
            touched |= self._widened(view, self._rewrite_headers(other_facts, changed))
            for person, items in changed.items():
                view.put("persons", person, msgpack.packb(items) if items else None)
            view.unpacked.update(changed)
            touched |= changed.keys()
        return touched

    def everything(self, view: View) -> set[bytes]:
        """Persons with contributions, and persons that were published."""
        return {k for t in ("persons", "published") for k, _ in view.scan(t, b"") if not k.startswith(NOT_PERSONS)}

    def settle(self, view: View, touched: Iterable[bytes], inputs: Sequence[Inputs]) -> Outputs:
        """Research records that differ from what was published, and tombstones for persons that are no more."""
        out = Outputs()
        k = b"%d" % self._widening.k if self._widening.on else None
        if view.get_many("published", [_WIDENED_TO]) != [k]:
            touched = self.everything(view)  # what was said followed another k
            view.put("published", _WIDENED_TO, k)
        told = Clock.unpacked(view.get_many("published", [clock.ROW])[0])
        if (now := told.after(inputs)) != told:
            view.put("published", clock.ROW, now.packed())
        people = sorted(touched)
        if people:
            said = view.get_many("published", people)
            others = [p for p in people if p not in view.unpacked]
            held = {p: msgpack.unpackb(v) if v else {} for p, v in _pairs(others, view.get_many("persons", others))}
            items = [view.unpacked[p] if p in view.unpacked else held[p] for p in people]
            head = wire.header(self._schemas.schema_id("research.person"))
            places = self._widening.shown(view, [of.get(PLACE_KEY) for of in items])
            values = [
                head + splice(of, place) if HEADER_KEY in of else None for of, place in zip(items, places, strict=True)
            ]
            ids = pl.Series("person", people).cast(pl.String).to_frame().select(self._ids.person(pl.col("person")))
            research_ids = ids.to_series()
            partitions = partitions_of(research_ids, self._partitions).tolist()
            keys = research_ids.cast(pl.Binary).to_list()
            emit_at: list[int] = []
            emit: list[bytes | None] = []
            for i, (person, value, old) in enumerate(zip(people, values, said, strict=True)):
                digest = hashlib.blake2b(value, digest_size=16).digest() if value is not None else None
                if digest == old:
                    continue
                view.put("published", person, digest)
                emit_at.append(i)
                emit.append(value)
            out.emit("research.person", [partitions[i] for i in emit_at], [keys[i] for i in emit_at], emit)
            out.count("published", sum(v is not None for v in emit))
            out.count("withdrawn", sum(v is None for v in emit))
        for batch in inputs:
            if batch.topic != clock.TOPIC:
                self._refuse(view, batch, out)
        return out

    def _encoded(
        self, latest: dict[bytes, bytes | None], refused: dict[bytes, str], today: date | None
    ) -> dict[bytes, bytes]:
        """Items of the contributions that the guard lets through on that day, by key."""
        live = {k: v for k, v in latest.items() if v is not None}
        keys = list(live)
        decoded = decode_each([v[wire.HEADER_BYTES :] for v in live.values()], _CONTRIBUTION)
        refused.update({keys[i]: "Undecodable" for i in decoded.bad})
        keys = [keys[i] for i in decoded.good]
        out: dict[bytes, bytes] = {}
        table = decoded.batch
        refusals = self._guard.refusals(table, today)
        refused.update({k: error for k, error in zip(keys, refusals, strict=True) if error})
        for dataset in ["person", *DATASETS]:
            column = table.column(dataset)
            rows = [i for i in pc.indices_nonzero(column.is_valid()).to_pylist() if refusals[i] is None]
            if not rows:
                continue
            chosen = column.take(pa.array(rows))
            flat = pa.RecordBatch.from_arrays(chosen.flatten(), names=[f.name for f in chosen.type])
            contract = STORED_FACTS if dataset == "person" else ITEMS[dataset]
            index = bytes([0 if dataset == "person" else DATASETS.index(dataset) + 1])
            for row, month, body in zip(rows, when(flat), encode(flat, contract), strict=True):
                out[keys[row]] = index + month + body
        return out

    def _follow_k(self, view: View) -> set[bytes]:
        """Index everybody's place if the state was made under another k, and forget the index if there is none now."""
        k = b"%d" % self._widening.k if self._widening.on else None
        if view.get_many(LEVELS, [_WIDENED_TO]) == [k]:
            return set()
        for table in (CELLS, LEVELS):
            for key, _ in view.scan(table, b""):
                view.put(table, key, None)
        view.put(LEVELS, _WIDENED_TO, k)
        if k is None:
            return set()
        places = ((person, msgpack.unpackb(packed).get(PLACE_KEY)) for person, packed in view.scan("persons", b""))
        return self._widening.moved(view, [(person, None, place) for person, place in places if place is not None])

    def _widened(self, view: View, moves: list[tuple[bytes, bytes | None, bytes | None]]) -> set[bytes]:
        return self._widening.moved(view, moves) if self._widening.on else set()

    def _rewrite_headers(
        self, people: Sequence[bytes], items: dict[bytes, dict[bytes, bytes]]
    ) -> list[tuple[bytes, bytes | None, bytes | None]]:
        """Set the encoded head and the place of persons whose facts differ; neither without a cohort record.

        Returns each person with its place before and now.
        """
        facts = [
            (i, record, item[HEAD_BYTES:])
            for i, person in enumerate(people)
            for record, item in items[person].items()
            if record not in NOT_RECORDS and item[:1] == FACTS
        ]
        before: list[bytes | None] = []
        for person in people:
            items[person].pop(HEADER_KEY, None)
            before.append(items[person].pop(PLACE_KEY, None))
        if facts:
            self._set_headers(people, items, facts)
        return [(p, was, items[p].get(PLACE_KEY)) for p, was in zip(people, before, strict=True)]

    def _set_headers(
        self,
        people: Sequence[bytes],
        items: dict[bytes, dict[bytes, bytes]],
        facts: list[tuple[int, bytes, bytes]],
    ) -> None:
        rows = pl.DataFrame(one_batch(decode([f for _, _, f in facts], STORED_FACTS))).with_columns(
            who=pl.Series([i for i, _, _ in facts], dtype=pl.Int64),
            record=pl.Series([r for _, r, _ in facts]).cast(pl.String),
        )
        headers = merge_facts(rows)
        names = pl.Series("person", [people[i] for i in headers["who"]], dtype=pl.Binary).cast(pl.String)
        headers = headers.with_columns(names).with_columns(
            self._ids.person(pl.col("person")).alias("person_id"),
            self._ids.family(pl.col("family_ref")).alias("family_id"),
        )
        bodies = encode(one_batch(headers.select(arrow_schema(HEADER).names)), HEADER)
        starts = month_numbers(headers["programme_start_month"])
        places = headers.select(pl.col(QUASI).cast(pl.String)).fill_null("").rows()
        for i, start, body, place in zip(headers["who"].to_list(), starts, bodies, places, strict=True):
            items[people[i]][HEADER_KEY] = start + body
            items[people[i]][PLACE_KEY] = Place(*place).packed()

    def _refuse(self, view: View, batch: Inputs, out: Outputs) -> None:
        """Account for contributions that the guard refuses: where they lie, and nothing of what they say. What was told
        of one ends when it is let through, or is no more."""
        if not view.refused and not view.scan("published", _REFUSED, 1):
            return
        last = {key: i for i, key in enumerate(batch.keys) if key is not None}
        told = {key: quarantine.told_key(batch.topic, batch.partition, key, 0) for key in last if key in view.refused}
        over = self._no_longer_refused(view, batch, [key for key in last if key not in told])
        for key in told.values():
            view.put("published", _REFUSED + key, b"1")
        for key in over:
            view.put("published", _REFUSED + key, None)
        if not told and not over:
            return
        failed = [quarantine.Failed(batch.offsets[last[key]], view.refused[key]) for key in told]
        values = quarantine.told(
            "research", batch.topic, batch.partition, failed, self._schemas.schema_id(quarantine.TOPIC)
        )
        out.emit(quarantine.TOPIC, batch.partition, [*told.values(), *over], [*values, *[None] * len(over)])
        out.count("refused", len(told))

    def _no_longer_refused(self, view: View, batch: Inputs, keys: Sequence[bytes]) -> list[bytes]:
        told = [quarantine.told_key(batch.topic, batch.partition, key, 0) for key in keys]
        found = view.get_many("published", [_REFUSED + key for key in told])
        return [key for key, was in zip(told, found, strict=True) if was is not None]


def merge_facts(facts: pl.DataFrame) -> pl.DataFrame:
    """One row per person from what its person records say, for persons with at least one cohort record.

    The cohort's facts come from one record: participant before comparison, then the earliest start, then the smallest
    reference. A birth year or sex that it lacks is taken from the next record, departments' last.

    Args:
        facts: columns who (Int64), record (String) and those of the activity's person item.

    Returns:
        Columns of the item, and who; ordered by who.
    """
    ordered = facts.sort(
        "who",
        pl.col("programme_status").is_null(),
        pl.col("programme_status") != "participant",
        pl.col("programme_start_month"),
        "record",
        nulls_last=True,
    )
    fill = ("birth_year", "sex")
    rest = [c for c in facts.columns if c not in {"who", "record", *fill}]
    return (
        ordered.group_by("who", maintain_order=True)
        .agg(*[pl.col(c).first() for c in rest], *[pl.col(c).drop_nulls().first() for c in fill])
        .filter(pl.col("programme_status").is_not_null())
    )


def _pairs(keys: Sequence[bytes], values: Sequence[bytes | None]) -> Iterable[tuple[bytes, bytes | None]]:
    return zip(keys, values, strict=True)
