"""What a processor counts of its inputs and outputs, and commits in the same transaction: `governance.account`.

The worker counts what it reads and what the processor says; the processor says what became of the records (`tally`).
The two are held to each other in every transaction (`stream_processors/balance.py`), and one that does not balance is
kept with its offset ranges. Accounts are tied to offsets: what is read again after a replay is counted anew, and what
was skipped is an imbalance. Nothing here is a value of a record.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import polars_hash  # noqa: F401  (registers the nchash namespace)
import pyarrow as pa

from schemas import contracts, wire
from schemas.codec import arrow_schema, encode
from schemas.registry import SchemaIds
from stream_processors.runtime.records import HEARTBEAT_KEY, Emit, Inputs, Outputs
from stream_processors.runtime.state import Writes

TOPIC = "governance.account"
BATCH_HEADER = "lethe.batch"
"""Header of a published record: the publication that it belongs to, 8 bytes. Names nobody."""
BATCH_BYTES = 8
ATTEMPTS = "lethe.requeue.attempts"
"""Header of a record that went back from quarantine: how often. It belongs to the publication that it came in with, and
is not published once more by it."""
REQUEUED = "requeued"
"""The count of a publication's records that went back from quarantine and were read again."""
SKIPPED = "every offset is read"
MOST_IMBALANCES = 20
_CONTRACT = contracts.contract("governance/account")
_MASK = (1 << 64) - 1
_U = np.uint64

Rule = tuple[str, int, int]
"""What must be equal, in words; expected and found."""
Said = Mapping[str, tuple[int, int]]
"""Topic to how many values and how many tombstones were said."""
Balance = Callable[[Sequence[Inputs], Outputs, Said, Writes], Iterable[Rule]]
"""Rules of one processor for one transaction."""
Key = tuple[str, str]
"""Topic (empty for what was said) and publication (empty for all records)."""


@dataclass(frozen=True)
class Range:
    """Offsets `since <= offset < next` of a topic, in the partition of the account."""

    topic: str
    since: int
    next: int


@dataclass(frozen=True)
class Imbalance:
    """What did not hold in one transaction."""

    rule: str
    expected: int
    found: int
    at_ms: int
    ranges: tuple[Range, ...]

    @property
    def where(self) -> str:
        """The ranges, in words."""
        return ", ".join(f"{r.topic} {r.since}..{r.next - 1}" for r in self.ranges)


@dataclass(frozen=True)
class Account:
    """Running totals of one partition of one input of a processor; see the contract for the fields."""

    processor: str
    topic: str
    partition: int
    batch: str = ""
    since: int = 0
    next: int = 0
    read: int = 0
    heartbeats: int = 0
    coalesced: int = 0
    digest: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    imbalances: tuple[Imbalance, ...] = ()
    at_ms: int = 0

    @property
    def key(self) -> bytes:
        """Of its record."""
        return account_key(self.processor, self.topic, self.partition, self.batch)

    def count(self, name: str) -> int:
        """A count, 0 if nothing was counted."""
        return self.counts.get(name, 0)

    @property
    def row(self) -> dict[str, Any]:
        """As the contract has it."""
        return {
            **vars(self),
            "digest": f"{self.digest:016x}" if self.batch else "",
            "counts": [{"name": name, "count": n} for name, n in sorted(self.counts.items())],
            "imbalances": [{**vars(i), "ranges": [vars(r) for r in i.ranges]} for i in self.imbalances],
        }

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Account:
        """From a decoded record."""
        imbalances = tuple(
            Imbalance(**{**i, "ranges": tuple(Range(**r) for r in i["ranges"])}) for i in row["imbalances"]
        )
        counts = {c["name"]: c["count"] for c in row["counts"]}
        digest = int(row["digest"] or "0", 16)
        return cls(**{**row, "digest": digest, "counts": counts, "imbalances": imbalances})


@dataclass(frozen=True)
class Booked:
    """The records of one transaction's accounts, and the accounts once it is committed."""

    emit: Emit
    accounts: dict[Key, Account]


class Accountant:
    """Keeps the accounts of one processor and partition. Nothing changes before `commit`."""

    def __init__(
        self,
        processor: str,
        partition: int,
        ids: SchemaIds,
        balance: Balance | None = None,
        accounts: Iterable[Account] = (),
        home: int = 0,
    ) -> None:
        """`home`: where the accounts lie, see `home_of`."""
        self.processor, self._home = processor, home
        self._partition, self._ids, self._balance = partition, ids, balance
        self.accounts: dict[Key, Account] = {(a.topic, a.batch): a for a in accounts}
        self._dirty: set[Key] = set()

    def resume(self, positions: Mapping[str, int], now_ms: int) -> list[Imbalance]:
        """Hold the accounts to where reading goes on: what was skipped is returned, what will be read again is
        forgotten."""
        skipped = []
        for topic, position in positions.items():
            account = self.accounts.get((topic, ""))
            if account is None:
                if position > 0:  # counted from here on; nobody counted before
                    self._set(Account(self.processor, topic, self._partition, since=position, next=position))
            elif account.next < position:
                gap = Imbalance(SKIPPED, account.next, position, now_ms, (Range(topic, account.next, position),))
                self._set(replace(account, next=position, imbalances=_last([*account.imbalances, gap])))
                skipped.append(gap)
            elif account.next > position:
                self._again(topic, position)
        return skipped

    def forget(self, positions: Mapping[str, int], anew: Mapping[str, int] | None = None) -> None:
        """Count anew from where reading goes on: tombstones may have been missed, so that what came and did not go is
        not what is held. `anew`: topics and the offset from which what was read is said again; imbalances that lie
        there are taken back."""
        for topic, position in positions.items():
            self._set(Account(self.processor, topic, self._partition, since=position, next=position))
        for account in list(self.accounts.values()):
            kept = account.imbalances
            for topic, position in (anew or {}).items():
                kept = tuple(i for i in (_cleared(i, topic, position) for i in kept) if i.ranges)
            if kept != account.imbalances:
                self._set(replace(account, imbalances=kept))

    def recount(self, topic: str, held: Mapping[str, int]) -> None:
        """Have what came and did not go be what is held, by name; what went stays counted."""
        account = self.accounts.get((topic, "")) or Account(self.processor, topic, self._partition)
        counts = dict(account.counts)
        names = held.keys() | {name.rpartition(" ")[0] for name in counts if name.endswith(" new")}
        for name in names:
            gone = counts.get(f"{name} deleted", 0) + counts.get(f"{name} destroyed", 0)
            counts[f"{name} new"] = held.get(name, 0) + gone
        self._set(replace(account, counts=counts))

    def book(
        self, inputs: Sequence[Inputs], outputs: Outputs, writes: Writes, ends: Mapping[str, int], now_ms: int
    ) -> Booked:
        """Count a step that is about to be committed; `ends`: the offsets that are committed with it."""
        accounts = dict(self.accounts)
        changed: set[Key] = set(self._dirty)
        ranges = []

        def account(topic: str, batch: str = "") -> Account:
            changed.add((topic, batch))
            return accounts.get((topic, batch)) or Account(self.processor, topic, self._partition, batch, since=-1)

        for batch in inputs:
            end = ends.get(batch.topic, batch.offsets[-1] + 1 if batch.offsets else 0)
            old = account(batch.topic)
            since = old.since if old.since >= 0 else (batch.offsets[0] if batch.offsets else end)
            ranges.append(Range(batch.topic, batch.offsets[0] if batch.offsets else old.next, end))
            beats = batch.keys.count(HEARTBEAT_KEY) if HEARTBEAT_KEY in batch.keys else 0
            supplied = batch.topic.startswith("identified.")
            again = len(batch.keys) - len(set(batch.keys)) - max(0, beats - 1) if supplied else 0
            accounts[batch.topic, ""] = replace(
                old,
                since=since,
                next=end,
                read=old.read + len(batch.keys),
                heartbeats=old.heartbeats + beats,
                coalesced=old.coalesced + again,
                counts=_added(old.counts, outputs.tallies.get((batch.topic, ""), {})),
                at_ms=now_ms,
            )
            for name, part in _by_batch(batch, again).items() if supplied else ():
                old = account(batch.topic, name)
                accounts[batch.topic, name] = replace(
                    old,
                    since=old.since if old.since >= 0 else part.first,
                    next=max(old.next, part.last + 1),
                    read=old.read + part.records,
                    coalesced=old.coalesced + part.coalesced,
                    digest=(old.digest + part.digest) & _MASK,
                    counts=_added(_added(old.counts, outputs.tallies.get((batch.topic, name), {})), part.counts),
                    at_ms=now_ms,
                )
        said = account("")
        spoken = said_of(outputs)
        counts: Counter[str] = Counter()
        for topic, (kept, gone) in spoken.items():
            counts[topic] += kept
            counts[f"{topic} tombstones"] += gone
        found = [
            Imbalance(rule, expected, got, now_ms, tuple(ranges))
            for rule, expected, got in (self._balance(inputs, outputs, spoken, writes) if self._balance else ())
            if expected != got
        ]
        accounts["", ""] = replace(
            said,
            since=max(said.since, 0),
            counts=_added(said.counts, counts),
            imbalances=_last([*said.imbalances, *found]),
            at_ms=now_ms,
        )
        rows = [accounts[key] for key in sorted(changed)]
        values = encode(pa.RecordBatch.from_pylist([a.row for a in rows], schema=arrow_schema(_CONTRACT)), _CONTRACT)
        framed = wire.frame(self._ids.schema_id(TOPIC), values)
        return Booked(Emit(TOPIC, self._home, [a.key for a in rows], framed), accounts)

    def commit(self, booked: Booked) -> list[Imbalance]:
        """The transaction is committed. Returns the imbalances that it has brought."""
        before = self.accounts.get(("", ""))
        known = set(before.imbalances) if before else set()
        self.accounts = booked.accounts
        self._dirty.clear()
        return [i for i in self.accounts["", ""].imbalances if i not in known]

    def _set(self, account: Account) -> None:
        self.accounts[account.topic, account.batch] = account
        self._dirty.add((account.topic, account.batch))

    def _again(self, topic: str, position: int) -> None:
        """Everything from that offset on will be read again: forget what was counted of it."""
        for key, account in list(self.accounts.items()):
            kept = tuple(i for i in (_cleared(i, topic, position) for i in account.imbalances) if i.ranges)
            if key[0] == topic and account.next > position:
                # Counts are totals: of a part nothing is known. It is counted from there on.
                since = position if not key[1] or account.since < position else -1
                old = account
                account = Account(old.processor, topic, old.partition, old.batch, since, max(since, 0), at_ms=old.at_ms)
            elif kept == account.imbalances:
                continue
            self._set(replace(account, imbalances=kept))


def _cleared(imbalance: Imbalance, topic: str, position: int) -> Imbalance:
    """Without the ranges that are read again."""
    return replace(imbalance, ranges=tuple(r for r in imbalance.ranges if r.topic != topic or r.since < position))


@dataclass(frozen=True)
class _Part:
    first: int
    last: int
    records: int
    coalesced: int
    digest: int
    counts: Mapping[str, int] = field(default_factory=dict)


def _by_batch(batch: Inputs, again: int) -> dict[str, _Part]:
    """`again`: how many records a later one of the same key and transaction replaces."""
    names = publications(batch)
    if not any(names):
        return {}
    hashes = record_hashes(batch.keys, batch.values)
    back = _requeued(batch)
    if is_one(names) and not back:
        return {names[0]: _Part(batch.offsets[0], batch.offsets[-1], len(names), again, int(hashes.sum()))}
    last = {key: row for row, key in enumerate(batch.keys)}
    out: dict[str, _Part] = {}
    for name in dict.fromkeys(names):
        if name:
            rows = [row for row, of in enumerate(names) if of == name]
            late = sum(last[batch.keys[row]] != row for row in rows)
            first = [row for row in rows if row not in back]
            out[name] = _Part(
                batch.offsets[rows[0]], batch.offsets[rows[-1]], len(first), late, int(hashes[first].sum()),
                {REQUEUED: len(rows) - len(first)},
            )  # fmt: skip
    return out


def _requeued(batch: Inputs) -> set[int]:
    """Rows that went back from quarantine. None in the usual case, in which all headers are alike."""
    headers = batch.headers or ()
    if not len(headers) or (headers.count(headers[0]) == len(headers) and not _went_back(headers[0])):
        return set()
    return {row for row, of in enumerate(headers) if _went_back(of)}


def _went_back(headers: Sequence[tuple[str, bytes]] | None) -> bool:
    return any(name == ATTEMPTS for name, _ in headers or ())


def publications(batch: Inputs) -> list[str]:
    """The publication of each record, 16 hex digits; empty for one that belongs to none. All one in the usual case,
    which costs a comparison a record."""
    if batch.headers is None or not len(batch.headers):
        return [""] * len(batch.keys)
    first = batch.headers[0]
    if batch.headers.count(first) == len(batch.headers):
        return [publication_of(first).hex()] * len(batch.keys)
    found = [publication_of(headers) for headers in batch.headers]
    text = {id_: id_.hex() for id_ in set(found)}
    return [text[id_] for id_ in found]


def is_one(names: Sequence[str]) -> bool:
    """Whether all are of one publication."""
    return bool(names) and names.count(names[0]) == len(names)


def publication_of(headers: Sequence[tuple[str, bytes]] | None) -> bytes:
    """The publication that a record's headers name; empty if they name none."""
    for name, value in headers or ():
        if name == BATCH_HEADER and value is not None and len(value) == BATCH_BYTES:
            return value
    return b""


def record_hashes(keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> npt.NDArray[np.uint64]:
    """A number for each record, of key and value (XXH3, 64 bits, finished as MurmurHash3 does). Their sum modulo 2^64
    tells, in any order, whether one is missing, double or altered; it is no defence against forgery."""
    frame = pl.DataFrame(
        {"k": pl.Series(list(keys), dtype=pl.Binary), "v": pl.Series(list(values), dtype=pl.Binary)}
    ).select(
        pl.col("k").nchash.xxh3_64().fill_null(1),  # type: ignore[attr-defined]
        pl.col("v").nchash.xxh3_64().fill_null(2),  # type: ignore[attr-defined]
    )
    k, v = frame["k"].to_numpy(), frame["v"].to_numpy()
    with np.errstate(over="ignore"):
        h = (k << _U(17) | k >> _U(47)) ^ v
        h = (h ^ h >> _U(33)) * _U(0xFF51AFD7ED558CCD)
        h = (h ^ h >> _U(33)) * _U(0xC4CEB9FE1A85EC53)
        return np.asarray(h ^ h >> _U(33), np.uint64)


def home_of(processor: str, partitions: int) -> int:
    """The one partition in which all accounts of a processor lie. Each partition that a transaction writes to costs the
    broker an entry of its coordinator and a marker, and a transaction takes in all input partitions of a worker."""
    return zlib.crc32(processor.encode()) % partitions


def account_key(processor: str, topic: str, partition: int, batch: str = "") -> bytes:
    """Key of an account's record."""
    return "|".join((processor, topic, str(partition), *([batch] if batch else ()))).encode()


def _added(old: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    out = dict(old)
    for name, n in more.items():
        if n:
            out[name] = out.get(name, 0) + n
    return out


def _last(imbalances: Sequence[Imbalance]) -> tuple[Imbalance, ...]:
    return tuple(imbalances[-MOST_IMBALANCES:])


def said_of(outputs: Outputs) -> dict[str, tuple[int, int]]:
    """Values and tombstones by topic."""
    out: dict[str, tuple[int, int]] = {}
    for emit in outputs.emits:
        values, gone = out.get(emit.topic, (0, 0))
        nulls = emit.values.count(None)
        out[emit.topic] = (values + len(emit.values) - nulls, gone + nulls)
    return out
