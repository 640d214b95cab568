"""The Faust app: agents, timers and the HTTP view around the office, and nothing that decides.

Faust's known traps (the numbers are its issues) and what is set against each:

| trap | here |
|---|---|
| exactly-once crashes and duplicates (440, 517, 323, 177) | at least once; what is said twice is the same |
| it reads what was aborted | `transport.py` reads committed records only |
| an agent's exception acknowledges and skips the record | caught, and quarantined with its place |
| a record in hand when it stops may be committed | what is on the topics is handled again at the next start |
| concurrency above 1 commits past a record in flight (606) | one at a time |
| recovery of tables sticks (176, 597, 651) | no tables: state is read from compacted topics at the start |
| the web server listens on all interfaces and serves tables | off; `web.py` is our own, on loopback |
| an undecodable value is lost | raw bytes, decoded here |
| a tombstone ends the app | `allow_empty` |
| `confluent://` drops headers, lz4 needs a package | aiokafka; the topics that it reads are gzip |
| it makes topics of its own | never: they are in `infra/topics.yaml` |
| it stalls and says nothing | `Watchdog` ends the process, and whoever supervises it starts it again |
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import faust
import structlog
from faust.auth import SSLCredentials
from faust.types import TP

from infra.settings import Settings
from stream_processors.clock import TOPIC as CLOCK
from stream_processors.control.alerts import Kind, Observed
from stream_processors.control.clock import Reading, may_tick
from stream_processors.control.desk import Place, Reason
from stream_processors.control.office import ANSWER, BATCH, ENQUIRY, FINDING, Came, Office, Said
from stream_processors.control.transport import read_committed
from stream_processors.edition import Edition
from stream_processors.quarantine import TOPIC as QUARANTINE
from stream_processors.runtime.kafka import ssl_context

READS = (ENQUIRY, FINDING, BATCH, QUARANTINE, CLOCK)
LEADS_BY = TP(ENQUIRY, 0)
"""Whoever the group gives this partition to is the leader."""
_LOOKED_AT: tuple[Kind, ...] = ("hanging_transaction", "overdue_destruction", "quarantine_ratio")
_LOOK_S = 10.0
_BEAT_S = 1.0
_RETRY_S = 0.5
_log = structlog.get_logger()


class Looks(Protocol):
    """What is looked up in the cluster, beside the records: see `watch.py`. Blocks; called from a thread."""

    def accounts(self) -> list[bytes]:
        """What pseudonymise has counted since the last look."""

    def observe(self, now_ms: int) -> list[Observed]:
        """Transactions that hang, and ticks that wait."""

    def partitions(self) -> list[tuple[str, int]]:
        """Every partition of every topic."""


@dataclass
class Control:
    """The parts of a running control plane. `waiting`: enquiries of the HTTP view that are not answered yet."""

    app: faust.App
    office: Office
    settings: Settings
    waiting: dict[str, asyncio.Future[Said | Reason]] = field(default_factory=dict)
    beat: float = field(default_factory=time.monotonic)
    order: asyncio.Lock = field(default_factory=asyncio.Lock)
    """What follows from one record is sent before the next is looked at: agents run side by side, and an answer must
    not overtake the question that it ends."""

    @property
    def edition(self) -> Edition:
        """The edition that it works for."""
        return Edition(self.settings.edition)

    @property
    def leads(self) -> bool:
        """Whether this instance is the leader."""
        return bool(self.app.started) and LEADS_BY in self.app.consumer.assignment()

    async def send(self, said: Sequence[Said]) -> None:
        """Send records in order, and return when the broker has them all; a broker that is away is waited for."""
        for record in said:
            await self.send_one(record)

    async def send_one(self, record: Said) -> Place:
        """Send a record; where it lies then."""
        while True:
            try:
                producer = await self.app.maybe_start_producer()
                sent = await producer.send_and_wait(
                    self.edition.topic(record.topic), record.key, record.value, record.partition, None, None
                )
            except Exception as e:  # to raise would acknowledge and skip what is in hand
                _log.warning("waiting_for_broker", topic=record.topic, error=type(e).__name__, retry_in_s=_RETRY_S)
                await asyncio.sleep(_RETRY_S)
            else:
                if record.topic == ANSWER and record.value is not None:
                    self._resolve(record.key.decode(), record)
                return Place(sent.partition, sent.offset)

    async def handle(self, came: Came) -> None:
        """Handle one record and send what follows from it; one that cannot be handled is quarantined."""
        async with self.order:
            await self._handle(came)

    async def _handle(self, came: Came) -> None:
        try:
            said = self.office.take(came, now_ms())
        except Exception as e:
            _log.error("quarantined", topic=came.topic, partition=came.place.partition, error=type(e).__name__)
            said = [self.office.quarantine(came, type(e).__name__)]
        await self.send(said)
        reason = self.office.refusals.pop(came.place, None) if came.topic == ENQUIRY else None
        if reason is not None and came.key is not None:
            self._resolve(came.key.decode(errors="replace"), reason)

    def _resolve(self, enquiry_id: str, answer: Said | Reason) -> None:
        future = self.waiting.get(enquiry_id)
        if future is not None and not future.done():
            future.set_result(answer)


def make_control(settings: Settings, office: Office, looks: Looks) -> Control:
    """The app, not started."""
    tls = ssl_context(settings)
    app = faust.App(
        "lethe.control",
        broker=f"kafka://{settings.bootstrap}",
        broker_credentials=None if tls is None else SSLCredentials(tls),
        store="memory://",
        datadir=str(settings.state / "control" / "faust"),
        processing_guarantee="at_least_once",
        key_serializer="raw",
        value_serializer="raw",
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        producer_linger=0.0,
        producer_acks=-1,
        broker_session_timeout=settings.session_timeout_ms / 1000,
        broker_heartbeat_interval=max(1.0, settings.session_timeout_ms / 5000),
        broker_commit_interval=1.0,
        consumer_auto_offset_reset="earliest",
        stream_wait_empty=False,
        worker_redirect_stdouts=False,
    )
    read_committed(app)
    control = Control(app, office, settings)
    for topic in READS:
        _agent(control, topic)
    _timers(control, looks)
    return control


def _agent(control: Control, name: str) -> None:
    topic = control.app.topic(
        control.edition.topic(name),
        key_type=bytes,
        value_type=bytes,
        key_serializer="raw",
        value_serializer="raw",
        allow_empty=True,
        internal=False,
    )

    async def agent(stream: Any) -> AsyncIterator[None]:
        async for event in stream.events():
            message = event.message
            place = Place(message.partition, message.offset)
            await control.handle(Came(name, place, message.key, message.value, int(message.timestamp * 1000)))
            yield

    control.app.agent(topic, name=f"control.{name}", concurrency=1)(agent)


def _timers(control: Control, looks: Looks) -> None:
    app, office, settings = control.app, control.office, control.settings
    last: list[Reading] = []

    async def beat() -> None:
        control.beat = time.monotonic()

    async def look() -> None:
        if not control.leads:
            return
        loop = asyncio.get_running_loop()
        counted = await loop.run_in_executor(None, looks.accounts)
        observed = await loop.run_in_executor(None, looks.observe, now_ms())
        await control.send(office.reconcile(counted, now_ms()))
        await control.send(office.alert([*observed, *office.quarantined()], _LOOKED_AT, now_ms()))

    async def heartbeat() -> None:
        if control.leads:
            partitions = await asyncio.get_running_loop().run_in_executor(None, looks.partitions)
            # All at once: one after the other, a round of a few hundred partitions would outlast a short interval.
            await asyncio.gather(*(control.send_one(beat) for beat in office.heartbeats(partitions)))

    async def clock() -> None:
        before, now = (last[-1] if last else None), Reading(now_ms(), time.monotonic_ns() // 1_000_000)
        last[:] = [now]
        if not control.leads or before is None:
            return
        held: list[Observed] = []
        if may_tick(before, now) and not office.tells_back(now.day):
            said = office.tick(now.day)
            await control.send(said)
            office.told.update({s.partition: now.day for s in said})
        else:
            _log.warning("clock_withheld", advice="the clock has jumped, or lies before the last tick; put it right")
            held = [Observed("clock_withheld", CLOCK, "critical", 1)]
        await control.send(office.alert(held, ["clock_withheld"], now_ms()))

    app.timer(_BEAT_S)(beat)
    app.timer(_LOOK_S)(_guarded(look))
    app.timer(settings.heartbeat_seconds)(_guarded(heartbeat))
    if settings.clock == "wall":
        app.timer(settings.tick_seconds)(_guarded(clock))


def _guarded(call: Callable[[], Any]) -> Callable[[], Any]:
    """A timer that fails is tried again at its next turn: to raise would end the app."""

    async def guarded() -> None:
        try:
            await call()
        except Exception as e:
            _log.warning("timer_failed", what=call.__name__, error=type(e).__name__)

    return guarded


class Watchdog(threading.Thread):
    """Ends the process if the app has not shown a sign of life for so long: its loop is blocked, or it never started.

    What it was doing is on the topics, and is done again after the next start.
    """

    def __init__(self, control: Control, seconds: float, end: Callable[[], None]) -> None:
        super().__init__(daemon=True, name="watchdog")
        self._control, self._seconds, self._end = control, seconds, end
        self._stopped = threading.Event()

    def run(self) -> None:
        """Look every second until stopped."""
        while not self._stopped.wait(min(1.0, self._seconds / 4)):
            if time.monotonic() - self._control.beat > self._seconds:
                _log.error("stalled", processor="control", seconds=self._seconds)
                self._end()
                return

    def stop(self) -> None:
        """Watch no longer."""
        self._stopped.set()


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000
