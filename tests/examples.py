"""How many examples a property is tried on: few enough for every change, and three times as many in `make test-all`."""

from __future__ import annotations

import os


def examples(count: int) -> int:
    """So many, or three times as many where there is time (LETHE_THOROUGH, which `make test-all` sets)."""
    return count * 3 if os.environ.get("LETHE_THOROUGH") else count
