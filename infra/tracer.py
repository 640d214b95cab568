"""A trace on a running stack: references by the token key, topics by partition, and a line in the audit before it."""

from __future__ import annotations

import polars as pl

from infra.keys import read_key, token_key
from infra.operation import Operation, OperationLog, now_ms, whoever
from infra.reading import records
from infra.settings import Settings
from schemas import contracts
from schemas.registry import Registry
from stream_processors.accounting.trace import Source, Trace, Traced, trace
from stream_processors.refs import Refs, ref_hash
from stream_processors.runtime.partition import partition_of


class NoSuchDatasetError(ValueError):
    """The supplier has no such dataset, or it must be said which of several is meant."""


def traced(key: bytes, partitions: int, supplier: str, subject: str, record: str | None, dataset: str | None) -> Traced:
    """Which record is meant, with its references.

    Raises:
        UnknownSupplierError: no such supplier.
        NoSuchDatasetError: the dataset is not one of its, or has to be named.
    """
    of = contracts.DATASETS[contracts.kind_of(supplier)]
    events = [d for d in of if d != "person"]
    if record is None:
        dataset = dataset or "person"
    elif dataset is None and len(events) == 1:
        dataset = events[0]
    if dataset not in of or (dataset == "person") != (record is None):
        raise NoSuchDatasetError(
            f"{supplier} has {', '.join(of)}: name one with --dataset; an event's takes --record, a person's none"
        )
    refs = Refs(key)
    row = pl.DataFrame({"s": [subject], "r": [record or ""]}).select(
        refs.subject(supplier, pl.col("s")).alias("subject"),
        refs.record(supplier, dataset, pl.col("s"), pl.col("r")).alias("record"),
    )
    name = subject if record is None else f"{subject}|{record}"
    return Traced(
        supplier, dataset, name.encode(), partition_of(subject, partitions), row["subject"][0], row["record"][0]
    )


def trace_stack(
    settings: Settings,
    supplier: str,
    subject: str,
    record: str | None,
    dataset: str | None,
    reason: str,
    by: str | None,
) -> Trace:
    """Follow a record of a running stack; that somebody looked is written down first.

    Raises:
        KeyFileError, UnknownSupplierError, NoSuchDatasetError: as they say.
        KafkaException, RegistryDownError: the stack is away; nothing was looked at.
    """
    ids = Registry(settings.registry, deadline_seconds=10)
    of = traced(read_key(token_key(settings)), settings.partitions, supplier, subject, record, dataset)
    what = {"supplier": supplier, "dataset": of.dataset, "ref_hash": ref_hash(of.subject_ref)}
    begun = Operation("trace", by or whoever(), reason or None, what, now_ms(), state="done")
    OperationLog(settings, ids).write(begun)
    return trace(source_of(settings), of, ids, settings.partitions)


def source_of(settings: Settings) -> Source:
    """Topics of a stack, by partition; one that is not there has no records."""
    return lambda topic, partition: records(settings, topic, None if partition is None else [partition])
