"""Scrape targets, alert rules and the dashboard, made of the topology and the names of metrics: they cannot drift.

`lethe monitoring` writes them; the copies beside this module are what the default settings give, and a test compares.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from infra.broker.ports import HOST
from infra.monitoring.names import METRICS
from infra.monitoring.ports import PROCESSES, metrics_port
from infra.settings import Settings
from stream_processors.clock import TOPIC as CLOCK
from stream_processors.topology import TOPOLOGY

HEAD = "# Written by `lethe monitoring`; change infra/monitoring/render.py instead.\n"
_OPERATIONS = "docs/operations.md"


@dataclass(frozen=True)
class Rule:
    """An alert: what holds for how long, and what to do then."""

    name: str
    expr: str
    wait: str
    severity: Literal["warning", "critical"]
    summary: str
    advice: str

    def as_rule(self) -> dict[str, Any]:
        """As Prometheus has it."""
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.wait,
            "labels": {"severity": self.severity},
            "annotations": {"summary": self.summary, "advice": self.advice},
        }


_ADVICE_OF = {
    "overdue_destruction": "start `lethe run retention`",
    "hanging_transaction": "`kafka-transactions find-hanging`, then `abort`; nothing behind it is erased",
    "quarantine_ratio": "`lethe quarantine ls`, and tell the supplier",
    "token_frequency": "look at the supplier's default values: many people share a token",
    "clock_withheld": "put the machine's clock right",
}


def rules() -> list[Rule]:
    """Every alert rule."""
    found = [
        Rule(
            "LetheProcessDown",
            'up{job="lethe"} == 0',
            "1m",
            "critical",
            "{{ $labels.process }} does not answer",
            "`lethe status`; start it again: nothing is lost, it goes on where it was",
        ),
        Rule(
            "LetheProcessStuck",
            "lethe_live == 0",
            "1m",
            "critical",
            "the loop of {{ $labels.processor }} does not turn",
            "`lethe doctor`; kill it and start it again",
        ),
        Rule(
            "LetheNotReady",
            "lethe_ready == 0",
            "15m",
            "warning",
            "{{ $labels.processor }} has not caught up for a quarter of an hour",
            "`lethe lag`; `lethe top` shows a restore that is under way",
        ),
        Rule(
            "LetheLagging",
            "max by (processor, topic) (kafka_consumergroup_lag_seconds) > 600",
            "5m",
            "warning",
            "{{ $labels.processor }} is ten minutes behind on {{ $labels.topic }}",
            "start another instance: `lethe run {{ $labels.processor }}`",
        ),
        Rule(
            "LetheStalled",
            "sum by (processor) (kafka_consumergroup_lag) > 0 and "
            'sum by (processor) (rate(lethe_transactions_total{ending="committed"}[10m])) == 0',
            "10m",
            "critical",
            "{{ $labels.processor }} has records to take in and commits nothing",
            "`lethe doctor`",
        ),
        Rule(
            "LetheAborting",
            'sum by (processor) (rate(lethe_transactions_total{ending!="committed"}[10m])) > 0.1',
            "10m",
            "warning",
            "transactions of {{ $labels.processor }} abort, or its sessions are lost",
            "its log names the error; look at the broker",
        ),
        Rule(
            "LetheRefusing",
            'sum by (processor, outcome) (rate(lethe_outcomes_total{outcome=~"refused|quarantined"}[15m])) > 0',
            "15m",
            "warning",
            "{{ $labels.processor }} goes on refusing records: {{ $labels.outcome }}",
            "`lethe quarantine ls`",
        ),
        Rule(
            "LetheImbalance",
            'sum by (processor) (increase(lethe_outcomes_total{outcome="imbalance"}[1h])) > 0',
            "0m",
            "critical",
            "what {{ $labels.processor }} read is not what it said",
            "`lethe reconcile` names partition and offsets",
        ),
        Rule(
            "LetheClockBehind",
            "time() / 86400 - max(lethe_clock_day) > 3",
            "1h",
            "critical",
            "no day was told for three days: nothing expires",
            "`lethe status`: control must run; `lethe alerts` says whether the clock is withheld",
        ),
    ]
    for kind, advice in _ADVICE_OF.items():
        name = "Lethe" + "".join(part.title() for part in kind.split("_"))
        expr = f'max by (kind, severity, where) (lethe_alert_records{{kind="{kind}"}}) > 0'
        severity: Literal["warning", "critical"] = (
            "warning" if kind in ("quarantine_ratio", "token_frequency") else "critical"
        )
        found.append(Rule(name, expr, "0m", severity, f"{kind.replace('_', ' ')}: {{{{ $labels.where }}}}", advice))
    return found


def prometheus(settings: Settings) -> dict[str, Any]:
    """Scrape configuration: the first instance of each process on this machine."""
    targets = [
        {"targets": [f"{HOST}:{metrics_port(settings, process, 1)}"], "labels": {"process": process}}
        for process in PROCESSES
    ]
    return {
        "global": {"scrape_interval": "15s", "evaluation_interval": "15s"},
        "rule_files": ["alerts.yml"],
        "scrape_configs": [{"job_name": "lethe", "static_configs": targets}],
    }


def _panel(title: str, unit: str, at: tuple[int, int], exprs: Mapping[str, str], width: int = 8) -> dict[str, Any]:
    x, y = at
    return {
        "title": title,
        "type": "timeseries",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": {"x": x, "y": y, "w": width, "h": 8},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}},
        "targets": [
            {"refId": chr(ord("A") + i), "expr": expr, "legendFormat": legend}
            for i, (legend, expr) in enumerate(exprs.items())
        ],
    }


def dashboard() -> dict[str, Any]:
    """One dashboard: the flow at a glance, then a row for each processor, in the order of the topology."""
    panels: list[dict[str, Any]] = [
        _panel("Lag, seconds", "s", (0, 0), {"{{processor}}": "max by (processor) (kafka_consumergroup_lag_seconds)"}),
        _panel("Lag, records", "short", (8, 0), {"{{processor}}": "sum by (processor) (kafka_consumergroup_lag)"}),
        _panel("Ready", "bool", (16, 0), {"{{processor}}": "min by (processor) (lethe_ready)"}),
        _panel("In quarantine", "short", (0, 8), {"{{supplier}} {{dataset}}": "lethe_quarantine_records"}),
        _panel("Alerts", "short", (8, 8), {"{{kind}} {{where}}": "lethe_alert_records"}),
        _panel("Batches of suppliers", "short", (16, 8), {"{{supplier}} {{state}}": "lethe_batches"}),
    ]
    y = 16
    for declaration in TOPOLOGY:
        name = declaration.name
        reads = ", ".join(t for t in declaration.reads if t != CLOCK)
        mine = f'processor="{name}"'
        panels.append(
            {
                "title": f"{name}: {reads} → {', '.join(declaration.writes)}",
                "type": "row",
                "collapsed": False,
                "gridPos": {"x": 0, "y": y, "w": 24, "h": 1},
                "panels": [],
            }
        )
        rate = "sum by ({}) (rate(lethe_records_total{{{}}}[1m]))"
        panels += [
            _panel(
                "Records a second",
                "cps",
                (0, y + 1),
                {"{{direction}} {{topic}}": rate.format("direction, topic", mine)},
            ),
            _panel(
                "A batch, 95th percentile",
                "s",
                (8, y + 1),
                {
                    "{{part}}": "histogram_quantile(0.95, sum by (part, le) "
                    f"(rate(lethe_batch_seconds_bucket{{{mine}}}[5m])))"
                },
            ),
            _panel(
                "State, and outcomes",
                "short",
                (16, y + 1),
                {
                    "state, bytes": f"sum(lethe_state_bytes{{{mine}}})",
                    "{{outcome}} a second": f"sum by (outcome) (rate(lethe_outcomes_total{{{mine}}}[5m]))",
                    "restore of {{partition}}": f"lethe_restore_ratio{{{mine}}}",
                },
            ),
        ]
        y += 9
    for i, panel in enumerate(panels):
        panel["id"] = i + 1
    return {
        "uid": "lethe-flow",
        "title": "Lethe: the flow",
        "tags": ["lethe"],
        "schemaVersion": 39,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [{"name": "datasource", "type": "datasource", "query": "prometheus"}]},
        "panels": panels,
    }


def files(settings: Settings) -> dict[str, str]:
    """Every file by name, as text."""
    grouped = {"groups": [{"name": "lethe", "rules": [r.as_rule() for r in rules()]}]}
    return {
        "prometheus.yml": HEAD + yaml.safe_dump(prometheus(settings), sort_keys=False, width=120),
        "alerts.yml": HEAD + yaml.safe_dump(grouped, sort_keys=False, width=120),
        "dashboards/flow.json": json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n",
    }


def used() -> set[str]:
    """Names of the metrics that rules and the dashboard ask for, without the suffixes of a histogram."""
    text = json.dumps(dashboard()) + "".join(r.expr for r in rules())
    return {name for name in METRICS if name in text}
