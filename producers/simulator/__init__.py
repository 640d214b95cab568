"""The cohort simulator: supplier files of people who do not exist, with the truth about them.

`simulate_to` writes `<out>/<supplier>/<dataset>.csv`, which `lethe publish` takes, and `<out>/truth/`. The modules are
pure functions from a `Config` to arrays and frames: `population` (families, persons), `outcomes` (what happens to
them, with the planted effects), `suppliers` (what each supplier holds of it, with `errors`), `truth`.
"""

from producers.simulator.config import Config
from producers.simulator.files import FileTotal, NotOursError, Totals, simulate_to

__all__ = ["Config", "FileTotal", "NotOursError", "Totals", "simulate_to"]
