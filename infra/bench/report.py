"""The researchers' report of a large cohort: how long `lethe enclave report` takes, and how much memory.

python -m infra.bench.report [FAMILIES]     118,000 by default: the programme's by 2015
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb

from infra.simulated_enclave import simulated_enclave


def main(families: int) -> None:
    """Make the enclave's tables of so many simulated families, and the report of them; print one JSON object."""
    with TemporaryDirectory(prefix="lethe-report-") as home:
        folder = Path(home, "enclave")
        with duckdb.connect(str(simulated_enclave(folder, families, seed=1)), read_only=True) as connection:
            (people,) = connection.execute("SELECT count(*) FROM persons").fetchone() or (0,)
        command = [sys.executable, "-m", "infra.cli", "enclave", "report", "--json"]
        began = time.monotonic()
        done = subprocess.run(
            [*command, "--from", str(folder), "--to", str(Path(home, "report"))], check=True, stdout=subprocess.PIPE
        )
        seconds = time.monotonic() - began
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = json.loads(done.stdout)
    print(
        json.dumps(
            {
                "families": families,
                "people": people,
                "seconds": round(seconds, 1),
                "processor_seconds": round(used.ru_utime + used.ru_stime, 1),
                "peak_mb": round(used.ru_maxrss / 1024),
                "outputs": said["outputs"],
                "refused": len(said["refused"]),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main(int((sys.argv[1:2] or ["118000"])[0]))
