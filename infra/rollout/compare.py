"""What a new edition would change, in counts: no value, no id. Pure but for the reading at the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import polars as pl
from confluent_kafka import Message

from infra.settings import Settings
from infra.topic_table import messages
from schemas import contracts, wire
from schemas.codec import decode_each, decode_older, encode
from schemas.registry import SchemaIds
from stream_processors.arrow import one_batch
from stream_processors.edition import Edition, EditionSchemas
from stream_processors.runtime.records import HEARTBEAT_KEY

_RESEARCH, _LINK = "research.person", "linkage.link"
_BATCH = 20_000
DATASETS = tuple(f.name for f in contracts.contract("research/person").fields if f.kind == "array")


@dataclass(frozen=True)
class Count:
    """One number of both editions."""

    what: str
    old: float
    new: float


@dataclass(frozen=True)
class Comparison:
    """What differs.

    `persons`: those of the research topic, by what becomes of them. `records`: by dataset. `match_rate`: share of a
    group's persons with a record of the dataset. `links`: departments' subjects by supplier and match key or outcome.
    `moves`: departments' subjects by what becomes of their links.
    """

    persons: dict[str, int]
    records: list[Count]
    match_rate: list[Count]
    links: list[Count]
    moves: dict[str, int] = field(default_factory=dict)

    @property
    def alike(self) -> bool:
        """Whether nobody's record and nobody's link would change."""
        changed = sum(n for what, n in self.persons.items() if what != "alike")
        return not changed and all(what in ("same person", "unlinked still") for what in self.moves)


def compare(old: pl.DataFrame, new: pl.DataFrame, old_links: pl.DataFrame, new_links: pl.DataFrame) -> Comparison:
    """Compare two editions.

    Args:
        old, new: a row for each person: key, digest, group, and the number of records of each dataset.
        old_links, new_links: a row for each department's subject: subject, supplier, outcome, match_key, person.
    """
    both = old.select("key", "digest").join(new.select("key", "digest"), on="key", how="full", suffix="_new")
    state = (
        pl.when(pl.col("key_new").is_null())
        .then(pl.lit("removed"))
        .when(pl.col("key").is_null())
        .then(pl.lit("added"))
        .when(pl.col("digest") == pl.col("digest_new"))
        .then(pl.lit("alike"))
        .otherwise(pl.lit("changed"))
    )
    persons = dict.fromkeys(("alike", "changed", "added", "removed"), 0)
    persons |= dict(both.select(state.alias("state"))["state"].value_counts().rows())
    records = [Count(d, int(old[d].sum()), int(new[d].sum())) for d in DATASETS]
    return Comparison(persons, records, _rates(old, new), _links(old_links, new_links), _moves(old_links, new_links))


def _rates(old: pl.DataFrame, new: pl.DataFrame) -> list[Count]:
    def of(rows: pl.DataFrame) -> dict[str, float]:
        shares = rows.group_by("group").agg(pl.len().alias("persons"), *[(pl.col(d) > 0).mean() for d in DATASETS])
        return {
            f"{row['group']}, {name}": float(row[name]) for row in shares.to_dicts() for name in ("persons", *DATASETS)
        }

    was, now = of(old), of(new)
    return [Count(name, was.get(name, 0.0), now.get(name, 0.0)) for name in sorted(was.keys() | now.keys())]


def _links(old: pl.DataFrame, new: pl.DataFrame) -> list[Count]:
    how = pl.format("{}, {}", "supplier", pl.coalesce("match_key", "outcome")).alias("how")
    was, now = (dict(rows.select(how)["how"].value_counts().rows()) for rows in (old, new))
    return [Count(name, was.get(name, 0), now.get(name, 0)) for name in sorted(was.keys() | now.keys())]


def _moves(old: pl.DataFrame, new: pl.DataFrame) -> dict[str, int]:
    both = old.select("subject", "person").join(
        new.select("subject", "person"), on="subject", how="full", suffix="_new", coalesce=True
    )
    was, now = pl.col("person").is_not_null(), pl.col("person_new").is_not_null()
    move = (
        pl.when(was & now & (pl.col("person") == pl.col("person_new")))
        .then(pl.lit("same person"))
        .when(was & now)
        .then(pl.lit("another person"))
        .when(was)
        .then(pl.lit("no longer linked"))
        .when(now)
        .then(pl.lit("newly linked"))
        .otherwise(pl.lit("unlinked still"))
    )
    return dict(sorted(both.select(move.alias("move"))["move"].value_counts().rows()))


def persons_of(settings: Settings, edition: Edition, schema_ids: SchemaIds) -> pl.DataFrame:
    """A row for each person of an edition; keys and values as hashes of this process.

    Raises:
        KafkaException: no such edition, or the broker is away.
        CompareError: a record cannot be read.
    """
    frames = []
    contract = contracts.contract("research/person")
    for keys, rows in _decoded(settings, edition, _RESEARCH, schema_ids):
        values = encode(one_batch(rows), contract) if len(rows) else []
        frames.append(
            _latest(
                keys,
                rows.select(
                    pl.Series("digest", [hash(bytes(v)) for v in values], dtype=pl.Int64),
                    pl.col("programme_status").cast(pl.String).fill_null("none").alias("group"),
                    *[pl.col(d).list.len().cast(pl.Int64) for d in DATASETS],
                ),
            )
        )
    columns = {"digest": pl.Int64, "group": pl.String, **dict.fromkeys(DATASETS, pl.Int64)}
    return _last_of(frames, {"key": pl.Int64, "live": pl.Boolean, **columns})


def links_of(settings: Settings, edition: Edition, schema_ids: SchemaIds) -> pl.DataFrame:
    """A row for each department's subject: what the last pass that it has reached claims of it.

    Raises: as `persons_of`.
    """
    frames = []
    for keys, rows in _decoded(settings, edition, _LINK, schema_ids):
        parts = [k.decode().partition("|") for k, _ in keys]
        frames.append(
            _latest(
                keys,
                rows.select(
                    "supplier",
                    pl.col("role").cast(pl.String),
                    pl.col("outcome").cast(pl.String),
                    "match_key",
                    person=pl.col("person_ref").hash().cast(pl.String),
                    linked=pl.col("person_ref").is_not_null(),
                ),
            ).with_columns(
                subject=pl.Series([hash(s) for s, _, _ in parts], dtype=pl.Int64),
                number=pl.Series([int(b.partition(":")[0]) for _, _, b in parts], dtype=pl.Int64),
            )
        )
    schema = {
        "key": pl.Int64, "live": pl.Boolean, "supplier": pl.String, "role": pl.String, "outcome": pl.String,
        "match_key": pl.String, "person": pl.String, "linked": pl.Boolean, "subject": pl.Int64, "number": pl.Int64,
    }  # fmt: skip
    rows = _last_of(frames, schema).filter(pl.col("role") == "department").sort("number")
    rows = rows.unique("subject", keep="last")
    return rows.with_columns(person=pl.when("linked").then("person"), match_key=pl.when("linked").then("match_key"))


class CompareError(ValueError):
    """A record cannot be read. The message says where it lies."""


def _decoded(
    settings: Settings, edition: Edition, topic: str, schema_ids: SchemaIds
) -> Iterable[tuple[list[tuple[bytes, bool]], pl.DataFrame]]:
    """Batches of keys, each with whether it has a value, and the values of those that have one, in log order."""
    ids = EditionSchemas(schema_ids, edition)
    contract = contracts.contract(topic.replace(".", "/"))
    mine = settings.model_copy(update={"edition": edition.name})

    def made(batch: Sequence[Message]) -> tuple[list[tuple[bytes, bool]], pl.DataFrame]:
        own = ids.schema_id(topic)
        by_id: dict[int, list[int]] = {}
        live = [m for m in batch if m.value() is not None]
        for i, m in enumerate(live):
            by_id.setdefault(wire.schema_id(m.value()), []).append(i)
        frames = []
        for id_, rows in by_id.items():
            bodies = [live[i].value()[wire.HEADER_BYTES :] for i in rows]
            found = decode_each(bodies, contract) if id_ == own else decode_older(bodies, ids.writer(id_), contract)
            if found.bad:
                m = live[rows[found.bad[0]]]
                raise CompareError(f"{m.topic()} {m.partition()} {m.offset()}: does not fit its schema")
            frames.append(pl.DataFrame(one_batch(found.batch)).with_columns(pl.Series("__row", rows)))
        values = pl.concat(frames).sort("__row").drop("__row") if frames else pl.DataFrame()
        keys = [(m.key(), m.value() is not None) for m in batch]
        return keys, values

    batch: list[Message] = []
    for m in messages(mine, topic):
        if m.key() is None or m.key() == HEARTBEAT_KEY:
            continue
        batch.append(m)
        if len(batch) == _BATCH:
            yield made(batch)
            batch = []
    if batch:
        yield made(batch)


def _latest(keys: Sequence[tuple[bytes, bool]], values: pl.DataFrame) -> pl.DataFrame:
    """Rows of all keys, those without a value with nulls."""
    live = pl.Series("live", [v for _, v in keys], dtype=pl.Boolean)
    frame = pl.DataFrame({"key": pl.Series([hash(k) for k, _ in keys], dtype=pl.Int64), "live": live})
    if not len(values):
        return frame
    place = frame.select((pl.col("live").cum_sum().cast(pl.Int64) - 1).alias("place"))["place"]
    taken = values.with_row_index("place").cast({"place": pl.Int64})
    joined = frame.with_columns(place=pl.when(pl.col("live")).then(place)).join(
        taken, on="place", how="left", maintain_order="left"
    )
    return joined.drop("place")


def _last_of(frames: Sequence[pl.DataFrame], schema: dict[str, type[pl.DataType]]) -> pl.DataFrame:
    if not frames:
        return pl.DataFrame(schema=schema).drop("live")
    whole = pl.concat(frames, how="diagonal").unique("key", keep="last", maintain_order=True)
    missing = [pl.lit(None, dtype=t).alias(n) for n, t in schema.items() if n not in whole.columns]
    return whole.filter(pl.col("live")).with_columns(missing).drop("live")
