"""A small population published in announced batches to the brokerless driver, as a supplier's publisher does it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any

import polars as pl

from infra.bench import load
from schemas import contracts
from stream_processors.accounting.reconcile import Behind, Report, reconcile
from stream_processors.accounting.tables import Record as Read
from stream_processors.accounting.tables import Source
from stream_processors.runtime.account import BATCH_HEADER, record_hashes
from stream_processors.runtime.driver import Driver, reads_topic
from stream_processors.runtime.partition import partition_of
from stream_processors.topology import NAMES, build
from tests.stream_processors.tables import CONTEXT, PARTITIONS, REGISTRY, framed

BATCH = "governance.batch"
PEOPLE, ABSENCES = 40, 90
Record = tuple[str, bytes, bytes | None]
"""Subject id, key, value."""


def records(supplier: str, dataset: str, rows: pl.DataFrame) -> list[Record]:
    """Rows as a publisher sends them."""
    contract, topic = contracts.identified(supplier, dataset), contracts.identified_topic(supplier, dataset)
    out: list[Record] = []
    for row in rows.iter_rows(named=True):
        ids = [row[contract.subject_field], *([row[contract.record_field]] if contract.record_field else [])]
        wanted = {f.name: row.get(f.name) for f in contract.fields}
        out.append((ids[0], "|".join(ids).encode(), framed(topic, wanted)))
    return out


def publish(
    driver: Driver, supplier: str, dataset: str, sent: Sequence[Record], *, name: str = "", keep: int | None = None
) -> str:
    """One announced batch; returns its id. `keep`: the publisher ends after so many records, and says no more."""
    topic = contracts.identified_topic(supplier, dataset)
    id_ = hashlib.sha256(f"{topic}{name}{len(sent)}".encode()).hexdigest()
    publication = bytes.fromhex(id_[-16:])
    starts = [driver.log(topic, p).end for p in range(driver.partitions)]
    begun = {"open": True, "starts": starts, "ends": starts}
    announce(driver, supplier, dataset, publication.hex(), begun, publication)
    here: list[list[tuple[bytes, bytes | None]]] = [[] for _ in range(driver.partitions)]
    for subject, key, value in sent[:keep]:
        partition = partition_of(subject, driver.partitions)
        driver.append(topic, partition, key, value, 1_500_000_000_000, [(BATCH_HEADER, publication)])
        here[partition].append((key, value))
    if keep is None:
        sums = [record_hashes([k for k, _ in rows], [v for _, v in rows]).sum() for rows in here]
        closed = {
            "read": len(sent),
            "published": len(sent),
            "starts": starts,
            "ends": [driver.log(topic, p).end for p in range(driver.partitions)],
            "counts": [len(rows) for rows in here],
            "digests": [f"{int(n):016x}" for n in sums],
        }
        announce(driver, supplier, dataset, id_[:32], closed, publication)
        announce(driver, supplier, dataset, publication.hex(), None, publication)
    return id_[:32]


def announce(
    driver: Driver, supplier: str, dataset: str, batch_id: str, row: dict[str, Any] | None, publication: bytes
) -> None:
    """A record of `governance.batch`."""
    key = f"{supplier}|{dataset}|{batch_id}"
    whole = {
        **dict.fromkeys(("read", "published", "rejected", "warnings", "duplicates", "published_ms"), 0),
        "supplier": supplier,
        "dataset": dataset,
        "batch_id": batch_id,
        "open": False,
        "publication": publication.hex(),
        "counts": [],
        "digests": [],
    }
    value = framed(BATCH, whole | row) if row is not None else None
    driver.append(BATCH, partition_of(key, driver.partitions), key.encode(), value)


def published(driver: Driver, people: int = PEOPLE, absences: int = ABSENCES) -> dict[str, str]:
    """Families, pupils and their absences, with corrections, deletions, duplicates and records that are no good.
    Returns the batches' ids by name."""
    frame = load.persons(people)
    cohort = records("council-northam", "person", load.council(frame))
    pupils = records("dfe", "person", load.department(frame, "UPN"))
    stranger = load.persons(people + 5, seed=9)[people:].with_columns(UPN=pl.format("X{}", "number"))
    pupils += records("dfe", "person", stranger)
    events = records("dfe", "absence", load.absences(absences, people + 10))
    bad = [("D3", b"D3|bad", b"nonsense"), ("D4", b"D4|R-other", events[0][2])]
    moved = load.department(frame[:8].with_columns(date_of_birth=pl.lit(date(2001, 2, 3))), "UPN")
    return {
        "cohort": publish(driver, "council-northam", "person", cohort),
        "pupils": publish(driver, "dfe", "person", pupils),
        "absences": publish(driver, "dfe", "absence", [*events, *events[:3], *bad]),
        "corrections": publish(driver, "dfe", "person", records("dfe", "person", moved), name="moved"),
        "deletions": publish(driver, "dfe", "absence", ended(events[10:15]), name="deleted"),
        "leavers": publish(driver, "council-northam", "person", ended(cohort[20:22]), name="left"),
    }


def leave(driver: Driver, people: int = PEOPLE, absences: int = ABSENCES) -> None:
    """Some of them leave, after everything has come to rest."""
    cohort = records("council-northam", "person", load.council(load.persons(people)))
    events = records("dfe", "absence", load.absences(absences, people + 10))
    publish(driver, "dfe", "absence", ended(events[20:50]), name="later")
    publish(driver, "council-northam", "person", ended(cohort[25:35]), name="later")


def ended(of: Iterable[Record]) -> list[Record]:
    """Their tombstones."""
    return [(subject, key, None) for subject, key, _ in of]


def source(driver: Driver) -> Source:
    """The driver's logs, as reconciliation reads topics."""

    def records(topic: str) -> list[Read]:
        logs = driver.topics.get(topic, [])
        return [
            Read(p, r.offset, r.key, r.value, r.headers, r.time)
            for p, log in enumerate(logs)
            for r in log.records
            if r.key is not None
        ]

    return records


def report_of(driver: Driver, now_ms: int = 0) -> Report:
    """Reconciliation of the driver as it stands."""
    behind, committed = [], {}
    for processor, partition in driver.tasks:
        for topic in driver.topics:
            if not reads_topic(driver.declaration(processor).reads, topic):
                continue
            at, end = driver.committed((processor, partition), topic), driver.log(topic, partition).end
            committed[processor, topic, partition] = at
            if at < end:
                behind.append(Behind(processor, topic, partition, at, end))
    return reconcile(source(driver), REGISTRY, PARTITIONS, behind=behind, committed=committed, now_ms=now_ms)


def flow(seed: int = 3) -> Driver:
    """The whole flow, with accounts."""
    return Driver([build(n, CONTEXT) for n in NAMES], PARTITIONS, seed=seed, accounts=REGISTRY)
