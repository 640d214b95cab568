"""The end: everything is destroyed, in an order in which each step can be repeated, and the keys go last.

0. editions all but the one in use are retired: topics, groups, state; their ledgers stay
1. expire   the clock is told the hard stop; `retention` destroys every record, with a line in the ledger for each
2. sources  tombstones for what suppliers have published, and for what is in quarantine
3. enclaves every enclave has to acknowledge the last deletion of research.person
4. topics   all topics are removed but the ledger and the acknowledgements, and their folders leave the disk
5. folders  state, rejects and digests of files are removed
6. proof    `verify`, nothing left; if anything is, it ends here and the keys stay
7. keys     key files and councils' secrets are removed
8. certificate

The journal says which are done. Steps 1 to 3 need the processors, which this starts itself.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from infra.clock import tick
from infra.destruction import certificate, topics
from infra.destruction.journal import Journal
from infra.destruction.needles import Needles
from infra.destruction.proof import Proof
from infra.destruction.segments import partition_folders
from infra.destruction.topics import KEPT, is_kept
from infra.destruction.verify import Asked, acknowledged, verify
from infra.editions import in_use, within
from infra.held import due, ledger_heads, ledger_lines
from infra.keys import CERTIFICATE_KEY, CERTIFICATE_PUBLIC_KEY, init_certificate_key, read_key
from infra.policy import configured_policy
from infra.processes import processors
from infra.rest import Flow, NotAtRestError
from infra.rollout.retire import Retirement
from infra.settings import Settings
from infra.topic_table import messages
from schemas.registry import Registry
from stream_processors import ledger
from stream_processors.access import ADMIN
from stream_processors.control.office import ZONES
from stream_processors.edition import Edition, editions_of
from stream_processors.runtime.instance import running
from stream_processors.runtime.kafka import client_config, error_of, producer_config
from stream_processors.runtime.records import HEARTBEAT_KEY
from stream_processors.topology import NAMES

REST_S = 3_600.0
_GONE_S = 300.0
_POLL_S = 0.5
_CALL_S = 30
STEPS = ("editions", "expire", "sources", "enclaves", "topics", "folders", "proof", "keys", "certificate")
SyncEnclave = Callable[[Settings, Path], None]
"""Brings an enclave to the end, of the edition of the settings."""


class NotYetError(RuntimeError):
    """It may not begin, or cannot go on. The message says what to do; what was done stays done."""


@dataclass(frozen=True)
class Order:
    """Who orders it, and why. `without`: enclaves that are not waited for, which the certificate says."""

    reason: str
    by: str
    enclaves: Sequence[Path] = ()
    without: Sequence[str] = ()
    broker_data: Sequence[Path] = ()
    wait_s: float = 60.0
    before_hard_stop: bool = False
    needles: Needles = field(default_factory=lambda: Needles({}))


@dataclass(frozen=True)
class Preview:
    """What would go: `due` records by supplier and dataset, `held` records by topic, and names; `editions`: those that
    are not in use, and go whole."""

    hard_stop: date
    allowed: bool
    due: Mapping[tuple[str, str], int]
    held: Mapping[str, int]
    enclaves: Sequence[str]
    keys: Sequence[str]
    folders: Sequence[Path]
    done: Sequence[str]
    editions: Sequence[str] = ()


def in_use_of(settings: Settings) -> Settings:
    """The settings, acting for `admin`, of the edition that is in use; of a destruction that has begun, of the one that
    was: who says so may be gone by now.

    Raises:
        KafkaException, RegistryDownError: the broker or the registry is away.
    """
    settings, journal = settings.acting_as(ADMIN), Journal.open(settings)
    if journal.began_ms and "certificate" not in journal.done:
        return within(settings, Edition(journal.edition))
    registry = Registry(settings.registry, deadline_seconds=60)
    try:
        return within(settings, in_use(settings, registry))
    finally:
        registry.close()


def preview(settings: Settings, today: date) -> Preview:
    """What `destroy` would destroy. Changes nothing.

    Raises:
        KafkaException, RegistryDownError: the broker or the registry is away.
    """
    settings = in_use_of(settings)
    stop = configured_policy(settings).hard_stop
    names = _topics(settings)
    mine = Edition(settings.edition)
    is_there = set(map(mine.topic, topics.SOURCES)) <= set(names)
    return Preview(
        stop,
        today >= stop,
        due(settings, stop, stop) if is_there else {},
        {t: n for t in names if t.startswith("identified.") and (n := len(_live(within(settings, Edition()), t)))},
        sorted(acknowledged(settings)) if "governance.acknowledgement" in names else [],
        [p.name for p in _keys(settings)],
        [p for p in _folders(settings) if p.exists()],
        list(Journal.open(settings).done),
        [e.named() for e in editions_of(names) if e != mine],
    )


def destroy(
    settings: Settings, order: Order, today: date, sync: SyncEnclave, say: Callable[[str], None] = lambda _: None
) -> list[Path]:
    """Destroy everything; the files of the certificate. A second run goes on where the first was stopped.

    Raises:
        NotYetError: the hard stop has not come, processors run, an enclave is silent, or something is left.
        KafkaException, RegistryDownError: the broker or the registry is away.
    """
    settings = in_use_of(settings)  # as admin, who reads and writes what nobody else may
    journal = Journal.open(settings)
    if "certificate" in journal.done and not all(map(is_kept, _topics(settings))):
        # Something was held here again since: a destruction of its own.
        journal.path.rename(journal.path.with_name(f"journal-{journal.began_ms}.json"))
        journal = Journal.open(settings)
    return _Destruction(settings, order, today, journal, sync, say).run()


class _Destruction:
    def __init__(
        self,
        settings: Settings,
        order: Order,
        today: date,
        journal: Journal,
        sync: SyncEnclave,
        say: Callable[[str], None],
    ) -> None:
        self._settings, self._order, self._today, self._journal = settings, order, today, journal
        self._sync, self._say = sync, say
        self._stop = configured_policy(settings).hard_stop
        self._proof: Proof | None = None

    def run(self) -> list[Path]:
        journal = self._journal
        if not journal.began_ms:
            if self._today < self._stop and not self._order.before_hard_stop:
                raise NotYetError(f"the hard stop is {self._stop}: nothing may be destroyed before, but deliberately")
            journal.began_ms = time.time_ns() // 1_000_000
            journal.reason, journal.by = self._order.reason, self._order.by
            journal.edition = self._settings.edition
        self._stop_left_over()
        self._refuse_running()
        init_certificate_key(self._settings)
        journal.keep()
        self._once("editions", self._retire_others)
        if not {"expire", "sources", "enclaves"} <= journal.done.keys():
            with self._workers():
                self._once("expire", self._expire)
                self._once("sources", self._sources)
                self._once("enclaves", self._enclaves)
        self._once("topics", self._remove_topics)
        self._once("folders", self._remove_folders)
        self._prove()
        self._once("keys", self._remove_keys)
        return self._certify()

    def _once(self, step: str, act: Callable[[], str]) -> None:
        if step not in self._journal.done:
            self._say(f"{step}: begun")
            said = act()
            self._journal.finish(step, said)
            self._say(f"{step}: {said}")

    # The processors.

    def _stop_left_over(self) -> None:
        """Workers of a run that was killed."""
        for pid in self._journal.workers:
            try:
                process = psutil.Process(pid)
                if "infra.worker" in process.cmdline():
                    process.send_signal(signal.SIGTERM)
                    process.wait(120)
            except psutil.NoSuchProcess:
                continue
            except psutil.TimeoutExpired:
                raise NotYetError(f"process {pid}, of a run that was killed, does not end: end it") from None
        self._journal.workers = []

    def _refuse_running(self) -> None:
        found = running(self._settings.state)
        if found:
            names = ", ".join(f"{r.processor} (pid {r.pid})" for r in found)
            raise NotYetError(f"these run: {names}; stop `lethe run` first: this runs the processors itself")

    @contextmanager
    def _workers(self) -> Iterator[None]:
        try:
            with processors(self._settings, NAMES, self._settings.run / "destroy.log", 120) as workers:
                self._journal.workers = [workers.pid]
                self._journal.keep()
                self._alive = workers
                yield
        finally:
            self._journal.workers = []
            self._journal.keep()

    def _at_rest(self) -> None:
        def alive(_: set[str]) -> None:
            if self._alive.poll() is not None:
                raise NotYetError(
                    f"the processors ended; see {self._settings.run / 'destroy.log'}, then run this again"
                )

        flow = Flow(self._settings)
        try:
            flow.wait(REST_S, alive)
        except NotAtRestError as e:
            raise NotYetError(f"{e}; run this again") from None
        finally:
            flow.close()

    # The steps.

    def _retire_others(self) -> str:
        """All that they hold was made of what suppliers have published, and is made again by nobody."""
        gone = []
        for edition in editions_of(_topics(self._settings)):
            if edition == Edition(self._settings.edition):
                continue
            retirement = Retirement(self._settings, edition)
            found = retirement.remains()
            if found.live:
                raise NotYetError(f"these run: {', '.join(found.live)}; stop them first")
            retirement.remove(found)
            gone.append(f"{edition.named()} ({len(found.topics)} topics)")
        return f"retired: {', '.join(gone)}" if gone else "there is none but the one in use"

    def _expire(self) -> str:
        day = max(self._stop, self._today)
        registry = Registry(self._settings.registry, deadline_seconds=60)
        try:
            # Who was away for long reads everything again when it starts, and must be through before the day that ends
            # everything: else what it says again comes too late, with one line more for each record. The day before
            # ends nothing, and who has taken it in has started.
            for told in (day - timedelta(1), day):
                tick(self._settings, registry, told)
                self._at_rest()
        finally:
            registry.close()
        left = due(self._settings, day, self._stop)
        if left:
            raise NotYetError(f"{sum(left.values())} records have not expired at the hard stop: see `lethe alerts`")
        lines, heads = ledger_lines(self._settings), ledger_heads(self._settings)
        faults = ledger.verify(lines, heads)
        if faults:
            raise NotYetError(f"the ledger is not as it was written: {faults[0]}; see `lethe ledger verify`")
        at_stop = sum(line["why"] == "hard_stop" for line in lines)
        return (
            f"the clock was told {day}; the ledger has {len(lines)} lines, {at_stop} of them of the hard stop, "
            "and ends as its writers say"
        )

    def _sources(self) -> str:
        """Counted, then deleted: a run that is killed between finds fewer, and keeps the larger number."""
        producer = Producer(producer_config(self._settings, "lethe.destroy"))
        errors: list[KafkaError] = []
        total, by_name = 0, within(self._settings, Edition())
        for topic in (t for t in _topics(self._settings) if t.startswith("identified.")):
            live = _live(by_name, topic)
            known = self._journal.purged.get(topic, 0)
            if live:
                self._journal.purged[topic] = max(known, len(live))
                self._journal.keep()
            total += self._journal.purged.get(topic, 0)
            for key, partition in live.items():
                while True:
                    try:
                        producer.produce(
                            topic, None, key, partition, on_delivery=lambda e, _: errors.append(e) if e else None
                        )
                        break
                    except BufferError:
                        producer.poll(0.1)
        left = producer.flush(120)
        if errors or left:
            raise NotYetError("the broker did not take every deletion: run this again")
        self._at_rest()
        return f"{total} records of suppliers and of quarantine were deleted"

    def _enclaves(self) -> str:
        for folder in self._order.enclaves:
            self._sync(self._settings, folder)
        ends = self._last_deletions()
        without = sorted({*self._journal.without, *self._order.without})
        deadline = time.monotonic() + self._order.wait_s
        while True:
            said = acknowledged(self._settings)
            silent = [
                name
                for name, offsets in sorted(said.items())
                if name not in without and any(offsets.get(p, 0) <= end for p, end in ends.items())
            ]
            if not silent:
                break
            if time.monotonic() > deadline:
                raise NotYetError(
                    f"these enclaves have not acknowledged the last deletions: {', '.join(silent)}; sync them and run "
                    "this again, or name them with --without-enclave, which the certificate will say"
                )
            time.sleep(_POLL_S)
        self._journal.without = [name for name in without if name in said]
        told = [name for name in said if name not in without]
        text = f"{', '.join(sorted(told)) or 'no enclave'} acknowledged every deletion of research.person"
        return text + (f"; not waited for: {', '.join(self._journal.without)}" if self._journal.without else "")

    def _last_deletions(self) -> dict[int, int]:
        name = "research.person"
        table = topics.held(Edition(self._settings.edition).topic(name), messages(self._settings, name))
        if table.at:
            raise NotYetError(f"{len(table.at)} research records are left: see `lethe alerts`, and run this again")
        return table.deleted

    def _remove_topics(self) -> str:
        admin = AdminClient(client_config(self._settings))
        gone = [t for t in _topics(self._settings) if not is_kept(t)]
        for topic, future in (admin.delete_topics(gone, operation_timeout=60) if gone else {}).items():
            try:
                future.result(120)
            except KafkaException as e:
                if error_of(e).code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise NotYetError(f"{topic} could not be deleted ({error_of(e).name()}): run this again") from None
        deadline = time.monotonic() + _GONE_S
        while not all(map(is_kept, _topics(self._settings))) or self._on_disk():
            if time.monotonic() > deadline:
                raise NotYetError("folders of deleted topics are still on the broker's disk: run this again")
            time.sleep(_POLL_S)  # the broker tells nobody that it has removed a folder
        kept = " and ".join(KEPT)
        return f"all topics but {kept} are removed, and their folders from the disks that are seen here"

    def _on_disk(self) -> bool:
        return any(
            f.topic.partition(".")[0] in ZONES and not is_kept(f.topic)
            for data in self._order.broker_data
            for f in partition_folders(data)
        )

    def _remove_folders(self) -> str:
        gone = [p for p in _folders(self._settings) if p.exists()]
        for path in gone:
            shutil.rmtree(path)
        return f"removed: {', '.join(p.name for p in gone) or 'nothing was there'}"

    def _prove(self) -> None:
        self._say("proof: begun")
        asked = Asked(
            "nothing left",
            self._order.needles,
            self._order.broker_data,
            self._order.enclaves,
            without=self._journal.without,
        )
        proof = verify(self._settings, asked, lambda what: self._say(f"proof: {what}"))
        if not proof.proved:
            places = "; ".join(f"{f.kind}: {f.where}" for f in proof.findings[:5])
            raise NotYetError(f"something is left, and the keys stay: {places}")
        self._journal.finish("proof", f"nothing is left in {sum(proof.checked.values()):,} things looked at")
        self._say(f"proof: {self._journal.done['proof']}")
        self._proof = proof

    def _remove_keys(self) -> str:
        files = _keys(self._settings)
        self._journal.keys = sorted({*self._journal.keys, *(p.name for p in files)})
        self._journal.keep()
        for path in files:
            path.unlink()
            _synced(path.parent)
        return f"destroyed: {', '.join(self._journal.keys)}"

    def _certify(self) -> list[Path]:
        assert self._proof is not None
        journal, settings = self._journal, self._settings
        at = datetime.fromtimestamp(journal.began_ms / 1000, UTC).isoformat(timespec="seconds")
        method = {
            "reason": journal.reason,
            "by": journal.by,
            "began_at": at,
            "steps": [f"{name}: {journal.done[name]}" for name in STEPS if name in journal.done],
            "purged": journal.purged,
            "keys": journal.keys,
        }
        made = certificate.sign(
            certificate.document(self._proof, media(settings), method), read_key(settings.keys / CERTIFICATE_KEY)
        )
        paths = certificate.write(made, journal.path.parent)
        journal.finish("certificate", ", ".join(p.name for p in paths))
        return paths


def media(settings: Settings) -> list[Mapping[str, Any]]:
    """The places that held data, for the certificate."""
    from infra.commands.stack import data_folders

    places = [{"what": f.name, "holds": f.holds, "where": str(f.path)} for f in data_folders(settings)]
    return [*places, {"what": "brokers", "holds": "every topic", "where": settings.bootstrap}]


def _topics(settings: Settings) -> list[str]:
    found = AdminClient(client_config(settings)).list_topics(timeout=_CALL_S).topics
    return sorted(t for t in found if t.partition(".")[0] in ZONES)


def _live(settings: Settings, topic: str) -> dict[bytes, int]:
    """Live keys of a topic, with the partition of each. A record without a key goes with its topic alone."""
    live: dict[bytes, int] = {}
    for m in messages(settings, topic):
        key = m.key()
        if key is None or key == HEARTBEAT_KEY:
            continue
        if m.value() is None:
            live.pop(key, None)
        else:
            live[key] = m.partition() or 0
    return live


def _keys(settings: Settings) -> list[Path]:
    """Every key file, but what certificates are signed with, and credentials: they open no record, and who is to read
    the ledger needs one."""
    stay = {CERTIFICATE_KEY, CERTIFICATE_PUBLIC_KEY}
    files = (p for p in settings.keys.rglob("*") if p.is_file() and settings.access not in p.parents)
    return sorted(p for p in files if p.name not in stay)


def _folders(settings: Settings) -> list[Path]:
    return [settings.state, settings.rejects, settings.base / "taken"]


def _synced(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
