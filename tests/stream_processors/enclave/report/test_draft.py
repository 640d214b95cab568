"""What the report puts before disclosure control: it adds up, and nothing withheld of a real report can be told."""

from __future__ import annotations

import polars as pl
import pytest

from infra.simulated_enclave import simulated_enclave
from stream_processors.enclave.disclosure import Policy, Release, release
from stream_processors.enclave.disclosure.outputs import Place
from stream_processors.enclave.report import draft, source
from stream_processors.enclave.report.design import DESIGN
from stream_processors.enclave.report.draft import Draft
from tests.stream_processors.enclave.disclosure.support import POLICY, attack

FAMILIES = 350
"""Few: much has to be withheld."""


@pytest.fixture(scope="module")
def drafted(tmp_path_factory: pytest.TempPathFactory) -> Draft:
    folder = tmp_path_factory.mktemp("enclave")
    simulated_enclave(folder, FAMILIES, 5)
    with source.opened(folder) as opened:
        return draft.draft(opened, DESIGN, Policy())


@pytest.fixture(scope="module")
def released(drafted: Draft) -> Release:
    return release(drafted.outputs, drafted.relations, [], drafted.cohort, "now")


def true_numbers(drafted: Draft) -> dict[Place, int]:
    out: dict[Place, int] = {}
    for output in drafted.outputs:
        for key, row in zip(output.row_keys(), output.cells.iter_rows(named=True), strict=True):
            out |= {(output.id, key, column): row[column] for column in output.counts}
    return out


def published_numbers(drafted: Draft, released: Release) -> dict[Place, int]:
    out: dict[Place, int] = {}
    for output in drafted.outputs:
        if output.id in released.published:
            cells = released.published[output.id].cells
            for key, row in zip(output.row_keys(), cells.iter_rows(named=True), strict=True):
                out |= {(output.id, key, c): row[c] for c in output.counts if row[c] is not None}
    return out


def test_every_number_has_its_relations_and_they_hold(drafted: Draft) -> None:
    true = true_numbers(drafted)
    assert len(drafted.relations) > 50
    for r in drafted.relations:
        assert sum(true[p] for p in r.left) == sum(true[p] for p in r.right)


def test_no_withheld_number_of_a_report_can_be_told(drafted: Draft, released: Release) -> None:
    true, published = true_numbers(drafted), published_numbers(drafted, released)
    assert all(true[p] >= POLICY.threshold for p in published)
    related = {p for r in drafted.relations for p in (*r.left, *r.right)}
    hidden = sorted(related - published.keys())
    assert len(hidden) > 20, "something is withheld"
    for place, (low, high) in attack(hidden[::3], published, drafted.relations).items():
        assert low <= true[place] <= high
        assert high - low >= POLICY.threshold


def test_persons_are_counted_by_bucket_and_group(drafted: Draft) -> None:
    cohort = next(o for o in drafted.outputs if o.id == "cohort").cells
    for group in draft.GROUPS:
        persons = sum(drafted.cohort[group].values())
        assert persons == cohort.filter(group=group)["persons"].sum()


@pytest.mark.parametrize(("custody", "rest"), [(12, 28), (35, 5)])
def test_what_is_part_of_another_outcome_leaves_no_small_rest(custody: int, rest: int) -> None:
    """Forty offences of which thirty-five led to custody tell of five that did not."""
    offences = pl.DataFrame({"group": ["participant"] * 3, "from_month": ["0", "1", "2"], "events": [20, 10, 10]})
    part = pl.DataFrame({"group": ["participant"], "from_month": ["0"], "to_month": ["3"], "events": [custody]})
    assert draft._rest(part, offences).to_list() == [rest]


def test_nobody_is_counted_twice_among_those_linked(drafted: Draft) -> None:
    by_id = {o.id: o.cells for o in drafted.outputs}
    everyone = by_id["cohort"]["persons"].sum()
    for id_, cells in by_id.items():
        if id_.startswith("linkage."):
            assert 0 < cells.filter(grouping="Group")["persons"].sum() <= everyone, id_
