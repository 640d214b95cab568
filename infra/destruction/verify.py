"""The proof that what was destroyed is gone: from topics, segments on disk, state, files, and enclaves.

Everything is read; nothing is changed, but that state which no processor has open is swept (it is a cache). What cannot
be seen from here is listed, and is no part of the proof.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from confluent_kafka import Message
from confluent_kafka.admin import AdminClient

from infra.destruction import state, topics
from infra.destruction.bounds import bounds, state_bound_ms
from infra.destruction.leftovers import on_disk
from infra.destruction.named import Destroyed
from infra.destruction.needles import Needles, Search
from infra.destruction.proof import Mode, Pending, Proof, heads_of, ledger_summary
from infra.destruction.segments import Batch, partition_folders, segments
from infra.destruction.sources import AtSource
from infra.destruction.topics import PERSONAL, Held, is_kept
from infra.editions import within
from infra.held import confirmed_days, ledger_heads, ledger_lines
from infra.policy import configured_policy
from infra.rest import Flow
from infra.settings import Settings
from infra.topic_table import messages, messages_of
from schemas.registry import Registry
from schemas.rows import from_value
from stream_processors import ledger
from stream_processors.access import ADMIN
from stream_processors.control.office import ZONES
from stream_processors.edition import Edition, editions_of
from stream_processors.ledger import Line
from stream_processors.runtime.kafka import client_config

ACKNOWLEDGEMENT = "governance.acknowledgement"
ALWAYS_UNCHECKED = (
    "backups and snapshots of this machine's disks",
    "files on the suppliers' side, and files that they delivered to places not named here",
    "blocks that the file system has freed and not written over, and what a solid-state disk keeps of them",
    "answers that councils were given, and outputs that were released from an enclave",
)
_DAY_0 = date(1970, 1, 1)
_REST_S, _POLL_S = 20.0, 0.25
_NOT_SEARCHED = frozenset({"dist", "keys", "destruction"})
"""Below <home>: downloads; keys, which are looked at by name; certificates."""


@dataclass(frozen=True)
class Asked:
    """What to prove. `broker_data`: log directories of brokers that this machine can see. `enclaves`: folders of
    enclaves, `look_in`: other folders to search for the needles."""

    mode: Mode
    needles: Needles
    broker_data: Sequence[Path]
    enclaves: Sequence[Path] = ()
    look_in: Sequence[Path] = ()
    without: Sequence[str] = ()


def verify(
    settings: Settings,
    asked: Asked,
    say: Callable[[str], None] = lambda _: None,
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
) -> Proof:
    """Look everywhere. Reads every topic, so it acts for `admin`.

    Raises:
        KafkaException: the broker is away.
        RegistryDownError: the registry is.
    """
    registry = Registry(settings.registry, deadline_seconds=10)
    try:
        return _Verifier(settings.acting_as(ADMIN), asked, registry, say, now_ms).all()
    finally:
        registry.close()


class _Verifier:
    def __init__(
        self,
        settings: Settings,
        asked: Asked,
        registry: Registry,
        say: Callable[[str], None],
        now_ms: Callable[[], int],
    ) -> None:
        self._registry = registry
        self._settings, self._asked, self._say, self._now_ms = settings, asked, say, now_ms
        self._all_gone = asked.mode == "nothing left"
        self._proof = Proof(asked.mode, now_ms(), unchecked=list(ALWAYS_UNCHECKED))
        self._search = Search(asked.needles, self._needle)
        self._partitions: dict[str, int] = {}
        self._replicas = 0
        self._lines: dict[Edition, list[Line]] = {}
        self._editions: list[Edition] = []
        self._mine = Edition(settings.edition)
        self._destroyed = Destroyed([])
        self._tables: dict[str, Held] = {}

    def all(self) -> Proof:
        self._survey()
        self._check_ledger()
        if not self._all_gone:
            self._check_rest()
        self._check_topics()
        self._check_disks()
        self._check_state()
        self._check_files()
        self._check_enclaves()
        self._search.flush()
        if not len(self._asked.needles):
            self._proof.unchecked.append("texts by name: none were given (--canaries); the ledger knows hashes alone")
        return self._proof

    def _needle(self, where: str, found: Counter[str]) -> None:
        self._proof.find("needle", where, found.total(), ", ".join(sorted(found)))

    def _survey(self) -> None:
        admin = AdminClient(client_config(self._settings))
        found = admin.list_topics(timeout=30)
        ours = {n: t for n, t in found.topics.items() if n.partition(".")[0] in ZONES}
        self._partitions = {name: len(topic.partitions) for name, topic in sorted(ours.items())}
        ledgers = (t.removeprefix(ledger.TOPIC).removeprefix(".") for t in ours if is_kept(t) and ledger.TOPIC in t)
        self._editions = sorted({*editions_of(ours), *map(Edition, ledgers)}, key=lambda e: e.name)
        self._replicas = max((len(p.replicas) for t in ours.values() for p in t.partitions.values()), default=1)
        self._proof.saw("brokers", len(found.brokers))

    # The ledger, and what readers get.

    def _check_ledger(self) -> None:
        self._say("the ledger")
        proof = self._proof
        if self._mine.topic(ledger.TOPIC) not in self._partitions:
            proof.find("ledger", self._mine.topic(ledger.TOPIC), what="there is none")
        for edition in self._editions:
            name = edition.topic(ledger.TOPIC)
            if name not in self._partitions:
                continue
            settings = within(self._settings, edition)
            self._lines[edition] = lines = ledger_lines(settings)
            # An edition that was retired has left its ledger, and not who wrote it.
            is_whole = edition.topic("research.person") in self._partitions
            heads = ledger_heads(settings) if is_whole and not self._all_gone else {}
            for fault in ledger.verify(lines, heads):
                proof.find("ledger", name, what=fault)
            if self._all_gone or not is_whole:
                proof.unchecked.append(f"whether lines were cut off from the ends of {name} since its writers are gone")
            proof.saw("lines of the ledger", len(lines))
        mine = self._lines.get(self._mine, [])
        proof.ledger = ledger_summary(mine, heads_of(mine))
        self._destroyed = Destroyed(line["record"] for lines in self._lines.values() for line in lines)

    def _check_rest(self) -> None:
        """Heartbeats come all the time: at rest is who has taken in everything at some moment."""
        deadline = time.monotonic() + _REST_S
        for edition in editions_of(self._partitions):
            flow = Flow(within(self._settings, edition))
            try:
                while behind := flow.behind():
                    if time.monotonic() > deadline:
                        names = ", ".join(sorted(map(edition.folder, behind)))
                        self._proof.find("at rest", names, what="behind: what is found may be passing")
                        break
                    time.sleep(_POLL_S)  # Kafka tells nobody that a group has caught up
            finally:
                flow.close()

    def _check_topics(self) -> None:
        proof = self._proof
        self._say("topics")
        self._tables = {topic: Held() for topic in self._partitions}
        confirmed = {} if self._all_gone else confirmed_days(self._settings)
        at_source = AtSource(configured_policy(self._settings), self._registry, confirmed)
        by_name = within(self._settings, Edition())
        for m in messages_of(by_name, self._partitions) if self._partitions else ():
            topics.take(self._tables, m)
            at_source.take(m)
            self._look_at(f"{m.topic()}-{m.partition()}@{m.offset()}", m)
        for topic, table in self._tables.items():
            proof.saw("topics", 1)
            proof.saw("records of topics", table.records)
            if table.at and topic.partition(".")[0] in PERSONAL:
                proof.held[topic] = len(table.at)
            if self._all_gone and not is_kept(topic) and table.at:
                partition, offset = next(iter(table.at.values()))
                proof.find("left", f"{topic}-{partition}@{offset}", len(table.at), "records that live")
        editions = editions_of(self._partitions)
        tables = {
            edition: {edition.plain(t): held for t, held in self._tables.items() if edition.holds(t)}
            for edition in editions
        }
        sources = [k for of in tables.values() for t in topics.SOURCES for k in of.get(t, Held()).at]
        self._destroyed.lives([*sources, *(k[topics.SUBJECT] for k in sources)])
        for edition, of in tables.items():
            personal = {t: h for t, h in of.items() if t.partition(".")[0] in ("linkage", "state")}
            topics.not_live(proof, personal, self._lines.get(edition, []), self._destroyed, edition.topic)
            if not self._all_gone:
                topics.grounded(proof, of, edition.topic)
                settings = within(self._settings, edition)
                stop = (configured_policy(settings).hard_stop - _DAY_0).days
                topics.not_overdue(proof, of, confirmed_days(settings), stop, edition.topic)
        if not self._all_gone:
            at_source.find(proof, self._tables)

    def _look_at(self, where: str, m: Message) -> None:
        headers = b"\n".join(name.encode() + b"\n" + (v or b"") for name, v in m.headers() or ())
        self._search.add(where, b"\n".join(part for part in (m.key(), m.value(), headers) if part))

    # Bytes on disk.

    def _check_disks(self) -> None:
        proof, now = self._proof, self._now_ms()
        allowed = bounds(self._settings, list(self._partitions))
        proof.bounds_ms = {topic: b.value_ms for topic, b in allowed.items()}
        ledgered: dict[tuple[str, int], set[int]] = {}
        for edition, lines in self._lines.items():
            for line in lines:
                if line["topic"] in topics.SOURCES:  # not what was refused at the source
                    where_ = edition.topic(line["topic"]), line["partition"]
                    ledgered.setdefault(where_, set()).add(line["offset"])
        seen: Counter[tuple[str, int]] = Counter()
        for data in self._asked.broker_data:
            for folder in partition_folders(data):
                name = f"{folder.topic}-{folder.partition}"
                self._say(f"segments of {name}")
                seen[folder.topic, folder.partition] += not folder.deleted

                def look(batch: Batch, name: str = name) -> None:
                    self._search.add(f"{name}@{batch.offset}, on disk", batch.content)

                try:
                    listed = segments(folder.path)
                except FileNotFoundError:  # removed meanwhile
                    continue
                found = on_disk(listed, ledgered.get((folder.topic, folder.partition), set()), now, look)
                proof.saw("partitions on disk", 1)
                proof.saw("records on disk", found.records)
                for message in found.unreadable:
                    proof.find("unreadable", message)
                for offset in found.undead:
                    proof.find("live", f"{name}@{offset}, on disk")
                if folder.topic.partition(".")[0] not in ZONES:
                    continue
                if self._all_gone and not is_kept(folder.topic) and found.live + found.dead.count:
                    proof.find("left", f"{name}, on disk", found.live + found.dead.count, "values")
                elif folder.deleted:
                    if found.records:
                        proof.pending.append(Pending(f"{name}, deleted", found.records, now, now))
                elif found.dead.since is not None and not self._all_gone:  # what is kept then is about nobody
                    until = found.dead.since + allowed[folder.topic].value_ms if folder.topic in allowed else now
                    if until < now:
                        where = f"{name}@{found.dead.offset}, on disk"
                        late = (now - until) // 1000
                        proof.find("bytes", where, found.dead.count, f"the oldest {late} s beyond the bound")
                    else:
                        proof.pending.append(Pending(name, found.dead.count, found.dead.since, until))
        self._note_unseen(seen)

    def _note_unseen(self, seen: Counter[tuple[str, int]]) -> None:
        unseen = [f"{t}-{p}" for t, n in self._partitions.items() for p in range(n) if not seen[t, p]]
        if unseen:
            some = ", ".join(unseen[:3]) + (", ..." if len(unseen) > 3 else "")
            self._proof.unchecked.append(f"bytes of {len(unseen)} partitions whose disks are not seen here ({some})")
        if self._replicas > 1:
            self._proof.unchecked.append(f"{self._replicas} replicas of each partition: disks that were not named")

    def _check_state(self) -> None:
        proof, now = self._proof, self._now_ms()
        bound = state_bound_ms(self._settings)
        for folder in state.state_folders(self._settings.state):
            self._say(folder.name)
            count = named = 0
            try:
                swept = state.swept_ms(folder) if folder.owned else now
                for key, value in state.rows(folder, now):
                    count += 1
                    self._search.add(folder.name, key + b"\n" + value)
                    named += self._destroyed.named_in(key + b"\n" + value)
            except state.StateUnreadableError as e:
                proof.find("unreadable", str(e))
                continue
            if named:
                proof.find("live", folder.name, named, "rows that name what was destroyed")
            proof.saw("state directories", 1)
            proof.saw("rows of state", count)
            if self._all_gone:
                proof.find("left", folder.name, count, "rows of state")
            elif swept is None or swept + bound < now:
                # A worker that has just started sweeps within the bound, counted from its start.
                began = int((folder.path.parent / "lock").stat().st_mtime * 1000)
                if began + bound < now:
                    proof.find("state", folder.name, what="not swept within its bound")

    # Files.

    def _check_files(self) -> None:
        home = self._settings.base
        for path in _files(home, _NOT_SEARCHED):
            self._look_in(path)
        for folder in self._asked.look_in:
            for path in _files(folder):
                self._look_in(path)
        if self._all_gone:
            for what, folder in (("rejects", self._settings.rejects), ("digests of files", home / "taken")):
                left = sum(1 for _ in _files(folder))
                if left:
                    self._proof.find("left", str(folder), left, what)

    def _look_in(self, path: Path) -> None:
        try:
            self._proof.saw("bytes of files", path.stat().st_blocks * 512)
            found = self._asked.needles.in_file(path)
        except FileNotFoundError:
            return
        except OSError as e:
            self._proof.find("unreadable", f"{path}: {type(e).__name__}")
            return
        self._proof.saw("files", 1)
        if found:
            self._needle(str(path), found)

    # Enclaves.

    def _check_enclaves(self) -> None:
        proof = self._proof
        said = acknowledged(self._settings) if ACKNOWLEDGEMENT in self._partitions else {}
        research = self._mine.topic("research.person")
        deleted = self._tables.get(research, Held()).deleted
        for enclave, offsets in sorted(said.items()):
            if enclave in self._asked.without:
                proof.unchecked.append(f"enclave {enclave}: was not waited for")
                continue
            proof.saw("enclaves", 1)
            for partition, offset in sorted(deleted.items()):
                if offsets.get(partition, 0) <= offset:
                    where = f"{enclave}: {research}-{partition}@{offset}"
                    proof.find("enclave", where, what="this deletion is not acknowledged")
        proof.unchecked.append("copies of enclaves that never acknowledge")
        if not said and (deleted or self._all_gone):
            proof.unchecked.append("enclaves: none has ever acknowledged a deletion")
        for folder in self._asked.enclaves:
            self._say(f"enclave {folder}")
            for path in _files(folder):
                self._look_in(path)
            self._look_at_tables(folder)

    def _look_at_tables(self, folder: Path) -> None:
        """DuckDB packs its columns, so texts are read as cells, too."""
        import duckdb

        from stream_processors.enclave.store import FILE
        from stream_processors.enclave.tables import texts

        file = folder / FILE
        if not file.exists():
            return
        try:
            with duckdb.connect(str(file), read_only=True) as connection:
                self._search.add(str(file), "\n".join(texts(connection)).encode())
                left = connection.execute("SELECT count(*) FROM persons").fetchone()
        except duckdb.Error as e:
            self._proof.find("unreadable", f"{file}: {type(e).__name__}")
            return
        if self._all_gone and left and left[0]:
            self._proof.find("left", str(file), left[0], "persons")


def acknowledged(settings: Settings) -> dict[str, dict[int, int]]:
    """What each enclave has said: the next offset of each partition of research.person.

    Raises:
        KafkaException, RegistryDownError: the broker or the registry is away.
    """
    out: dict[str, dict[int, int]] = {}
    registry = Registry(settings.registry, deadline_seconds=10)
    try:
        for m in messages(settings, ACKNOWLEDGEMENT):
            value = m.value()
            if value is not None:
                row = from_value(ACKNOWLEDGEMENT, value, registry)
                out.setdefault(row["enclave"], {})[row["partition"]] = row["next_offset"]
    finally:
        registry.close()
    return out


def _files(folder: Path, leave_out: frozenset[str] = frozenset()) -> Iterator[Path]:
    for where, folders, names in os.walk(folder):
        if Path(where) == folder:
            folders[:] = [f for f in folders if f not in leave_out]
        for name in sorted(names):
            path = Path(where, name)
            if path.is_file() and not path.is_symlink():
                yield path
