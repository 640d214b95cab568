from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from stream_processors.enclave.report import linkage, matching
from stream_processors.enclave.report.design import DESIGN
from tests.stream_processors.enclave.report.support import enclave, person

FAMILIES = 400


def people(seed: int = 1) -> list[dict[str, object]]:
    """Families of one adult and one child; the criterion crime, and an old family, make taking part likelier."""
    rng = np.random.default_rng(seed)
    out: list[dict[str, object]] = []
    for f in range(FAMILIES):
        crime = bool(rng.random() < 0.5)
        took_part = rng.random() < (0.75 if crime else 0.3)
        status = "participant" if took_part else "comparison"
        for n, born in enumerate((1980, int(rng.integers(1998, 2010)))):
            out.append(person(f"p{f}-{n}", f"f{f}", status, born) | {"criterion_crime": crime})
    return out


def test_matched_families_are_alike_where_the_groups_were_not(tmp_path: Path) -> None:
    with enclave(tmp_path, people()) as opened:
        matched = matching.match(opened, DESIGN)
    crime = matching.balance(matched).filter(trait=matching.NAMES["crime"]).to_dicts()[0]
    assert crime["difference"] > 0.5
    assert abs(crime["matched_difference"]) < 0.1
    assert (
        crime["participants"] + crime["participants_without"] + crime["comparison"] + crime["comparison_without"]
        == FAMILIES
    )


def test_each_matched_participant_is_stood_for_once(tmp_path: Path) -> None:
    with enclave(tmp_path, people()) as opened:
        matched = matching.match(opened, DESIGN)
    took_part = matched.families["participant"].to_numpy()
    assert set(matched.weight[took_part]) <= {0.0, 1.0}
    assert matched.weight[~took_part].sum() == pytest.approx(matched.weight[took_part].sum())
    family = matched.families["family"].to_numpy()
    assert (matched.weights_of(family[::-1]) == matched.weight[::-1]).all()


def test_the_same_tables_give_the_same_matches(tmp_path: Path) -> None:
    """A report on unchanged tables must not differ from the last."""
    found = []
    for _ in range(2):
        with enclave(tmp_path, people()) as opened:
            found.append(matching.match(opened, DESIGN).weight)
    assert (found[0] == found[1]).all()


def test_the_share_linked_is_of_those_whom_a_supplier_should_know(tmp_path: Path) -> None:
    persons = [
        person("grown", "a", "participant", 1980),
        person("pupil", "a", "participant", 2005),
        person("other pupil", "b", "comparison", 2004),
        person("baby", "b", "comparison", 2013),
    ]
    attainment = """
        person_id | month   | stage
        pupil     | 2016-05 | KS2
    """
    offence = """
        person_id   | offence_month | offence_group
        grown       | 2014-05       | theft
        grown       | 2015-05       | theft
    """
    areas = pl.DataFrame({"family": [1, 2], "area_group": ["north", "north"]}, schema_overrides={"family": pl.Int32})
    rows = {}
    with enclave(tmp_path, persons, attainment=attainment, offence=offence) as opened:
        for supplier in linkage.SUPPLIERS:
            found, _ = linkage.rates(opened, supplier, areas)
            for r in found.to_dicts():
                rows[supplier.name, r["grouping"], r["group"]] = (r["persons"], r["linked"])
    assert rows["dfe", "Group", "Participants"] == (1, 1)
    assert rows["dfe", "Group", "Comparison"] == (1, 0)
    assert rows["dfe", "Born", "2000s"] == (2, 1)
    assert rows["dfe", "Area", "north"] == (2, 1)
    assert rows["moj", "Area", "north"] == (1, 1), "two offences are of one person"
    assert rows["health", "Sex", "Female"] == (4, 0)
