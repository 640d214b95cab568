"""What is logged, and where to."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr

import pytest
import structlog

from infra import logs


@pytest.fixture(autouse=True)
def _configured() -> Iterator[None]:
    logs.configure(readable=False)
    yield
    structlog.reset_defaults()


def test_fields_that_nobody_vouched_for_are_withheld() -> None:
    with redirect_stderr(io.StringIO()) as written:
        structlog.get_logger().warning("row refused", topic="identified.dfe.person", surname="Canary")

    line = json.loads(written.getvalue())
    assert line["topic"] == "identified.dfe.person"
    assert line["surname"] == "(withheld)"


def test_a_stream_that_was_replaced_and_closed_is_not_written_to() -> None:
    log = structlog.get_logger()
    with redirect_stderr(io.StringIO()) as first:
        log.info("before")
    first.close()

    with redirect_stderr(io.StringIO()) as second:
        log.info("after")

    assert json.loads(second.getvalue())["event"] == "after"


def test_what_ends_a_process_is_logged_without_its_message() -> None:
    code = (
        "from infra.logs import configure, scrub_exceptions\n"
        "configure(readable=False)\n"
        "scrub_exceptions()\n"
        "def parse(text):\n"
        "    return int(text)\n"
        "parse('Canary Surname')\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    line = json.loads(ended.stderr)
    assert ended.returncode == 1
    assert (line["event"], line["error"]) == ("crashed", "ValueError")
    assert line["where"][-1].endswith("parse")
    assert "Canary" not in ended.stdout + ended.stderr
