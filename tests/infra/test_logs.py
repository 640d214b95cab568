"""What is logged, and where to."""

from __future__ import annotations

import io
import json
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
