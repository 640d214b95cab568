"""The HTTP view for a council's case system, on loopback only: ask, fetch the public key, see whether it is ready.

Nothing else is served: no table, no metric, no page. What is asked is sealed before it gets here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from infra.broker.ports import HOST
from schemas.rows import from_value, to_value
from stream_processors.control.app import Control, now_ms
from stream_processors.control.office import ANSWER, ENQUIRY, Said
from stream_processors.control.signing import Request
from stream_processors.runtime.partition import partition_of

PATIENCE_S = 10.0
_MOST_BYTES = 16 * 1024
_STATUS: Mapping[str, int] = {
    "malformed": 400,
    "unauthenticated": 401,
    "stale": 401,
    "unknown": 404,
    "replayed": 409,
    "too_many": 429,
}
_FIELDS = {"enquiry_id": str, "council": str, "asked_ms": int, "sealed": str, "mac": str}
_CONTROL = web.AppKey("control", Control)
_PUBLIC: web.AppKey[Callable[[], bytes]] = web.AppKey("public")
_PATIENCE = web.AppKey("patience", float)


def view(control: Control, public_key: Callable[[], bytes], patience_s: float = PATIENCE_S) -> web.Application:
    """`POST /v1/enquiries`, `GET /v1/key`, `GET /v1/ready`."""
    app = web.Application(client_max_size=_MOST_BYTES)
    app[_CONTROL], app[_PUBLIC], app[_PATIENCE] = control, public_key, patience_s
    app.add_routes(
        [web.post("/v1/enquiries", _ask), web.get("/v1/key", _key), web.get("/v1/ready", _ready)],
    )
    return app


async def serve(app: web.Application, port: int) -> web.AppRunner:
    """Serve it on loopback; stop it with `cleanup`."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, port).start()
    return runner


async def _ask(http: web.Request) -> web.Response:
    control = http.app[_CONTROL]
    request = await _parsed(http)
    if request is None:
        return _refusal("malformed")
    # Looked at here too, so that nothing unsigned gets as far as a topic; what counts is decided there.
    reason = control.office.desk.refusal(request, now_ms())
    if reason in ("malformed", "unauthenticated"):
        return _refusal(reason)
    if request.enquiry_id in control.waiting:
        return _refusal("replayed")
    future = control.waiting[request.enquiry_id] = asyncio.get_running_loop().create_future()
    try:
        key, ids = request.enquiry_id, control.office.ids
        value = to_value(ENQUIRY, request.row, ids)
        partition = partition_of(key, control.office.partitions)
        async with asyncio.timeout(http.app[_PATIENCE]):
            await control.send([Said(ENQUIRY, partition, key.encode(), value)])
            answer = await future
    except TimeoutError:
        return _problem(504, "unanswered", "the processors have not answered in time; ask again")
    finally:
        control.waiting.pop(request.enquiry_id, None)
    if isinstance(answer, str):
        return _refusal(answer)
    assert answer.value is not None
    row = from_value(ANSWER, answer.value, ids)
    if row["outcome"] == "refused" and row["reason"] in _STATUS:
        return _refusal(row["reason"])
    return web.json_response({"enquiry_id": request.enquiry_id, **shown(row)})


async def _parsed(http: web.Request) -> Request | None:
    try:
        found = await http.json()
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or set(found) != set(_FIELDS):
        return None
    if any(type(found[name]) is not type_ for name, type_ in _FIELDS.items()) or abs(found["asked_ms"]) >= 2**62:
        return None
    request = Request(**found)
    return request if request.well_formed else None


async def _key(http: web.Request) -> web.Response:
    return web.json_response({"key": http.app[_PUBLIC]().hex(), "suite": "HPKE X25519 HKDF-SHA256 ChaCha20-Poly1305"})


async def _ready(http: web.Request) -> web.Response:
    leads = http.app[_CONTROL].leads
    return web.json_response({"ready": leads}, status=200 if leads else 503)


def shown(answer: Mapping[str, Any]) -> dict[str, Any]:
    """An answer as JSON has it: days as 2022-12-31."""
    days = ("since", "until")
    return {
        **answer,
        "holdings": [
            {k: v.isoformat() if k in days and v is not None else v for k, v in h.items()} for h in answer["holdings"]
        ],
    }


def _refusal(reason: str) -> web.Response:
    return _problem(_STATUS[reason], reason, _ADVICE[reason])


def _problem(status: int, reason: str, advice: str) -> web.Response:
    return web.json_response({"outcome": "refused", "reason": reason, "advice": advice}, status=status)


_ADVICE = {
    "malformed": "send enquiry_id, council, asked_ms, sealed and mac, as docs/operations.md says",
    "unauthenticated": "the signature is not of this council's secret; `lethe keys council` makes one",
    "stale": "the council's clock is more than five minutes off, or the request is old; sign a new one",
    "unknown": "the council is no supplier here; `lethe supplier add` makes it one",
    "replayed": "this enquiry was asked before; make a new enquiry_id",
    "too_many": "the council has asked as often as it may in an hour; ask later",
}
