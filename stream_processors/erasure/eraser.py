"""In pseudonymise: orders become entries and tombstones at the source, and what comes of whom is refused is known.

Only pseudonymise can tell whose a record of the identified zone is. It keeps no index of them: an order is rare, so it
looks through what it has read of its partition. What it writes there are tombstones, which it reads back as a
supplier's own: there is one way out (ADR 20).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import polars as pl
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from schemas import contracts, wire
from schemas.codec import CodecError
from schemas.registry import SchemaIds, UnknownSchemaError
from schemas.rows import from_value, to_value
from stream_processors.enquiry.finding import Holding, merged
from stream_processors.enquiry.opening import strict_tokens
from stream_processors.enquiry.person import frame_of
from stream_processors.enquiry.seal import SealError
from stream_processors.erasure import order as orders
from stream_processors.erasure import suppression
from stream_processors.erasure.order import Target
from stream_processors.erasure.reading import contents, held_until, received
from stream_processors.erasure.suppression import Kind, Ordered, Suppressed, SuppressionKeys, entry, subjects_of
from stream_processors.matching.catalogue import Catalogue
from stream_processors.matching.tokens import TokenKeys
from stream_processors.refs import Refs
from stream_processors.retention_policy import RetentionPolicy
from stream_processors.runtime.partition import partition_of
from stream_processors.runtime.records import Inputs, Outputs
from stream_processors.runtime.state import Table, View

FOUND, FINDING, ENQUIRY = "linkage.found", "governance.finding", "linkage.enquiry"
TABLES = (Table("suppressed", "memory"), Table("orders", "memory"), Table("found", "memory"))
READS = (suppression.TOPIC, orders.TOPIC, FOUND)
WRITES = (suppression.TOPIC, FINDING)
_TABLE_OF = {suppression.TOPIC: "suppressed", orders.TOPIC: "orders", FOUND: "found"}
_MAY_ERASE = frozenset({"found", "nobody"})


@dataclass
class _Look:
    """What is looked for in a partition: hashes of subjects and strict tokens, and references; and what was found."""

    ordered: Ordered
    erases: bool
    answers: bool = True
    subjects: set[str] = field(default_factory=set)
    tokens: set[str] = field(default_factory=set)
    refs: set[str] = field(default_factory=set)
    found: dict[str, dict[bytes, Holding]] = field(default_factory=dict)
    """Topic to keys that live."""


class Eraser:
    """Holds after each step: of whom an entry names, no record that was read of the partition lives in the identified
    zone without a tombstone written after it."""

    def __init__(
        self,
        keys: SuppressionKeys,
        refs: Refs,
        private: Sequence[X25519PrivateKey],
        token_keys: TokenKeys,
        catalogue: Catalogue,
        policy: RetentionPolicy,
        schema_ids: SchemaIds,
        partitions: int,
    ) -> None:
        """`private`: what orders may be sealed to. `token_keys`: of the epoch in which persons are found."""
        self.keys = keys
        self._refs, self._private, self._token_keys, self._catalogue = refs, private, token_keys, catalogue
        self._policy, self._ids, self._partitions = policy, schema_ids, partitions

    def absorb(self, view: View, inputs: Sequence[Inputs]) -> None:
        """Entries, orders and what was found, as they are."""
        for batch in inputs:
            table = _TABLE_OF.get(batch.topic)
            if table is None:
                continue
            for key, value in batch.latest().items():
                view.put(table, key, value)
                if table == "orders" and value is None:
                    view.put("found", key, None)

    def suppressed(self, view: View) -> Suppressed:
        """Who is refused."""
        return Suppressed(view.scan("suppressed", b""), self._ids)

    def settle(self, view: View, inputs: Sequence[Inputs], out: Outputs) -> None:
        """Orders that can be followed, and entries that others wrote: tombstones at the source, entries, findings."""
        came = {topic: [k for b in inputs if b.topic == topic for k, v in b.latest().items() if v is not None]
                for topic in READS}  # fmt: skip
        if not any(came.values()):
            return
        looks = [
            look
            for name in dict.fromkeys([*came[orders.TOPIC], *came[FOUND]])
            if (look := self._follow(view, name.decode(), name in came[orders.TOPIC], out)) is not None
        ]
        looks += self._of_others(view, came[suppression.TOPIC], out)
        self._look_through(view, looks)
        for look in looks:
            if look.erases:
                self._erase(view, look, out)
            if look.answers:
                holdings = merged([h for keys in look.found.values() for h in keys.values()])
                outcome = "erased" if look.erases else "found" if holdings else "nobody"
                self._answer(view, look.ordered.order_id, outcome, holdings, out)

    # Orders and entries.

    def _follow(self, view: View, order_id: str, new: bool, out: Outputs) -> _Look | None:
        """What to look for because of an order, if it came or what it waits for did."""
        (value,) = view.get_many("orders", [order_id.encode()])
        if value is None:
            return None
        try:
            row = from_value(orders.TOPIC, value, self._ids)
            target = orders.opened(order_id, row, self._private)
        except (wire.WireError, CodecError, UnknownSchemaError, SealError):
            if new:
                self._answer(view, order_id, "unreadable", (), out)
            return None
        ordered = Ordered.of(order_id, row)
        if row["action"] == "lift":
            if new:
                self._lift(view, ordered, target, out)
            return None
        look = _Look(ordered, erases=row["action"] == "erase")
        if look.erases and order_id in self.suppressed(view).lifted:
            return None  # read again, after it was lifted
        if target.person is None:
            look.subjects = self._hashes(target)
            return look if new else None
        if not look.erases:
            if new and partition_of(order_id, self._partitions) == view.partition:
                self._ask(order_id, target, view.partition, out)
            return None
        return self._found(view, look, target, out)

    def _found(self, view: View, look: _Look, target: Target, out: Outputs) -> _Look | None:
        """A person is erased once the flow has said who that is: whoever orders it has previewed it, under the same
        order, and seen in every partition that it is one person. Until what was found is here, the order waits."""
        order_id = look.ordered.order_id
        (value,) = view.get_many("found", [order_id.encode()])
        if value is None:
            return None
        found = from_value(FOUND, value, self._ids)
        look.tokens = self._hashes(target)
        if found["outcome"] not in _MAY_ERASE or not look.tokens:
            outcome = found["outcome"] if found["outcome"] not in _MAY_ERASE else "insufficient"
            self._answer(view, order_id, outcome, (), out)
            return None
        look.refs = set(found["subjects"])
        view.put("orders", order_id.encode(), None)  # done: what comes later of it changes nothing
        view.put("found", order_id.encode(), None)
        return look

    def _of_others(self, view: View, keys: Iterable[bytes], out: Outputs) -> list[_Look]:
        """Entries that were not written here: what came before them is looked through. Those that are lifted go."""
        holds = self.suppressed(view)
        looks: dict[str, _Look] = {}
        gone: list[bytes] = []
        for key, value in zip(keys, view.get_many("suppressed", list(keys)), strict=True):
            kind, hash_, order_id = suppression.parts(key)
            if value is None:
                continue
            if kind == "lifted":
                gone += [k for k, _ in view.scan("suppressed", b"") if _is_of(k, order_id)]
            elif order_id in holds.lifted:
                gone.append(key)
            else:
                row = from_value(suppression.TOPIC, value, self._ids)
                if row["looked_in"] != view.partition:
                    look = looks.setdefault(order_id, _Look(Ordered.of(order_id, row), erases=True, answers=False))
                    (look.subjects if kind == "subject" else look.tokens).add(hash_)
        gone = sorted(set(gone))
        for key in gone:
            view.put("suppressed", key, None)
        out.emit(suppression.TOPIC, view.partition, gone, [None] * len(gone))
        return list(looks.values())

    def _lift(self, view: View, ordered: Ordered, target: Target, out: Outputs) -> None:
        """Say of each order that names the target here that it holds no longer."""
        kind: Kind = "subject" if target.person is None else "token"
        holds = self.suppressed(view)
        lifted = sorted({o for h in self._hashes(target) for o in holds.orders.get((kind, h), ())})
        for order_id in lifted:
            of = Ordered(order_id, ordered.reason, ordered.by, ordered.ordered_ms)
            self._write(view, "lifted", "", of, [view.partition], out)
        self._answer(view, ordered.order_id, "lifted" if lifted else "nobody", (), out)

    def _hashes(self, target: Target) -> set[str]:
        if target.person is not None:
            return set(self.keys.tokens(frame_of([target.person])).to_list()[0])
        assert target.supplier is not None
        hashed = pl.select(self.keys.subject(target.supplier, pl.lit(target.subject, pl.String)))
        return {hashed.to_series()[0]}

    def _ask(self, order_id: str, target: Target, partition: int, out: Outputs) -> None:
        """Find a person the way enquiries do."""
        assert target.person is not None
        block, tokens = strict_tokens(target.person, self._catalogue, self._token_keys)
        row: dict[str, Any] = {"block": block, "tokens": tokens, "fault": None, "erases": True}
        if not block or not tokens:
            row |= {"block": "", "tokens": [], "fault": "insufficient"}
        to = partition_of(row["block"], self._partitions) if row["block"] else partition
        out.emit(ENQUIRY, to, [order_id.encode()], [to_value(ENQUIRY, row, self._ids)])

    # What was read before.

    def _look_through(self, view: View, looks: Sequence[_Look]) -> None:
        """Fill in what each look finds. By tokens and references subjects are found, by subjects their records."""
        if any(look.tokens or look.refs for look in looks):
            for batch in view.history("identified.*"):
                self._find_subjects(batch, looks)
        if any(look.subjects for look in looks):
            for batch in view.history("identified.*"):
                self._find_records(batch, looks)

    def _find_subjects(self, batch: Inputs, looks: Sequence[_Look]) -> None:
        _, supplier, dataset = batch.topic.split(".")
        if dataset == contracts.ENQUIRY or not len(batch.keys):
            return
        named = pl.DataFrame({"subject": subjects_of(_texts(batch.keys))}).unique()
        named = named.select(
            ref=self._refs.subject(supplier, pl.col("subject")), hash=self.keys.subject(supplier, pl.col("subject"))
        )
        for look in looks:
            if look.refs:
                look.subjects |= set(named.filter(pl.col("ref").is_in(list(look.refs)))["hash"].drop_nulls())
        if dataset != "person" or not any(look.tokens for look in looks):
            return
        contract = contracts.identified(supplier, dataset)
        for rows, frame in contents(batch, contract, self._ids):
            named = pl.DataFrame(
                [
                    frame.select(self.keys.subject(supplier, pl.col(contract.subject_field)).alias("hash"))["hash"],
                    self._key_hashes(supplier, [batch.keys[r] for r in rows]).alias("key_hash"),
                    self.keys.tokens(frame).alias("token"),
                ]
            ).explode("token")
            for look in looks:
                hit = named.filter(pl.col("token").is_in(list(look.tokens)))
                look.subjects |= {*hit["hash"].drop_nulls(), *hit["key_hash"].drop_nulls()}

    def _find_records(self, batch: Inputs, looks: Sequence[_Look]) -> None:
        _, supplier, dataset = batch.topic.split(".")
        if dataset == contracts.ENQUIRY or not len(batch.keys):
            return
        contract = contracts.identified(supplier, dataset)
        wanted = sorted({h for look in looks for h in look.subjects})
        named = [(list(range(len(batch.keys))), self._key_hashes(supplier, batch.keys))]
        for rows, frame in contents(batch, contract, self._ids):  # where it says another subject than its key does
            named.append((rows, frame.select(self.keys.subject(supplier, pl.col(contract.subject_field))).to_series()))
        hashes: dict[str, set[int]] = {}
        for rows, series in named:
            hit = pl.DataFrame({"row": pl.Series(rows, dtype=pl.Int64), "hash": series})
            for row, hash_ in hit.filter(pl.col("hash").is_in(wanted)).iter_rows():
                hashes.setdefault(hash_, set()).add(row)
        for look in looks:
            held = look.found.setdefault(batch.topic, {})
            matched = sorted({row for h in look.subjects for row in hashes.get(h, ())})
            if not matched and not held:
                continue
            holdings = dict(zip(matched, self._holdings(supplier, dataset, batch, matched), strict=True))
            for row, (key, value) in enumerate(zip(batch.keys, batch.values, strict=True)):
                if key is None:
                    continue
                if value is None:
                    held.pop(key, None)
                elif row in holdings:
                    held[key] = holdings[row]

    def _holdings(self, supplier: str, dataset: str, batch: Inputs, rows: Sequence[int]) -> list[Holding]:
        """What an answer counts of each record. One that nobody can read is held until the hard stop."""
        until = held_until(self._policy, batch, contracts.identified(supplier, dataset), self._ids, rows)
        days = received(batch, rows)
        return [Holding(supplier, dataset, 1, on, until[row]) for row, on in zip(rows, days, strict=True)]

    def _key_hashes(self, supplier: str, keys: Sequence[bytes | None]) -> pl.Series:
        subjects = pl.DataFrame({"subject": subjects_of(_texts(keys))})
        return subjects.select(self.keys.subject(supplier, pl.col("subject"))).to_series()

    # What follows.

    def _erase(self, view: View, look: _Look, out: Outputs) -> None:
        """Entries for whom is named and found, and tombstones at the source for what lives of them."""
        if look.answers:
            for hash_ in sorted(look.tokens):
                self._write(view, "token", hash_, look.ordered, [view.partition], out)
        # Whom an order names is told to every partition, who is found is found in one: there may be records in others,
        # by another partitioner, in quarantine.
        to = list(range(self._partitions)) if look.tokens or look.refs else [view.partition]
        for hash_ in sorted(look.subjects):
            if look.answers or not self._knows(view, hash_, look.ordered):
                self._write(view, "subject", hash_, look.ordered, to, out)
        for topic, keys in look.found.items():
            out.emit(topic, view.partition, list(keys), [None] * len(keys))
            out.count("erased", len(keys))

    def _knows(self, view: View, hash_: str, ordered: Ordered) -> bool:
        (found,) = view.get_many("suppressed", [f"subject|{hash_}|{ordered.order_id}".encode()])
        return found is not None

    def _write(
        self,
        view: View,
        kind: Kind | Literal["lifted"],
        hash_: str,
        ordered: Ordered,
        partitions: Sequence[int],
        out: Outputs,
    ) -> None:
        key, value = entry(kind, hash_, ordered, self._policy.hard_stop, view.partition, self._ids)
        view.put("suppressed", key, value)
        out.emit(suppression.TOPIC, partitions, [key] * len(partitions), [value] * len(partitions))

    def _answer(self, view: View, order_id: str, outcome: str, holdings: Iterable[Holding], out: Outputs) -> None:
        row = {"outcome": outcome, "ref_hash": None, "holdings": [vars(h) for h in holdings]}
        key = f"{order_id}|{view.partition}".encode()
        out.emit(FINDING, partition_of(order_id, self._partitions), [key], [to_value(FINDING, row, self._ids)])

    def refuse_subjects(self, view: View, hashes: Mapping[str, Ordered], suppressed: Suppressed, out: Outputs) -> None:
        """Subjects that are refused by their details are refused by their id too: so are their events, and whatever
        else is said of them."""
        for hash_, ordered in sorted(hashes.items()):
            if ordered.order_id not in suppressed.orders.get(("subject", hash_), ()):
                key, value = entry("subject", hash_, ordered, self._policy.hard_stop, -1, self._ids)
                view.put("suppressed", key, value)
                every = list(range(self._partitions))
                out.emit(suppression.TOPIC, every, [key] * len(every), [value] * len(every))


def _texts(keys: Iterable[bytes | None]) -> list[str | None]:
    """Keys as text; null for one that is not UTF-8."""
    return [key.decode(errors="replace") if key is not None else None for key in keys]


def _is_of(key: bytes, order_id: str) -> bool:
    kind, _, of = suppression.parts(key)
    return kind != "lifted" and of == order_id
