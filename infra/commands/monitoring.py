"""`lethe monitoring`: scrape targets, alert rules and the dashboard for these settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from infra.commands.options import AsJson, tell
from infra.settings import Settings


def monitoring(
    to: Annotated[Path, typer.Option(help="Folder to write into; made if it is not there.", file_okay=False)],
    as_json: AsJson = False,
) -> None:
    """Write what Prometheus and Grafana need: prometheus.yml, alerts.yml and dashboards/flow.json.

    Targets are the first instance of each process on this machine, at the ports of LETHE_METRICS_PORT.

    Example: lethe monitoring --to /etc/prometheus/lethe
    """
    from infra.monitoring.render import files

    written = []
    for name, text in files(Settings()).items():
        path = to / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        written.append(str(path))
    tell({"written": written}, written, as_json)
