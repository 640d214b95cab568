"""The benchmark runs to its end and says every figure; the figures of so short a run mean nothing."""

from __future__ import annotations

import pytest

from infra.bench import bench
from infra.settings import Settings
from stream_processors.topology import NAMES


@pytest.mark.long
@pytest.mark.timeout(400)
def test_every_figure_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "TRICKLE_S", 2)
    said: list[str] = []
    figures = bench.bench(Settings(batch_records=500), 6_000, said.append).as_json()
    measured = {"pass_through", "route", "link", *bench.TARGETS}
    assert figures["records_per_second"].keys() == measured
    assert all(rate > 0 for rate in figures["records_per_second"].values())
    assert figures["ratio_to_pass_through"]["pass_through"] == 1
    assert all(us > 0 for us in figures["cpu_us_a_record"].values())
    assert figures["cpu_us_a_record"].keys() >= {"pass_through", "route", "link", "pseudonymise_persons"}
    assert figures["targets"] == bench.TARGETS
    assert figures["peak_rss_mb"].keys() == set(NAMES)
    assert 0 < figures["trickle_p50_ms"] <= figures["trickle_p99_ms"] < 30_000
    assert figures["rebuild_s_per_million"] > 0
    assert len(said) > len(measured)
