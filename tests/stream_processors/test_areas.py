"""areas: a postcode's LSOA, MSOA and local authority, from a directory in the ONS's format."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from stream_processors.areas import AUTHORITY, LSOA, MSOA, SAMPLE, Areas, DirectoryError, load_areas

ONSPD = """pcd,pcd2,pcds,oslaua,lsoa11,msoa11,lsoa21,msoa21
AB1 0AA,AB1  0AA,AB1 0AA,S12000033,S01006514,S02001237,S01006514,S02001237
SE6 1AA,SE6  1AA,SE6 1AA,E09000023,E01003279,E02000666,E01033333,E02007777
GY1 1AA,GY1  1AA,GY1 1AA,L99999999,L99999999,L99999999,L99999999,L99999999
XX1 1XX,XX1  1XX,XX1 1XX,E09000023,,,,
SE6 1AB,SE6  1AB,SE6 1AB,E09000023,E01003279,E02000666,E01033334,E02007777
"""


def directory(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "onspd.csv"
    path.write_text(text)
    return path


def lsoas(areas: Areas, *postcodes: str | None) -> list[str | None]:
    return areas.lsoa(pl.Series(postcodes, dtype=pl.String)).to_list()


def test_the_sample_of_one_borough_works_out_of_the_box() -> None:
    areas = load_areas()
    assert areas.table.height == 8_419
    assert lsoas(areas, "BR14BY", None, "ZZ11ZZ", "", "A", "SE137AB"[:0]) == ["E01003235", None, None, None, None, None]
    assert areas.widened("E01003235", MSOA) == "E02006784"
    assert areas.widened("E01003235", AUTHORITY) == "E09000023"
    assert len(areas.wider) == 169


def test_every_postcode_of_a_directory_is_found_and_none_beside() -> None:
    areas = load_areas()
    known = areas.table["postcode"]
    assert areas.lsoa(known).equals(areas.table["lsoa"])
    assert areas.lsoa(known + "X").null_count() == len(known)
    assert areas.by_postcode == dict(zip(known, areas.table["lsoa"], strict=True))


def test_a_directory_in_the_format_of_the_ons_with_the_later_census(tmp_path: Path) -> None:
    areas = load_areas(directory(tmp_path, ONSPD))
    assert lsoas(areas, "SE61AA", "SE61AB", "AB10AA") == ["E01033333", "E01033334", "S01006514"]
    assert [areas.widened("E01033333", level) for level in (LSOA, MSOA, AUTHORITY)] == [
        "E01033333",
        "E02007777",
        "E09000023",
    ]


def test_postcodes_without_a_small_area_are_not_known(tmp_path: Path) -> None:
    assert lsoas(load_areas(directory(tmp_path, ONSPD)), "GY11AA", "XX11XX") == [None, None]


def test_an_area_that_is_no_lsoa_of_the_directory_stays_as_it_is() -> None:
    areas = load_areas()
    assert [areas.widened(a, AUTHORITY) for a in ("northam", "E01999999", None)] == ["northam", "E01999999", None]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name,lsoa11,msoa11,oslaua\nx,E01003279,E02000666,E09000023\n", "no column of postcodes"),
        ("pcds,msoa11,oslaua\nSE6 1AA,E02000666,E09000023\n", "no column of the lsoa"),
        ("pcds,lsoa11,oslaua\nSE6 1AA,E01003279,E09000023\n", "no column of the msoa"),
        ("pcds,lsoa11,msoa11\nSE6 1AA,E01003279,E02000666\n", "no column of the authority"),
        ("pcds,lsoa11,msoa11,oslaua\nSE6 1AA,Anna,E02000666,E09000023\n", "no row"),
        ("", "no CSV"),
    ],
)
def test_a_file_that_is_no_directory_is_refused_without_a_value_of_it(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(DirectoryError, match=reason) as refused:
        load_areas(directory(tmp_path, text))
    assert "SE6" not in str(refused.value)
    assert "Anna" not in str(refused.value)


def test_a_file_that_is_not_there_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(DirectoryError, match="cannot be read"):
        load_areas(tmp_path / "missing.csv")
    assert SAMPLE.exists()
