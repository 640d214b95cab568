"""Links people of whom the truth is known, by the processors as they are, and compares.

The processors pseudonymise, route and link run without a broker or on one of their own, under a key that is always
the same: which bits of encodings collide depends on it, and figures that repeat can be compared.
"""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from itertools import count
from typing import Any

import polars as pl

from infra.errors import fail
from infra.evaluation.people import departments_of
from schemas import contracts, wire
from schemas.codec import decode, encode
from schemas.contracts import identified, identified_topic, kind_of
from schemas.registry import SchemaIds, StaticRegistry
from stream_processors.arrow import one_batch
from stream_processors.matching.catalogue import Catalogue
from stream_processors.matching.evaluation import Figures, Hard, UnaccountedError, figures, hard, verdicts
from stream_processors.matching.near_model import NearModel
from stream_processors.matching.scores import Scores, near_scores

_CLEAN = ("clean_forename", "clean_surname", "clean_dob", "clean_sex", "clean_postcode")
_WHOLE_TOPIC = 1 << 30
_KEY = hashlib.sha256(b"lethe evaluate").digest()
"""No secret: nothing that is made under it leaves the evaluation."""
_PROCESSORS = ("pseudonymise", "route", "link")


Show = Callable[[str, int, int], None]
"""What is done, how many steps of it are through, and of how many."""


class Near(StrEnum):
    """Which near matches."""

    own = "own"
    shipped = "shipped"
    off = "off"


@dataclasses.dataclass(frozen=True)
class Run:
    """What one evaluation found. cohort, department: subjects; link_seconds: of the processors alone; near: which near
    matches there were, and `weights` what they went by; scores: of each pass, the evidence that they had."""

    cohort: int
    department: int
    link_seconds: float
    figures: Figures
    decoys: Mapping[str, Hard] | None
    near: str
    weights: NearModel | None
    scores: Mapping[int, Scores]


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Millions of records live to the end: looking for garbage cycles among them takes a third of the time."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


@_collector_paused()
def link(
    people: pl.DataFrame,
    same: pl.DataFrame,
    near: Near,
    many_to_one: bool = False,
    decoys: pl.DataFrame | None = None,
    scored: bool = False,
    through_kafka: bool = False,
    show: Show = lambda *_: None,
) -> Run:
    """Link people and compare with the truth.

    Args:
        people: `typed` rows and their supplier; councils are the cohort.
        same: supplier and subject_id of a department's subject, cohort_supplier and cohort_id of the same person's
            in the cohort, null for nobody.
        near: which near matches.
        many_to_one: several subjects of a department may be linked to one person.
        decoys: as `about_departments` gives them.
        scored: whether the evidence of near matches is wanted.
        through_kafka: by the processors on a stack of its own, instead of without a broker.
        show: is told what is done, how many steps of it are through, and of how many.
    """
    from stream_processors.matching.normalise import normalise

    # Ids of their own, short and without a bar: a file's id need not be one that a topic takes.
    sent = people.with_row_index("row").with_columns(pl.col("row").cast(pl.String))
    catalogue, used = _catalogue(people, near, many_to_one, show)
    began = time.monotonic()
    linked = _links_through_kafka if through_kafka else _links
    refs, links = linked(sent, many_to_one, catalogue, show)
    link_seconds = time.monotonic() - began
    subjects = normalise(sent.join(refs, on="row", maintain_order="left"))
    named = subjects.select("supplier", "subject_id", "subject_ref")
    departments = departments_of(subjects).select("supplier", "subject_id", "subject_ref", *_CLEAN)
    cohort = named.rename({"supplier": "cohort_supplier", "subject_id": "cohort_id", "subject_ref": "cohort_ref"})
    truth = (
        same.join(named, on=["supplier", "subject_id"])
        .join(cohort, on=["cohort_supplier", "cohort_id"], how="left")
        .select("subject_ref", "cohort_ref")
    )
    several = departments["supplier"].n_unique() > 1
    try:
        verdict = verdicts(departments if several else departments.drop("supplier"), truth, links)
    except UnaccountedError as e:
        fail(str(e))
    found = None
    if decoys is not None:
        about = decoys.join(named, on=["supplier", "subject_id"], how="left")
        found = hard(about.select("decoy", "kind", "subject_ref"), verdict)
    return Run(
        subjects.height - departments.height,
        departments.height,
        link_seconds,
        figures(verdict, catalogue),
        found,
        used,
        catalogue.near,
        near_scores(subjects, truth, catalogue) if scored else {},
    )


def clean(people: pl.DataFrame) -> pl.DataFrame:
    """As training takes persons."""
    from stream_processors.matching.normalise import normalise

    return normalise(people).with_columns(cohort=pl.col("supplier").str.starts_with("council-"))


def _catalogue(people: pl.DataFrame, near: Near, many_to_one: bool, show: Show) -> tuple[Catalogue, str]:
    """The catalogue to link by, and what its near matches are, in words."""
    from stream_processors.matching.catalogue import load_catalogue
    from stream_processors.matching.training import POSTERIOR, POSTERIOR_OF_MANY, adapt

    shipped = load_catalogue()
    if near is Near.off:
        return shipped.configured(near=False), "none: match keys alone"
    if near is Near.shipped:
        return shipped, "weights that come with Lethe"
    steps = len(shipped.passes)
    least = POSTERIOR_OF_MANY if many_to_one else POSTERIOR
    own = adapt(clean(people), shipped, "own", least, on_pass=lambda number: show("fitting weights", number - 1, steps))
    return shipped.with_near(own), "weights fitted to these files, without the truth"


def _links(
    people: pl.DataFrame, many_to_one: bool, catalogue: Catalogue, show: Show
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Subject references by row, and what `linkage.link` says in the end, as `final_outcomes` takes it."""
    from stream_processors.refs import Refs
    from stream_processors.runtime.driver import Driver
    from stream_processors.topology import Context, build

    token_key = _KEY
    registry = StaticRegistry()
    context = Context.default(
        lambda: token_key, lambda: secrets.token_bytes(32), registry, partitions=1, catalogue=catalogue
    )
    driver = Driver([build(name, context) for name in _PROCESSORS], partitions=1)
    refs = Refs(token_key)
    now = int(time.time() * 1000)
    named: list[pl.DataFrame] = []
    for (supplier,), part in people.group_by("supplier", maintain_order=True):
        assert isinstance(supplier, str)
        topic = identified_topic(supplier, "person")
        values = wire.frame(registry.schema_id(topic), _bodies(supplier, part))
        log = driver.log(topic, 0)
        for key, value in zip(part["row"].cast(pl.Binary), values, strict=True):
            log.append(key, value, now)
        named.append(part.select("row", subject_ref=refs.subject(supplier, pl.col("row"))))
    rounds = 2 * len(catalogue.passes) + 1  # of `route`, and of `link` between them
    show("pseudonymising", 0, rounds + 1)
    driver.run(_WHOLE_TOPIC, only={"pseudonymise"})
    if many_to_one:
        _part_suppliers(driver, registry)
    done = count(1)

    def at_step() -> bool:
        show("linking", min(next(done), rounds), rounds + 1)
        return False

    driver.run(_WHOLE_TOPIC, until=at_step)
    return pl.concat(named), _last_said(driver.table("linkage.link"))


def _links_through_kafka(
    people: pl.DataFrame, many_to_one: bool, catalogue: Catalogue, show: Show
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """As `_links`, by a stack and processors of their own."""
    from infra.evaluation.stack import EvaluationFailedError, linked

    bodies = {
        supplier: (part["row"].to_list(), _bodies(supplier, part))
        for (supplier,), part in people.group_by("supplier", maintain_order=True)
        if isinstance(supplier, str)
    }
    try:
        refs, table = linked(bodies, catalogue, _KEY, _parted if many_to_one else None, lambda what: show(what, 0, 1))
    except EvaluationFailedError as e:
        fail(str(e))
    return people.select(
        "row",
        subject_ref=pl.concat_str("supplier", "row", separator="|").replace_strict(refs, return_dtype=pl.String),
    ), _last_said(table)


def _last_said(table: Mapping[bytes, bytes]) -> pl.DataFrame:
    """`linkage.link` as `final_outcomes` takes it."""
    contract = contracts.contract("linkage/link")
    rows = pl.DataFrame(one_batch(decode([v[wire.HEADER_BYTES :] for v in table.values()], contract)))
    subject, block = pl.Series(list(table), dtype=pl.Binary).cast(pl.String).str.split_exact("|", 1).struct.unnest()
    return rows.select("outcome", "person_ref", "match_key").with_columns(
        subject.alias("subject_ref"), block.alias("block")
    )


def _bodies(supplier: str, people: pl.DataFrame) -> list[bytes]:
    """Avro bodies of a supplier's person records; what a contract has and matching does not read is null."""
    contract = identified(supplier, "person")
    known = people.drop("subject_id").rename({"row": contract.subject_field})
    if kind_of(supplier) == "council":
        known = known.with_columns(programme_status=pl.lit("participant"))
    absent = [pl.lit(None).alias(f.name) for f in contract.fields if f.name not in known.columns]
    return encode(one_batch(known.with_columns(absent).select(f.name for f in contract.fields)), contract)


def _part_suppliers(driver: Any, registry: StaticRegistry) -> None:
    """Make each department's subject the only one of a supplier of its own.

    Subjects contest a person only against others of their supplier, so now none does, and no processor is another.
    """
    log = driver.log("linkage.identity", 0)
    values = _parted([r.key for r in log.records], [r.value for r in log.records], registry)
    log.records = [r._replace(value=v) for r, v in zip(log.records, values, strict=True)]


def _parted(keys: Sequence[bytes], values: Sequence[bytes], ids: SchemaIds) -> list[bytes]:
    """Values of `linkage.identity`, with a department's subject as the supplier of itself."""
    topic, contract = "linkage.identity", contracts.contract("linkage/identity")
    rows = pl.DataFrame(one_batch(decode([v[wire.HEADER_BYTES :] for v in values], contract)))
    refs = pl.Series(keys, dtype=pl.Binary).cast(pl.String)
    parted = rows.with_columns(
        supplier=pl.when(pl.col("role") == "department").then(refs).otherwise(pl.col("supplier"))
    )
    return wire.frame(ids.schema_id(topic), encode(one_batch(parted), contract))
