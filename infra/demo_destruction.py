"""The promise, kept and proved, on a stack of its own: asked about, erased, expired year by year, and at the end gone.

Topics are set so that what takes hours takes seconds; the clock is the demo's own.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console

from infra.broker.cluster import Stack, isolated
from infra.clock import tick
from infra.commands.destroy import sync_enclave
from infra.demo import DemoFailedError, publish_folder
from infra.destruction import certificate
from infra.destruction.destroy import NotYetError, Order, destroy
from infra.destruction.needles import Needles
from infra.destruction.proof import Proof
from infra.destruction.verify import Asked, verify
from infra.enquirer import Enquirer, NotAnsweredError
from infra.erasure import NotFollowedError, Orders
from infra.held import ledger_lines
from infra.keys import (
    council_secret,
    export_enquiry_key,
    init_certificate_key,
    init_council,
    init_keys,
    read_enquiry_key,
    read_key,
)
from infra.processes import processors
from infra.provision import provision
from infra.rest import Flow
from infra.settings import Settings
from infra.topic_table import table
from producers.publisher import Publisher
from producers.simulator.files import simulate_to
from schemas.registry import Registry
from stream_processors.access import ADMIN, ERASURE
from stream_processors.enquiry.person import PersonAsked
from stream_processors.erasure.order import Target
from stream_processors.retention_policy import load_policy
from stream_processors.topology import NAMES

QUICK_TOPICS: Mapping[str, str] = {
    "segment.ms": "1000",
    "max.compaction.lag.ms": "1000",
    "delete.retention.ms": "3000",
    "file.delete.delay.ms": "500",
}
QUICK_BROKER: Mapping[str, str] = {
    "log.cleaner.backoff.ms": "500",
    "log.cleaner.threads": "4",  # one that is not done before the next heartbeats takes large partitions last, or never
    "log.segment.delete.delay.ms": "500",  # also of deleted topics, whatever was set for them
}
QUICK = {"clock": "simulated", "heartbeat_seconds": 6.0, "sweep_seconds": 5.0, "partitions": 2}
"""Settings under which deleted bytes leave in seconds instead of hours."""
COUNCIL, DEPARTMENT = "council-northam", "dfe"
PERSON = {
    "forename": "Aysha",
    "surname": "Quuxbegum",
    "date_of_birth": "2001-02-03",
    "sex": "F",
    "postcode": "SE13 7AB",
}
LOCAL_ID, PUPIL_ID, OTHER_ID = "NORTHAM-QX-90210", "Q820200190210", "Q820200190211"
TEXTS = {
    "surname": [PERSON["surname"]],
    "postcode": [PERSON["postcode"]],
    "local id": [LOCAL_ID, PUPIL_ID, OTHER_ID],
}
_REST_S = 600.0
_PROVE_S = 300.0


@dataclass
class Told:
    """What the demo saw, step by step. `seconds`: since it began, at the end of each step."""

    held: dict[str, int] = field(default_factory=dict)
    erased: int = 0
    after_erasure: str = ""
    refused: int = 0
    destroyed_by_year: dict[int, int] = field(default_factory=dict)
    research_by_year: dict[int, int] = field(default_factory=dict)
    hits_before: int = 0
    hits_after: int = 0
    ledger_lines: int = 0
    certificate: list[str] = field(default_factory=list)
    public_key: str = ""
    seconds: dict[str, float] = field(default_factory=dict)


def demo_destruction(base: Settings, families: int, seed: int, console: Console) -> Told:
    """Run it, stopping whatever it started.

    Raises:
        DemoFailedError: a processor ended, or what should be gone is not.
    """
    home = base.base / "demo"
    shutil.rmtree(home, ignore_errors=True)
    settings = isolated(home, base).model_copy(update=QUICK)
    with Stack(settings, QUICK_BROKER):
        return _Demo(settings, home, families, seed, console).run()


class _Demo:
    def __init__(self, settings: Settings, home: Path, families: int, seed: int, console: Console) -> None:
        self._settings, self._home, self._families, self._seed = settings, home, families, seed
        self._console, self._began, self._told = console, time.monotonic(), Told()
        self._enclave = home / "enclave"
        self._needles = Needles(TEXTS)

    def run(self) -> Told:
        settings = self._settings
        provision(settings, suppliers=["dfe", "moj", "dwp", "health", "council-northam", "council-southam"],
                  overrides=QUICK_TOPICS)  # fmt: skip
        init_keys(settings)
        self._settings = settings = settings.acting_as(ADMIN)  # it looks everywhere; what runs acts for itself
        init_council(settings, COUNCIL)
        export_enquiry_key(settings)
        *_, public = init_certificate_key(settings)
        self._told.public_key = str(public.path)
        with self._running():
            self._publish()
            self._ask("held")
            self._erase()
            self._years()
        self._end(public.path)
        return self._told

    def _say(self, step: str, text: str) -> None:
        at = self._told.seconds[step] = round(time.monotonic() - self._began, 1)
        self._console.print(f"[bold]{at:6.1f} s  {step}[/]  {text}", highlight=False, soft_wrap=True)

    @contextmanager
    def _running(self) -> Iterator[None]:
        with processors(self._settings, [*NAMES, "control"], self._settings.run / "workers.log") as self._workers:
            yield

    def _rest(self) -> None:
        def alive(_: set[str]) -> None:
            if self._workers.poll() is not None:
                raise DemoFailedError(f"the processors ended; see {self._settings.run / 'workers.log'}")

        flow = Flow(self._settings)  # one of its own, so that none is left to look for a broker that was stopped
        try:
            flow.wait(_REST_S, alive)
        finally:
            flow.close()

    # The story.

    def _publish(self) -> None:
        settings = self._settings
        files = self._home / "files"
        simulate_to(files, self._families, self._seed)
        totals = publish_folder(settings, files)
        self._supply(self._person())
        self._rest()
        sync_enclave(settings, self._enclave)
        published = sum(t.published for t in totals) + 4
        people = len(table(settings, "research.person"))
        self._say("published", f"{published:,} records of {self._families} families; {people:,} people in the enclave")

    def _person(self) -> dict[tuple[str, str], list[dict[str, Any]]]:
        """Records of the person who will object, by supplier and dataset."""
        return {
            (COUNCIL, "person"): [{"person_id": LOCAL_ID, "programme_status": "participant", **PERSON}],
            (DEPARTMENT, "person"): [{"UPN": PUPIL_ID, **PERSON}],
            (DEPARTMENT, "absence"): [
                {"UPN": PUPIL_ID, "record_id": f"r{y}", "PeriodEnd": date(y, 7, 1)} for y in (2013, 2014)
            ],
        }

    def _supply(self, rows: Mapping[tuple[str, str], list[dict[str, Any]]]) -> None:
        for (supplier, dataset), records in rows.items():
            with Publisher(supplier, dataset, settings=self._settings) as sink:
                sink.publish_batch(records)

    def _ask(self, expected: str) -> str:
        enquirer = Enquirer(
            COUNCIL,
            read_key(council_secret(self._settings, COUNCIL)),
            read_enquiry_key(self._settings),
            self._settings.control_port,
        )
        answer = _insisting(lambda: enquirer.ask(PersonAsked.of(PERSON)))
        held = {f"{h['supplier']} {h['dataset']}": h["records"] for h in answer["holdings"]}
        found = ", ".join(f"{n} {name}" for name, n in sorted(held.items()))
        self._say("enquiry", f"the council asks about one person: {answer['outcome'].replace('_', ' ')}. {found}")
        if answer["outcome"] != expected:
            raise DemoFailedError(f"the answer should be {expected}")
        self._told.held = self._told.held or held
        return str(answer["outcome"])

    def _erase(self) -> None:
        self._told.hits_before = self._hits()
        self._say("search", f"name, postcode and local ids are in {self._told.hits_before} places: broker, disk, state")
        self._order()
        self._rest()
        sync_enclave(self._settings, self._enclave)
        self._told.after_erasure = self._ask("not_held")
        self._push_again()
        deadline = time.monotonic() + _PROVE_S
        proof, last = self._verify(), False
        while proof.findings and not last:
            last = time.monotonic() > deadline  # this look begins after it
            proof = self._verify()
        if not proof.proved:
            raise DemoFailedError(f"after the bound: {proof.findings[0].kind} at {proof.findings[0].where}")
        self._told.hits_after = sum(f.kind == "needle" for f in proof.findings)
        looked = proof.checked
        self._say(
            "proof",
            f"not a byte is left: {looked['records on disk']:,} records on disk, {looked['rows of state']:,} rows of "
            f"state, {looked['files']:,} files and the enclave were searched",
        )

    def _order(self) -> None:
        """As `lethe erase --person` does it: a preview, then the erasure of who was found."""
        settings, target = self._settings.acting_as(ERASURE), Target(person=PersonAsked.of(PERSON))
        registry = Registry(settings.registry)
        try:
            with Orders(settings, registry, read_enquiry_key(settings)) as orders:
                found = orders.give("preview", target, "objection", "the demo")
                if found.outcome != "found" or found.records != sum(self._told.held.values()):
                    raise DemoFailedError(f"the preview says {found.outcome}, {found.records} records")
                self._say("preview", f"the person objects: {found.records} records would go. Nothing is erased yet")
                done = orders.give("erase", target, "objection", "the demo", found.order_id)
                orders.forget(done.order_id)
        except NotFollowedError as e:
            raise DemoFailedError(str(e)) from None
        finally:
            registry.close()
        if done.outcome != "erased" or done.records != found.records:
            raise DemoFailedError(f"the order says {done.outcome}, {done.records} records")
        self._told.erased = done.records
        self._say("erasure", f"{done.records} records deleted at their source, and what was made of them")

    def _push_again(self) -> None:
        """The suppliers know nothing of the order, and send the person again; the department under another id, too."""
        before = table(self._settings, "research.person")
        self._supply(self._person() | {(DEPARTMENT, "person"): [{"UPN": u, **PERSON} for u in (PUPIL_ID, OTHER_ID)]})
        self._rest()
        self._told.refused = sum(line["refused"] for line in ledger_lines(self._settings))
        if self._told.refused == 0 or table(self._settings, "research.person") != before:
            raise DemoFailedError("who was erased has come back")
        self._ask("not_held")
        self._say(
            "pushed again", f"refused, and deleted at the source: {self._told.refused} lines in the ledger say so"
        )

    def _hits(self) -> int:
        return sum(f.kind == "needle" for f in self._verify().findings)

    def _verify(self) -> Proof:
        asked = Asked("kept to the ledger", self._needles, [self._settings.broker_data], [self._enclave])
        return verify(self._settings, asked)

    def _years(self) -> None:
        stop = load_policy().hard_stop
        for year in range(stop.year - 3, stop.year + 1):
            day = min(date(year, 12, 30), stop - timedelta(1))
            registry = Registry(self._settings.registry)
            for told in (day - timedelta(1), day):
                tick(self._settings, registry, told)
            registry.close()
            self._rest()
            lines = len(ledger_lines(self._settings))
            self._told.destroyed_by_year[year] = lines
            self._told.research_by_year[year] = len(table(self._settings, "research.person"))
            self._say(
                str(year),
                f"the clock says {day}: {lines:,} records have been destroyed, each with a line in the ledger",
            )

    def _end(self, public: Path) -> None:
        settings = self._settings
        texts = {**TEXTS, "every name": _surnames(self._home / "files")}
        shutil.rmtree(self._home / "files")  # the suppliers' own; not Lethe's to keep or to destroy
        order = Order(
            "end of the programme",
            "the demo",
            [self._enclave],
            broker_data=[settings.broker_data],
            needles=Needles(texts),
        )

        def say(text: str) -> None:
            step, _, rest = text.partition(": ")
            if rest != "begun" and step != "proof":
                self._say(step, rest)

        try:
            paths = destroy(settings, order, datetime.now(UTC).date(), sync_enclave, say)
        except NotYetError as e:
            raise DemoFailedError(str(e)) from None
        document = certificate.check(paths[1].read_text(), bytes.fromhex(public.read_text().strip()))
        self._told.ledger_lines = document["ledger"]["lines"]
        self._told.certificate = [str(p) for p in paths]
        by_reason = Counter[str]()
        for row in document["ledger"]["destroyed"]:
            by_reason[row["reason"]] += row["records"]
        if by_reason["late"]:  # nobody sends what has expired here: a record has a line more than it should
            raise DemoFailedError(f"{by_reason['late']} records that were destroyed came again")
        reasons = ", ".join(f"{n:,} by {why.replace('_', ' ')}" for why, n in sorted(by_reason.items()))
        self._say(
            "certificate",
            f"nothing is left but the ledger, and that is signed: {self._told.ledger_lines:,} records destroyed "
            f"({reasons}). {len(texts['every name']):,} surnames were searched for. Read {paths[1]}",
        )


def _insisting(ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The control plane may still be starting."""
    deadline = time.monotonic() + _PROVE_S
    while True:
        try:
            return ask()
        except NotAnsweredError:
            if time.monotonic() > deadline:
                raise DemoFailedError("the control plane does not answer") from None
            time.sleep(0.2)


def _surnames(files: Path) -> list[str]:
    """Every surname of six letters or more in the suppliers' files that is nothing else in English or in Lethe."""
    import polars as pl

    found: set[str] = set()
    for path in files.glob("*/person.csv"):
        found |= set(pl.read_csv(path, columns=["surname"], infer_schema=False)["surname"].drop_nulls().to_list())
    return sorted(s for s in found if len(s) >= 8 and s.isalpha())[:200]


def as_json(told: Told) -> str:
    """For `--json`."""
    return json.dumps(vars(told), indent=1)
