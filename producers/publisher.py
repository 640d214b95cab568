"""The way into the identified zone: an idempotent producer that knows what the broker has.

    with Publisher("dfe", "absence") as publisher:
        receipt = publisher.publish_batch(rows)   # checked and queued; blocks while the queue is full
        receipt.wait()                            # returns once the broker has every one of them
        publisher.tombstone("A123", "rec-7")      # deletes a record, everywhere

The key is the subject's id, for an event `subject|record`; the partition comes from the subject's id alone,
so that what belongs to a person meets. The same row always gives the same bytes, so publishing again changes
nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from types import TracebackType
from typing import TYPE_CHECKING, Any

import polars as pl
import structlog
from confluent_kafka import KafkaError, KafkaException, Producer

from infra.settings import Settings
from producers.announce import TOPIC as BATCHES
from producers.announce import Announcer
from producers.fields import REASON, judge, read_key
from producers.header import Columns, UnusableFileError
from producers.rows import Converted, Warnings, convert
from schemas.codec import encode
from schemas.contracts import identified, identified_topic, kind_of
from schemas.registry import Registry, SchemaIds
from schemas.wire import frame
from stream_processors.runtime.kafka import client_config, describe, error_of, producer_config
from stream_processors.runtime.partition import partitions_of

if TYPE_CHECKING:
    import pyarrow as pa

    from producers.totals import Totals

OnWait = Callable[[str], None]

PATIENCE_SECONDS = 300.0
_SAY_EVERY_SECONDS = 5.0
_POLL_SECONDS = 0.1
_CONNECT_SECONDS = 5.0
_BUFFERED_ROWS = 1_000
_BUFFERED_SECONDS = 0.1
_POLL_EVERY_RECORDS = 2_000
_log = structlog.get_logger(__name__)


class DeliveryError(RuntimeError):
    """The broker lacks some of what was published. Names topic, counts and Kafka's code, never a value."""

    def __init__(self, topic: str, delivered: int, failed: Mapping[str, int]) -> None:
        self.topic, self.delivered, self.failed = topic, delivered, dict(failed)
        codes = ", ".join(f"{code}: {n}" for code, n in sorted(failed.items()))
        super().__init__(
            f"{topic}: {sum(failed.values())} records were not acknowledged ({codes}), {delivered} were; "
            "publish them again: what has arrived already is not changed by it"
        )


class BrokerUnreachableError(ConnectionError):
    """No broker answered for as long as the publisher was told to wait."""


class TopicMissingError(LookupError):
    """The supplier's topic is not there."""


class RowsRefusedError(ValueError):
    """Rows that do not fit the contract; nothing of their batch was sent.

    `rejects`: a row (line, field, reason) for each bad field; lines are counted from 1 within the batch.
    """

    def __init__(self, topic: str, message: str, rejects: pl.DataFrame | None = None) -> None:
        self.rejects = rejects
        super().__init__(f"{topic}: {message}")


class Receipt:
    """What became of one call's records. `warnings`: values published as missing, by field and reason."""

    def __init__(self, publisher: Publisher, records: int, warnings: Warnings) -> None:
        self._publisher = publisher
        self.records = records
        self.warnings = warnings
        self.delivered = 0
        self.failed: Counter[str] = Counter()

    @property
    def settled(self) -> bool:
        """Whether the fate of every record is known. Brought up to date by any call of the publisher."""
        return self.delivered + sum(self.failed.values()) == self.records

    def wait(self) -> int:
        """Return the number of records once the broker has them all.

        Raises:
            DeliveryError: it does not.
        """
        self._publisher.settle(self)
        if self.failed:
            raise DeliveryError(self._publisher.topic, self.delivered, self.failed)
        return self.records

    def on_delivery(self, error: KafkaError | None, _: object) -> None:
        """Counts one record; called while the publisher polls."""
        if error is None:
            self.delivered += 1
        else:
            self.failed[describe(error)] += 1


class Publisher:
    """Publishes one dataset of one supplier; for one thread at a time.

    Blocks while its queue is full or the broker is away, never drops, and keeps no more than the queue in
    memory. Delivery that fails is raised by `Receipt.wait`, by `flush` and on leaving the `with` block.

    Args:
        supplier: `council-<code>`, `dfe`, `moj`, `dwp` or `health`; dataset: one of the supplier's.
        settings: where broker and registry are; from the environment if not given.
        schemas: asked for the schema's id; the registry of `settings` if not given.
        patience_seconds: how long a broker or registry that is away is waited for, and a record's delivery
        tried.
        on_wait: told what is being waited for, every few seconds; a warning is logged if not given.
        today: dates after it are bad; the day of each call if not given.
        config: further librdkafka settings, such as those of TLS and SASL.

    Raises:
        UnknownSupplierError: no such supplier or dataset.
        BrokerUnreachableError, RegistryDownError: no answer in `patience_seconds`.
        TopicMissingError, SchemaNotRegisteredError, SchemaDriftError: the supplier has not been added, or not
        as now.
    """

    def __init__(
        self,
        supplier: str,
        dataset: str,
        *,
        settings: Settings | None = None,
        schemas: SchemaIds | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
        on_wait: OnWait | None = None,
        today: date | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.contract = identified(supplier, dataset)
        self.topic = identified_topic(supplier, dataset)
        self._supplier = supplier
        self._columns = Columns.of(self.contract)
        self._today = today
        self._on_wait = on_wait or (lambda what: _log.warning("waiting", what=what))
        self._said = 0.0
        self._acknowledged = 0
        self._failed: Counter[str] = Counter()
        self._open: list[Receipt] = []
        self._rows: list[Mapping[str, object]] = []
        self._rows_since = 0.0
        settings = (settings or Settings()).acting_as(f"supplier.{supplier}")
        self._bootstrap = settings.bootstrap
        self._producer = Producer(
            producer_config(settings, f"publisher.{supplier}.{dataset}")
            | {
                "queue.buffering.max.messages": 200_000,
                "queue.buffering.max.kbytes": 64 * 1024,
                "message.timeout.ms": max(1_000, int(patience_seconds * 1000)),
                "error_cb": self._on_error,
                "log_level": 2,  # a broker that is away is told by `on_wait`, not by a line for each attempt
            }
            | dict(config or {}),
        )
        self._partitions = self._find_topic(patience_seconds)
        ids = schemas or Registry(settings.registry, self._on_wait, patience_seconds)
        self._schema_id = ids.check(self.topic, self.contract)
        self._announced = 0
        self._announcer = self._make_announcer(ids, {**client_config(settings), **(config or {})})

    @property
    def published(self) -> int:
        """Records that the broker has, as far as is known, since the publisher was made."""
        return self._acknowledged + sum(r.delivered for r in self._open)

    def publish(self, row: Mapping[str, object]) -> None:
        """One record, fields by name; sent together with others, at the latest by `flush`.

        For single records; many at once are much faster through `publish_batch`.

        Raises:
            RowsRefusedError: a record given since the last batch was sent does not fit; none of that batch is
            sent.
        """
        if not self._rows:
            self._rows_since = time.monotonic()
        self._rows.append(dict(row))
        if len(self._rows) >= _BUFFERED_ROWS or time.monotonic() - self._rows_since > _BUFFERED_SECONDS:
            self._send_rows()

    def publish_batch(self, rows: pa.Table | pa.RecordBatch | pl.DataFrame | Sequence[Mapping[str, object]]) -> Receipt:
        """Check the rows as those of a file are checked, and send them all, or none.

        Args:
            rows: columns named as the contract's fields, of its types or text; those not there are missing.

        Raises:
            RowsRefusedError: a row or a column does not fit; nothing was sent.
            DeliveryError: the producer can go on no more.
        """
        self._send_rows()
        cells = self._cells(rows)
        lines = pl.int_range(1, cells.height + 1, eager=True, dtype=pl.Int64)
        converted = convert(cells, lines, self.contract, self._today or date.today())
        if converted.rejected:
            raise RowsRefusedError(self.topic, _summary(converted, cells.height), converted.rejects)
        return self.send(converted)

    def send(self, converted: Converted) -> Receipt:
        """Send rows that have been checked already; blocks while the queue is full.

        Raises:
            DeliveryError: the producer can go on no more.
        """
        values = frame(self._schema_id, encode(converted.batch, self.contract))
        return self._produce(converted.keys, converted.subjects, values, converted.warnings)

    def tombstone(self, subject_id: str, record_id: str | None = None) -> Receipt:
        """Delete a record: of a person by the subject's id, of an event by both ids.

        Raises:
            RowsRefusedError: an id is blank or cannot be a key, or the record's id is missing or one too
            many.
        """
        return self.tombstones([subject_id], None if record_id is None else [record_id])

    def tombstones(self, subject_ids: Sequence[str], record_ids: Sequence[str] | None = None) -> Receipt:
        """Delete records, each by its id or ids; see `tombstone`."""
        self._send_rows()
        if (record_ids is not None) != (self.contract.record_field is not None):
            needs = "a record's id too" if record_ids is None else "no record's id"
            raise RowsRefusedError(self.topic, f"a deletion here takes {needs}")
        records = ["-"] * len(subject_ids) if record_ids is None else record_ids
        ids = pl.DataFrame({"subject": subject_ids, "record": records}).cast(pl.String)
        read = judge(ids, {name: read_key(name) for name in ids.columns}).with_columns(
            reason=pl.coalesce(REASON + "subject", REASON + "record")
        )
        bad = read.get_column("reason").drop_nulls()
        if len(bad):
            raise RowsRefusedError(self.topic, f"{len(bad)} of {len(read)} ids to delete: an id {bad[0]}")
        key = pl.col("subject") if record_ids is None else pl.concat_str("subject", pl.lit("|"), "record")
        keys = read.select(key.alias("key")).to_series()
        return self._produce(keys, read.get_column("subject"), [None] * len(keys), Counter())

    def flush(self) -> int:
        """Return once the broker has everything published so far, with how many records it has in all.

        Raises:
            DeliveryError: it lacks some; told once, the next `flush` speaks of what comes after.
            RowsRefusedError: as `publish`.
        """
        self._send_rows()
        for receipt in list(self._open):
            self.settle(receipt)
        self._reap()
        if self._failed:
            failed, self._failed = self._failed, Counter()
            raise DeliveryError(self.topic, self._acknowledged, failed)
        return self._acknowledged

    def announce(self, totals: Totals) -> None:
        """Say that a file is there, with its control totals. What came from no file is announced at the end.

        Raises:
            DeliveryError: the broker does not have the announcement; publish the file again.
        """
        self._announce(lambda a: a.file(totals))

    def settle(self, receipt: Receipt) -> None:
        """Poll until the fate of the receipt's records is known."""
        before = receipt.delivered
        since = time.monotonic()
        while not receipt.settled:
            self._producer.poll(_POLL_SECONDS)
            if receipt.delivered != before:
                before, since = receipt.delivered, time.monotonic()
            elif time.monotonic() - since > _SAY_EVERY_SECONDS:
                self._say(f"to acknowledge {len(self._producer)} records of {self.topic}")

    def __enter__(self) -> Publisher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.flush()
            if self._announcer is not None and self.published > self._announced:
                self._announce(lambda a: a.records(self.published - self._announced))
        else:  # what went wrong is already on its way; what is queued gets a moment
            self._producer.flush(_CONNECT_SECONDS)
            self._producer.purge()

    def _produce(
        self, keys: pl.Series, subjects: pl.Series, values: Sequence[bytes | None], warnings: Warnings
    ) -> Receipt:
        receipt = Receipt(self, len(keys), warnings)
        self._reap()
        self._open.append(receipt)
        produce, topic, report = self._producer.produce, self.topic, receipt.on_delivery
        found = partitions_of(subjects, self._partitions)
        partitions, headers = found.tolist(), None
        if self._announcer is not None and len(found):
            headers = self._announcer.headers()
            self._announcer.count(found, keys.cast(pl.Binary).to_list(), values)
        queued = 0
        try:
            for key, value, partition in zip(keys.to_list(), values, partitions, strict=True):
                while True:
                    try:
                        produce(topic, value, key, partition, report, headers=headers)
                        break
                    except BufferError:
                        self._make_room()
                queued += 1
                if not queued % _POLL_EVERY_RECORDS:
                    self._producer.poll(0)
        except KafkaException as e:
            receipt.failed[describe(error_of(e))] += receipt.records - queued
            raise DeliveryError(self.topic, self.published, receipt.failed) from None
        except BaseException:
            receipt.records = queued  # interrupted: the rest was never queued
            raise
        return receipt

    def _make_announcer(self, ids: SchemaIds, config: Mapping[str, Any]) -> Announcer | None:
        if BATCHES not in self._producer.list_topics(timeout=_CONNECT_SECONDS).topics:
            _log.warning("batches are not announced", topic=BATCHES, advice="lethe provision")
            return None
        return Announcer(self.topic, self._partitions, self._producer, ids, config)

    def _announce(self, call: Callable[[Announcer], None]) -> None:
        if self._announcer is None:
            return
        try:
            call(self._announcer)
        except KafkaException as e:
            raise DeliveryError(BATCHES, 0, {describe(error_of(e)): 1}) from None
        self._announced = self.published

    def _make_room(self) -> None:
        """Poll until the queue is shorter than it was."""
        full, since = len(self._producer), time.monotonic()
        while len(self._producer) >= full:
            self._producer.poll(_POLL_SECONDS)
            if time.monotonic() - since > _SAY_EVERY_SECONDS:
                self._say(f"to take {full} records of {self.topic}")

    def _reap(self) -> None:
        """Adds up the receipts that are settled."""
        still = []
        for receipt in self._open:
            if receipt.settled:
                self._acknowledged += receipt.delivered
                self._failed += receipt.failed
            else:
                still.append(receipt)
        self._open = still

    def _send_rows(self) -> None:
        if self._rows:
            rows, self._rows = self._rows, []
            self.publish_batch(rows)

    def _cells(self, rows: Any) -> pl.DataFrame:
        """Text columns named as the contract's fields."""
        if isinstance(rows, pl.DataFrame):
            frame_ = rows
        elif isinstance(rows, Sequence):
            names = list(dict.fromkeys(name for row in rows for name in row))
            frame_ = pl.DataFrame([pl.Series(n, [_text(row.get(n)) for row in rows], dtype=pl.String) for n in names])
        else:
            frame_ = pl.DataFrame(rows)
        if not frame_.height:
            return pl.DataFrame(schema=dict.fromkeys(self._columns.names, pl.String))
        try:
            fields = self._columns.match(frame_.columns)
            named = zip(frame_.columns, fields, strict=True)
            return frame_.select(_as_text(frame_, column).alias(field) for column, field in named)
        except UnusableFileError as e:
            raise RowsRefusedError(self.topic, str(e)) from None

    def _find_topic(self, patience_seconds: float) -> int:
        """Number of the topic's partitions."""
        deadline = time.monotonic() + patience_seconds
        while True:
            left = deadline - time.monotonic()
            try:
                # All topics: asking for one by name may create it.
                found = self._producer.list_topics(timeout=max(0.1, min(left, _CONNECT_SECONDS))).topics
            except KafkaException as e:
                if left <= 0:
                    raise BrokerUnreachableError(
                        f"no Kafka broker answers at {self._bootstrap} ({describe(error_of(e))}); "
                        "`lethe up` starts one on this machine"
                    ) from None
                self._say("to answer")
                continue
            topic = found.get(self.topic)
            if topic is None:
                council = kind_of(self._supplier) == "council"
                how = f"lethe supplier add {self._supplier}" if council else "lethe up"
                raise TopicMissingError(f"topic {self.topic} is not there; `{how}` creates it")
            if topic.partitions:
                return len(topic.partitions)
            time.sleep(_POLL_SECONDS)  # just created
            if left <= 0:
                raise BrokerUnreachableError(f"topic {self.topic} has no partitions that can be written to")

    def _on_error(self, error: KafkaError) -> None:
        if error.code() != KafkaError._TRANSPORT:  # one connection of several; all is told too
            self._say(f"({describe(error)})")

    def _say(self, what: str) -> None:
        now = time.monotonic()
        if now - self._said >= _SAY_EVERY_SECONDS:
            self._said = now
            self._on_wait(f"waiting for Kafka at {self._bootstrap} {what}")


def _summary(converted: Converted, rows: int) -> str:
    counts = converted.rejects.group_by("field", "reason").len()
    counts = counts.sort("len", "field", "reason", descending=[True, False, False])
    worst = "; ".join(f"{field} {reason} ({n})" for field, reason, n in counts.head(5).iter_rows())
    return f"{converted.rejected} of {rows} rows are refused, so none was sent: {worst}"


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)


def _as_text(frame_: pl.DataFrame, column: str) -> pl.Expr:
    dtype = frame_.schema[column]
    if dtype == pl.Date:
        return pl.col(column).dt.to_string("%Y-%m-%d")
    if dtype.is_nested() or dtype == pl.Binary or dtype == pl.Object:
        raise UnusableFileError(f"column {column} holds no single values")
    return pl.col(column).cast(pl.String)
