"""Every identifying field of every simulated file carries a canary: none of them, nor anything of an identifier's
shape, nor a reference or token of the linkage zone, reaches the research zone or the enclave's files."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from infra.enclave_report import write_report
from producers.rows import convert
from producers.simulator import simulate_to
from producers.simulator.canaries import read, word
from schemas import contracts, wire
from schemas.codec import encode
from schemas.contracts import identified, identified_topic
from stream_processors.enclave import tables
from stream_processors.enclave.store import Store
from stream_processors.runtime.partition import partition_of
from stream_processors.scan import Canaries, identifiers, scan
from tests.stream_processors.enclave.support import bytes_of, held, take
from tests.stream_processors.tables import PARTITIONS, REGISTRY, Flow, decoded


class Planted:
    """A flow that has taken in a simulated cohort with canaries, and the enclave's files of what came out."""

    def __init__(self, files: Path, enclave: Path) -> None:
        simulate_to(files, 60, 3, canaries=True)
        self.listed = read(files)
        self.canaries = Canaries(self.listed)
        self.flow = Flow()
        for path in sorted(files.glob("*/*.csv")):
            if path.parent.name != "truth":
                self._publish(path)
        self.flow.run()
        self.enclave = enclave
        logs = self.flow.driver.topics["research.person"]
        with Store(enclave) as store:
            store.begin("topic", range(PARTITIONS), 1)
            while take(store, logs, 10_000):
                pass
            store.export_parquet()
            self.held = held(store.connection)
            self.texts = [text.encode() for text in tables.texts(store.connection)]

    def _publish(self, path: Path) -> None:
        supplier, dataset = path.parent.name, path.stem
        contract, topic = identified(supplier, dataset), identified_topic(supplier, dataset)
        cells = pl.read_csv(path, infer_schema=False)
        found = convert(cells, pl.int_range(2, 2 + cells.height, eager=True), contract, date(2026, 3, 1))
        values = wire.frame(REGISTRY.schema_id(topic), encode(found.batch, contract))
        for key, subject, value in zip(found.keys, found.subjects, values, strict=True):
            self.flow.driver.append(topic, partition_of(subject, PARTITIONS), key.encode(), value)

    def records(self, prefix: str) -> Iterator[tuple[bytes | None, bytes | None, tuple[tuple[str, bytes], ...]]]:
        for topic, logs in self.flow.driver.topics.items():
            if topic.startswith(prefix):
                for log in logs:
                    yield from ((r.key, r.value, r.headers) for r in log.records)

    def linkage(self) -> set[bytes]:
        """Every reference, token and block of the linkage zone."""
        out = {part for key, _, _ in self.records("linkage.") for part in (key or b"").split(b"|")}
        for value in self.flow.driver.table("linkage.identity").values():
            row = decoded("linkage.identity", value)
            out |= {t.partition(":")[2].encode() for t in row["tokens"] + row["blocks"]}
        return {part for part in out if len(part) == 32}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    folder = tmp_path_factory.mktemp("canaries")
    return Planted(folder / "files", folder / "enclave")


def test_there_is_something_to_find(planted: Planted) -> None:
    fields = {
        f.name
        for name in contracts.names()
        if name.startswith("identified/")
        for f in contracts.contract(name).fields
        if f.classification == "identifier"
    }
    assert planted.listed.keys() == fields, "every identifying field of every contract has its canary"
    words = [word(f) for f in fields]
    assert len(set(words)) == len(words)
    found = scan(planted.records("identified."), planted.canaries)
    assert {kind.rpartition(".")[2] for kind in found if ".canary." in kind} >= fields - {"date_of_birth"}
    assert len(planted.held) > 100
    for table in tables.tables():
        if table.field:
            assert any(row[table.field] for row in planted.held.values()), f"{table.field} is not empty"
    assert any((row["area"] or "").startswith("E01") for row in planted.held.values())


def test_no_canary_and_no_identifier_is_in_values_keys_or_headers_of_the_research_zone(planted: Planted) -> None:
    assert scan(planted.records("research."), planted.canaries) == {}


@pytest.mark.parametrize("zone", ["linkage.", "governance.", "state."])
def test_no_canary_is_in_any_zone_but_the_identified(planted: Planted, zone: str) -> None:
    found = scan(planted.records(zone), planted.canaries)
    assert {kind: n for kind, n in found.items() if ".canary." in kind} == {}


def test_no_canary_and_no_identifier_is_in_the_enclaves_files(planted: Planted) -> None:
    content = bytes_of(planted.enclave)
    names = {p.name for p in planted.enclave.rglob("*")}
    assert {"enclave.duckdb", "persons.parquet", "offence.parquet"} <= names
    assert planted.canaries.found(content) == {}
    assert planted.texts
    assert [t for t in planted.texts if identifiers(t) or planted.canaries.found(t)] == []


def test_no_reference_and_no_token_is_in_the_research_zone_or_the_enclave(planted: Planted) -> None:
    linkage = planted.linkage()
    assert len(linkage) > 1_000
    everything = b"\n".join(part for k, v, _ in planted.records("research.") for part in (k or b"", v or b""))
    everything += bytes_of(planted.enclave) + b"\n".join(planted.texts)
    assert [1 for part in linkage if part in everything] == []


def test_nothing_of_anybody_is_in_the_report(planted: Planted, tmp_path: Path) -> None:
    """Page, tables, log, and what is kept for the next report: no canary, no identifier, no id of any zone."""
    written = write_report(planted.enclave, tmp_path / "report")
    names = {p.name for p in written.page.parent.rglob("*")}
    assert {"index.html", "output-log.json", "counts.json"} <= names
    assert any(name.endswith(".csv") for name in names)
    content = bytes_of(written.page.parent)
    assert len(content) > 10_000
    assert planted.canaries.found(content) == {}
    assert identifiers(content) == {}
    ids = {id_.encode() for row in planted.held.values() for id_ in (row["person_id"], row["family_id"]) if id_}
    assert len(ids) > 100
    assert [1 for id_ in ids | planted.linkage() if id_ in content] == []


def test_days_are_published_of_nobody(planted: Planted) -> None:
    def days(row: object) -> Iterator[date]:
        for value in row.values() if isinstance(row, dict) else row if isinstance(row, list) else ():
            if isinstance(value, date):
                yield value
            else:
                yield from days(value)

    found = [day for row in planted.held.values() for day in days(row)]
    assert found
    assert {day.day for day in found} == {1}


def test_planting_links_people_as_before(planted: Planted, tmp_path: Path) -> None:
    """Else nobody would be linked, and nothing could be found."""
    outcomes = [link["outcome"] for link in planted.flow.links().values()]
    assert outcomes.count("linked") > 0.6 * len(outcomes)
    simulate_to(tmp_path / "a", 20, 1, canaries=True)
    simulate_to(tmp_path / "b", 20, 1)
    for path in sorted((tmp_path / "b").glob("*/person.csv")):
        plain = pl.read_csv(path, infer_schema=False)
        with_canaries = pl.read_csv(tmp_path / "a" / path.parent.name / path.name, infer_schema=False)
        assert with_canaries["surname"].str.strip_suffix(word("surname")).equals(plain["surname"])
        assert with_canaries["postcode"].equals(plain["postcode"])
