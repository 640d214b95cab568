"""The true people and what happened to them, as each supplier's files have it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from producers.simulator import ids
from producers.simulator.config import COUNCILS, NO_DATE, Config, Ints, Texts
from producers.simulator.errors import Habits, Records, make_mistakes
from producers.simulator.population import CRITERIA, OUTSIDE, STATUS, Families, Persons
from schemas.contracts import identified

DEPARTMENTS = ("dfe", "dwp", "health", "moj")
HABITS: Mapping[str, Habits] = {
    "council": Habits(middle_names=0.5, earlier_surname=0.35, earlier_postcode=0.1),
    "dfe": Habits(nickname=0.03, typo=0.01, middle_names=0.8, earlier_postcode=0.35, wrong_birth_date=0.004),
    "moj": Habits(
        nickname=0.07, typo=0.02, wrong_birth_date=0.014, swapped_day_month=0.009, missing_postcode=0.06,
        unclear_sex=0.006, earlier_postcode=0.55, upper_case=True,
    ),
    "dwp": Habits(nickname=0.015, typo=0.008, middle_names=0.6, wrong_birth_date=0.004, upper_case=True),
    "health": Habits(nickname=0.05, typo=0.014, missing_sex=0.012, middle_names=0.4, earlier_postcode=0.5),
}  # fmt: skip
_COVERED: Mapping[str, float] = {"dfe": 0.94, "moj": 0.98, "dwp": 0.82, "health": 0.82}
"""Of those with events, whom the department can supply."""
_LISTED_BY_SECOND = 0.8
_RECORD_SHAPES: Mapping[str, str] = {
    "council.safeguarding": "CS{:010d}",
    "dfe.absence": "A{:010d}",
    "dfe.exclusion": "X{:010d}",
    "dfe.attainment": "K{:010d}",
    "moj.offence": "{:010d}",
    "dwp.benefit": "B{:010d}",
    "dwp.employment": "E{:010d}",
    "health.contact": "HC{:010d}",
}


@dataclass(frozen=True)
class Files:
    """What one supplier sends, and what is true of it.

    datasets: frames whose columns are the contract's, sorted by id. person: row of the persons, by subject;
    subject_id: in the same order. mistakes: kind, and row of subject_id, of everything written down wrongly.
    """

    supplier: str
    datasets: Mapping[str, pl.DataFrame]
    person: Ints
    subject_id: pl.Series
    mistakes: tuple[tuple[str, Ints], ...]


def supplier_files(
    config: Config, of: Families, people: Persons, events: Mapping[str, pl.DataFrame]
) -> Iterator[Files]:
    """The files of every supplier, one supplier after the other: the councils, then the departments."""
    for number, supplier in enumerate(COUNCILS):
        yield _council(config, number, supplier, of, people, events["council.safeguarding"])
    for supplier in DEPARTMENTS:
        yield _department(config, supplier, of, people, events)


def _written(
    rng: np.random.Generator, kind: str, of: Families, people: Persons, at: Ints, old_address: Ints
) -> tuple[Records, tuple[tuple[str, Ints], ...]]:
    """Persons as written down, and the mistakes; `old_address`: 1 for those known at the earlier one, -1 never."""
    habits = HABITS[kind]
    n = len(at)
    family = people.family[at]
    other = (people.other_surname[at] != "") & (rng.random(n) < habits.earlier_surname)
    moved = of.earlier_postcode[family] != ""
    earlier = moved & ((old_address == 1) | ((old_address == 0) & (rng.random(n) < habits.earlier_postcode)))
    found: list[tuple[str, Ints]] = []

    def noted(mistake: str, rows: Ints) -> None:
        if len(rows):
            found.append((mistake, rows))

    noted("other_surname", np.flatnonzero(other))
    noted("earlier_address", np.flatnonzero(earlier))
    clean = Records(
        forename=people.forename[at].copy(),
        middle_names=people.middle_names[at].copy(),
        surname=np.where(other, people.other_surname[at], people.surname[at]).astype(object),
        born=people.born[at].copy(),
        sex=np.where(people.male[at], "M", "F").astype(object),
        postcode=np.where(earlier, of.earlier_postcode[family], of.postcode[family]).astype(object),
    )
    return make_mistakes(rng, clean, habits, of.origin[family] != 0, noted), tuple(found)


def _text(values: Texts) -> pl.Series:
    return pl.Series(values.tolist(), dtype=pl.String).replace("", None)


def as_dates(days: Ints) -> pl.Series:
    """Days from 1970 as dates, missing where `NO_DATE`."""
    known = pl.Series(days != NO_DATE)
    dates = pl.Series(np.where(days == NO_DATE, 0, days).astype(np.int32)).cast(pl.Date)
    return pl.select(pl.when(known).then(dates)).to_series()


def _columns(records: Records) -> dict[str, pl.Series]:
    return {
        "forename": _text(records.forename),
        "middle_names": _text(records.middle_names),
        "surname": _text(records.surname),
        "date_of_birth": as_dates(records.born),
        "sex": _text(records.sex),
        "postcode": _text(records.postcode),
    }


def _ordered(frame: pl.DataFrame, supplier: str, dataset: str) -> pl.DataFrame:
    """The contract's columns, by record id or else subject id."""
    contract = identified(supplier, dataset)
    return frame.select(f.name for f in contract.fields).sort(contract.record_field or contract.subject_field)


def _events(
    rng: np.random.Generator, supplier: str, dataset: str, frame: pl.DataFrame, row_of: Ints, subject_id: pl.Series
) -> pl.DataFrame:
    """Events of those whom the supplier has (`row_of` is not -1), with ids."""
    contract = identified(supplier, dataset)
    kind = contract.name.partition("/")[2]
    mine = frame.filter(pl.Series(row_of[frame.get_column("person").to_numpy()] >= 0))
    subject = subject_id.gather(row_of[mine.get_column("person").to_numpy()])
    assert contract.record_field is not None
    mine = mine.with_columns(
        subject.alias(contract.subject_field),
        ids.record_ids(rng, _RECORD_SHAPES[kind], mine.height).alias(contract.record_field),
    )
    if "case" in mine.columns:
        cases = mine.get_column("case").rle_id().to_numpy().astype(np.int64)
        numbers = ids.record_ids(rng, "C{:010d}", int(cases[-1]) + 1 if len(cases) else 0)
        keep = pl.Series(rng.random(len(cases)) >= 0.02)
        mine = mine.with_columns(
            caseid=pl.select(pl.when(keep).then(numbers.gather(cases))).to_series()
            if len(cases)
            else pl.lit(None, pl.String)
        )
    return _ordered(mine, supplier, dataset)


def _row_of(people: Persons, at: Ints) -> Ints:
    out = np.full(len(people), -1, np.int64)
    out[at] = np.arange(len(at))
    return out


def _department(
    config: Config, supplier: str, of: Families, people: Persons, events: Mapping[str, pl.DataFrame]
) -> Files:
    rng = config.stream(f"supplier {supplier}")
    datasets = {name.partition(".")[2]: frame for name, frame in events.items() if name.startswith(f"{supplier}.")}
    known = np.zeros(len(people), bool)
    for frame in datasets.values():
        known[frame.get_column("person").to_numpy()] = True
    at = np.flatnonzero(known & (rng.random(len(people)) < _COVERED[supplier]))
    at = at[rng.permutation(len(at))]
    records, mistakes = _written(rng, supplier, of, people, at, np.zeros(len(at), np.int64))
    if supplier == "dfe":
        subject_id = ids.upns(rng, len(at))
    elif supplier == "moj":
        subject_id = ids.offender_ids(rng, len(at))
    elif supplier == "dwp":
        subject_id = ids.insurance_numbers(rng, len(at))
    else:
        subject_id = ids.nhs_numbers(rng, len(at))
    subject_field = identified(supplier, "person").subject_field
    person = pl.DataFrame({subject_field: subject_id, **_columns(records)})
    out = {"person": _ordered(person, supplier, "person")}
    row_of = _row_of(people, at)
    for dataset in sorted(datasets):
        out[dataset] = _events(rng, supplier, dataset, datasets[dataset], row_of, subject_id)
    return Files(supplier, out, at, subject_id, mistakes)


def _council(
    config: Config, number: int, supplier: str, of: Families, people: Persons, safeguarding: pl.DataFrame
) -> Files:
    rng = config.stream(f"supplier {supplier}")
    family = people.family
    cohort = of.status[family] != OUTSIDE
    first = cohort & (of.council[family] == number)
    second = cohort & (of.second_council[family] == number) & (rng.random(len(people)) < _LISTED_BY_SECOND)
    at = np.flatnonzero(first | second)
    at = at[rng.permutation(len(at))]
    old_address = np.where(second[at], 1, np.where(of.second_council[family[at]] >= 0, -1, 0))
    records, mistakes = _written(rng, "council", of, people, at, old_address)

    own, row = np.unique(family[at], return_inverse=True)
    person_id, family_id = ids.council_ids(rng, number, len(at), len(own))
    n = len(at)
    named = pl.Series(rng.random(n) >= 0.004)
    started = pl.Series(rng.random(n) >= 0.004)
    columns = {
        "person_id": person_id,
        "family_id": pl.select(pl.when(named).then(family_id.gather(row))).to_series(),
        **_columns(records),
        "programme_status": pl.Series(STATUS, dtype=pl.String).gather(of.status[family[at]]),
        "programme_start": pl.select(pl.when(started).then(as_dates(of.start_day[family[at]]))).to_series(),
    }
    for i, name in enumerate(CRITERIA):
        kept = pl.Series(rng.random(n) >= 0.006)
        value = pl.Series(of.criteria[family[at], i])
        columns[f"criterion_{name}"] = pl.select(pl.when(kept).then(value)).to_series()
    out = {"person": _ordered(pl.DataFrame(columns), supplier, "person")}

    # A family that moved from the second council to the first had its episodes where it lived.
    who = safeguarding.get_column("person").to_numpy()
    before = safeguarding.get_column("day").to_numpy() < of.moved[family[who]]
    has_second = of.second_council[family[who]] >= 0
    there = np.where(has_second & before, second[who], first[who])
    mine = safeguarding.filter(pl.Series(there))
    out["safeguarding"] = _events(rng, supplier, "safeguarding", mine, _row_of(people, at), person_id)
    return Files(supplier, out, at, person_id, mistakes)
