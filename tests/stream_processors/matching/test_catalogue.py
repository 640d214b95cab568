from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from stream_processors.matching.catalogue import CATALOGUE, Catalogue, load_catalogue

FORENAME_EVIDENCE = {
    "forename",
    "std_forename",
    "full_name",
    "alphaname",
    "alpha_full_name",
    "soundex_forename",
    "forename3",
    "soundex_unordered",
}


def key(id_: str = "k01", **other: Any) -> dict[str, Any]:
    return {
        "id": id_,
        "components": ["forename", "dob"],
        "strict": False,
        "pass": 1,
        "max_persons": 2,
        "why": "Because.",
    } | other


def catalogue(*keys: dict[str, Any], passes: Any = ({"pass": 1, "block": ["dob"]},)) -> Catalogue:
    return Catalogue.model_validate({"version": "t", "passes": passes, "match_keys": keys})


def test_the_catalogue_that_comes_with_lethe() -> None:
    ours = load_catalogue()
    assert len(ours.enabled) >= 15
    assert [k.id for k in ours.enabled] == sorted(k.id for k in ours.enabled)
    assert [p.block for p in ours.passes] == [("dob",), ("sector",), ("soundex_forename", "soundex_surname")]
    assert ours.strict == {"k01", "k02", "k03", "k04"}
    assert ours.ranks["k01"] == 1
    assert ours.by_id["k07"].components == ("forename", "dob", "postcode")


def test_where_there_are_near_matches_no_key_does_without_evidence_of_the_forename() -> None:
    for enabled in load_catalogue().enabled:
        assert FORENAME_EVIDENCE & set(enabled.components), enabled.id


def test_keys_that_near_matches_do_better_are_for_those_who_may_not_hold_encodings() -> None:
    ours = load_catalogue()
    assert {"k20", "k29", "p05"} <= {k.id for k in ours.configured(near=False).enabled} - {k.id for k in ours.enabled}


def test_a_key_can_be_switched_off_and_the_label_says_so() -> None:
    ours = load_catalogue()
    made = ours.configured(off=["k08", "k05"], near=False)
    assert {"k05", "k08"}.isdisjoint(k.id for k in made.enabled)
    assert made.label == f"{ours.version}, without k05, without k08, no near matches"
    assert made.label != ours.label
    with pytest.raises(ValueError, match="no such match key: k99"):
        ours.configured(off=["k99"])


def test_labels_of_links_have_their_pass() -> None:
    labels = load_catalogue().labels
    assert (labels["k01"], labels["p01"], labels["near3"]) == (1, 2, 3)
    assert list(labels)[-3:] == ["near1", "near2", "near3"]


def test_strict_keys_come_first_and_hold_whole_names_and_the_postcode() -> None:
    ours = load_catalogue()
    assert [k.strict for k in ours.enabled] == sorted((k.strict for k in ours.enabled), reverse=True)
    assert all("postcode" in ours.by_id[id_].components for id_ in ours.strict)


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ([key("k01"), key("k01")], "more than once"),
        ([key(components=["dob", "shoe_size"])], "no such component: shoe_size"),
        ([key(components=["forename", "surname"])], "lacks its block's dob"),
        ([key(components=["dob", "dob"])], "repeated"),
        ([{**key(), "pass": 2}], "there is no pass 2"),
        ([key(colour="red")], "Extra inputs"),
        ([key(id_="K:1")], "pattern"),
        ([], "at least 1"),
    ],
)
def test_what_is_wrong_is_said(keys: list[dict[str, Any]], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        catalogue(*keys)


def test_a_second_pass_takes_one_line_and_its_keys() -> None:
    passes = [{"pass": 1, "block": ["dob"]}, {"pass": 2, "block": ["sector"]}]
    second = {**key("k02", components=["forename", "surname", "sector"]), "pass": 2}
    assert catalogue(key(), second, passes=passes).ranks == {"k01": 1, "k02": 2}
    with pytest.raises(ValidationError, match="earlier pass must come before"):
        catalogue(second, key(), passes=passes)


def test_a_catalogue_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(CATALOGUE.read_text()) | {"version": "mine"}))
    assert load_catalogue(path).version == "mine"


def test_it_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_catalogue().version = "2"


def test_only_pass_1_makes_cohort_subjects_one_person() -> None:
    passes = ({"pass": 1, "block": ["dob"]}, {"pass": 2, "block": ["sector"]})
    late = key("p01", components=["forename", "sector"], strict=True) | {"pass": 2}
    with pytest.raises(ValidationError, match="must be of pass 1: p01"):
        catalogue(key(), late, passes=passes)
