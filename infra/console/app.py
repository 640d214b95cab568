"""The pages, and who may see them.

Whoever can use this machine can reach a loopback port, and so can a page in a browser: so the address that
`lethe console` prints carries a token, which becomes a cookie that other sites cannot send; a form carries it as well;
and only names of this machine are answered (DNS rebinding).
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import structlog
from confluent_kafka import KafkaException
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from infra.console.sources import DUE_DAYS, Chosen, Sources
from infra.enquirer import EnquiryRefusedError, NotAnsweredError
from infra.keys import KeyFileError
from stream_processors.accounting.batches import short_batch
from stream_processors.enquiry.person import PersonError
from stream_processors.runtime.kafka import describe, error_of

_HERE = Path(__file__).parent
_COOKIE = "lethe_console"
_PAGES = (
    ("/", "Flow"),
    ("/batches", "Batches"),
    ("/quarantine", "Quarantine"),
    ("/retention", "Retention"),
    ("/ledger", "Ledger"),
    ("/enquiry", "Enquiry"),
)
_DETAILS = ("forename", "middle_names", "surname", "date_of_birth", "sex", "postcode")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_HOSTS = ["127.0.0.1", "localhost"]
_log = structlog.get_logger()

Page = Callable[[Request], Awaitable[Response]]


class Console:
    """The application over its sources. `token`: what the address that is opened first must carry."""

    def __init__(self, sources: Sources, token: str) -> None:
        self._sources, self._token = sources, token
        self._pages = Environment(
            loader=FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        self._pages.filters["thousands"] = lambda n: f"{n:,}"
        self._pages.filters["short_batch"] = short_batch

    def app(self) -> Starlette:
        """The application."""
        pages: dict[str, Page] = {
            "/": self._flow,
            "/flow": self._flow_now,
            "/batches": self._batches,
            "/quarantine": self._quarantine,
            "/retention": self._retention,
            "/ledger": self._ledger,
            "/enquiry": self._enquiry,
        }
        posts: dict[str, Page] = {"/quarantine": self._requeue, "/enquiry": self._ask}
        routes = [Route(path, self._for_whom(page)) for path, page in pages.items()]
        routes += [Route(path, self._for_whom(page), methods=["POST"]) for path, page in posts.items()]
        static = Mount("/static", StaticFiles(directory=_HERE / "static"))
        return Starlette(routes=[*routes, static], middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=_HOSTS)])

    # Who may.

    def _for_whom(self, page: Page) -> Page:
        async def answered(request: Request) -> Response:
            if self._is(request.query_params.get("token")):
                response: Response = RedirectResponse(request.url.path, 303)
                response.set_cookie(_COOKIE, self._token, httponly=True, samesite="strict")
            elif not self._is(request.cookies.get(_COOKIE)) or not await self._is_ours(request):
                response = self._page("problem.html.j2", None, status=403, title="Not from here", what=_NOT_FROM_HERE)
            else:
                response = await self._guarded(page, request)
            response.headers.update(_HEADERS)
            return response

        return answered

    async def _is_ours(self, request: Request) -> bool:
        return request.method != "POST" or self._is(str((await request.form()).get("token")))

    def _is(self, token: str | None) -> bool:
        return token is not None and hmac.compare_digest(token.encode(), self._token.encode())

    async def _guarded(self, page: Page, request: Request) -> Response:
        try:
            return await page(request)
        except KafkaException as e:
            what = f"The broker does not answer ({describe(error_of(e))}). lethe up brings it up."
        except ConnectionError as e:
            what = f"The registry does not answer ({type(e).__name__}). lethe up brings it up."
        except Exception as e:  # its message may hold a value
            _log.error("page_failed", error=type(e).__name__)
            what = f"This page failed ({type(e).__name__}). lethe doctor may say more."
        return self._page("problem.html.j2", None, status=503, title="Not available", what=what)

    def _page(self, template: str, path: str | None, status: int = 200, **more: Any) -> HTMLResponse:
        text = self._pages.get_template(template).render(pages=_PAGES, path=path, token=self._token, **more)
        return HTMLResponse(text, status)

    # Pages.

    async def _flow(self, request: Request) -> Response:  # noqa: ARG002
        stages = await run_in_threadpool(self._sources.flow)
        alerts = await run_in_threadpool(self._sources.alerts)
        return self._page("flow.html.j2", "/", title="The flow", stages=stages, alerts=alerts)

    async def _flow_now(self, request: Request) -> Response:  # noqa: ARG002
        stages = await run_in_threadpool(self._sources.flow)
        return self._page("stages.html.j2", None, stages=stages)

    async def _batches(self, request: Request) -> Response:
        rows = await run_in_threadpool(self._sources.batches)
        wanted = request.query_params.get("supplier") or ""
        suppliers = sorted({r["supplier"] for r in rows})
        shown = [r for r in rows if wanted in ("", r["supplier"])]
        more: dict[str, Any] = {"rows": shown, "suppliers": suppliers, "wanted": wanted if wanted in suppliers else ""}
        return self._page("batches.html.j2", "/batches", title="Batches", **more)

    async def _quarantine(self, request: Request) -> Response:  # noqa: ARG002
        rows = await run_in_threadpool(self._sources.quarantine)
        return self._page("quarantine.html.j2", "/quarantine", title="Quarantine", rows=rows, did=None, chosen=None)

    async def _requeue(self, request: Request) -> Response:
        form = {k: str(v) for k, v in (await request.form()).items()}
        chosen = Chosen(form.get("supplier", ""), form.get("dataset", ""), form.get("error", ""))
        rows = await run_in_threadpool(self._sources.quarantine)
        known = any((r["supplier"], r["dataset"], r["error"]) == (*vars(chosen).values(),) for r in rows)
        reason, by = form.get("reason", "").strip(), form.get("by", "").strip()
        execute = form.get("act") == "requeue"
        if not known or (execute and not (reason and by)):
            what = "Choose a line of quarantine; to requeue, say who you are and why."
            return self._page("problem.html.j2", "/quarantine", status=400, title="Not done", what=what)
        did = await run_in_threadpool(lambda: self._sources.requeue(chosen, reason, by, execute=execute))
        if did.executed:
            rows = await run_in_threadpool(self._sources.quarantine)
        more: dict[str, Any] = {"rows": rows, "did": did, "chosen": chosen}
        return self._page("quarantine.html.j2", "/quarantine", title="Quarantine", **more)

    async def _retention(self, request: Request) -> Response:  # noqa: ARG002
        found = await run_in_threadpool(self._sources.countdown)
        return self._page("retention.html.j2", "/retention", title="Retention", countdown=found, days=DUE_DAYS)

    async def _ledger(self, request: Request) -> Response:  # noqa: ARG002
        found = await run_in_threadpool(self._sources.ledger)
        return self._page("ledger.html.j2", "/ledger", title="Ledger", ledger=found)

    async def _enquiry(self, request: Request) -> Response:  # noqa: ARG002
        councils = await run_in_threadpool(self._sources.councils)
        return self._page("enquiry.html.j2", "/enquiry", title="Enquiry", councils=councils, answer=None, problem=None)

    async def _ask(self, request: Request) -> Response:
        form = {k: str(v) for k, v in (await request.form()).items()}
        councils = await run_in_threadpool(self._sources.councils)
        answer: Mapping[str, Any] | None = None
        problem: str | None = None
        details = {name: form[name] for name in _DETAILS if form.get(name, "").strip()}
        if form.get("council") not in councils:
            problem = "Choose a council."
        else:
            try:
                answer = await run_in_threadpool(self._sources.enquire, form["council"], details)
            except (PersonError, EnquiryRefusedError, NotAnsweredError, KeyFileError) as e:
                problem = str(e)  # ours: it names a field, never a value
        # What was typed is not shown again: no value of a person is on any page.
        more = {"councils": councils, "answer": answer, "problem": problem}
        status = 200 if problem is None else 400
        return self._page("enquiry.html.j2", "/enquiry", status=status, title="Enquiry", **more)


_NOT_FROM_HERE = "Open the address that `lethe console` printed; it holds for as long as that command runs."
