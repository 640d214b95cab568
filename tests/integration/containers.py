"""A fresh broker and registry for tests: in containers where an engine runs, else as local processes."""

from __future__ import annotations

import io
import os
import platform
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple, Self

import psutil

# Read by testcontainers when it is imported. Its own reaper is an image to pull; `remove_orphans` stands in for it.
# Where tests run inside a container themselves, ports are still published on this host's loopback.
os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"
os.environ.setdefault("TESTCONTAINERS_CONNECTION_MODE", "docker_host")
os.environ.setdefault("TESTCONTAINERS_HOST_OVERRIDE", "127.0.0.1")

from docker.errors import APIError
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient

from infra.broker.cluster import BROKER_JVM, DEADLINE_S, Stack, broker_answers, isolated, registry_answers
from infra.broker.fetch import StackError, fetch
from infra.broker.ports import HOST
from infra.certificates import BROKER, init_credentials
from infra.images.build import build, engine_answers, tag
from infra.keys import CA_CERTIFICATE, credential
from infra.settings import Settings
from infra.topics import load
from stream_processors.access import principals

How = Literal["containers", "processes"]
OWNER = "lethe.tests-owner"
CHOICE = "LETHE_TEST_STACK"
# Deletion is to be seen in seconds; the rest of a test's broker is as broker.properties says.
TEST_BROKER = {"log.cleaner.backoff.ms": "500", "log.segment.delete.delay.ms": "1000"}
# A test's broker lives for a minute or two: most of what the second compiler makes of it would never run.
TEST_JVM = (*BROKER_JVM, "-XX:TieredStopAtLevel=1")
_CLOCK_STEP_S = 60


class RunningStack(NamedTuple):
    """A broker and a registry that answer. `broker_log_dir` holds the broker's segment files, readable by tests."""

    settings: Settings
    how: How
    broker_log_dir: Path


class OwnContainer(DockerContainer):  # type: ignore[misc]
    """A container whose one port is published on loopback only, and which does not outlive this process for long."""

    def __init__(self, image: str, port: int) -> None:
        super().__init__(image)
        self.port = port
        self.ports = {f"{port}/tcp": (HOST,)}
        self.with_kwargs(labels={OWNER: owner(os.getpid())}, user=f"{os.getuid()}:{os.getgid()}")

    @property
    def address(self) -> str:
        """`host:port` for clients on this machine."""
        return f"{HOST}:{self.get_exposed_port(self.port)}"

    def wait_until(self, answers: Callable[[], bool]) -> None:
        """Return once it answers; a container that ended or does not answer in time shows its log."""
        until = time.monotonic() + DEADLINE_S
        while not answers():
            container = self.get_wrapped_container()
            container.reload()
            if container.status != "running" or time.monotonic() > until:
                log = container.logs(tail=20).decode(errors="replace")
                raise RuntimeError(f"{self.image} does not answer ({container.status}):\n{log}")
            time.sleep(0.1)


class KafkaContainer(OwnContainer):
    """One broker with its data where the settings say, secured as they say."""

    def __init__(self, settings: Settings, extra_broker_config: Mapping[str, str] | None = None) -> None:
        super().__init__(tag("kafka"), 9092)
        self._settings = settings
        self._protocol = protocol = "SSL" if settings.security == "tls" else "PLAINTEXT"
        data = settings.broker_data
        data.mkdir(parents=True, exist_ok=True)
        self.with_volume_mapping(data, "/data/log", "rw")
        self.with_env("WAIT_FOR_START", "yes")
        self.with_env("JAVA_OPTS", " ".join(TEST_JVM))
        # The broker speaks to itself through INTERNAL: the advertised port of this machine is not there inside.
        config = {
            "listeners": f"{protocol}://0.0.0.0:9092,INTERNAL://localhost:29092,CONTROLLER://localhost:29093",
            "listener.security.protocol.map": f"{protocol}:{protocol},INTERNAL:{protocol},CONTROLLER:{protocol}",
            "inter.broker.listener.name": "INTERNAL",
            "controller.quorum.voters": "1@localhost:29093",
            **(extra_broker_config or {}),
        }
        if settings.security == "tls":
            init_credentials(settings, principals(load().suppliers))
            self.with_env("TLS", "/tls")
            for path in (credential(settings, BROKER), settings.access / CA_CERTIFICATE):
                self.with_volume_mapping(path, f"/tls/{path.name}", "ro")
        for name, value in config.items():
            self.with_env(f"KAFKA_{name.upper().replace('.', '_')}", value)

    def start(self) -> Self:
        """Start it, tell it under which port it is known here, and wait until it answers."""
        super().start()
        advertised = f"{self._protocol}://{self.address},INTERNAL://localhost:29092"
        script = f"export KAFKA_ADVERTISED_LISTENERS={advertised}\n# end\n".encode()
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            entry = tarfile.TarInfo("start.sh")
            entry.size, entry.mode = len(script), 0o755
            tar.addfile(entry, io.BytesIO(script))
        self.get_wrapped_container().put_archive("/", archive.getvalue())
        self.wait_until(lambda: broker_answers(self._settings.model_copy(update={"bootstrap": self.address})))
        return self


class RegistryContainer(OwnContainer):
    """One registry with its store in `data` on this machine."""

    def __init__(self, data: Path) -> None:
        super().__init__(tag("registry"), 8080)
        data.mkdir(parents=True, exist_ok=True)
        self.with_volume_mapping(data, "/data", "rw")

    @property
    def url(self) -> str:
        """Base URL of its Confluent-compatible interface."""
        return f"http://{self.address}/apis/ccompat/v7"

    def answers(self) -> bool:
        """Whether it lists its subjects."""
        return registry_answers(self.url)


@cache
def chosen() -> tuple[How, str]:
    """Which way stacks run in this process, and why. `LETHE_TEST_STACK` decides where both would do.

    Images that are missing or outdated are built first: seconds, or a minute and a half where a base has to be made.
    """
    wish = os.environ.get(CHOICE, "")
    if wish not in ("", "containers", "processes"):
        raise ValueError(f"{CHOICE}={wish}: it is containers or processes")
    if wish == "processes":
        return "processes", f"{CHOICE} says so"
    reason = "no Docker engine answers"
    if engine_answers():
        try:
            build(fetch(Settings().dist))
        except StackError as e:
            reason = f"a Docker engine answers, but {e}"
        else:
            return "containers", f"{tag('kafka')}, {tag('registry')}"
    if wish == "containers":
        raise RuntimeError(f"{CHOICE}=containers, but {reason}")
    return "processes", reason


@contextmanager
def running_stack(
    home: Path,
    extra_broker_config: Mapping[str, str] | None = None,
    security: Literal["tls", "plaintext"] = "plaintext",
) -> Iterator[RunningStack]:
    """A broker and a registry with nothing in them, on free loopback ports, with their data below `home`."""
    how, _ = chosen()
    settings = isolated(home).model_copy(update={"security": security})
    config = {**TEST_BROKER, **(extra_broker_config or {})}
    if how == "processes":
        with Stack(settings, config, TEST_JVM):
            yield RunningStack(settings, how, settings.broker_data)
        return
    remove_orphans()
    kafka = KafkaContainer(settings, config)
    registry = RegistryContainer(settings.registry_data)
    with ExitStack() as running:
        for container in (registry, kafka):  # the registry takes longer, so it goes first
            running.callback(container.stop)
            container.start()
        registry.wait_until(registry.answers)
        found = settings.model_copy(update={"bootstrap": kafka.address, "registry": registry.url})
        yield RunningStack(found, how, settings.broker_data)


def owner(pid: int) -> str:
    """The label of a container that a test process makes: where the process runs, which it is, and when it was."""
    return f"{_place()}/{pid}/{int(time.time())}"


def remove_orphans() -> None:
    """Remove containers of test processes of this machine that were killed; nobody else's."""
    client = DockerClient().client
    try:
        for container in client.api.containers(all=True, filters={"label": OWNER}):
            if _orphaned(container["Labels"][OWNER]):
                with suppress(APIError):  # another test process was quicker
                    client.api.remove_container(container["Id"], force=True, v=True)
    finally:
        client.close()


def _orphaned(label: str) -> bool:
    place, pid, made = label.rsplit("/", 2)
    if place != _place():
        return False
    try:
        return psutil.Process(int(pid)).create_time() > int(made) + _CLOCK_STEP_S  # the pid is another's now
    except psutil.NoSuchProcess:
        return True


def _place() -> str:
    """Where a process id means the same: an engine may serve several machines, and containers with ids of their own."""
    namespace = Path("/proc/self/ns/pid")
    return f"{platform.node()}/{namespace.stat().st_ino if namespace.exists() else ''}"
