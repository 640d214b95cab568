"""Weights that do not fit are refused, and the message says which; the file that comes with Lethe fits."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from stream_processors.matching.catalogue import load_catalogue
from stream_processors.matching.near_model import LEVELS, NEAR, OTHERS, load_near

STATED = yaml.safe_load(NEAR.read_text(encoding="utf-8"))
Change = Callable[[dict[str, Any]], Any]


def test_the_model_that_comes_with_lethe_loads_and_has_weights_for_every_pass() -> None:
    model = load_near()
    assert [p.number for p in model.passes] == [p.number for p in load_catalogue().passes]
    for p in model.passes:
        assert sum(p.shares.values()) == pytest.approx(1, abs=1e-4)
        assert p.floor == p.threshold - p.margin
        assert model.of(p.number) is p
        for kind in OTHERS:
            assert {f: len(w) for f, w in p.against[kind].items()} == {f: len(of) for f, of in LEVELS.items()}
    assert model.of(9) is None


def test_strangers_speak_for_one_person_where_all_agrees_and_against_where_nothing_does() -> None:
    for p in load_near().passes:
        weights = p.against["strangers"]
        assert sum(w[0] for w in weights.values()) > p.threshold
        assert sum(w[LEVELS[f].index("different")] for f, w in weights.items() if "different" in LEVELS[f]) < 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: m["against"]["household"]["forename"].pop(), "pass 2, household, forename: must have 7 weights"),
        (lambda m: m["against"]["strangers"]["sex"].append(0.1), "pass 2, strangers, sex: must have 2 weights"),
        (lambda m: m["against"]["namesakes"].pop("postcode"), "pass 2, namesakes, postcode: must have 6 weights"),
        (lambda m: m["against"]["strangers"].update(height=[1.0]), "pass 2, strangers: no such field: height"),
        (lambda m: m["against"].pop("named_after"), "pass 2: against must have household, named_after"),
        (lambda m: m["against"].update(neighbours={}), "pass 2: against must have household, named_after"),
        (lambda m: m["shares"].pop("household"), "pass 2: shares must be those of household"),
        (lambda m: m["shares"].update(household=0), "pass 2: shares must be those of household"),
        (lambda m: m["shares"].update(strangers=0.5), "pass 2: shares must be those of household"),
        (lambda m: m["person"].pop("sex"), "pass 2, person: must have a share for each level of each field"),
        (lambda m: m["person"]["sex"].pop(), "pass 2, person: must have a share for each level of each field"),
        (lambda m: m["person"]["sex"].__setitem__(0, 0), "passes.1.person.sex.0"),
        (lambda m: m.update(matches=1), "passes.1.matches"),
        (lambda m: m["kin"].update(household=-1), "passes.1.kin.household"),
        (lambda m: m.update(margin=0), "passes.1.margin"),
        (lambda m: m.update(threshold="much"), "passes.1.threshold"),
        (lambda m: m.update(threshold=float("nan")), "passes.1.threshold"),
        (lambda m: m.update(threshold=float("-inf")), "passes.1.threshold"),
        (lambda m: m.update(margin=float("nan")), "passes.1.margin"),
        (lambda m: m["against"]["strangers"]["sex"].__setitem__(1, float("nan")), "passes.1.against.strangers.sex.1"),
        (lambda m: m["shares"].update(strangers=float("nan")), "passes.1.shares.strangers"),
        (lambda m: m.update({"pass": 0}), "passes.1.pass"),
        (lambda m: m.update({"pass": 1}), "a pass has its weights once"),
        (lambda m: m.update(treshold=1.0), "passes.1.treshold"),
        (lambda m: m.pop("threshold"), "passes.1.threshold"),
    ],
)
def test_what_does_not_fit_is_refused_and_named(change: Change, says: str, tmp_path: Path) -> None:
    stated = copy.deepcopy(STATED)
    change(stated["passes"][1])
    path = tmp_path / "near.yaml"
    path.write_text(yaml.safe_dump(stated), encoding="utf-8")
    with pytest.raises(ValidationError) as caught:
        load_near(path)
    assert says in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "version: ''\npasses: []", "passes: []"])
def test_a_file_without_a_version_is_no_model(text: str, tmp_path: Path) -> None:
    path = tmp_path / "near.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValidationError):
        load_near(path)
