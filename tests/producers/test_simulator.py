from __future__ import annotations

import hashlib
import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer import Typer
from typer.testing import CliRunner

from infra.commands.simulate import simulate
from producers.rows import Converted, convert
from producers.simulator import NotOursError, Totals, simulate_to
from schemas.contracts import DATASETS, identified, kind_of

SUPPLIERS = ("council-northam", "council-southam", "dfe", "dwp", "health", "moj")
FILES = [(s, d) for s in SUPPLIERS for d in DATASETS[kind_of(s)]]
OF_PERSONS = (
    "twins", "same_initial_siblings", "father_and_son", "father_outside", "twin_outside", "same_name_and_birth_date",
    "step_family", "mover", "two_councils", "name_change",
)  # fmt: skip
OF_RECORDS = (
    "nickname", "typo", "spelling", "swapped_names", "wrong_birth_date", "swapped_day_month", "default_birth_date",
    "missing_birth_date", "missing_forename", "missing_postcode", "missing_sex", "unclear_sex", "wrong_sex",
    "earlier_address", "other_surname",
)  # fmt: skip
TODAY = date(2026, 3, 1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Totals]:
    out = tmp_path_factory.mktemp("simulated")
    return out, simulate_to(out, 2_000, 1)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough families for the effects to stand out from chance."""
    out = tmp_path_factory.mktemp("large")
    simulate_to(out, 12_000, 5)
    return out


def text(out: Path, supplier: str, dataset: str) -> pl.DataFrame:
    return pl.read_csv(out / supplier / f"{dataset}.csv", infer_schema=False)


def converted(out: Path, supplier: str, dataset: str) -> Converted:
    cells = text(out, supplier, dataset)
    lines = pl.Series("line", range(2, cells.height + 2), dtype=pl.Int64)
    return convert(cells, lines, identified(supplier, dataset), TODAY)


def truth(out: Path, name: str) -> pl.DataFrame:
    return pl.read_csv(out / "truth" / f"{name}.csv", infer_schema=False)


def digests(out: Path) -> dict[str, str]:
    files = sorted(p for p in out.rglob("*") if p.is_file())
    return {p.relative_to(out).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_the_same_families_and_seed_give_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        simulate_to(tmp_path / name, 200, seed)
    a, b, c = (digests(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() == c.keys()
    assert not set(a.values()) & set(c.values())


def test_the_files_are_those_of_two_councils_and_four_departments(made: tuple[Path, Totals]) -> None:
    out, totals = made
    assert {p.name for p in out.iterdir()} == {*SUPPLIERS, "truth"}
    assert sorted((f.supplier, f.dataset) for f in totals.files) == sorted(FILES)
    assert {f.path: f.rows for f in totals.files} == {f"{s}/{d}.csv": text(out, s, d).height for s, d in FILES}


@pytest.mark.parametrize("families", [1, 2, 10, 30])
def test_a_handful_of_families_will_do(tmp_path: Path, families: int) -> None:
    assert simulate_to(tmp_path, families, 7).families == families
    for supplier, dataset in FILES:
        assert converted(tmp_path, supplier, dataset).rejected == 0


@pytest.mark.parametrize(("supplier", "dataset"), FILES)
def test_every_row_fits_its_contract(made: tuple[Path, Totals], supplier: str, dataset: str) -> None:
    out, _ = made
    contract = identified(supplier, dataset)
    assert text(out, supplier, dataset).columns == [f.name for f in contract.fields]
    got = converted(out, supplier, dataset)
    assert got.rejected == 0
    dates = ("date_of_birth", "offencestartdate", "start_date", "end_date")
    assert set(got.warnings) <= {(name, "is a default date") for name in dates}
    assert sum(got.warnings.values()) < 0.06 * got.batch.num_rows + 3
    assert got.keys.is_unique().all()


@pytest.mark.parametrize(("supplier", "dataset"), FILES)
def test_events_are_of_persons_in_the_file(made: tuple[Path, Totals], supplier: str, dataset: str) -> None:
    out, _ = made
    field = identified(supplier, dataset).subject_field
    assert set(text(out, supplier, dataset)[field]) <= set(text(out, supplier, "person")[field])


def test_ids_say_nothing_of_the_person(made: tuple[Path, Totals]) -> None:
    out, _ = made
    subjects = truth(out, "subjects")
    assert subjects["subject_id"].is_unique().all()  # across suppliers, too
    upn = text(out, "dfe", "person").with_columns(
        born=pl.col("date_of_birth").str.slice(0, 4).cast(pl.Int32), given=pl.col("UPN").str.slice(8, 2).cast(pl.Int32)
    )
    assert upn["UPN"].str.contains(r"^[A-Z][0-9]{12}$").all()
    children = upn.filter(pl.col("born") > 1980)
    assert abs(float(np.corrcoef(children["born"], children["given"])[0, 1])) < 0.05
    for supplier in SUPPLIERS:
        mine = subjects.filter(supplier=supplier)
        order = mine.with_columns(pl.col("person_id").cast(pl.Int64)).sort("person_id")
        assert abs(float(np.corrcoef(order["subject_id"].rank(), np.arange(order.height))[0, 1])) < 0.08


def test_the_truth_has_every_subject_once(made: tuple[Path, Totals]) -> None:
    out, totals = made
    subjects, persons = truth(out, "subjects"), truth(out, "persons")
    assert subjects.height == totals.subjects
    for supplier in SUPPLIERS:
        field = identified(supplier, "person").subject_field
        assert sorted(text(out, supplier, "person")[field]) == sorted(subjects.filter(supplier=supplier)["subject_id"])
    assert set(subjects["person_id"]) <= set(persons["person_id"])
    cohort = set(subjects.filter(pl.col("supplier").str.starts_with("council-"))["person_id"])
    assert cohort == set(persons.filter(in_cohort="true")["person_id"])
    assert set(subjects.filter(in_cohort="true")["person_id"]) == cohort


def test_departments_know_about_as_many_outside_the_cohort_as_inside(made: tuple[Path, Totals]) -> None:
    out, totals = made
    assert 30_000 < totals.records < 80_000
    known = truth(out, "subjects").filter(~pl.col("supplier").str.starts_with("council-"))
    inside = known.filter(in_cohort="true").height / known.height
    assert 0.4 < inside < 0.65


def test_people_are_in_departments_that_fit_their_age(made: tuple[Path, Totals]) -> None:
    out, _ = made
    persons = truth(out, "persons").select("person_id", born=pl.col("date_of_birth").str.to_date())
    subjects = truth(out, "subjects").join(persons, on="person_id")
    born = {s: subjects.filter(supplier=s)["born"] for s in SUPPLIERS}
    assert (born["moj"] <= date(2008, 12, 31)).all()
    assert (born["dwp"] <= date(2000, 12, 31)).all()
    assert (born["dfe"] >= date(1990, 1, 1)).all()
    results = text(out, "dfe", "attainment").join(
        subjects.filter(supplier="dfe").select(UPN="subject_id", born="born"), on="UPN"
    )
    age = results.select(
        "stage", age=(pl.col("ExamDate").str.to_date() - pl.col("born")).dt.total_days() / 365.25
    ).group_by("stage")
    for stage, low, high in age.agg(low=pl.col("age").min(), high=pl.col("age").max()).iter_rows():
        assert {"KS2": 10.6, "KS4": 15.7}[stage] < low
        assert high < {"KS2": 11.8, "KS4": 16.9}[stage]


def test_every_difficulty_is_there_and_is_what_it_says(made: tuple[Path, Totals]) -> None:
    out, _ = made
    decoys, persons = truth(out, "decoys"), truth(out, "persons")
    counts = dict(decoys.group_by("kind").len().iter_rows())
    assert set(OF_PERSONS) | set(OF_RECORDS) <= set(counts)
    pairs = decoys.join(persons, on="person_id").join(
        persons.select(pl.all().name.suffix("_2")), left_on="other_person_id", right_on="person_id_2"
    )
    same = {
        "twins": ("date_of_birth", "family_id"),
        "same_name_and_birth_date": ("forename", "surname", "date_of_birth", "sex"),
        "father_and_son": ("forename", "surname", "family_id"),
        "father_outside": ("forename", "surname"),
        "twin_outside": ("surname", "date_of_birth"),
    }
    for kind, fields in same.items():
        mine = pairs.filter(kind=kind)
        assert mine.height
        for name in fields:
            assert mine.filter(pl.col(name) != pl.col(f"{name}_2")).is_empty(), (kind, name)
    strangers = pairs.filter(pl.col("kind").is_in(["same_name_and_birth_date", "father_outside", "twin_outside"]))
    assert (strangers["in_cohort"] == "false").all()
    assert (strangers["in_cohort_2"] == "true").all()


def test_a_family_known_to_two_councils_is_in_the_files_of_both(made: tuple[Path, Totals]) -> None:
    out, _ = made
    councils = truth(out, "subjects").filter(pl.col("supplier").str.starts_with("council-"))
    twice = councils.group_by("person_id").len().filter(pl.col("len") == 2)
    assert twice.height > 50
    assert set(twice["person_id"]) <= set(truth(out, "decoys").filter(kind="two_councils")["person_id"])


def test_most_records_are_clean(made: tuple[Path, Totals]) -> None:
    out, totals = made
    decoys = truth(out, "decoys").filter(pl.col("subject_id").is_not_null())
    share = {kind: n / totals.subjects for kind, n in decoys.group_by("kind").len().iter_rows()}
    assert 0.015 < share["typo"] < 0.05
    assert 0.01 < share["nickname"] < 0.05
    assert 0.004 < share["wrong_birth_date"] + share["swapped_day_month"] < 0.03
    assert 0.04 < share["earlier_address"] < 0.16
    assert 0.005 < share["missing_postcode"] < 0.04
    assert share["missing_birth_date"] < 0.01
    assert share["default_birth_date"] < 0.01
    spoilt = decoys.filter(pl.col("kind") != "earlier_address").select("supplier", "subject_id").n_unique()
    assert spoilt / totals.subjects < 0.25


def test_names_are_as_frequent_as_they_should_be(large: Path) -> None:
    persons = truth(large, "persons").with_columns(decade=pl.col("date_of_birth").str.slice(0, 3))
    british = persons.filter(origin="british")
    surnames = british["surname"].value_counts(normalize=True, sort=True)
    assert set(surnames["surname"][:6]) & {"Smith", "Jones", "Taylor", "Brown", "Williams"}
    assert 0.004 < surnames["proportion"][0] < 0.025
    assert surnames.height > 1_500  # a long tail
    shares = british.group_by("decade", "sex", "forename").len()
    shares = shares.with_columns(share=pl.col("len") / pl.col("len").sum().over("decade", "sex"))
    assert shares.filter(pl.col("decade").is_in(["197", "198", "199", "200"]))["share"].max() < 0.07  # type: ignore[operator]

    def top(decade: str, sex: str) -> set[str]:
        return set(shares.filter(decade=decade, sex=sex).sort("share", descending=True)["forename"][:15])

    assert {"Sarah", "Claire"} & top("197", "F")
    assert {"Olivia", "Emily", "Ellie"} & top("200", "F")
    assert not top("196", "M") & {"Alfie", "Logan", "Noah"}
    origins = dict(persons["origin"].value_counts(normalize=True).iter_rows())
    assert set(origins) == {"british", "south_asian", "african", "east_european"}
    assert min(origins.values()) > 0.03
    assert {"Mohammed", "Muhammad"} & set(persons.filter(origin="south_asian", sex="M")["forename"])


def _ratio(frame: pl.DataFrame) -> float:
    """Difference in differences of rates: `n` over `at_risk`, by status and whether after the start."""
    cells = frame.group_by("status", "after").agg(pl.col("n").sum(), pl.col("at_risk").sum())
    rate = {(s, a): n / r for s, a, n, r in cells.select("status", "after", "n", "at_risk").iter_rows()}
    return float(rate["participant", True] / rate["participant", False]) / float(
        rate["comparison", True] / rate["comparison", False]
    )


def _cohort(out: Path, supplier: str) -> pl.DataFrame:
    field = identified(supplier, "person").subject_field
    persons = truth(out, "persons").filter(in_cohort="true")
    subjects = truth(out, "subjects").filter(supplier=supplier).select("person_id", pl.col("subject_id").alias(field))
    return subjects.join(
        persons.select(
            "person_id", "status", start=pl.col("start_month").str.to_date(), born=pl.col("date_of_birth").str.to_date()
        ),
        on="person_id",
    )


def _events_ratio(out: Path, supplier: str, dataset: str, when: str, from_age: int) -> float:
    field = identified(supplier, dataset).subject_field
    people = _cohort(out, supplier)
    events = (
        text(out, supplier, dataset)
        .with_columns(day=pl.col(when).str.to_date())
        .filter(pl.col("day") >= date(2010, 1, 1))
        .join(people, on=field)
        .select("status", after=pl.col("day") >= pl.col("start"), n=pl.lit(1), at_risk=pl.lit(0.0))
    )
    first = pl.max_horizontal(pl.lit(date(2010, 1, 1)), pl.col("born").dt.offset_by(f"{from_age}y"))
    last = pl.lit(date(2018, 12, 31))
    at_risk = [
        people.select(
            "status",
            after=pl.lit(after),
            n=pl.lit(0),
            at_risk=(end - start).dt.total_days().clip(lower_bound=0).cast(pl.Float64),
        )
        for after, start, end in (
            (False, first, pl.max_horizontal("start", first)),
            (True, pl.max_horizontal("start", first), last),
        )
    ]
    return _ratio(pl.concat([events, *at_risk]))


def _planted(out: Path) -> dict[str, Any]:
    effect = json.loads((out / "truth" / "effect.json").read_text())
    return {o["outcome"]: o for o in effect["outcomes"]}


def _absence_ratio(out: Path, column: str) -> float:
    whole = pl.col("PeriodEnd").str.to_date()
    rows = (
        text(out, "dfe", "absence")
        .join(_cohort(out, "dfe"), on="UPN")
        .with_columns(end=whole, begin=whole.dt.offset_by("-11mo"))
        .filter((pl.col("end") < pl.col("start")) | (pl.col("begin") >= pl.col("start")))
        .filter(pl.col(column).is_not_null())
        .select(
            "status",
            after=pl.col("begin") >= pl.col("start"),
            n=pl.col(column).cast(pl.Int64),
            at_risk=pl.col("SessionsPossible_3Term").cast(pl.Float64),
        )
    )
    return _ratio(rows)


def test_the_planted_effects_can_be_seen(large: Path) -> None:
    planted = _planted(large)
    absence = planted["unauthorised_absence"]
    assert absence["planted"] == "effect"
    assert _absence_ratio(large, "UnauthorisedAbsence_3Term") == pytest.approx(absence["ratio"], abs=0.07)
    offences = planted["offences"]
    assert offences["planted"] == "effect"
    got = _events_ratio(large, "moj", "offence", "offencestartdate", 10)
    assert got == pytest.approx(offences["ratio"], abs=0.12)
    assert got < 0.85


def test_the_planted_nulls_show_nothing(large: Path) -> None:
    planted = _planted(large)
    assert planted["contacts"]["ratio"] == planted["authorised_absence"]["ratio"] == 1.0
    assert _events_ratio(large, "health", "contact", "contact_date", 0) == pytest.approx(1.0, abs=0.07)
    assert _absence_ratio(large, "AuthorisedAbsence_3Term") == pytest.approx(1.0, abs=0.05)
    assert planted["ks4_points"]["planted"] == "null"
    score = pl.col("KS4_GPTSPE").cast(pl.Float64)
    points = (
        text(large, "dfe", "attainment")
        .filter(stage="KS4")
        .join(_cohort(large, "dfe"), on="UPN")
        .group_by("status", after=pl.col("ExamDate").str.to_date() >= pl.col("start"))
        .agg(mean=score.mean(), error=score.var() / pl.len())
    )
    mean = {(s, a): float(v) for s, a, v in points.select("status", "after", "mean").iter_rows()}
    change = {s: mean[s, True] - mean[s, False] for s in ("participant", "comparison")}
    assert abs(change["participant"] - change["comparison"]) < 3 * float(points["error"].sum()) ** 0.5


def test_participants_are_worse_off_before_they_start(large: Path) -> None:
    rows = text(large, "dfe", "absence").join(_cohort(large, "dfe"), on="UPN")
    before = rows.filter(pl.col("PeriodEnd").str.to_date() < pl.col("start"))
    mean = dict(before.group_by("status").agg(pl.col("UnauthorisedAbsence_3Term").cast(pl.Int64).mean()).iter_rows())
    assert mean["participant"] > 1.04 * mean["comparison"]


def test_offences_have_missing_and_default_dates(large: Path) -> None:
    dates = text(large, "moj", "offence")["offencestartdate"]
    assert 0.01 < dates.null_count() / len(dates) < 0.06
    assert 0.005 < (dates == "1900-01-01").sum() / len(dates) < 0.03


def test_an_earlier_simulation_is_replaced(tmp_path: Path) -> None:
    simulate_to(tmp_path, 50, 1)
    simulate_to(tmp_path, 20, 2)
    again = digests(tmp_path)
    simulate_to(tmp_path / "fresh" / "folder", 20, 2)
    assert again == digests(tmp_path / "fresh" / "folder")


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(NotOursError):
        simulate_to(tmp_path, 20, 1)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def _command(*arguments: str) -> tuple[int, str]:
    app = Typer()
    app.command()(simulate)
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


def test_the_command_prints_control_totals(tmp_path: Path) -> None:
    out = tmp_path / "files"
    code, printed = _command("--families", "20", "--seed", "9", "--out", str(out), "--json")
    assert code == 0
    totals = json.loads(printed)
    assert totals["records"] == sum(f["rows"] for f in totals["files"])
    assert {f["path"] for f in totals["files"]} == {f"{s}/{d}.csv" for s, d in FILES}
    code, printed = _command("--families", "20", "--out", str(out))
    assert code == 0
    assert "dfe/absence.csv" in printed


def test_the_command_says_why_it_cannot(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    code, printed = _command("--out", str(tmp_path))
    assert code == 2
    assert "holds other files" in printed
    assert _command("--families", "0", "--out", str(tmp_path))[0] == 2
