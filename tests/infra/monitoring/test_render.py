"""Dashboards and rules as code: they name what is exported, and the committed files are what the code makes."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import get_args

import pytest

from infra.monitoring.names import METRICS
from infra.monitoring.render import dashboard, files, rules
from infra.settings import Settings
from stream_processors.control.alerts import Kind
from stream_processors.topology import NAMES

HERE = Path(__file__).parents[3] / "infra" / "monitoring"
_METRIC = re.compile(r"\b(?:lethe|kafka)_[a-z_]+")
_PARTS = ("_bucket", "_count", "_sum")


def expressions() -> list[str]:
    panels = [t["expr"] for p in dashboard()["panels"] for t in p.get("targets", [])]
    return panels + [r.expr for r in rules()]


def test_the_committed_files_are_what_the_code_makes() -> None:
    for name, text in files(Settings.model_construct()).items():
        assert (HERE / name).read_text() == text, f"run `lethe monitoring --to infra/monitoring` for {name}"


@pytest.mark.parametrize("expr", expressions())
def test_every_expression_asks_for_metrics_that_exist(expr: str) -> None:
    for name in _METRIC.findall(expr):
        whole = next((name.removesuffix(p) for p in _PARTS if name.removesuffix(p) in METRICS), name)
        assert whole in METRICS


def test_every_metric_has_a_name_as_prometheus_advises() -> None:
    for metric in METRICS.values():
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert not {"person", "subject", "record", "ref", "key", "token"} & set(metric.labels)


def test_every_processor_has_a_row() -> None:
    rows = [p["title"].partition(":")[0] for p in dashboard()["panels"] if p["type"] == "row"]
    assert rows == list(NAMES)


def test_every_kind_of_alert_has_a_rule() -> None:
    text = " ".join(r.expr for r in rules())
    for kind in get_args(Kind):
        assert f'kind="{kind}"' in text


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool: Debian's package prometheus has it")
def test_promtool_accepts_rules_and_configuration(tmp_path: Path) -> None:
    for name, text in files(Settings()).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    for check in (["rules", "alerts.yml"], ["config", "prometheus.yml"]):
        done = subprocess.run(["promtool", "check", *check], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
