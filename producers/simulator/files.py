"""The edge: simulated files on disk, and their control totals.

The same families and seed give the same bytes: one stream of random numbers (PCG64) per purpose, no set or hash decides
an order, and rows are sorted by random ids. What is left is the platform's own exp and log: where those differ in
the last bit, a draw could fall to the other side once in about 10**15.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from producers.simulator import truth
from producers.simulator.canaries import FILE as CANARIES
from producers.simulator.canaries import Planted
from producers.simulator.config import COUNCILS, Config, OnProgress
from producers.simulator.outcomes import outcomes
from producers.simulator.population import families as make_families
from producers.simulator.population import persons as make_persons
from producers.simulator.suppliers import DEPARTMENTS, Files, supplier_files
from schemas.contracts import DATASETS, UnknownSupplierError, identified, kind_of

_MARK = Path("truth", "effect.json")
_TRUTH = ("subjects.csv", "persons.csv", "decoys.csv", "effect.json", CANARIES)


class NotOursError(ValueError):
    """The folder holds something that no simulation wrote."""


@dataclass(frozen=True)
class FileTotal:
    """Rows of one file; `path` is relative to the folder."""

    supplier: str
    dataset: str
    path: str
    rows: int


@dataclass(frozen=True)
class Totals:
    """Of one simulation: what each file holds, and how many people there are behind it."""

    files: tuple[FileTotal, ...]
    records: int
    persons: int
    cohort_persons: int
    subjects: int
    families: int
    seed: int
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def simulate_to(
    out: Path, families: int, seed: int, on_progress: OnProgress | None = None, canaries: bool = False
) -> Totals:
    """Write the files of every supplier and the truth under `out`, in place of an earlier simulation's.

    `canaries`: plant one in every identifying field of the suppliers' files, and list them in `truth/canaries.json`;
    ids in the truth's files are without them.

    Holds after: `truth/effect.json` is there exactly if everything else is.

    Raises:
        ValueError: families or seed are out of range.
        NotOursError: `out` is a file, or a folder that holds other things than a simulation.
        OSError: it cannot be written.
    """
    started = time.perf_counter()
    config = Config(families, seed)
    steps = 5 + len(COUNCILS) + len(DEPARTMENTS)
    done = 0

    def step(text: str) -> None:
        nonlocal done
        if on_progress:
            on_progress(text, done, steps)
        done += 1

    clear(out)
    step("families")
    of = make_families(config)
    step("persons")
    people = make_persons(config, of)
    step("outcomes")
    events = outcomes(config, of, people)
    totals: list[FileTotal] = []
    subjects: list[pl.DataFrame] = []
    kept: list[Files] = []
    planted = Planted() if canaries else None
    for files in supplier_files(config, of, people, events):
        step(files.supplier)
        for dataset, frame in files.datasets.items():
            path = Path(files.supplier, f"{dataset}.csv")
            rows = planted.add(identified(files.supplier, dataset), frame) if planted else frame
            _write(rows, out / path)
            totals.append(FileTotal(files.supplier, dataset, path.as_posix(), frame.height))
        subjects.append(truth.subjects(of, people, files))
        kept.append(Files(files.supplier, {}, files.person, files.subject_id, files.mistakes))
    step("truth")
    everyone = truth.persons(config, of, people)
    every_subject = pl.concat(subjects)
    _write(every_subject, out / "truth" / "subjects.csv")
    _write(everyone, out / "truth" / "persons.csv")
    if planted:
        planted.write(out / "truth")
    _write(truth.decoys(people, kept), out / "truth" / "decoys.csv")
    (out / _MARK).write_text(json.dumps(truth.effect(config), indent=1) + "\n", encoding="utf-8", newline="\n")
    step("done")
    return Totals(
        files=tuple(totals),
        records=sum(t.rows for t in totals),
        persons=everyone.height,
        cohort_persons=int(everyone.get_column("in_cohort").sum()),
        subjects=every_subject.height,
        families=families,
        seed=seed,
        seconds=round(time.perf_counter() - started, 3),
    )


def _write(frame: pl.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.write_csv(path)


def clear(out: Path) -> None:
    """Remove the files of an earlier simulation; nothing else.

    Raises:
        NotOursError: `out` is no folder, or holds anything else.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise NotOursError(f"{out} is not a folder")
    ours: list[Path] = []
    other: list[Path] = []
    for path in sorted(out.rglob("*")):
        if path.is_file() or path.is_symlink():
            (ours if _is_ours(path.relative_to(out)) else other).append(path)
    if other or (ours and not (out / "truth").is_dir()):
        raise NotOursError(f"{out} holds other files; name an empty folder")
    for path in ours:
        path.unlink()


def _is_ours(path: Path) -> bool:
    if len(path.parts) != 2:
        return False
    folder, name = path.parts
    if folder == "truth":
        return name in _TRUTH
    try:
        return name.endswith(".csv") and name.removesuffix(".csv") in DATASETS[kind_of(folder)]
    except UnknownSupplierError:
        return False
