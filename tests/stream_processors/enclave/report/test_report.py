"""The report as a folder: what a reader finds, what leaves, and what a second report may not tell."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import duckdb
import polars as pl
import pytest

from infra.enclave_report import Written, write_report
from infra.simulated_enclave import simulated_enclave
from stream_processors.enclave.report import write
from stream_processors.enclave.report.outcomes import OUTCOMES
from stream_processors.enclave.report.write import FolderUnusableError
from stream_processors.scan import identifiers

FAMILIES = 1500
"""Enough for most outcomes, too few for custody."""
VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """What is in a page: its elements, ids, links and text by element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.children: Counter[tuple[str, str]] = Counter()
        self.open: list[str] = []
        self.text: list[tuple[str, str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if self.open:
            self.children[self.open[-1], tag] += 1
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag, f"{tag} closes another element"

    def handle_data(self, data: str) -> None:
        self.text.append((self.open[-1] if self.open else "", data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for t, attributes in self.elements if t == tag]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("enclave")
    simulated_enclave(folder, FAMILIES, 3)
    return folder


@pytest.fixture(scope="module")
def written(tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Written:
    return write_report(tables, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(written: Written) -> Page:
    return Page(written.page.read_text())


def csvs(written: Written) -> dict[str, pl.DataFrame]:
    return {p.name: pl.read_csv(p) for p in (written.page.parent / "tables").iterdir()}


def log(written: Written) -> list[dict[str, object]]:
    out: list[dict[str, object]] = json.loads((written.page.parent / "output-log.json").read_text())["outputs"]
    return out


def test_the_page_stands_alone(written: Written, page: Page) -> None:
    text = written.page.read_text()
    assert not {"script", "link", "img", "iframe", "object", "embed"} & {tag for tag, _ in page.elements}
    assert not re.search(r"""(?:src|href)=["'](?!#)""", text), "leads elsewhere"
    assert not re.search(r"url\((?!#)|@import|@font-face", text), "fetches something"
    assert "prefers-color-scheme: dark" in text
    assert "width=device-width" in text


def test_the_page_can_be_read_by_everyone(page: Page) -> None:
    assert page.all("html")[0]["lang"] == "en-GB"
    assert len(page.all("h1")) == 1
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert all(b <= a + 1 for a, b in pairwise(levels)), "a level of headings is left out"
    assert page.children["table", "caption"] == len(page.all("table")) > 10
    assert all(th.get("scope") in ("col", "row") for th in page.all("th"))
    pictures = page.all("svg")
    assert len(pictures) > 5
    assert all(p["role"] == "img" and p["aria-labelledby"] for p in pictures)
    ids = [a["id"] for _, a in page.elements if a.get("id")]
    assert len(ids) == len(set(ids))
    referred = {i for p in pictures for i in str(p["aria-labelledby"]).split()}
    referred |= {str(a["href"])[1:] for a in page.all("a")}
    assert referred <= set(ids)


def test_every_picture_has_a_title_and_is_told_in_words(page: Page) -> None:
    told = [t for t in page.text if t[0] in ("title", "desc") and t[1].strip()]
    assert len(told) >= 2 * len(page.all("svg"))


def test_every_outcome_has_its_place_and_says_how_many_families(written: Written) -> None:
    text = written.page.read_text()
    for outcome in OUTCOMES:
        assert f'id="{outcome.name}"' in text
    published = [f for f in written.report.findings if f.effect is not None]
    assert len(published) >= 7
    assert text.count("Families behind these figures") == len(published)


def test_published_counts_are_multiples_of_five_and_none_is_small(written: Written) -> None:
    looked_at = 0
    for name, frame in csvs(written).items():
        for column in frame.columns:
            counted = re.search(r"(^|_)(events|exposure|families|persons|linked|participants|comparison)$", column)
            if counted and frame[column].dtype == pl.Int64:
                values = frame[column].drop_nulls()
                looked_at += len(values)
                assert (values % 5 == 0).all(), (name, column)
                assert (values >= 10).all(), (name, column)
    assert looked_at > 500


def test_a_refused_output_says_which_rule_and_leaves_nothing(written: Written) -> None:
    refused = {e["id"]: e for e in log(written) if e["status"] == "refused"}
    assert refused["effect.custody"]["refused_by"] == "threshold"
    assert refused["effect.custody"]["file"] is None
    assert "custody" not in csvs(written)["outcomes.csv"]["outcome"].to_list()
    text = written.page.read_text()
    assert "Custody: before and after, and the difference in differences</th>" in text


def test_the_log_has_each_output_with_query_checks_and_two_checkers(written: Written) -> None:
    entries = log(written)
    assert len(entries) == 3 + 4 * len(OUTCOMES) + 4
    for entry in entries:
        assert "SELECT" in str(entry["query"])
        assert entry["checks"]
        assert entry["checked_by"] == [{"name": "", "date": ""}] * 2
        if entry["status"] != "refused":
            assert (written.page.parent / str(entry["file"])).is_file()
            assert entry["sha256"]


def test_no_pseudonym_or_identifier_is_in_what_leaves(written: Written, tables: Path) -> None:
    with duckdb.connect(str(tables / "enclave.duckdb"), read_only=True) as connection:
        ids = [i for (i,) in connection.sql("SELECT person_id FROM persons").fetchall()]
    assert len(ids) > FAMILIES
    folder = written.page.parent
    for path in (p for p in folder.rglob("*") if p.is_file()):
        content = path.read_bytes()
        assert not identifiers(content), path.name
        words = set(re.findall(r"[0-9]{4,}", content.decode()))
        assert "person_id" not in content.decode() or path.name in ("index.html", "output-log.json")  # queries name it
        assert path.suffix != ".csv" or not words & {i for i in ids if len(i) > 6}


def test_totals_are_sums_of_the_rounded(written: Written) -> None:
    cohort = csvs(written)["cohort.csv"]
    families = int(cohort.filter(group="participant")["families"].sum())
    assert f"About {families:,} families who took part" in written.page.read_text()


def test_what_stays_is_for_nobody_else(written: Written) -> None:
    kept = written.page.parent / write.COUNTS
    assert kept.stat().st_mode & 0o077 == 0
    assert kept.parent.stat().st_mode & 0o077 == 0


def copied(written: Written, tables: Path, tmp_path: Path) -> tuple[Path, Path]:
    shutil.copytree(written.page.parent, tmp_path / "report")
    shutil.copytree(tables, tmp_path / "enclave")
    return tmp_path / "enclave", tmp_path / "report"


def test_a_second_report_on_unchanged_tables_is_the_same(written: Written, tables: Path, tmp_path: Path) -> None:
    enclave, report = copied(written, tables, tmp_path)
    again = write_report(enclave, report)
    assert csvs(again).keys() == csvs(written).keys()
    assert all(frame.equals(csvs(written)[name]) for name, frame in csvs(again).items())
    assert len(json.loads((report / write.COUNTS).read_text())["reports"]) == 1


def test_a_person_who_withdrew_is_not_told_by_the_second_report(written: Written, tables: Path, tmp_path: Path) -> None:
    enclave, report = copied(written, tables, tmp_path)
    with duckdb.connect(str(enclave / "enclave.duckdb")) as connection:
        who = connection.sql("SELECT person_id FROM contact GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 1").fetchall()[
            0
        ][0]
        for table in ("persons", "contact", "offence", "benefit", "employment", "absence", "exclusion", "safeguarding"):
            connection.execute(f"DELETE FROM {table} WHERE person_id = ?", [who])
    second = write_report(enclave, report)
    refused = {e.id for e in second.report.release.log if e.refused_by == "differencing"}
    assert {"cohort", "effect.contacts", "series.contacts", "linkage.health"} <= refused
    before, after = csvs(written), csvs(second)
    for name in after.keys() & before.keys():
        texts = [c for c in after[name].columns if after[name][c].dtype == pl.String]
        keys = [*texts, *({"from_month", "to_month", "started_in"} & set(after[name].columns))]
        both = after[name].join(before[name], on=keys, how="inner", suffix="_before", nulls_equal=True)
        for column in (c.removesuffix("_before") for c in both.columns if c.endswith("_before")):
            assert both[column].equals(both[f"{column}_before"].alias(column)), (name, column)


def test_a_report_of_which_nothing_may_be_published_says_why(written: Written, tables: Path, tmp_path: Path) -> None:
    enclave, report = copied(written, tables, tmp_path)
    names = [name for (name,) in duckdb.connect(str(enclave / "enclave.duckdb")).sql("SHOW TABLES").fetchall()]
    with duckdb.connect(str(enclave / "enclave.duckdb")) as connection:
        who = connection.sql(
            "SELECT min(person_id) FROM persons JOIN contact USING (person_id) GROUP BY family_id ORDER BY 1 LIMIT 8"
        ).fetchall()
        for table in names:
            if connection.execute(f"SELECT * FROM {table}").description[0][0] == "person_id":
                connection.executemany(f"DELETE FROM {table} WHERE person_id = ?", who)
    second = write_report(enclave, report)
    assert [f for f in second.report.findings if f.effect is not None] == []
    page = Page(second.page.read_text())
    assert page.all("svg") == []
    said = [text for tag, text in page.text if tag == "p" and "Nothing may be said of any outcome" in text]
    assert len(said) == 1
    assert "it differs from an earlier report by the records of a few people" in said[0]


def test_points_that_are_withheld_are_told_under_their_chart(tmp_path: Path) -> None:
    simulated_enclave(tmp_path / "enclave", 600, 3)
    few = write_report(tmp_path / "enclave", tmp_path / "report")
    text = few.page.read_text()
    missing = [f.series["rate"].null_count() for f in few.report.findings if f.series is not None]
    told = ["One point is" if n == 1 else f"{n} points are" for n in missing if n]
    assert told
    assert sorted(re.findall(r"(One point is|[0-9]+ points are) withheld\.", text)) == sorted(told)


def test_a_folder_that_lost_what_was_kept_is_not_written_to(written: Written, tables: Path, tmp_path: Path) -> None:
    enclave, report = copied(written, tables, tmp_path)
    (report / write.COUNTS).unlink()
    with pytest.raises(FolderUnusableError, match="is gone"):
        write_report(enclave, report)
    (report / write.COUNTS).write_text("{}")
    with pytest.raises(FolderUnusableError, match="cannot be read"):
        write_report(enclave, report)


def test_a_folder_with_other_files_is_left_alone(tables: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FolderUnusableError, match="other files"):
        write_report(tables, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
