"""Records for the benchmark: plain synthetic persons and events, drawn fast; not the simulator's population."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

import numpy as np
import polars as pl
from confluent_kafka import Producer

from infra.settings import Settings
from schemas import contracts, wire
from schemas.codec import arrow_schema, encode
from schemas.registry import Registry
from stream_processors.arrow import one_batch
from stream_processors.runtime.kafka import producer_config
from stream_processors.runtime.partition import partitions_of

_FORENAMES = (
    "OLIVIA",
    "AMELIA",
    "AISHA",
    "JACK",
    "MOHAMMED",
    "OSCAR",
    "GRACE",
    "HARRY",
    "IVY",
    "ELLA",
    "JOHN",
    "SUSAN",
)
_FIRST = (
    "AL",
    "BRA",
    "CAR",
    "DEN",
    "EL",
    "FAR",
    "GRA",
    "HAR",
    "ING",
    "JAN",
    "KEL",
    "LAN",
    "MAR",
    "NOR",
    "OS",
    "PAT",
)
_LAST = (
    "BY",
    "DALE",
    "FORD",
    "GATE",
    "HAM",
    "LEY",
    "MAN",
    "NER",
    "SON",
    "STON",
    "TON",
    "WELL",
    "WOOD",
    "WORTH",
)
_COUNTS = pl.Int32


def persons(count: int, seed: int = 1) -> pl.DataFrame:
    """`count` people: forename, middle_names, surname, date_of_birth (Date), sex, postcode, number (Int64)."""
    rng = np.random.default_rng(seed)
    surname = pl.Series(rng.choice(_FIRST, count)) + pl.Series(rng.choice(_LAST, count))
    postcode = pl.DataFrame({"a": rng.integers(1, 28, count), "b": rng.integers(1, 9, count)}).select(
        pl.format("SE{} {}AB", "a", "b").alias("postcode")
    )
    return pl.DataFrame(
        {
            "forename": rng.choice(_FORENAMES, count),
            "middle_names": pl.Series([None] * count, dtype=pl.String),
            "surname": surname,
            "date_of_birth": pl.Series(rng.integers(0, 18_000, count), dtype=_COUNTS).cast(pl.Date),
            "sex": rng.choice(["F", "M"], count),
            "postcode": postcode["postcode"],
            "number": np.arange(count),
        }
    )


def council(people: pl.DataFrame) -> pl.DataFrame:
    """The people as a council's cohort, four to a family."""
    criteria = {f"criterion_{c}": None for c in ("crime", "education", "children", "work", "abuse", "health")}
    return people.with_columns(
        pl.format("C{}", "number").alias("person_id"),
        pl.format("F{}", pl.col("number") // 4).alias("family_id"),
        pl.lit("participant").alias("programme_status"),
        pl.lit(date(2014, 1, 1)).alias("programme_start"),
        **{name: pl.lit(value, pl.Boolean) for name, value in criteria.items()},
    )


def department(people: pl.DataFrame, subject: str) -> pl.DataFrame:
    """The same people as a department knows them."""
    return people.with_columns(pl.format("D{}", "number").alias(subject))


def absences(count: int, people: int, seed: int = 2) -> pl.DataFrame:
    """`count` absence records of random people of the department."""
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "UPN": pl.Series(rng.integers(0, people, count)).cast(pl.String),
            "record_id": pl.Series(np.arange(count)).cast(pl.String),
            "PeriodEnd": pl.Series(rng.integers(15_000, 17_000, count), dtype=_COUNTS).cast(pl.Date),
            "SessionsPossible_3Term": pl.Series(np.full(count, 300), dtype=_COUNTS),
            "AuthorisedAbsence_3Term": pl.Series(rng.integers(0, 30, count), dtype=_COUNTS),
            "UnauthorisedAbsence_3Term": pl.Series(rng.integers(0, 30, count), dtype=_COUNTS),
        }
    ).with_columns(
        pl.concat_str(pl.lit("D"), "UPN").alias("UPN"),
        pl.concat_str(pl.lit("R"), "record_id").alias("record_id"),
    )


def send(producer: Producer, *record: Any, **more: Any) -> None:
    """`produce`, as soon as there is room."""
    while True:
        try:
            producer.produce(*record, **more)
            return
        except BufferError:
            producer.poll(0.1)


class Loader:
    """Publishes frames as fast as it can; they are known to be good."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._registry = Registry(settings.registry)
        self.producer = Producer(producer_config(settings, "bench.load"))

    def messages(self, supplier: str, dataset: str, frame: pl.DataFrame) -> Iterator[tuple[str, bytes, str, int]]:
        """Topic, value, key and partition of each row."""
        contract = contracts.identified(supplier, dataset)
        topic = contracts.identified_topic(supplier, dataset)
        subject, record = contract.subject_field, contract.record_field
        for part in frame.iter_slices(50_000):
            batch = one_batch(part.select(arrow_schema(contract).names))
            values = wire.frame(self._registry.schema_id(topic), encode(batch, contract))
            keys = part.select(pl.concat_str([subject, record], separator="|")).to_series() if record else part[subject]
            partitions = partitions_of(part[subject], self._settings.partitions).tolist()
            for key, value, partition in zip(keys.to_list(), values, partitions, strict=True):
                yield topic, value, key, partition

    def publish(self, supplier: str, dataset: str, frame: pl.DataFrame) -> int:
        """All rows, acknowledged; returns how many."""
        for message in self.messages(supplier, dataset, frame):
            send(self.producer, *message)
        self.producer.flush()
        return len(frame)
