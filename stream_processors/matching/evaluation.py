"""How well linking works, against a known truth: from the rows of `linkage.link` to figures.

A department's subject is right if it is linked to the person that its true cohort subject is. Precision is right links
among links, recall right links among subjects that truly have a cohort subject; F1 is their harmonic mean (van
Rijsbergen, Information Retrieval, 1979). Nothing here reads or writes, and no figure is about one person.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from stream_processors.matching.catalogue import Catalogue

OUTCOMES = ("linked", "waiting", "ambiguous", "contested")
FIELDS: Mapping[str, str] = {
    "forename": "clean_forename",
    "surname": "clean_surname",
    "date_of_birth": "clean_dob",
    "sex": "clean_sex",
    "postcode": "clean_postcode",
}
"""What is looked at when fields are missing, by the column of `normalise` that is null then. A middle name is not
among them: most people have none."""
MISSING = "missing"


class UnaccountedError(ValueError):
    """Subjects came out of linking without an outcome; no figure would be worth anything."""


class _Links:
    """What follows from links, and from how many of them are right."""

    links: int
    right: int

    @property
    def wrong(self) -> int:
        """Links to somebody else."""
        return self.links - self.right

    @property
    def precision(self) -> float | None:
        """Right links among links, 0 to 1; None without a link."""
        return self.right / self.links if self.links else None


@dataclass(frozen=True)
class Score(_Links):
    """Of a group of department subjects. A ratio is None where it would divide by nothing.

    subjects: how many. matches: of them, how many truly have a cohort subject. links: how many were linked. right: how
    many were linked to the person they are.
    """

    subjects: int
    matches: int
    links: int
    right: int

    @property
    def recall(self) -> float | None:
        """Right links among true matches, 0 to 1."""
        return self.right / self.matches if self.matches else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall, 0 to 1."""
        both = self.links + self.matches
        return 2 * self.right / both if both else None

    def as_json(self) -> dict[str, Any]:
        """Counts and ratios."""
        return {
            "subjects": self.subjects,
            "matches": self.matches,
            "links": self.links,
            "right": self.right,
            "wrong": self.wrong,
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
        }


@dataclass(frozen=True)
class Found(_Links):
    """Links that one match key, or one pass, made."""

    links: int
    right: int

    def as_json(self) -> dict[str, Any]:
        """Counts and precision."""
        return {"links": self.links, "right": self.right, "wrong": self.wrong, "precision": self.precision}


@dataclass(frozen=True)
class Hard:
    """What became of one kind of decoy.

    decoys: how many there are. subjects: department subjects that they are about. links, wrong: of those subjects, how
    many were linked, and to somebody else. linked_wrongly: decoys with at least one such subject.
    """

    decoys: int
    subjects: int
    links: int
    wrong: int
    linked_wrongly: int

    def as_json(self) -> dict[str, int]:
        """All counts."""
        return {
            "decoys": self.decoys,
            "subjects": self.subjects,
            "links": self.links,
            "wrong": self.wrong,
            "linked_wrongly": self.linked_wrongly,
        }


@dataclass(frozen=True)
class Figures:
    """All figures of one evaluation.

    outcomes: every department subject by outcome, zeros included. unjudged: those of whom the truth says nothing; they
    are in no other figure. by_pass, by_match_key: links by what made them, for every pass, enabled match key
    and pass's near matches. The
    other groups are by what the department has: sex (F, M, missing), decade of birth (`1980s`, missing), fields
    missing (`none`, or their names) and supplier (empty if there is one only).
    """

    overall: Score
    outcomes: Mapping[str, int]
    unjudged: int
    by_pass: Mapping[int, Found]
    by_match_key: Mapping[str, Found]
    by_sex: Mapping[str, Score]
    by_birth_decade: Mapping[str, Score]
    by_missing: Mapping[str, Score]
    by_supplier: Mapping[str, Score]

    def as_json(self) -> dict[str, Any]:
        """For `--json`; passes become text, as keys of JSON objects are."""
        out: dict[str, Any] = {
            "overall": self.overall.as_json(),
            "outcomes": dict(self.outcomes),
            "unjudged": self.unjudged,
            "by_pass": {str(number): f.as_json() for number, f in self.by_pass.items()},
            "by_match_key": {key: f.as_json() for key, f in self.by_match_key.items()},
        }
        for name in ("by_sex", "by_birth_decade", "by_missing", "by_supplier"):
            group: Mapping[str, Score] = getattr(self, name)
            if group:
                out[name] = {label: score.as_json() for label, score in group.items()}
        return out


def final_outcomes(links: pl.DataFrame) -> pl.DataFrame:
    """What holds of each subject in the end, of the rows that its blocks say of it.

    The linked row of the lowest pass if any is linked, else the row of the highest pass: a later pass only sees those
    whom the earlier ones left.

    Args:
        links: rows of `linkage.link`: subject_ref, block (`<pass>:<anything>`), outcome, person_ref, match_key, all
            String.

    Returns:
        The same columns, one row for each subject_ref, in no order.
    """
    linked = pl.col("outcome") == "linked"
    number = pl.col("block").str.extract(r"^(\d+):", 1).cast(pl.Int64)
    return links.sort(~linked, pl.when(linked).then(number).otherwise(-number), "block").unique(
        "subject_ref", keep="first", maintain_order=True
    )


def verdicts(departments: pl.DataFrame, truth: pl.DataFrame, links: pl.DataFrame) -> pl.DataFrame:
    """Whether each department subject was linked, and rightly.

    Args:
        departments: a row for each department subject: subject_ref, and any other columns, which stay.
        truth: pairs subject_ref, cohort_ref (String): the department's subject is that cohort subject; null cohort_ref:
            it is nobody of the cohort. A subject may be several cohort subjects; one without a row is not judged.
        links: as for `final_outcomes`, with rows for all subjects of departments and cohort.

    Returns:
        `departments`, same rows, same order, with outcome, match_key (String, null unless linked) and, Boolean, never
        null: judged (the truth knows of it), matched (it truly has a cohort subject), linked, right.

    Raises:
        UnaccountedError: a subject of departments or truth has no row in `links`.
    """
    final = final_outcomes(links).select("subject_ref", "outcome", "person_ref", "match_key")
    pairs = truth.drop_nulls("cohort_ref")
    for refs, who in ((departments["subject_ref"], "department"), (pairs["cohort_ref"], "cohort")):
        lost = refs.n_unique() - refs.unique().is_in(final["subject_ref"].implode()).sum()
        if lost:
            raise UnaccountedError(f"{lost} {who} subjects came out of linking without an outcome")
    persons = final.select(cohort_ref="subject_ref", person_ref="person_ref")
    true = pairs.join(persons, on="cohort_ref").select("subject_ref", "person_ref", right=pl.lit(True)).unique()
    known = truth.group_by("subject_ref").agg(judged=pl.lit(True), matched=pl.col("cohort_ref").is_not_null().any())
    return (
        departments.join(final, on="subject_ref", how="left", maintain_order="left")
        .join(known, on="subject_ref", how="left", maintain_order="left")
        .join(true, on=["subject_ref", "person_ref"], how="left", maintain_order="left")
        .with_columns(
            pl.col("judged", "matched").fill_null(False),
            linked=pl.col("outcome") == "linked",
            right=pl.col("right").fill_null(False) & (pl.col("outcome") == "linked"),
        )
        .drop("person_ref")
    )


def figures(verdict: pl.DataFrame, catalogue: Catalogue) -> Figures:
    """Counts and ratios of what `verdicts` gives.

    Args:
        verdict: rows of `verdicts` with the columns of `normalise` (clean_forename, clean_surname, clean_dob,
            clean_sex, clean_postcode) and, where there are several, supplier (String).
        catalogue: the one that they were linked by.
    """
    judged = verdict.filter("judged")
    counts = dict(verdict.group_by("outcome").len().iter_rows())
    found = _found(judged)
    by_pass = {p.number: Found(0, 0) for p in catalogue.passes}
    for key, f in found.items():
        number = catalogue.labels[key]
        by_pass[number] = Found(by_pass[number].links + f.links, by_pass[number].right + f.right)
    gaps = [pl.when(pl.col(column).is_null()).then(pl.lit(name)) for name, column in FIELDS.items()]
    missing = pl.concat_str(gaps, separator=", ", ignore_nulls=True)
    decade = pl.col("clean_dob").dt.year() // 10 * 10
    everyone = _scores(judged, pl.lit("all"))
    return Figures(
        overall=everyone.get("all", Score(0, 0, 0, 0)),
        outcomes={outcome: counts.get(outcome, 0) for outcome in OUTCOMES},
        unjudged=verdict.height - judged.height,
        by_pass=by_pass,
        by_match_key={key: found.get(key, Found(0, 0)) for key in catalogue.labels},
        by_sex=_scores(judged, pl.col("clean_sex").fill_null(MISSING)),
        by_birth_decade=_scores(judged, pl.format("{}s", decade.cast(pl.String).str.zfill(4)).fill_null(MISSING)),
        by_missing=_scores(judged, pl.when(missing == "").then(pl.lit("none")).otherwise(missing)),
        by_supplier=_scores(judged, pl.col("supplier")) if "supplier" in verdict.columns else {},
    )


def hard(decoys: pl.DataFrame, verdict: pl.DataFrame) -> dict[str, Hard]:
    """What became of decoys, by kind, in alphabetical order.

    Args:
        decoys: decoy (any number or name of it), kind (String), subject_ref (String, a department subject that it is
            about; null, or of nobody judged in `verdict`: about none). A decoy may have several rows.
        verdict: rows of `verdicts`.
    """
    judged = verdict.filter("judged").select("subject_ref", "linked", "right")
    about = decoys.unique().join(judged, on="subject_ref", how="left")
    wrong = pl.col("linked") & ~pl.col("right")
    subjects = about.drop_nulls("linked").unique(["kind", "subject_ref"])
    by_kind = (
        about.group_by("kind")
        .agg(decoys=pl.col("decoy").n_unique(), linked_wrongly=pl.col("decoy").filter(wrong).n_unique())
        .join(
            subjects.group_by("kind").agg(subjects=pl.len(), links=pl.col("linked").sum(), wrong=wrong.sum()),
            on="kind",
            how="left",
        )
        .fill_null(0)
        .sort("kind")
    )
    columns = ("kind", "decoys", "subjects", "links", "wrong", "linked_wrongly")
    return {kind: Hard(*counts) for kind, *counts in by_kind.select(columns).iter_rows()}


def _scores(judged: pl.DataFrame, by: pl.Expr) -> dict[str, Score]:
    """A score for each label, in alphabetical order."""
    rows = (
        judged.group_by(label=by)
        .agg(pl.len(), pl.col("matched").sum(), pl.col("linked").sum(), pl.col("right").sum())
        .sort("label")
    )
    return {label: Score(*counts) for label, *counts in rows.iter_rows()}


def _found(judged: pl.DataFrame) -> dict[str, Found]:
    rows = judged.filter("linked").group_by("match_key").agg(pl.len(), pl.col("right").sum())
    return {key: Found(*counts) for key, *counts in rows.iter_rows()}
