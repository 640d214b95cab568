"""What all tests share: one broker and one registry for the session, for tests with names of their own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import NoReturn

import pytest
from hypothesis import settings

from tests.integration.containers import RunningStack, chosen, running_stack

# Access control has tests of its own, which turn it on; the others bring clients that have no credential.
os.environ.setdefault("LETHE_SECURITY", "plaintext")

# No deadline: the machine may be busy. In CI the same examples each time, so that a run speaks of the change and not of
# the draw; elsewhere others each time, so that the search goes on.
settings.register_profile("search", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "search")


def pytest_configure() -> None:
    """A run that is told to end (`timeout`, a cancelled job) stops what it started, as one that is interrupted does."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def pytest_report_header() -> str:
    how, why = chosen()
    return f"broker and registry: {how} ({why})"


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    with running_stack(tmp_path_factory.mktemp("stack")) as running:
        yield running
