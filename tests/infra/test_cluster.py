"""The local stack: real processes on ports and in a directory of the tests' own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import typer
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from typer.testing import CliRunner

from infra.broker import cluster
from infra.broker.cluster import NotAnsweringError, NotLocalError, PortTakenError, Stack, isolated
from infra.broker.daemon import Daemon
from infra.broker.fetch import ToolMissingError, fetch, java
from infra.broker.ports import HOST, free_ports, is_free
from infra.commands.stack import data_folders, down, status, up
from infra.settings import Settings

containers = pytest.mark.containers
SCHEMA = '{"type": "record", "name": "Thing", "fields": [{"name": "id", "type": "string"}]}'

commands = typer.Typer()
for _command in (up, down, status):
    commands.command()(_command)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of this module's own. Tests stop and start it; `local` finds it up."""
    made = Stack(isolated(tmp_path_factory.mktemp("stack"), Settings()))
    yield made
    made.down()


@pytest.fixture
def local(home: Stack) -> Stack:
    home.up()
    return home


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of a stack that is not up."""
    return isolated(tmp_path, Settings())


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server((HOST, 0)) as server:
        yield server


def port_of(server: socket.socket) -> int:
    port: int = server.getsockname()[1]
    return port


def pids(stack: Stack) -> list[int]:
    found = [p.pid for p in stack.status()]
    return [pid for pid in found if pid is not None]


def states(stack: Stack) -> list[str]:
    return [p.state for p in stack.status()]


def run(settings: Settings, *arguments: str) -> Any:
    return CliRunner().invoke(commands, list(arguments), env=settings.environment())


def leave_traces(settings: Settings, name: str) -> int:
    """A topic with a record and a registered schema, both called `name`; the schema's id."""
    admin = AdminClient({"bootstrap.servers": settings.bootstrap})
    admin.create_topics([NewTopic(name, 1, 1)])[name].result()
    producer = Producer({"bootstrap.servers": settings.bootstrap, "acks": "all"})
    producer.produce(name, b"value", b"key")
    assert producer.flush(10) == 0
    id_: int = SchemaRegistryClient({"url": settings.registry}).register_schema(name, Schema(SCHEMA, "AVRO"))
    return id_


def assert_traces(settings: Settings, name: str, schema_id: int) -> None:
    found = SchemaRegistryClient({"url": settings.registry}).get_latest_version(name)
    assert found.schema_id == schema_id
    assert json.loads(found.schema.schema_str) == json.loads(SCHEMA)
    consumer = Consumer({"bootstrap.servers": settings.bootstrap, "group.id": name})
    try:
        consumer.assign([TopicPartition(name, 0, 0)])
        message = consumer.poll(20)
        assert message is not None
        assert (message.key(), message.value()) == (b"key", b"value")
    finally:
        consumer.close()


# Up


@containers
def test_up_returns_when_both_answer(local: Stack) -> None:
    assert states(local) == ["up", "up"]
    assert SchemaRegistryClient({"url": local.settings.registry}).get_subjects() is not None
    found = AdminClient({"bootstrap.servers": local.settings.bootstrap}).list_topics(timeout=5)
    assert [f"{b.host}:{b.port}" for b in found.brokers.values()] == [local.settings.bootstrap]


@containers
def test_a_second_up_leaves_what_runs(local: Stack) -> None:
    before = pids(local)
    assert not Stack(local.settings).up()
    assert pids(local) == before


@containers
def test_a_broker_that_lost_its_port_to_another_is_not_taken_for_it(
    local: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two find one port free, and the other is faster."""
    theirs = isolated(tmp_path).model_copy(update={"bootstrap": local.settings.bootstrap})
    monkeypatch.setattr(cluster, "is_free", lambda _port: True)
    with pytest.raises(NotAnsweringError, match="the broker ended while it started"):
        Stack(theirs).up()
    assert states(local) == ["up", "up"]


@containers
def test_two_ups_at_once_start_one_stack(home: Stack) -> None:
    home.down()
    with ThreadPoolExecutor(2) as pool:
        started = list(pool.map(lambda s: s.up(), [Stack(home.settings), Stack(home.settings)]))
    assert sorted(started) == [False, True]
    assert states(home) == ["up", "up"]


@containers
def test_only_loopback_is_listened_on(local: Stack) -> None:
    listening = [
        c.laddr.ip
        for pid in pids(local)
        for c in psutil.Process(pid).net_connections("inet")
        if c.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 3
    assert set(listening) <= {HOST, f"::ffff:{HOST}"}


@containers
def test_the_broker_takes_no_misspelt_topic_and_stamps_on_arrival(local: Stack) -> None:
    admin = AdminClient({"bootstrap.servers": local.settings.bootstrap})
    (future,) = admin.describe_configs([ConfigResource(ResourceType.BROKER, "1")]).values()
    found = {name: entry.value for name, entry in future.result().items()}
    assert found["auto.create.topics.enable"] == "false"
    assert found["log.message.timestamp.type"] == "LogAppendTime"
    assert found["message.max.bytes"] == "10485760"
    assert found["group.min.session.timeout.ms"] == "6000"


@containers
def test_a_transaction_commits_on_one_node(local: Stack) -> None:
    leave_traces(local.settings, "transacted")
    producer = Producer({"bootstrap.servers": local.settings.bootstrap, "transactional.id": "t"})
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce("transacted", b"value")
    producer.commit_transaction(20)


# What stays


@containers
def test_schemas_and_records_survive_a_restart(local: Stack) -> None:
    id_ = leave_traces(local.settings, "restarted")
    before = pids(local)
    assert local.down()
    assert local.up()
    assert not set(pids(local)) & set(before)
    assert_traces(local.settings, "restarted", id_)


@containers
def test_schemas_and_records_survive_a_kill(local: Stack) -> None:
    id_ = leave_traces(local.settings, "killed")
    killed = [psutil.Process(pid) for pid in pids(local)]
    for process in killed:
        process.send_signal(signal.SIGKILL)
    psutil.wait_procs(killed, 10)
    assert states(local) == ["down", "down"]
    assert local.up()
    assert_traces(local.settings, "killed", id_)


# Down


@containers
def test_down_leaves_no_process_and_no_port(home: Stack) -> None:
    home.up()
    before = pids(home)
    assert home.down()
    assert not any(psutil.pid_exists(pid) for pid in before)
    assert all(is_free(p.port) for p in home.status())
    assert is_free(home.settings.controller_port)
    assert states(home) == ["down", "down"]
    assert not home.down()


def test_down_without_an_up_is_no_error(settings: Settings) -> None:
    assert not Stack(settings).down()
    assert not settings.run.exists()


@pytest.mark.parametrize("differs", ["start", "command"])
def test_down_leaves_a_process_that_was_given_an_old_pid(settings: Settings, differs: str) -> None:
    """A process is ours if both its start time and its command line say so."""
    settings.run.mkdir(parents=True)
    argument = str(settings.run) if differs == "start" else "elsewhere"
    with subprocess.Popen([sys.executable, "-c", "input()", argument], stdin=subprocess.PIPE) as other:
        at = psutil.Process(other.pid).create_time() - (3600 if differs == "start" else 0)
        (settings.run / "broker.pid").write_text(json.dumps({"pid": other.pid, "started": at}))
        time.sleep(0.2)  # its command line is empty while the program is being loaded
        assert Stack(settings).status()[0].pid is None
        assert not Stack(settings).down()
        assert other.poll() is None
        other.communicate(b"\n")


@pytest.mark.parametrize("text", ["", "17", "{}", '{"pid": "x", "started": 1}', '{"pid": -1, "started": 1}'])
def test_a_broken_pid_file_is_nobody(settings: Settings, text: str) -> None:
    settings.run.mkdir(parents=True)
    (settings.run / "broker.pid").write_text(text)
    assert states(Stack(settings)) == ["down", "down"]
    assert not Stack(settings).down()


def test_a_daemon_outlives_its_terminal_and_stops(tmp_path: Path) -> None:
    daemon = Daemon("sleeper", tmp_path)
    daemon.start([sys.executable, "-c", "import time; time.sleep(600)", str(tmp_path)])
    found = Daemon("sleeper", tmp_path).process()
    assert found is not None
    assert os.getsid(found.pid) == found.pid
    assert daemon.stop()
    assert not found.is_running()
    assert not daemon.stop()


def test_a_daemon_that_ignores_the_request_is_forced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.broker.daemon._STOP_S", 0.5)
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    daemon = Daemon("deaf", tmp_path)
    daemon.start([sys.executable, "-c", deaf, str(tmp_path)])
    found = daemon.process()
    assert found is not None
    while daemon.tail() != "deaf":
        assert found.is_running()
    assert daemon.stop()
    assert not found.is_running()


# Class archives


@containers
def test_the_first_stack_leaves_class_archives_for_the_next(home: Stack, tmp_path: Path) -> None:
    home.down()
    dist = tmp_path / "dist"
    dist.mkdir()
    for part in ("kafka", "registry", "fetched"):
        (dist / part).symlink_to(home.settings.dist / part)
    first, second = (Stack(isolated(tmp_path / n, Settings(dist_dir=dist))) for n in ("first", "second"))
    with first:
        assert not list(dist.glob("*.jsa*"))
    archives = sorted(dist.glob("*.jsa*"))
    assert [a.name.partition("-")[0] for a in archives] == ["broker", "registry"]
    assert not list(first.settings.run.glob("*.jsa"))
    with second:
        for pid, archive in zip(pids(second), archives, strict=True):
            assert str(archive) in {m.path for m in psutil.Process(pid).memory_maps()}
    assert sorted(dist.glob("*.jsa*")) == archives


def test_an_archive_that_was_not_finished_is_not_kept(tmp_path: Path) -> None:
    settings = isolated(tmp_path / "home", Settings(dist_dir=tmp_path / "dist"))
    settings.run.mkdir(parents=True)
    settings.dist.mkdir()
    for program, head in (("broker", b"\0\0\0\0"), ("registry", b"\xa8\xba\x0b\xf0")):
        (settings.run / f"{program}-1.jsa").write_bytes(head + b"classes")
    (settings.dist / "registry-0.jsa").touch()
    Stack(settings).down()
    assert [p.name for p in settings.dist.iterdir()] == ["registry-1.jsa"]
    assert not list(settings.run.glob("*.jsa"))


# What stands in the way


@pytest.mark.parametrize("variable", ["LETHE_BOOTSTRAP", "LETHE_CONTROLLER_PORT", "LETHE_REGISTRY"])
def test_a_busy_port_is_named_with_who_has_it(settings: Settings, listener: socket.socket, variable: str) -> None:
    port = port_of(listener)
    busy: dict[str, dict[str, str | int]] = {
        "LETHE_BOOTSTRAP": {"bootstrap": f"{HOST}:{port}"},
        "LETHE_CONTROLLER_PORT": {"controller_port": port},
        "LETHE_REGISTRY": {"registry": f"http://{HOST}:{port}/apis/ccompat/v7"},
    }
    stack = Stack(settings.model_copy(update=busy[variable]))
    with pytest.raises(PortTakenError, match=rf"port {port} .*pid {os.getpid()}.*{variable}"):
        stack.up()
    assert pids(stack) == []


@containers
def test_a_stack_of_another_home_is_foreign_and_left_alone(local: Stack, settings: Settings) -> None:
    ports = {"bootstrap": local.settings.bootstrap, "registry": local.settings.registry}
    other = Stack(settings.model_copy(update=ports))
    assert [(p.state, p.pid, p.answers) for p in other.status()] == [("foreign", None, True)] * 2
    with pytest.raises(PortTakenError):
        other.up()
    assert not other.down()
    assert states(local) == ["up", "up"]


@containers
def test_of_another_homes_broker_no_deletion_is_said_to_wait_or_not_to_wait(local: Stack, settings: Settings) -> None:
    other = settings.model_copy(update={"bootstrap": local.settings.bootstrap, "registry": local.settings.registry})
    assert json.loads(run(other, "status", "--json").stdout)["deletions_on_disk"] is None
    assert "not looked at" in run(other, "status").stdout


@containers
def test_settings_that_name_other_ports_than_the_stack_was_started_on_are_told_so(local: Stack) -> None:
    moved = local.settings.model_copy(update={"bootstrap": f"{HOST}:{free_ports(1)[0]}"})
    found = Stack(moved).status()
    assert [(p.state, p.pid, p.answers) for p in found] == [
        ("elsewhere", pids(local)[0], False),
        ("up", pids(local)[1], True),
    ]
    assert local.settings.bootstrap == f"{HOST}:{found[0].port}"
    for command in ("status", "up"):
        done = run(moved, command)
        assert done.exit_code != 0
        assert f"port {found[0].port}" in done.stderr
        assert "LETHE_BOOTSTRAP" in done.stderr
    assert states(local) == ["up", "up"]


@containers
def test_a_broker_that_cannot_start_shows_its_log_and_takes_the_registry_with_it(settings: Settings) -> None:
    stack = Stack(settings, {"metric.reporters": "no.such.Reporter"})
    with pytest.raises(NotAnsweringError, match=r"broker ended while it started(.|\n)*no\.such\.Reporter") as e:
        stack.up()
    assert str(settings.run / "broker.log") in str(e.value)
    assert states(stack) == ["down", "down"]


@containers
def test_a_start_that_takes_too_long_is_given_up(settings: Settings) -> None:
    stack = Stack(settings)
    with pytest.raises(NotAnsweringError, match="does not answer") as e:
        stack.up(deadline_s=0)
    assert str(settings.run) in str(e.value)
    assert states(stack) == ["down", "down"]


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"bootstrap": "broker.example:9092"},
        {"bootstrap": f"{HOST}:19092,{HOST}:19094"},
        {"bootstrap": HOST},
        {"registry": "http://registry.example:8081"},
    ],
)
def test_a_stack_elsewhere_is_not_started_here(settings: Settings, elsewhere: dict[str, str]) -> None:
    with pytest.raises(NotLocalError, match="LETHE_"):
        Stack(settings.model_copy(update=elsewhere))


# Commands


@containers
def test_status_names_every_process_and_every_directory(local: Stack) -> None:
    done = run(local.settings, "status", "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["up"] is True
    assert [(p["name"], p["state"], p["pid"]) for p in said["processes"]] == [
        ("broker", "up", pids(local)[0]),
        ("registry", "up", pids(local)[1]),
    ]
    sizes = {Path(d["path"]): d["bytes"] for d in said["directories"]}
    assert sizes[local.settings.broker_data] > 0
    assert sizes[local.settings.registry_data] > 0


def test_every_directory_of_the_settings_that_holds_data_is_listed(settings: Settings) -> None:
    """A new one must be listed too, or declared here to hold none."""
    no_data = {"base", "dist", "run"}
    paths = {
        value
        for name, member in vars(Settings).items()
        if isinstance(member, property) and name not in no_data and isinstance(value := getattr(settings, name), Path)
    }
    assert {settings.broker_data, settings.registry_data, settings.state, settings.keys, settings.rejects} <= paths
    listed = {f.path for f in data_folders(settings)}
    assert [p for p in paths if not {p, *p.parents} & listed] == []


@containers
def test_everything_that_the_stack_writes_is_in_a_listed_directory_or_in_run(local: Stack) -> None:
    known = [f.path for f in data_folders(local.settings)] + [local.settings.run, local.settings.dist]
    written = [p for p in local.settings.base.rglob("*") if p.is_file()]
    assert written
    assert [p for p in written if not any(p.is_relative_to(k) for k in known)] == []


def test_status_of_nothing_says_what_to_do(settings: Settings) -> None:
    done = run(settings, "status")
    assert done.exit_code == 3
    assert "lethe up" in done.stderr
    assert not settings.run.exists()


@containers
def test_up_provisions_and_down_stops(home: Stack) -> None:
    home.down()
    first = run(home.settings, "up")
    assert first.exit_code == 0, first.output
    subjects = SchemaRegistryClient({"url": home.settings.registry}).get_subjects()
    second = run(home.settings, "up")
    assert "was up already" in second.output
    assert " 0 of them new" in second.output
    assert sorted(SchemaRegistryClient({"url": home.settings.registry}).get_subjects()) == sorted(subjects)
    assert len(subjects) > 0
    assert run(home.settings, "down").exit_code == 0
    assert run(home.settings, "status").exit_code == 3


def test_up_on_a_busy_port_ends_with_one_line(settings: Settings, listener: socket.socket) -> None:
    done = run(settings.model_copy(update={"bootstrap": f"{HOST}:{port_of(listener)}"}), "up")
    assert done.exit_code == 1
    assert done.stderr.startswith(f"error: port {port_of(listener)} ")
    assert done.stderr.count("\n") == 1


# Downloads and helpers


def test_downloads_of_the_same_pom_are_not_fetched_again(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    dist = Stack(settings).fetch()
    assert dist.root == Settings().dist
    assert dist.registry_jar.is_file()
    assert any(dist.kafka_libs.glob("kafka_2.13-*.jar"))
    monkeypatch.setenv("PATH", str(tmp_path))  # no Maven, so it would fail
    assert fetch(dist.root) == dist


def test_a_missing_maven_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = shutil.which("java")
    assert found is not None
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").symlink_to(found)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(ToolMissingError, match="install Maven"):
        fetch(tmp_path / "dist")


@pytest.mark.parametrize(("said", "message"), [(None, "no java"), ("11.0.2", "older"), ("1.8.0_392", "older")])
def test_a_missing_or_old_java_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str | None, message: str
) -> None:
    if said is not None:
        (tmp_path / "java").write_text(f"#!/bin/sh\necho 'openjdk version \"{said}\"' >&2\n")
        (tmp_path / "java").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(ToolMissingError, match=message):
        java()


def test_isolated_settings_share_downloads_and_nothing_else(tmp_path: Path) -> None:
    base = Settings(home=tmp_path / "base")
    ours = isolated(tmp_path / "ours", base)
    assert ours.dist == base.dist
    for port in ("bootstrap", "controller_port", "registry"):
        assert getattr(ours, port) != getattr(base, port)
    assert all(f.path.is_relative_to(tmp_path / "ours") for f in data_folders(ours))


def test_processes_that_begin_together_find_different_free_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []
    for pid in range(1_000, 1_024):
        monkeypatch.setattr(os, "getpid", lambda pid=pid: pid)
        found += free_ports(4)
    assert len(set(found)) == len(found)


def test_free_ports_differ_and_leave_out_what_they_are_told(listener: socket.socket) -> None:
    first = free_ports(3)
    assert len(set(first)) == 3
    assert not set(free_ports(50, but=first)) & set(first)
    assert not is_free(port_of(listener))
