"""What the specifications are written with: tables of text in, one processor or the whole flow, tables of text out.

Names of subjects, persons, records and families are written short and padded to the width of a reference; a token is
written `k02=a`. A row that ends in `gone` is a tombstone.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import pyarrow as pa

from schemas import contracts, wire
from schemas.codec import arrow_schema, decode, encode
from schemas.contracts import ENQUIRY, Contract, enquiry_topic, identified, identified_topic
from schemas.registry import StaticRegistry
from stream_processors import oracle
from stream_processors.enquiry.person import PersonAsked
from stream_processors.enquiry.seal import public_key, seal
from stream_processors.epochs import Epochs
from stream_processors.erasure.order import TOPIC as ORDERS
from stream_processors.erasure.order import Action, Reason, Target, order_row
from stream_processors.erasure.suppression import Suppressed
from stream_processors.link import last_claims
from stream_processors.matching.tokens import TOKEN_HEX_DIGITS, TokenKeys
from stream_processors.refs import REF_WIDTH
from stream_processors.runtime.driver import Driver, Log
from stream_processors.runtime.partition import partition_of
from stream_processors.runtime.records import Emit, Inputs
from stream_processors.runtime.state import MemoryStore, Position
from stream_processors.runtime.task import Step, Task
from stream_processors.topology import NAMES, Context, build


class _QuickRegistry(StaticRegistry):
    @cache  # noqa: B019  (one registry for all tests)
    def schema_id(self, topic: str) -> int:
        return super().schema_id(topic)


PARTITIONS = 4
TOKEN_KEY, RESEARCH_KEY = b"t" * 32, b"r" * 32
REGISTRY = _QuickRegistry()
CONTEXT = Context.default(lambda: TOKEN_KEY, lambda: RESEARCH_KEY, REGISTRY, PARTITIONS)
AYSHA: dict[str, Any] = {
    "forename": "Aysha",
    "surname": "Begum",
    "date_of_birth": datetime.date(2001, 2, 3),
    "sex": "F",
    "postcode": "SE13 7AB",
}
"""Somebody, as a supplier's person record has them."""
GONE = "gone"
ALERT = "governance.alert"

_KEYS = {
    "linkage.identity": ("subject",),
    "linkage.candidate": ("subject", "block"),
    "linkage.link": ("subject", "block"),
    "linkage.activity": ("subject", "record"),
    "linkage.contribution": ("person", "record"),
}
_REFERENCES = {"subject", "person", "record", "person_ref", "family_ref"}
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "linkage.identity": {
        "supplier": "dfe",
        "role": "department",
        "epoch": 1,
        "catalogue": "1",
        "blocks": [],
        "tokens": [],
        "statements": [],
        "encodings": [],
    },
    "linkage.candidate": {
        "supplier": "dfe",
        "role": "department",
        "home": 0,
        "tokens": [],
        "claimed": [],
        "statement": "",
        "encoding": "",
        "catalogue": "1",
        "epoch": 1,
        "leading": 1,
    },
    "linkage.link": {
        "supplier": "dfe",
        "role": "department",
        "outcome": "linked",
        "claimed": [],
        "epoch": 1,
        "leading": 1,
    },
    "linkage.activity": {"supplier": "dfe", "dataset": "absence"},
    "linkage.contribution": {"supplier": "dfe", "dataset": "absence"},
}
_EXPIRES = datetime.date(2030, 1, 1)

Cells = dict[str, str]


def cells(text: str) -> list[Cells]:
    """Rows of a table of text by column; the first line names the columns, an empty cell is left out.

    A column without a name is for `gone`.
    """
    lines = [[cell.strip() for cell in line.split("|")] for line in text.strip().splitlines()]
    return [{name or GONE: cell for name, cell in zip(lines[0], line, strict=False) if cell} for line in lines[1:]]


def wide(name: str) -> str:
    """A short name as wide as a reference."""
    return name.ljust(REF_WIDTH, "_")


def narrow(name: str) -> str:
    """The short name again."""
    return name.rstrip("_")


def token(text: str) -> str:
    """`k02=a` as a token."""
    match_key, _, value = text.partition("=")
    return f"{match_key}:{value.encode().hex().ljust(TOKEN_HEX_DIGITS, '0')}"


def _readable(token: str) -> str:
    """What stands behind the colon of `k02=a`, of the digits of a token."""
    return bytes.fromhex(token).decode().rstrip("\0")


def framed(topic: str, row: Mapping[str, Any]) -> bytes:
    """A row as a message value of the topic."""
    contract = contracts.of_topic(topic)
    assert contract is not None
    batch = pa.RecordBatch.from_pylist([dict(row)], schema=arrow_schema(contract))
    return wire.frame(REGISTRY.schema_id(topic), encode(batch, contract))[0]


def decoded(topic: str, value: bytes) -> dict[str, Any]:
    """A message value of the topic as a row."""
    contract = contracts.of_topic(topic)
    assert contract is not None
    row: dict[str, Any] = decode([value[wire.HEADER_BYTES :]], contract).to_pylist()[0]
    return row


def _parsed(kind: str, text: str) -> Any:
    if kind == "int":
        return int(text)
    if kind == "boolean":
        return text == "yes"
    if kind == "date":
        return datetime.date.fromisoformat(text if text.count("-") == 2 else f"{text}-01")
    return text


def _row(topic: str, given: Cells) -> dict[str, Any]:
    contract = contracts.contract(topic.replace(".", "/"))
    row: dict[str, Any] = {"expires_on": _EXPIRES, **_DEFAULTS[topic]}
    top = {f.name: f for f in contract.fields}
    dataset = given.get("dataset", row.get("dataset"))
    item: dict[str, Any] = {}
    kinds = {leaf.path: leaf.kind for leaf in contract.leaves}
    for name, text in given.items():
        if name in _KEYS[topic]:
            continue
        if name in {"tokens", "blocks", "claimed"}:
            row[name] = [token(t) if name == "tokens" else t for t in text.split()]
        elif name in top:
            row[name] = wide(text) if name in _REFERENCES else _parsed(top[name].kind, text)
        else:
            item[name] = wide(text) if name in _REFERENCES else _parsed(kinds[f"{dataset}.{name}"], text)
    if "dataset" in row:
        row[row["dataset"]] = item
    return row


def _key(topic: str, given: Cells) -> bytes:
    parts = [wide(given[name]) if name in _REFERENCES else given[name] for name in _KEYS[topic]]
    return "|".join(parts).encode()


def _shown(value: Any, name: str) -> str:
    if isinstance(value, list):
        return " ".join(
            v.partition(":")[0] + "=" + _readable(v.partition(":")[2]) if name == "tokens" else v for v in value
        )
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime.date):
        return value.isoformat()[:7]
    return narrow(value) if name in _REFERENCES else str(value)


@dataclass
class Said:
    """One record that a processor said."""

    topic: str
    partition: int
    key: bytes
    value: bytes | None
    headers: list[tuple[str, bytes]]

    def cells(self) -> Cells:
        """Key and value, as a table writes them."""
        names = _KEYS[self.topic]
        out = dict(zip(names, self.key.decode().split("|"), strict=True))
        out = {k: narrow(v) if k in _REFERENCES else v for k, v in out.items()} | {"partition": str(self.partition)}
        if self.value is None:
            return out | {GONE: GONE}
        row = decoded(self.topic, self.value)
        item = row.pop(row["dataset"], None) if "dataset" in row else None
        return out | {n: _shown(v, n) for n, v in {**row, **(item or {})}.items() if v is not None and v != []}


@dataclass
class Bench:
    """One processor on one partition, with its state, without the others."""

    name: str
    partition: int = 0
    context: Context = CONTEXT
    task: Task = field(init=False)
    offset: int = 0
    changelog: list[Said] = field(default_factory=list)
    """What was written to the changelog, in all."""

    def __post_init__(self) -> None:
        self.task = Task(build(self.name, self.context), self.partition, MemoryStore())

    def __call__(self, gives: str = "", **given: str) -> list[Said]:
        """Take one batch of tables by topic (`identity=...`), and hold what is said to the table `gives`.

        Columns that `gives` does not name are not looked at, nor are alerts; the order of its rows says nothing.
        """
        said = self.take(
            [(f"linkage.{topic}", self.records(f"linkage.{topic}", text)) for topic, text in given.items()]
        )
        wanted = cells(gives) if gives else []
        names = {name for row in wanted for name in row} | {GONE}
        if gives:
            names |= {n.strip() for n in gives.strip().splitlines()[0].split("|")}
        found = [{n: c for n, c in s.cells().items() if n in names} for s in said if s.topic != ALERT]
        assert sorted(map(_line, found)) == sorted(map(_line, wanted))
        return said

    def records(self, topic: str, text: str) -> list[tuple[bytes, bytes | None]]:
        """A table as records of a topic."""
        out: list[tuple[bytes, bytes | None]] = []
        for row in cells(text):
            gone = row.pop(GONE, None)
            out.append((_key(topic, row), None if gone else framed(topic, _row(topic, row))))
        return out

    def take(self, batches: Iterable[tuple[str, Sequence[tuple[bytes | None, bytes | None]]]]) -> list[Said]:
        """Take one batch of records by topic; return what is said, less the changelog."""
        return self._said(self.task.step([self._inputs(topic, records) for topic, records in batches]))

    def inputs(self, topic: str, text: str) -> Inputs:
        """A table as a batch of one topic, not taken."""
        return self._inputs(topic, self.records(topic, text))

    def _inputs(self, topic: str, records: Sequence[tuple[bytes | None, bytes | None]]) -> Inputs:
        keys, values = [k for k, _ in records], [v for _, v in records]
        offsets = list(range(self.offset, self.offset + len(records)))
        self.offset += len(records)
        return Inputs(topic, self.partition, keys, values, offsets, [0] * len(records))

    def reconcile(self) -> list[Said]:
        """Settle everything anew."""
        return self._said(self.task.reconcile())

    def forget(self) -> None:
        """Lose what is true, as when the inputs that said it are compacted away; keep what was said."""
        said, old = self.task.processor.declaration.said, self.task.store
        self.task.store = MemoryStore()
        if said:
            self.task.store.apply({said: dict(old.scan(said, b""))}, Position({}))

    def _said(self, step: Step) -> list[Said]:
        self.task.commit(step, Position({}))
        self.counts = step.outputs.counts
        said = [s for emit in step.outputs.emits for s in flat(emit)]
        self.changelog += [s for s in said if s.topic.startswith("state.")]
        return [s for s in said if not s.topic.startswith("state.")]


def flat(emit: Emit) -> list[Said]:
    """Records of an emit, one by one."""
    partitions = [emit.partitions] * len(emit.keys) if isinstance(emit.partitions, int) else emit.partitions
    headers = emit.headers or [[] for _ in emit.keys]
    return [Said(emit.topic, *rest) for rest in zip(partitions, emit.keys, emit.values, headers, strict=True)]


def _line(row: Cells) -> list[tuple[str, str]]:
    return sorted(row.items())


class Flow:
    """The whole flow, brokerless: supplier records in, research records out, the oracle beside it."""

    def __init__(self, seed: int = 0, context: Context = CONTEXT) -> None:
        self.context = context
        self.epochs = context.epochs() if context.epochs else epochs_of(1)
        self.driver = Driver([build(name, context) for name in NAMES], PARTITIONS, seed)

    def put(self, supplier: str, dataset: str, **row: Any) -> None:
        """Publish a supplier's record."""
        contract = identified(supplier, dataset)
        topic = identified_topic(supplier, dataset)
        self.raw(supplier, dataset, _ids(contract, row), framed(topic, row))

    def delete(self, supplier: str, dataset: str, *ids: str) -> None:
        """Publish a tombstone for a subject, or a subject and a record."""
        self.raw(supplier, dataset, ids, None)

    def ask(self, council: str, name: str, sealed: str | None = None, **person: Any) -> None:
        """Let an enquiry in, as the control plane does; `sealed` instead of what the person's details make."""
        sealed = sealed or seal(PersonAsked(**person), council, name, public_key(TOKEN_KEY))
        value = framed(enquiry_topic(council), {"enquiry_id": name, "sealed": sealed})
        self.raw(council, "enquiry", [name], value)

    def order(self, order_id: str, action: Action, target: Target, reason: Reason = "objection") -> None:
        """Give an order to erase, as the command does: to every partition."""
        row = order_row(order_id, action, target, reason, "officer", 1, public_key(TOKEN_KEY))
        for partition in range(PARTITIONS):
            self.driver.append(ORDERS, partition, order_id.encode(), framed(ORDERS, row))

    def suppressed(self) -> frozenset[str]:
        """Hashes of subjects and tokens that are refused, as the oracle takes them."""
        rows = sorted(self.driver.table("linkage.suppression").items())
        return frozenset(hash_ for _, hash_ in Suppressed(rows, REGISTRY).orders)

    def raw(self, supplier: str, dataset: str, ids: Sequence[str], value: bytes | None) -> None:
        """Publish any value under a key."""
        topic = identified_topic(supplier, dataset)
        self.driver.append(topic, partition_of(ids[0], PARTITIONS), "|".join(ids).encode(), value)

    def rotate(self) -> None:
        """The next stage of a rotation of keys, as `lethe keys rotate` brings it about: once all is at rest."""
        self.driver.run()
        self.begin_stage()
        for partition in range(PARTITIONS):
            self.driver.lag(("pseudonymise", partition))

    def begin_stage(self) -> None:
        """Start pseudonymise anew with the keys of the next stage; it has read nothing again yet."""
        leads, also = self.epochs.leads.epoch, self.epochs.also.epoch if self.epochs.also else None
        after = {None: (leads, leads + 1), leads + 1: (leads + 1, leads), leads - 1: (leads, None)}
        self.epochs = epochs_of(*after[also])
        self.context = replace(self.context, epochs=lambda: self.epochs)
        self.driver.replace(build("pseudonymise", self.context))

    def run(self, batch: int = 10_000) -> None:
        """Go on until all is at rest."""
        self.driver.run(batch)

    def research(self) -> dict[str, dict[str, Any]]:
        """Research records by person id."""
        table = self.driver.table("research.person")
        return {k.decode(): decoded("research.person", v) for k, v in table.items()}

    def links(self) -> dict[str, Mapping[str, Any]]:
        """What the last pass that it has reached claims of each subject, by its reference."""
        table = self.driver.table("linkage.link")
        return dict(last_claims({k.decode(): decoded("linkage.link", v) for k, v in table.items()}))

    def live(self) -> dict[str, dict[str, list[dict[str, Any]]]]:
        """Live supplier records: the last of each key, if it can be read."""
        out: dict[str, dict[str, list[dict[str, Any]]]] = {}
        for topic in self.driver.topics:
            zone, _, rest = topic.partition(".")
            supplier, _, dataset = rest.partition(".")
            if zone == "identified" and dataset not in ("quarantine", ENQUIRY):
                rows = oracle.rows_of(identified(supplier, dataset), self.driver.table(topic).values())
                out.setdefault(supplier, {})[dataset] = rows
        return out

    @staticmethod
    def live_values(log: Log) -> list[tuple[bytes | None, bytes]]:
        """A partition compacted: keys with their last values."""
        last = {r.key: r.value for r in log.records}
        return [(k, v) for k, v in last.items() if v is not None]

    def oracle(self) -> oracle.Oracle:
        """What must be of the live supplier records."""
        areas, k = self.context.areas, self.context.k_anonymity
        widen = oracle.Widen(k, lambda person: partition_of(person, PARTITIONS), areas.wider) if k > 1 else None
        return oracle.research(
            self.live(),
            TOKEN_KEY,
            RESEARCH_KEY,
            self.context.catalogue,
            areas.by_postcode,
            self.epochs.leads,
            widen,
        )

    def differences(self) -> list[str]:
        """Where research records and links differ from the oracle's."""
        expected = self.oracle()
        return oracle.equal(expected, self.research()) + oracle.equal_links(expected, self.links())


def epochs_of(leads: int, also: int | None = None) -> Epochs:
    """Epochs with keys of their own, the first under the token key."""

    def master(epoch: int) -> bytes:
        return TOKEN_KEY if epoch == 1 else hashlib.sha256(b"epoch %d" % epoch).digest()

    numbers = [leads] if also is None else [leads, also]
    keys = [TokenKeys(master(n), n) for n in numbers]
    return Epochs(keys[0], keys[1] if also is not None else None, tuple(map(master, numbers)))


def _ids(contract: Contract, row: Mapping[str, Any]) -> list[str]:
    return [row[n] for n in (contract.subject_field, contract.record_field) if n]


def encoded_candidates(rows: Any) -> list[bytes]:
    """Values of candidates of a frame with any of their columns; the others are as in the tables."""
    topic = "linkage.candidate"
    given = {"expires_on": _EXPIRES, "person_ref": None, **_DEFAULTS[topic]}
    return [framed(topic, {**given, **row}) for row in rows.iter_rows(named=True)]
