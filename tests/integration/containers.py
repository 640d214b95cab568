"""A fresh broker and registry for tests: in containers where an engine runs, else as local processes."""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple, Self

import psutil

# Read by testcontainers when it is imported. Its own reaper is an image to pull; `remove_orphans` stands in for it.
# Where tests run inside a container themselves, ports are still published on this host's loopback.
os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"
os.environ.setdefault("TESTCONTAINERS_CONNECTION_MODE", "docker_host")
os.environ.setdefault("TESTCONTAINERS_HOST_OVERRIDE", "127.0.0.1")

from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient

from infra.broker.cluster import DEADLINE_S, Stack, broker_answers, isolated, registry_answers
from infra.broker.ports import HOST
from infra.images.build import built, engine_answers, tag
from infra.settings import Settings

How = Literal["containers", "processes"]
OWNER = "lethe.tests-pid"
CHOICE = "LETHE_TEST_STACK"


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
        self.with_kwargs(labels={OWNER: str(os.getpid())}, user=f"{os.getuid()}:{os.getgid()}")

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
    """One broker with its data in `data` on this machine."""

    def __init__(self, data: Path, extra_broker_config: Mapping[str, str] | None = None) -> None:
        super().__init__(tag("kafka"), 9092)
        data.mkdir(parents=True, exist_ok=True)
        self.with_volume_mapping(data, "/data/log", "rw")
        self.with_env("WAIT_FOR_START", "yes")
        # The broker speaks to itself through INTERNAL: the advertised port of this machine is not there inside.
        config = {
            "listeners": "PLAINTEXT://0.0.0.0:9092,INTERNAL://localhost:29092,CONTROLLER://localhost:29093",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "INTERNAL",
            "controller.quorum.voters": "1@localhost:29093",
            **(extra_broker_config or {}),
        }
        for name, value in config.items():
            self.with_env(f"KAFKA_{name.upper().replace('.', '_')}", value)

    def start(self) -> Self:
        """Start it, tell it under which port it is known here, and wait until it answers."""
        super().start()
        advertised = f"PLAINTEXT://{self.address},INTERNAL://localhost:29092"
        script = f"export KAFKA_ADVERTISED_LISTENERS={advertised}\n# end\n".encode()
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            entry = tarfile.TarInfo("start.sh")
            entry.size, entry.mode = len(script), 0o755
            tar.addfile(entry, io.BytesIO(script))
        self.get_wrapped_container().put_archive("/", archive.getvalue())
        self.wait_until(lambda: broker_answers(self.address))
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
    """Which way stacks run in this process, and why. `LETHE_TEST_STACK` decides where both would do."""
    wish = os.environ.get(CHOICE, "")
    if wish not in ("", "containers", "processes"):
        raise ValueError(f"{CHOICE}={wish}: it is containers or processes")
    if wish == "processes":
        return "processes", f"{CHOICE} says so"
    if not engine_answers():
        reason = "no Docker engine answers"
    elif missing := [tag(name) for name in ("kafka", "registry") if not built(name)]:
        reason = f"a Docker engine answers, but {' and '.join(missing)} must be built first: make images"
    else:
        return "containers", f"{tag('kafka')}, {tag('registry')}"
    if wish == "containers":
        raise RuntimeError(f"{CHOICE}=containers, but {reason}")
    return "processes", reason


@contextmanager
def running_stack(home: Path, extra_broker_config: Mapping[str, str] | None = None) -> Iterator[RunningStack]:
    """A broker and a registry with nothing in them, on free loopback ports, with their data below `home`."""
    how, _ = chosen()
    settings = isolated(home)
    if how == "processes":
        with Stack(settings, extra_broker_config):
            yield RunningStack(settings, how, settings.broker_data)
        return
    remove_orphans()
    kafka = KafkaContainer(settings.broker_data, extra_broker_config)
    registry = RegistryContainer(settings.registry_data)
    with ExitStack() as running:
        running.enter_context(registry)  # takes longer, so it goes first
        running.enter_context(kafka)
        registry.wait_until(registry.answers)
        found = settings.model_copy(update={"bootstrap": kafka.address, "registry": registry.url})
        yield RunningStack(found, how, settings.broker_data)


def remove_orphans() -> None:
    """Remove containers of test processes that were killed."""
    client = DockerClient().client
    try:
        for container in client.containers.list(all=True, filters={"label": OWNER}):
            if not psutil.pid_exists(int(container.labels[OWNER])):
                container.remove(force=True, v=True)
    finally:
        client.close()
