"""The HTTP view: three routes on loopback, clear refusals, and no answer that is not the desk's."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from infra.broker.ports import HOST, free_ports
from infra.settings import Settings
from schemas.rows import to_value
from stream_processors.control.app import Control, make_control
from stream_processors.control.office import ANSWER, ENQUIRY, Said
from stream_processors.control.signing import signed
from stream_processors.control.web import serve, view
from tests.stream_processors.control.test_app import Broker, Nothing
from tests.stream_processors.control.test_office import COUNCIL, SECRET, office
from tests.stream_processors.tables import REGISTRY

ID = "0123456789abcdef" * 2


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Control:
    monkeypatch.setattr("stream_processors.control.web.now_ms", lambda: 1_000)
    return make_control(Settings(home=tmp_path, bootstrap="127.0.0.1:1"), office(), Nothing())


def body(**change: Any) -> dict[str, Any]:
    request = signed(ID, COUNCIL, 1_000, "c2VhbGVk", SECRET)
    return {"enquiry_id": ID, **request.row, **change}


def answered(outcome: str = "not_held", reason: str | None = None) -> Said:
    row: dict[str, Any] = {
        "council": COUNCIL,
        "outcome": outcome,
        "reason": reason,
        "answered_ms": 1,
        "holdings": [],
        "how_to_object": "say so",
    }
    return Said(ANSWER, 0, ID.encode(), to_value(ANSWER, row, REGISTRY))


async def _post(control: Control, sent: Any, answer: Said | str | None, patience: float = 5) -> tuple[int, Any]:
    broker = Broker(control)
    app = view(control, lambda: b"\x01" * 32, patience)
    async with TestClient(TestServer(app)) as client:
        asking = asyncio.ensure_future(client.post("/v1/enquiries", json=sent))
        while answer is not None and not broker.took and not asking.done():
            await asyncio.sleep(0)
        if answer is not None:
            assert [s.topic for s in broker.took] == [ENQUIRY]
            control._resolve(ID, answer)  # type: ignore[arg-type]
        response = await asking
        return response.status, await response.json() if response.content_type == "application/json" else None


def post(control: Control, sent: Any, answer: Said | str | None = None, patience: float = 5) -> tuple[int, Any]:
    return asyncio.run(_post(control, sent, answer, patience))


def test_a_signed_request_gets_the_answer_of_the_topic(control: Control) -> None:
    status, found = post(control, body(), answered())
    assert (status, found["outcome"], found["enquiry_id"]) == (200, "not_held", ID)
    assert control.waiting == {}


@pytest.mark.parametrize(
    ("sent", "status", "reason"),
    [
        (body(mac="0" * 64), 401, "unauthenticated"),
        (body(council="council-southam"), 401, "unauthenticated"),
        (body(council="dfe"), 400, "malformed"),
        (body(asked_ms="1000"), 400, "malformed"),
        (body(asked_ms=True), 400, "malformed"),
        (body(asked_ms=2**63), 400, "malformed"),
        (body(forename="zq9x"), 400, "malformed"),
        ([], 400, "malformed"),
        ("zq9x", 400, "malformed"),
        ({}, 400, "malformed"),
    ],
)
def test_what_is_not_signed_gets_as_far_as_no_topic(control: Control, sent: Any, status: int, reason: str) -> None:
    found = post(control, sent)
    assert (found[0], found[1]["reason"]) == (status, reason)
    assert "zq9x" not in str(found)


@pytest.mark.parametrize(("reason", "status"), [("replayed", 409), ("too_many", 429), ("stale", 401)])
def test_what_the_desk_refuses_is_refused_here(control: Control, reason: str, status: int) -> None:
    found = post(control, body(), reason)
    assert (found[0], found[1]["reason"]) == (status, reason)
    found = post(control, body(), answered("refused", reason))
    assert (found[0], found[1]["reason"]) == (status, reason)


def test_nobody_waits_for_ever(control: Control) -> None:
    status, found = post(control, body(), None, patience=0.05)
    assert (status, found["reason"]) == (504, "unanswered")
    assert control.waiting == {}


def test_the_same_enquiry_twice_at_once_is_refused(control: Control) -> None:
    async def twice() -> int:
        control.waiting[ID] = asyncio.get_running_loop().create_future()
        return (await _post(control, body(), None))[0]

    assert asyncio.run(twice()) == 409


def test_a_body_that_is_too_large_is_refused(control: Control) -> None:
    assert post(control, body(sealed="A" * 10_000))[0] == 400
    assert post(control, body(sealed="A" * 20_000))[0] == 413


def test_nothing_else_is_there_and_only_loopback_listens(control: Control) -> None:
    async def look() -> None:
        app = view(control, lambda: b"\x01" * 32)
        assert {(r.method, r.resource.canonical) for r in app.router.routes() if r.resource and r.method != "HEAD"} == {
            ("POST", "/v1/enquiries"),
            ("GET", "/v1/key"),
            ("GET", "/v1/ready"),
        }
        (port,) = free_ports(1)
        runner = await serve(app, port)
        assert [address[:2] for address in runner.addresses] == [(HOST, port)]
        await runner.cleanup()
        async with TestClient(TestServer(view(control, lambda: b"\x01" * 32))) as client:
            assert (await (await client.get("/v1/key")).json())["key"] == "01" * 32
            assert (await client.get("/v1/ready")).status == 503, "it does not lead yet"

    asyncio.run(look())
