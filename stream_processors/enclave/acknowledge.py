"""What the enclave says back: deletions up to these offsets are in none of its files any more.

`acknowledgement.json` in the enclave's folder says so in any case; where the credential may write it, a record per
partition of `governance.acknowledgement` does, for the destruction proof: the one topic that an enclave may write. A
deletion at (partition, offset) is acknowledged once `next_offset` is above that offset.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from infra.settings import Settings
from schemas import contracts, wire
from schemas.codec import arrow_schema, encode
from schemas.registry import RegistryRefusedError, SchemaIds, SchemaNotRegisteredError
from stream_processors.enclave.changes import TOPIC
from stream_processors.enclave.store import Position
from stream_processors.runtime import kafka

TO = "governance.acknowledgement"
FILE = "acknowledgement.json"
_CONTRACT = contracts.contract("governance/acknowledgement")
_FLUSH_S = 30
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Acknowledgement:
    """One partition's, as in the contract; `swept_at` in ms since 1970."""

    enclave: str
    topic: str
    partition: int
    next_offset: int
    swept_at: int
    tombstones: int

    @property
    def key(self) -> bytes:
        """Key of the record."""
        return f"{self.enclave}|{self.topic}|{self.partition}".encode()


def acknowledgements(enclave: str, position: Position, now_ms: int) -> list[Acknowledgement]:
    """One per partition of a swept file, by partition.

    Raises:
        ValueError: removed rows are still in the file: there is nothing to acknowledge.
    """
    if position.unswept:
        raise ValueError("removed rows are still in the file")
    return [
        Acknowledgement(enclave, TOPIC, p, o, now_ms, position.tombstones) for p, o in sorted(position.offsets.items())
    ]


class Acknowledger:
    """Says it once for each position."""

    def __init__(self, settings: Settings, folder: Path, enclave: str, schema_ids: SchemaIds) -> None:
        self._settings, self._path, self._enclave, self._ids = settings, folder / FILE, enclave, schema_ids
        self._said: dict[int, int] | None = None
        self._where = ""

    def acknowledge(self, position: Position, now_ms: int) -> str:
        """Acknowledge a swept file; returns where: the topic, or the file where the topic takes nothing from here."""
        offsets = dict(position.offsets)
        if offsets == self._said:
            return self._where
        rows = acknowledgements(self._enclave, position, now_ms)
        self._write(rows)
        refused = self._send(rows)
        if refused:
            _log.warning("acknowledged_in_file_only", error=refused, file=str(self._path), topic=TO)
        else:
            self._said = offsets
        self._where = str(self._path) if refused else TO
        return self._where

    def _write(self, rows: list[Acknowledgement]) -> None:
        document = {
            "enclave": self._enclave,
            "swept_at": datetime.fromtimestamp(rows[0].swept_at / 1000, UTC).isoformat() if rows else None,
            "partitions": [{"topic": r.topic, "partition": r.partition, "next_offset": r.next_offset} for r in rows],
            "tombstones": rows[0].tombstones if rows else 0,
        }
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(document, indent=1) + "\n")
        new.replace(self._path)

    def _send(self, rows: list[Acknowledgement]) -> str | None:
        """Send them; the name of the error if they were not taken."""
        try:
            id_ = self._ids.schema_id(TO)
        except (SchemaNotRegisteredError, RegistryRefusedError) as e:
            return type(e).__name__
        batch = pa.RecordBatch.from_pylist([vars(r) for r in rows], schema=arrow_schema(_CONTRACT))
        errors: list[str] = []

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                errors.append(kafka.describe(error))

        config = kafka.producer_config(self._settings, f"lethe.enclave.{self._enclave}")
        producer = Producer(config | {"message.timeout.ms": _FLUSH_S * 1000})
        try:
            for row, value in zip(rows, wire.frame(id_, encode(batch, _CONTRACT)), strict=True):
                producer.produce(TO, value, row.key, on_delivery=delivered)
            left = producer.flush(_FLUSH_S + 5)
        except KafkaException as e:
            return kafka.describe(kafka.error_of(e))
        return errors[0] if errors else "_TIMED_OUT" if left else None
