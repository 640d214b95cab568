"""The local stack: one broker and one registry, as processes of this machine on loopback ports."""

from __future__ import annotations

import base64
import hashlib
import http.client
import logging
import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from infra.broker.daemon import Daemon
from infra.broker.fetch import HERE, Dist, StackError, fetch, java, locked
from infra.broker.ports import HOST, free_ports, holder, is_free
from infra.certificates import BROKER, init_credentials
from infra.keys import CA_CERTIFICATE, KeyFileError, credential
from infra.settings import Settings
from infra.topics import load
from stream_processors.access import OPERATOR, principals
from stream_processors.runtime.kafka import client_config

TLS_PROPERTIES = HERE / "tls.properties"
DEADLINE_S = 90.0
_POLL_S = 0.05
_ASK_S = 5.0

# Quick to start matters more than the last tenth of throughput; no heap dumps, they hold records.
_JVM = ("-XX:+ExitOnOutOfMemoryError", "-XX:-HeapDumpOnOutOfMemoryError", "-XX:+PerfDisableSharedMem")
BROKER_JVM = ("-Xms512m", "-Xmx1g", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=50")
_REGISTRY_JVM = ("-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")

State = Literal["up", "silent", "down", "foreign", "elsewhere"]


class NotLocalError(StackError):
    """The settings name a broker or registry that is not one process of this machine."""


class PortTakenError(StackError):
    """Another process listens where the stack should."""


class OtherPortError(StackError):
    """This stack runs, but on another port than the settings name."""


class NotAnsweringError(StackError):
    """A process ended while it started, or did not answer in time. The message shows the end of its log."""


@dataclass(frozen=True)
class ProcessStatus:
    """One process of the stack.

    `state`: `up` answers; `silent` runs and does not answer (yet); `down` is not there; `foreign` answers on the
    port, but was not started by this stack (`pid` is None then); `elsewhere` was started by this stack, on `port`,
    which is not where the settings have it.
    """

    name: Literal["broker", "registry"]
    pid: int | None
    port: int
    state: State
    log: Path

    @property
    def answers(self) -> bool:
        """Whether clients can use it, whoever started it."""
        return self.state in ("up", "foreign")


class Stack:
    """A one-node broker and a registry with a durable store, below `settings.home`.

    As a context manager: up inside, down after. Outside of one, both outlive the process that calls `up`.
    """

    def __init__(
        self,
        settings: Settings,
        extra_broker_config: Mapping[str, str] | None = None,
        broker_jvm: tuple[str, ...] = BROKER_JVM,
    ) -> None:
        """`broker_jvm`: flags of the broker's Java."""
        self.settings, self._broker_jvm = settings, broker_jvm
        self._extra = dict(extra_broker_config or {})
        self._broker_port = _loopback_port(f"kafka://{settings.bootstrap}", "LETHE_BOOTSTRAP")
        self._registry_port = _loopback_port(settings.registry, "LETHE_REGISTRY")
        self._broker = Daemon("broker", settings.run)
        self._registry = Daemon("registry", settings.run)

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    def fetch(self) -> Dist:
        """Download the broker and the registry, unless they are there.

        Raises: as `infra.broker.fetch.fetch`.
        """
        return fetch(self.settings.dist)

    def up(self, wait: bool = True, deadline_s: float = DEADLINE_S) -> bool:
        """Start what is not running and wait until both answer; False if both ran already.

        If it fails, what it started is stopped again.

        Raises:
            OtherPortError: it runs, and on another port than the settings name.
            PortTakenError: another process has one of the ports.
            NotAnsweringError: a process ended, or does not answer before the deadline.
            StackError: what is needed to run cannot be fetched, or credentials cannot be made.
        """
        dist, jvm = self.fetch(), java()
        if self.settings.security == "tls":
            try:
                init_credentials(self.settings, principals(load().suppliers))
            except KeyFileError as e:
                raise StackError(str(e)) from None
        run = self.settings.run
        (run / "tmp").mkdir(parents=True, exist_ok=True)
        with locked(run / "lock"):
            self._check_running()
            missing = [d for d in (self._registry, self._broker) if d.process() is None]
            self._check_ports(missing)
            try:
                if self._registry in missing:  # takes longer, so it goes first
                    self._start_registry(jvm, dist)
                if self._broker in missing:
                    self._start_broker(jvm, dist)
                if wait:
                    self._wait(time.monotonic() + deadline_s)
            except BaseException:
                for daemon in missing:
                    daemon.stop()
                for partial in self._new_archives():
                    partial.unlink(missing_ok=True)
                raise
        return bool(missing)

    def down(self) -> bool:
        """Stop what this stack started, and nothing else; False if nothing ran. The data stays."""
        if not self.settings.run.is_dir():
            return False
        with locked(self.settings.run / "lock"):
            stopped = [d.stop() for d in (self._broker, self._registry)]
            self._keep_archives()
        return any(stopped)

    def status(self) -> list[ProcessStatus]:
        """Both processes, as they are now."""
        return [
            _status("broker", self._broker, self._broker_port, lambda: broker_answers(self.settings)),
            _status("registry", self._registry, self._registry_port, lambda: registry_answers(self.settings.registry)),
        ]

    def _check_running(self) -> None:
        named = (
            (self._broker, "LETHE_BOOTSTRAP", self._broker_port),
            (self._registry, "LETHE_REGISTRY", self._registry_port),
        )
        for daemon, variable, port in named:
            if (runs_on := daemon.port()) not in (None, port):
                raise OtherPortError(
                    f"the {daemon.name} of this folder runs on port {runs_on}, and {variable} says {port}: set it to "
                    f"{runs_on}, or stop the stack first (`lethe down`)"
                )

    def _check_ports(self, missing: list[Daemon]) -> None:
        wanted = [(self._registry, "LETHE_REGISTRY", self._registry_port)]
        wanted += [(self._broker, "LETHE_BOOTSTRAP", self._broker_port)]
        wanted += [(self._broker, "LETHE_CONTROLLER_PORT", self.settings.controller_port)]
        for daemon, variable, port in wanted:
            if daemon in missing and not is_free(port):
                raise PortTakenError(
                    f"port {port} for the {daemon.name} is taken by another process{holder(port)}: stop that one, "
                    f"or set {variable} to a free port"
                )

    def _start_registry(self, jvm: str, dist: Dist) -> None:
        data = self.settings.registry_data
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        properties = {
            "java.io.tmpdir": self.settings.run / "tmp",
            "quarkus.config.locations": HERE / "registry.properties",
            "quarkus.http.host": HOST,
            "quarkus.http.port": self._registry_port,
            "apicurio.datasource.url": f"jdbc:h2:file:{data / 'registry'};WRITE_DELAY=0",
        }
        defined = [f"-D{k}={v}" for k, v in properties.items()]
        java_command = self._java_command("registry", jvm, dist, _REGISTRY_JVM)
        self._registry.start([*java_command, *defined, "-jar", str(dist.registry_jar)], self._registry_port)

    def _start_broker(self, jvm: str, dist: Dist) -> None:
        config = self.settings.run / "server.properties"
        config.write_text(self._server_properties())
        data = self.settings.broker_data
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        jars = ":".join(str(p) for p in sorted(dist.kafka_libs.glob("*.jar")))
        options = [
            f"-Djava.io.tmpdir={self.settings.run / 'tmp'}",
            f"-Dlog4j2.configurationFile={HERE}/log4j2.properties",
        ]
        if not (data / "meta.properties").exists():
            quick = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
            _format([jvm, *quick, *options, "-cp", jars, "kafka.tools.StorageTool"], config)
        # Each with an archive of its own: a broker with TLS loads a thousand classes more.
        program = "tlsbroker" if self.settings.security == "tls" else "broker"
        java_command = self._java_command(program, jvm, dist, self._broker_jvm)
        self._broker.start([*java_command, *options, "-cp", jars, "kafka.Kafka", str(config)], self._broker_port)

    def _java_command(self, program: str, jvm: str, dist: Dist, flags: tuple[str, ...]) -> list[str]:
        """Java with the program's flags and its class archive.

        Classes as the JVM has parsed them, beside the jars that they come from: the next start, of any stack that
        shares the downloads, takes half the time. An archive holds classes, never objects, so no data. Where there
        is none for this Java, these jars and these flags, the program writes one as it ends, and `down` keeps it.
        """
        binary = Path(jvm).resolve()
        made_of = (str(binary), binary.stat().st_mtime_ns, dist.stamp.read_text(), str(dist.root), _JVM, flags)
        name = f"{program}-{hashlib.sha256(repr(made_of).encode()).hexdigest()[:12]}.jsa"
        kept, new = dist.root / name, self.settings.run / name
        new.unlink(missing_ok=True)
        archive = f"-XX:SharedArchiveFile={kept}" if kept.exists() else f"-XX:ArchiveClassesAtExit={new}"
        return [jvm, *_JVM, *flags, archive]

    def _new_archives(self) -> list[Path]:
        return list(self.settings.run.glob("*-*.jsa"))

    def _keep_archives(self) -> None:
        root = self.settings.dist
        for new in self._new_archives():
            with new.open("rb") as f:
                complete = any(f.read(4))  # Java writes the head last
            if complete and root.is_dir():
                copy = root / f"{new.name}.{os.getpid()}"  # perhaps on another disk
                shutil.move(new, copy)
                for old in root.glob(f"{new.name.partition('-')[0]}-*.jsa"):
                    old.unlink(missing_ok=True)
                copy.replace(root / new.name)
            new.unlink(missing_ok=True)

    def _server_properties(self) -> str:
        port, controller, tls = self._broker_port, self.settings.controller_port, self.settings.security == "tls"
        protocol = "SSL" if tls else "PLAINTEXT"
        mine = {
            "listeners": f"{protocol}://{HOST}:{port},CONTROLLER://{HOST}:{controller}",
            "advertised.listeners": f"{protocol}://{HOST}:{port}",
            "listener.security.protocol.map": f"{protocol}:{protocol},CONTROLLER:{protocol}",
            "inter.broker.listener.name": protocol,
            "controller.quorum.voters": f"1@{HOST}:{controller}",
            "log.dirs": str(self.settings.broker_data),
        }
        common = (HERE / "broker.properties").read_text()
        if tls:
            common += TLS_PROPERTIES.read_text()
            mine["ssl.keystore.location"] = str(credential(self.settings, BROKER))
            mine["ssl.truststore.location"] = str(self.settings.access / CA_CERTIFICATE)
        return common + "".join(f"{k}={v}\n" for k, v in {**mine, **self._extra}.items())

    def _wait(self, until: float) -> None:
        waiting: dict[Daemon, Callable[[], bool]] = {
            self._broker: lambda: broker_answers(self.settings),
            self._registry: lambda: registry_answers(self.settings.registry),
        }
        while waiting:
            for daemon, answers in list(waiting.items()):
                if daemon.listens() and answers():
                    del waiting[daemon]
                elif daemon.process() is None:
                    raise NotAnsweringError(_with_log(f"the {daemon.name} ended while it started", daemon))
                elif time.monotonic() > until:
                    raise NotAnsweringError(_with_log(f"the {daemon.name} does not answer", daemon))
            time.sleep(_POLL_S if waiting else 0)


def isolated(home: Path, base: Settings | None = None) -> Settings:
    """Settings for a stack of its own below `home`: free ports, and the downloads of `base`."""
    base = base or Settings()
    broker, controller, registry, control = free_ports(4)
    path = urlsplit(base.registry).path
    return base.model_copy(
        update={
            "home": home,
            "dist_dir": base.dist,
            "bootstrap": f"{HOST}:{broker}",
            "controller_port": controller,
            "control_port": control,
            "metrics_port": 0,
            "registry": f"http://{HOST}:{registry}{path}",
        }
    )


def broker_answers(settings: Settings) -> bool:
    """Whether a broker knows the operator and hands out metadata."""
    if not _listens(f"kafka://{settings.bootstrap}"):  # librdkafka is slower to notice
        return False
    silent = logging.getLogger(f"{__name__}.librdkafka")
    silent.setLevel(logging.CRITICAL)
    try:
        config = client_config(settings.acting_as(OPERATOR))
        return bool(AdminClient(config, logger=silent).list_topics(timeout=_ASK_S).brokers)
    except (KafkaException, KeyFileError):
        return False


def registry_answers(url: str) -> bool:
    """Whether a registry lists its subjects, which it can only with its store."""
    parts = urlsplit(url)
    if not _listens(url):
        return False
    connection = http.client.HTTPConnection(parts.hostname or HOST, parts.port, timeout=_ASK_S)
    try:
        connection.request("GET", f"{parts.path}/subjects")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _listens(url: str) -> bool:
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname, parts.port or 80), timeout=1).close()
    except OSError:
        return False
    return True


def _loopback_port(url: str, variable: str) -> int:
    try:
        parts = urlsplit(url)
        if parts.hostname in (HOST, "localhost") and parts.port:
            return parts.port
    except ValueError:
        pass
    raise NotLocalError(f"{variable} is {url.removeprefix('kafka://')}, but the local stack runs on {HOST}:<port> only")


def _status(
    name: Literal["broker", "registry"], daemon: Daemon, port: int, answers: Callable[[], bool]
) -> ProcessStatus:
    found, runs_on = daemon.process(), daemon.port()
    if found is None:
        return ProcessStatus(name, None, port, "foreign" if answers() else "down", daemon.log)
    if runs_on not in (None, port):
        return ProcessStatus(name, found.pid, runs_on or port, "elsewhere", daemon.log)
    return ProcessStatus(name, found.pid, port, "up" if answers() else "silent", daemon.log)


def _with_log(what: str, daemon: Daemon) -> str:
    return f"{what}; the end of {daemon.log}:\n{daemon.tail() or '(empty)'}"


def _format(tool: list[str], config: Path) -> None:
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    # One id in 64 begins with a hyphen, which the tool would take for an option if it stood alone.
    command = [*tool, "format", f"--cluster-id={cluster_id}", "--config", str(config)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise StackError(f"the broker's directory could not be formatted:\n{done.stdout.strip()}")
