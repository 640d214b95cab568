"""`lethe run control`: the control plane in this process, until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable

import structlog

from infra.errors import EXIT_ERROR, fail
from infra.keys import KeyFileError, council_secret, read_enquiry_key, read_key
from infra.monitoring.control_metrics import ControlMetrics
from infra.monitoring.ports import metrics_port
from infra.monitoring.server import MonitoringServer
from infra.settings import Settings
from infra.topic_table import messages, table
from schemas import contracts
from schemas.registry import Registry, SchemaIds
from stream_processors.access import CONTROL
from stream_processors.clock import TOPIC as CLOCK
from stream_processors.control.answers import load_purposes
from stream_processors.control.app import READS, Control, Watchdog, make_control, now_ms
from stream_processors.control.councils import Councils
from stream_processors.control.desk import Desk, Limits, Place
from stream_processors.control.office import ALERT, ANSWER, AUDIT, ENQUIRY, RECONCILIATION, Came, Office, Said
from stream_processors.control.watch import Watch
from stream_processors.control.web import serve, view
from stream_processors.edition import Edition, EditionSchemas
from stream_processors.runtime.instance import Instance

STALLED_S = 120.0
_EXIT_STALLED = 70  # EX_SOFTWARE
_WRITES = (ANSWER, AUDIT, ALERT, RECONCILIATION, CLOCK)
_log = structlog.get_logger()


def work(settings: Settings, number: int | None = None) -> None:
    """Run the control plane until SIGTERM or SIGINT. One runs on a machine; of several machines', one leads.

    Exits 1 with advice if a key file or a registered schema forbids a start, or one runs already.

    Raises:
        KeyFileError, SchemaDriftError, SchemaNotRegisteredError, NoInstanceError: as the processors'.
    """
    # Faust logs what it fails on, and that can be a record: its own words are left out, ours say what matters.
    for name in ("faust", "mode", "aiokafka"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    settings = settings.acting_as(CONTROL)
    read_enquiry_key(settings)  # before anything starts: without it nobody could ask
    registry = EditionSchemas(Registry(settings.registry), Edition(settings.edition))
    for topic in (*READS, *_WRITES):
        contract = contracts.of_topic(topic)
        assert contract is not None
        registry.check(topic, contract)
    with Instance.claim(settings.state, "control", number or 1) as mine:
        metrics = ControlMetrics(STALLED_S)
        with MonitoringServer(metrics, metrics_port(settings, "control", mine.number), mine.folder):
            code = asyncio.run(_run(settings, registry, metrics))
    if code:
        fail("control: it ended by itself; see its log, and start it again", code)


async def _run(settings: Settings, ids: SchemaIds, metrics: ControlMetrics) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, stop.set)
    limits = Limits(per_hour=settings.enquiries_per_hour)
    office = Office(ids, Desk(limits, secrets_in(settings), Councils(settings)), load_purposes(), settings.partitions)
    unfinished = await loop.run_in_executor(None, _recall, settings, office)
    watch = Watch(settings)
    control = make_control(settings, office, watch)
    metrics.control = control
    watchdog = Watchdog(control, STALLED_S, lambda: os._exit(_EXIT_STALLED))
    watchdog.start()
    runner = None
    try:
        async with control.order:  # agents wait until what was left unfinished is sent
            await control.app.start()
            await control.send(unfinished)
        runner = await serve(view(control, lambda: read_enquiry_key(settings)), settings.control_port)
        _log.info("started", processor="control", records=len(unfinished))
        return await _until_stopped(control, stop)
    finally:
        if runner is not None:
            await runner.cleanup()
        await control.app.stop()
        watchdog.stop()
        watch.close()
        _log.info("drained", processor="control")


async def _until_stopped(control: Control, stop: asyncio.Event) -> int:
    """0 once it is told to stop; 1 if the app ends by itself."""
    told = asyncio.ensure_future(stop.wait())
    ended = asyncio.ensure_future(control.app.wait_until_stopped())
    try:
        while not told.done():
            await asyncio.wait({told, ended}, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
            if (ended.done() or control.app.crashed) and not told.done():
                reason = control.app.crash_reason
                _log.error("crashed", processor="control", error=type(reason).__name__)
                return EXIT_ERROR
        return 0
    finally:
        told.cancel()
        ended.cancel()


def _recall(settings: Settings, office: Office) -> list[Said]:
    logs = [
        Came(topic, Place(m.partition(), m.offset()), m.key(), m.value(), m.timestamp()[1])
        for topic in (CLOCK, ENQUIRY)
        for m in messages(settings, topic)
    ]
    return office.recall(lambda topic: table(settings, topic), logs, now_ms())


def secrets_in(settings: Settings) -> Callable[[str], bytes | None]:
    """A council's secret from its file, read each time: a new one counts at once, a deleted one no longer does."""

    def secret_of(council: str) -> bytes | None:
        try:
            return read_key(council_secret(settings, council))
        except KeyFileError:
            return None

    return secret_of
