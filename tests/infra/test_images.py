"""What goes into the images: the mirror of the machine, the broker's settings, the files that they are made of."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from infra.broker.cluster import Stack, isolated
from infra.broker.fetch import HERE as BROKER
from infra.images import build
from infra.images.build import deb822_sources, mirrors, one_line_sources

DEB822 = """\
Types: deb deb-src
# a note with http://in.it
URIs: http://one.example/debian https://two.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
Enabled: no

Types: deb
URIs:
  http://folded.example/debian
Suites:
  trixie
Components: contrib main
"""


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("deb http://m.example/debian bookworm main contrib", [("http://m.example/debian", "bookworm")]),
        ("deb [arch=amd64 signed-by=/k.gpg] https://m.example/d trixie main", [("https://m.example/d", "trixie")]),
        ("deb http://m.example/debian bookworm contrib main # a note", [("http://m.example/debian", "bookworm")]),
        ("deb http://m.example/debian bookworm contrib # not main", []),
        ("deb-src http://m.example/debian bookworm main", []),
        ("# deb http://m.example/debian bookworm main", []),
        ("deb cdrom:[Debian]/ bookworm main", []),
        ("deb http://m.example/flat ./", []),
    ],
)
def test_one_line_sources(line: str, found: list[tuple[str, str]]) -> None:
    assert one_line_sources(f"\n{line}\n") == found


def test_deb822_sources() -> None:
    assert deb822_sources(DEB822) == [
        ("http://one.example/debian", "bookworm"),
        ("http://one.example/debian", "bookworm-updates"),
        ("https://two.example/debian", "bookworm"),
        ("https://two.example/debian", "bookworm-updates"),
        ("http://folded.example/debian", "trixie"),
    ]


def test_mirrors_are_read_from_the_files_that_apt_reads(tmp_path: Path) -> None:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (tmp_path / "sources.list").write_text("deb http://first.example/debian bookworm main\n")
    (parts / "debian.sources").write_text("Types: deb\nURIs: http://second.example\nSuites: s\nComponents: main\n")
    (parts / "off.list.disabled").write_text("deb http://off.example bookworm main\n")
    assert mirrors(tmp_path) == [("http://first.example/debian", "bookworm"), ("http://second.example", "s")]


def test_a_machine_without_package_sources_has_no_mirror(tmp_path: Path) -> None:
    assert mirrors(tmp_path) == []


def rendered(folder: Path, **environment: str) -> dict[str, str]:
    """The broker's settings as the image's entry point writes them, with a `java` that does nothing."""
    for file in (build.HERE / "kafka-entrypoint.sh", BROKER / "broker.properties"):
        (folder / file.name).write_bytes(file.read_bytes())
    java = folder / "java"
    java.write_text(f'#!/bin/sh\necho "$@" >> {folder}/java.log\n')
    java.chmod(0o755)
    config = folder / "server.properties"
    subprocess.run(
        ["/bin/sh", folder / "kafka-entrypoint.sh"],
        env={"PATH": f"{folder}:{os.environ['PATH']}", "CONFIG": str(config), "DATA": "/data/log", **environment},
        check=True,
    )
    lines = [line for line in config.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def test_settings_of_the_environment_go_before_those_of_the_file(tmp_path: Path) -> None:
    found = rendered(
        tmp_path,
        KAFKA_LISTENERS="PLAINTEXT://0.0.0.0:9092,CONTROLLER://localhost:29093",
        KAFKA_MESSAGE_MAX_BYTES="1000",
        KAFKA_SOME_VALUE="a=b c==",
        OTHER="x",
    )
    assert found["listeners"] == "PLAINTEXT://0.0.0.0:9092,CONTROLLER://localhost:29093"
    assert found["message.max.bytes"] == "1000"
    assert found["some.value"] == "a=b c=="
    assert found["log.dirs"] == "/data/log"
    assert "other" not in found


def test_an_image_and_a_local_process_have_the_same_settings_but_where_they_listen(tmp_path: Path) -> None:
    text = Stack(isolated(tmp_path))._server_properties()
    local = dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))
    image = rendered(tmp_path)
    of_the_place = {
        *("listeners", "advertised.listeners", "listener.security.protocol.map", "controller.quorum.voters"),
        "inter.broker.listener.name",
    }
    assert {k: v for k, v in local.items() if k not in of_the_place | {"log.dirs"}} == {
        k: v for k, v in image.items() if k != "log.dirs"
    }


def test_a_broker_is_formatted_once_and_then_started(tmp_path: Path) -> None:
    data = tmp_path / "log"
    data.mkdir()
    rendered(tmp_path, DATA=str(data))
    (data / "meta.properties").touch()
    rendered(tmp_path, DATA=str(data))
    calls = re.findall(r"kafka\.\w[\w.]*", (tmp_path / "java.log").read_text().replace("server.properties", ""))
    assert [call for call in calls if call in ("kafka.tools.StorageTool", "kafka.Kafka")] == [
        "kafka.tools.StorageTool",
        "kafka.Kafka",
        "kafka.Kafka",
    ]


def test_java_is_told_where_the_classes_of_the_image_are(tmp_path: Path) -> None:
    rendered(tmp_path, DATA=str(tmp_path / "none"))
    rendered(tmp_path, DATA=str(tmp_path / "none"), JAVA_ARCHIVE="-XX:ArchiveClassesAtExit=classes.jsa")
    calls = (tmp_path / "java.log").read_text().splitlines()
    archives = [re.findall(r"-XX:\w*Archive\w*=\S+", call) for call in calls]
    kept = f"-XX:SharedArchiveFile={tmp_path}/classes.jsa"
    assert archives == [[kept], [kept], [kept], ["-XX:ArchiveClassesAtExit=classes.jsa"]]


@pytest.mark.parametrize("name", ["kafka", "registry"])
def test_a_dockerfile_copies_only_what_the_context_has(name: str) -> None:
    text = (build.HERE / f"{name}.Dockerfile").read_text()
    assert f"ARG BASE={build.PUBLIC_BASE}" in text
    copied = {word for line in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE) for word in line.split()}
    files = {file.name for file in build._FILES[name]}
    assert copied == files | {build.dist_path(name), "empty", "--chown=1000:1000"}
    runs = re.findall(r"^(?:RUN|ADD)\b(?:.*\\\n)*.*", text, re.MULTILINE)
    assert len(runs) == 1, "nothing is fetched into an image"
    assert "/archive-classes.sh " in runs[0]


def test_an_image_is_outdated_when_a_file_of_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = build._made_of("kafka")
    changed = tmp_path / "broker.properties"
    changed.write_text("x=y\n")
    monkeypatch.setitem(build._FILES, "kafka", [*build._FILES["kafka"][:1], changed])
    assert build._made_of("kafka") != before
