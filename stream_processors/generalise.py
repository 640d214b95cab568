"""What is kept of each supplier record, and how coarse: applied at first touch, inside `pseudonymise`.

Every field of every identified contract is either the source of a kept one here or listed as dropped; `check` refuses
to start otherwise. Dates become months, a date of birth a year, a council's postcode the LSOA
that `areas` has for it, or else the council's code; names, ids and postcodes go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import polars as pl

from schemas import contracts
from schemas.classification import UnclassifiedFieldError
from stream_processors.matching.normalise import DEFAULT_DATES

EARLIEST = pl.date(1950, 1, 1)
"""No event is older than this: default dates such as 1900-01-01 become missing."""


@dataclass(frozen=True)
class Rule:
    """How one kept field is made from one field of the source."""

    source: str
    make: Callable[[pl.Expr], pl.Expr]


def _as_is(column: pl.Expr) -> pl.Expr:
    return column


def _month(column: pl.Expr) -> pl.Expr:
    return pl.when(column >= EARLIEST).then(column.dt.month_start())


def _year(column: pl.Expr) -> pl.Expr:
    return pl.when(~column.is_in(DEFAULT_DATES)).then(column.dt.year().cast(pl.Int32))


def keep(source: str) -> Rule:
    """The value itself."""
    return Rule(source, _as_is)


def month(source: str) -> Rule:
    """The first day of the date's month; missing before 1950."""
    return Rule(source, _month)


def year(source: str) -> Rule:
    """The date's year; missing for a date that stands for none (1900-01-01), as in matching."""
    return Rule(source, _year)


_PERSON_DROPPED = frozenset({"forename", "middle_names", "surname", "postcode"})
_CRITERIA = ("crime", "education", "children", "work", "abuse", "health")


@dataclass(frozen=True)
class Kept:
    """Rules by name of the kept field, and the fields of the source that go."""

    rules: Mapping[str, Rule]
    dropped: frozenset[str]


def _department(subject: str) -> Kept:
    return Kept({"birth_year": year("date_of_birth"), "sex": keep("sex")}, _PERSON_DROPPED | {subject})


KEPT: Mapping[str, Kept] = {
    "identified/council.person": Kept(
        {
            "programme_status": keep("programme_status"),
            "programme_start_month": month("programme_start"),
            **{f"criterion_{c}": keep(f"criterion_{c}") for c in _CRITERIA},
            "birth_year": year("date_of_birth"),
            "sex": keep("sex"),
        },
        _PERSON_DROPPED | {"person_id", "family_id"},  # the family goes on as a reference, the postcode as the area
    ),
    "identified/dfe.person": _department("UPN"),
    "identified/moj.person": _department("mojuid"),
    "identified/dwp.person": _department("subject_id"),
    "identified/health.person": _department("subject_id"),
    "identified/council.safeguarding": Kept(
        {
            "episode": keep("episode"),
            "start_month": month("start_date"),
            "end_month": month("end_date"),
            "primary_need": keep("primary_need"),
            "close_reason": keep("close_reason"),
        },
        frozenset({"person_id", "record_id"}),
    ),
    "identified/dfe.absence": Kept(
        {
            "month": month("PeriodEnd"),
            "sessions_possible": keep("SessionsPossible_3Term"),
            "authorised_absence": keep("AuthorisedAbsence_3Term"),
            "unauthorised_absence": keep("UnauthorisedAbsence_3Term"),
        },
        frozenset({"UPN", "record_id"}),
    ),
    "identified/dfe.exclusion": Kept(
        {
            "month": month("PeriodEnd"),
            "fixed_exclusions": keep("EXC_TotalFixedExclusions"),
            "permanent_exclusions": keep("PermanentExclusionCount"),
        },
        frozenset({"UPN", "record_id"}),
    ),
    "identified/dfe.attainment": Kept(
        {
            "month": month("ExamDate"),
            "stage": keep("stage"),
            "ks2_english": keep("KS2_ENGLEV"),
            "ks2_maths": keep("KS2_MATLEV"),
            "ks4_level2_em": keep("KS4_LEVEL2_EM"),
            "ks4_points": keep("KS4_GPTSPE"),
            "free_school_meals": keep("CEN_FSMEligible"),
            "sen_provision": keep("SENProvision"),
        },
        frozenset({"UPN", "record_id"}),
    ),
    "identified/moj.offence": Kept(
        {
            "offence_month": month("offencestartdate"),
            "disposal_month": month("disposal_date"),
            "offence_group": keep("offence_group"),
            "adjudication": keep("adjudicationcode"),
            "disposal_rank": keep("disposalrank"),
        },
        frozenset({"mojuid", "offenceid", "caseid"}),
    ),
    "identified/dwp.benefit": Kept(
        {
            "benefit_type": keep("benefit_type"),
            "start_month": month("start_date"),
            "end_month": month("end_date"),
        },
        frozenset({"subject_id", "record_id"}),
    ),
    "identified/dwp.employment": Kept(
        {"start_month": month("start_date"), "end_month": month("end_date")},
        frozenset({"subject_id", "record_id"}),
    ),
    "identified/health.contact": Kept(
        {"month": month("contact_date"), "contact_type": keep("contact_type")},
        frozenset({"subject_id", "record_id"}),
    ),
}


def generalise(contract: contracts.Contract, rows: pl.DataFrame) -> pl.DataFrame:
    """The kept fields of rows of an identified contract: same rows, same order, columns as in the activity's item."""
    return rows.select(rule.make(pl.col(rule.source)).alias(name) for name, rule in KEPT[contract.name].rules.items())


def check() -> None:
    """Hold the rules to the contracts, both ways.

    Raises:
        UnclassifiedFieldError: a field of a source is neither kept nor dropped, an identifier is kept as it is, or a
            kept field is not one of the activity's.
    """
    activity = {leaf.path for leaf in contracts.contract("linkage/activity").leaves}
    for name in contracts.supplied():
        kept = KEPT.get(name)
        if kept is None:
            raise UnclassifiedFieldError(f"{name}: no rule says what is kept of it")
        dataset = name.rpartition(".")[2]
        sources = {rule.source for rule in kept.rules.values()}
        for field in contracts.contract(name).fields:
            if field.name not in sources and field.name not in kept.dropped:
                raise UnclassifiedFieldError(f"{name}: field {field.name} is neither kept nor dropped")
        for target, rule in kept.rules.items():
            field = next(f for f in contracts.contract(name).fields if f.name == rule.source)
            if rule.source in kept.dropped:
                raise UnclassifiedFieldError(f"{name}: field {rule.source} is both kept and dropped")
            if rule.make is _as_is and (field.classification == "identifier" or field.kind == "date"):
                raise UnclassifiedFieldError(f"{name}: field {rule.source} would go on as it is")
            if f"{dataset}.{target}" not in activity:
                raise UnclassifiedFieldError(f"linkage/activity has no field {dataset}.{target}")
