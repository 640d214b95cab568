"""What must hold between two topics at rest, record by record: what comes in is there on the other side, or why not.

Each check holds what lies on the topics to each other, and to what the processor remembers of what it has said. So a
record that a processor drops, doubles, alters or leaves standing is named: processor, partition and offset, whatever
the processor itself has counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import polars as pl

from stream_processors import frequency, quarantine
from stream_processors.accounting.tables import Held
from stream_processors.publish import NOT_PERSONS
from stream_processors.runtime.partition import partitions_of

MOST_NAMED = 20
_SAYS = {
    "linkage.candidate": "route",
    "linkage.link": "link",
    "linkage.contribution": "join",
    "research.person": "publish",
}


@dataclass(frozen=True)
class Finding:
    """What does not balance. `offset`: of the record that shows it, in `topic` and `partition`; `records`: how many of
    the kind there are; `person`, `subject` and values are never named."""

    processor: str
    rule: str
    topic: str
    partition: int
    offset: int
    next: int
    expected: int = 1
    found: int = 0

    @property
    def is_stray(self) -> bool:
        """Whether it is a record of an output that nothing stands behind: nobody will ever take it back by himself."""
        return (self.expected, self.found) == (0, 1) and _SAYS.get(self.topic) == self.processor

    @property
    def text(self) -> str:
        """For people."""
        where = f"{self.topic}-{self.partition} offset {self.offset}"
        if self.next > self.offset + 1:
            where = f"{self.topic}-{self.partition} offsets {self.offset}..{self.next - 1}"
        counts = f"expected {self.expected}, found {self.found}"
        return f"{self.processor}, partition {self.partition}: {self.rule}: {where} ({counts})"


def _deciding(links: pl.DataFrame) -> pl.DataFrame:
    """Links with `subject` and `number`, the pass. While keys are rotated, of the epoch that was said last to lead."""
    parts = links.with_columns(
        subject=pl.col("key").str.head(32), number=pl.col("key").str.slice(33).str.extract(r"^(\d+):").cast(pl.Int64)
    )
    # 0 is of no epoch.
    return parts.filter((pl.col("epoch") == 0) | (pl.col("epoch") == pl.col("leading").max().over("subject")))


def persons_of(links: pl.DataFrame) -> pl.DataFrame:
    """`subject` and `person` by the best link: the earliest pass, then the strictest match key, as `join` has it."""
    named = _deciding(links).filter(pl.col("person_ref").is_not_null())
    named = named.filter((pl.col("role") != "cohort") | pl.col("number").is_in([0, 1]))
    best = named.sort("number", "match_key").unique("subject", keep="first")
    return best.select("subject", pl.col("person_ref").alias("person"))


def outcomes_of(links: pl.DataFrame) -> pl.DataFrame:
    """`subject`, `outcome` and `match_key` of the last pass that each subject has reached."""
    numbered = _deciding(links)
    # A cohort subject's first pass says who it is; those after it repeat that.
    order = pl.when(pl.col("role") == "cohort").then(-pl.col("number")).otherwise(pl.col("number"))
    last = numbered.with_columns(order=order).sort("order").unique("subject", keep="last")
    return last.select("subject", "outcome", "match_key", "supplier")


def check(
    held: Held, partitions: int, confirmed: dict[tuple[str, int], int] | None = None, stop: int | None = None
) -> list[Finding]:
    """Every hop. `partitions`: how many each topic has; `confirmed`: the day (since 1970) up to which each half of
    retention has destroyed, by topic and partition; `stop`: the day from which nothing may be held."""
    checks: tuple[Callable[[Held, int], Iterable[Finding]], ...] = (_pseudonymise, _route, _link, _join, _publish)
    found = [finding for one in checks for finding in one(held, partitions)]
    return found + list(_retention(held, confirmed or {}, stop))


def _named(
    processor: str, rule: str, topic: str, rows: pl.DataFrame, expected: int = 1, found: int = 0
) -> Iterator[Finding]:
    for row in rows.sort("partition", "offset").head(MOST_NAMED).iter_rows(named=True):
        yield Finding(processor, rule, topic, row["partition"], row["offset"], row["offset"] + 1, expected, found)


def _missing(left: pl.DataFrame, right: pl.DataFrame, on: list[str]) -> pl.DataFrame:
    return left.join(right.select(on).unique(), on=on, how="anti", nulls_equal=True)


def _at_home(rows: pl.DataFrame, routing: pl.Expr, partitions: int) -> pl.DataFrame:
    """With the partition in which each row must lie, by its routing key; null where there is none."""
    by = rows.select(routing.alias("by"))["by"]
    there = pl.Series(partitions_of(by.fill_null(""), partitions), dtype=pl.Int32)
    return rows.with_columns(partition=pl.when(by.is_not_null()).then(there))


def _pseudonymise(held: Held, partitions: int) -> Iterator[Finding]:  # noqa: ARG001
    """A person record is one identity and one activity, in one partition."""
    identities = held["linkage.identity"].with_columns(subject=pl.col("key"))
    persons = held["linkage.activity"].filter(pl.col("dataset") == "person")
    persons = persons.with_columns(subject=pl.col("key").str.head(32))
    on = ["subject", "partition"]
    rule = "a person's activity has an identity"
    yield from _named("pseudonymise", rule, "linkage.activity", _missing(persons, identities, on))
    rule = "an identity has a person's activity"
    yield from _named("pseudonymise", rule, "linkage.identity", _missing(identities, persons, on))


def _route(held: Held, partitions: int) -> Iterator[Finding]:
    identities, said = held["linkage.identity"], held["state.route"]
    on = ["key", "partition"]
    rule = "an identity is sent to a block"
    yield from _named("route", rule, "linkage.identity", _missing(identities, said, on))
    rule = "what is sent to a block is an identity's"
    yield from _named("route", rule, "state.route", _missing(said, identities, on), 0, 1)
    sent = said.explode("blocks").filter(pl.col("blocks").is_not_null())
    sent = sent.with_columns(key=pl.col("key") + "|" + pl.col("blocks"), at=pl.col("partition"))
    sent = _at_home(sent, pl.col("blocks"), partitions)
    candidates = held["linkage.candidate"]
    lost = _missing(sent, candidates, on).with_columns(partition=pl.col("at"))
    yield from _named("route", "a block that is sent to has the candidate", "state.route", lost)
    rule = "a candidate was sent"
    yield from _named("route", rule, "linkage.candidate", _missing(candidates, sent, on), 0, 1)


def _link(held: Held, partitions: int) -> Iterator[Finding]:  # noqa: ARG001
    candidates, links = held["linkage.candidate"], held["linkage.link"]
    turned = pl.col("key").str.replace(r"^([^|]*)\|(.*)$", "${2}|${1}")
    claims = held["state.link"].filter(~pl.col("key").str.starts_with(frequency.ROW.decode()))
    said = claims.with_columns(key=turned)
    rule = "a candidate is claimed of"
    yield from _named("link", rule, "linkage.candidate", _missing(candidates, said, ["key", "partition"]))
    rule = "a claim is of a candidate"
    yield from _named("link", rule, "state.link", _missing(said, candidates, ["key", "partition"]), 0, 1)
    rule = "a claim is said, as it was made, where its subject is"
    at_home = said.with_columns(partition=pl.col("home"), at=pl.col("partition"))
    lost = _missing(at_home, links, ["key", "partition", "body"]).with_columns(partition=pl.col("at"))
    yield from _named("link", rule, "state.link", lost)
    rule = "a link was claimed"
    yield from _named("link", rule, "linkage.link", _missing(links, at_home, ["key", "partition", "body"]), 0, 1)


def _join(held: Held, partitions: int) -> Iterator[Finding]:
    persons = persons_of(held["linkage.link"])
    activities = held["linkage.activity"].with_columns(
        subject=pl.col("key").str.head(32), record=pl.col("key").str.slice(33)
    )
    due = activities.join(persons, on="subject", how="inner")
    said = held["state.join"].filter(pl.col("person").is_not_null())
    rule = "an activity of a linked subject is attached to its person"
    yield from _named("join", rule, "linkage.activity", _missing(due, said, ["key", "partition", "person"]))
    rule = "what is attached is an activity of the person's"
    yield from _named("join", rule, "state.join", _missing(said, due, ["key", "partition", "person"]), 0, 1)
    contributions = held["linkage.contribution"]
    expected = due.with_columns(key=pl.col("person") + "|" + pl.col("record"), at=pl.col("partition"))
    expected = _at_home(expected, pl.col("person"), partitions)
    on = ["key", "body", "partition"]
    rule = "an attached activity is a contribution, as it is"
    lost = _missing(expected, contributions, on).with_columns(partition=pl.col("at"))
    yield from _named("join", rule, "linkage.activity", lost)
    rule = "a contribution is of an attached activity"
    yield from _named("join", rule, "linkage.contribution", _missing(contributions, expected, on), 0, 1)


def _publish(held: Held, partitions: int) -> Iterator[Finding]:
    contributions = held["linkage.contribution"]
    refused = held["governance.quarantine"].select(pl.col("key").alias("place"))
    placed = contributions.with_columns(
        key=pl.col("key").str.head(32),
        place=quarantine.told_keys("linkage.contribution", pl.col("partition"), pl.col("key")),
    )
    cohort = placed.filter((pl.col("dataset") == "person") & pl.col("supplier").str.starts_with("council-"))
    cohort = _missing(cohort, refused, ["place"])
    persons = ~pl.any_horizontal(pl.col("key").str.starts_with(row.decode()) for row in NOT_PERSONS)
    said = held["state.publish"].filter(persons)
    rule = "a person of the cohort is published"
    missing = _missing(cohort, said, ["key", "partition"]).unique("key")
    yield from _named("publish", rule, "linkage.contribution", missing)
    rule = "a published person is of the cohort"
    yield from _named("publish", rule, "state.publish", _missing(said, cohort, ["key", "partition"]), 0, 1)
    published = held["research.person"].with_columns(at=pl.col("partition"))
    # By counts of digests: two people of whom the same is said differ in their ids, which the records hold.
    rule = "what was published is in the research zone"
    yield from _named("publish", rule, "state.publish", _missing(said, published, ["digest"]))
    rule = "what is in the research zone was published"
    yield from _named("publish", rule, "research.person", _missing(published, said, ["digest"]), 0, 1)
    rule = "a person is where the pseudonym says"
    homes = _at_home(published, pl.col("key"), partitions)
    elsewhere = homes.filter(pl.col("partition") != pl.col("at")).with_columns(partition=pl.col("at"))
    yield from _named("publish", rule, "research.person", elsewhere, 0, 1)


def _retention(held: Held, confirmed: dict[tuple[str, int], int], stop: int | None) -> Iterator[Finding]:
    for topic in ("linkage.identity", "linkage.activity"):
        rows = held[topic]
        for partition in rows["partition"].unique().to_list():
            day = confirmed.get((topic, partition))
            if day is None:
                continue
            ends = pl.col("expires_on") if stop is None else pl.min_horizontal("expires_on", pl.lit(stop))
            over = rows.filter((pl.col("partition") == partition) & (ends <= day))
            processor = "retention." + topic.partition(".")[2]
            yield from _named(processor, "what has expired is destroyed", topic, over, 0, 1)
