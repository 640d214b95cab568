"""Build `lethe/kafka:<version>` and `lethe/registry:<version>`; at once if they are there as they should be.

Without an image registry to pull the base from, a base is made with debootstrap from the mirror that this machine's own
package sources name.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from infra.broker.fetch import HERE as BROKER
from infra.broker.fetch import Dist, StackError, fetch, locked, version
from infra.settings import Settings

HERE = Path(__file__).parent
PUBLIC_BASE = "eclipse-temurin:17-jre"
LOCAL_BASE = "lethe/base:17"
_UNFINISHED = "lethe/base:unfinished"
LABEL = "lethe.built-from"
DEBOOTSTRAP = "debootstrap"
_FILES = {
    "kafka": [
        HERE / "kafka-entrypoint.sh",
        HERE / "archive-classes.sh",
        *(BROKER / f"{name}.properties" for name in ("broker", "tls", "log4j2")),
    ],
    "registry": [HERE / "registry-entrypoint.sh", HERE / "archive-classes.sh", BROKER / "registry.properties"],
}


class ImageError(StackError):
    """An image cannot be built. The message says what to do about it."""


def tag(name: str) -> str:
    """The full name of the image of `kafka` or `registry`."""
    return f"lethe/{name}:{version(name)}"


def engine_answers() -> bool:
    """Whether there is a Docker engine that this user may use."""
    if shutil.which("docker") is None:
        return False
    return _docker("version", "--format", "{{.Server.Version}}", check=False).returncode == 0


def built(name: str) -> bool:
    """Whether the image is there, and made of the files as they are now."""
    found = _docker("image", "inspect", "--format", f'{{{{ index .Config.Labels "{LABEL}" }}}}', tag(name), check=False)
    return found.returncode == 0 and found.stdout.strip() == _made_of(name)


def build(dist: Dist, base: str | None = None) -> list[str]:
    """Build the images that are missing or outdated; their names. Two that build at the same time do it once.

    `base`: an image with a Java 17 runtime; `debootstrap` to make one; None tries the public one first.

    Raises:
        ImageError: no base can be had, or the engine refuses.
    """
    with locked(dist.root / "images.lock"):
        return _build(dist, base)


def _build(dist: Dist, base: str | None) -> list[str]:
    missing = [name for name in _FILES if not built(name)]
    if missing:
        base = _base(base)
    for name in missing:
        with TemporaryDirectory(prefix="lethe-image-") as folder:
            context = Path(folder)
            (context / "empty").mkdir()
            _tree(dist.kafka_libs if name == "kafka" else dist.registry, context / dist_path(name))
            for file in _FILES[name]:
                shutil.copy2(file, context)
            _docker(
                *("build", "--quiet", "--network", "none"),
                *("--build-arg", f"BASE={base}", "--label", f"{LABEL}={_made_of(name)}"),
                *("--tag", tag(name), "--file", str(HERE / f"{name}.Dockerfile"), folder),
            )
    return [tag(name) for name in missing]


def dist_path(name: str) -> str:
    """Where the Dockerfile expects the downloads."""
    return "kafka/libs" if name == "kafka" else name


def mirrors(folder: Path = Path("/etc/apt")) -> list[tuple[str, str]]:
    """Mirror and suite of the Debian package sources of this machine, in the order in which apt reads them."""
    files = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]
    return [
        found
        for path in files
        if path.suffix in _PARSERS and path.is_file()
        for found in _PARSERS[path.suffix](path.read_text(errors="replace"))
    ]


def one_line_sources(text: str) -> list[tuple[str, str]]:
    """Mirror and suite of each `deb [options] mirror suite component...` with the component main."""
    lines = re.findall(r"^[ \t]*deb[ \t]+(?:\[[^]]*\][ \t]*)?(\S+)[ \t]+(\S+)[ \t]+([^#\n]+)", text, re.MULTILINE)
    return [(uri, suite) for uri, suite, components in lines if "main" in components.split() and _reachable(uri)]


def deb822_sources(text: str) -> list[tuple[str, str]]:
    """The same of the other notation: stanzas of fields, of which several may have more than one word."""
    found = []
    text = re.sub(r"^#.*\n?", "", text, flags=re.MULTILINE)
    for stanza in re.split(r"\n[ \t]*\n", text):
        pairs = re.findall(r"^(\w[\w-]*):((?:.*\n[ \t]+)*.*)$", stanza, re.MULTILINE)
        fields = {name.lower(): words.split() for name, words in pairs}
        if fields.get("enabled", ["yes"])[0] == "no" or "deb" not in fields.get("types", []):
            continue
        if "main" in fields.get("components", []):
            uris = [uri for uri in fields.get("uris", []) if _reachable(uri)]
            found += [(uri, suite) for uri in uris for suite in fields.get("suites", [])]
    return found


_PARSERS = {".list": one_line_sources, ".sources": deb822_sources}


def _reachable(uri: str) -> bool:
    return uri.startswith(("http://", "https://", "file:/"))  # what debootstrap can read


def _base(base: str | None) -> str:
    if base not in (None, DEBOOTSTRAP):
        assert base is not None
        return base
    if _docker("image", "inspect", LOCAL_BASE, check=False).returncode == 0:
        return LOCAL_BASE
    if base is None and _docker("pull", "--quiet", PUBLIC_BASE, check=False).returncode == 0:
        return PUBLIC_BASE
    _debootstrap()
    return LOCAL_BASE


def _debootstrap() -> None:
    codename = _os_release().get("VERSION_CODENAME", "")
    mirror = next((uri for uri, suite in mirrors() if suite == codename), None)
    if os.geteuid() != 0 or shutil.which("debootstrap") is None or mirror is None:
        raise ImageError(
            f"no base image: {PUBLIC_BASE} cannot be pulled, and making one takes root, debootstrap and Debian "
            "package sources. Name an image with a Java 17 runtime: --base IMAGE"
        )
    with TemporaryDirectory(prefix="lethe-base-") as folder:
        root = Path(folder, "root")
        packages = "--include=openjdk-17-jre-headless,ca-certificates"
        _run(["debootstrap", "--variant=minbase", packages, codename, str(root), mirror])
        for path in ("var/cache/apt", "var/lib/apt/lists", "var/log", "usr/share/doc", "usr/share/man"):
            shutil.rmtree(root / path, ignore_errors=True)
            (root / path).mkdir(exist_ok=True)
        for path in ("etc/apt/sources.list", "etc/resolv.conf", "etc/hostname"):  # of the machine that built it
            (root / path).unlink(missing_ok=True)
        with subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as tar:
            try:
                _run(["docker", "import", "--change", "ENV LANG=C.UTF-8", "-", _UNFINISHED], stdin=tar.stdout)
            finally:
                assert tar.stdout is not None
                tar.stdout.close()  # ends tar where the engine refused
        if tar.returncode:
            raise ImageError(f"tar failed (exit code {tar.returncode}): is there space left in {folder}?")
        _docker("tag", _UNFINISHED, LOCAL_BASE)
        _docker("rmi", _UNFINISHED)


def _os_release() -> dict[str, str]:
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except OSError:
        return {}
    return {k: "".join(shlex.split(v)) for k, _, v in (line.partition("=") for line in lines) if v}


def _made_of(name: str) -> str:
    digest = hashlib.sha256((BROKER / "pom.xml").read_bytes())
    for path in [HERE / f"{name}.Dockerfile", *_FILES[name]]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _tree(source: Path, target: Path) -> None:
    """The same files, without copying their bytes where the file system allows."""

    def link(src: str, dst: str) -> None:
        try:
            os.link(src, dst)
        except OSError:
            shutil.copy2(src, dst)

    shutil.copytree(source, target, copy_function=link)


def _docker(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return _run(["docker", *arguments], check=check)


def _run(command: Sequence[str], check: bool = True, stdin: object = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "DOCKER_BUILDKIT": "0"}  # buildx is a package of its own, and often not there
    done = subprocess.run(command, stdin=stdin, capture_output=True, text=True, env=env, check=False)  # type: ignore[call-overload]
    if check and done.returncode:
        shown = "\n".join((done.stderr or done.stdout).splitlines()[-10:])
        raise ImageError(f"{shlex.join(command[:2])} failed (exit code {done.returncode}):\n{shown}")
    result: subprocess.CompletedProcess[str] = done
    return result


def main(
    base: Annotated[
        str | None, typer.Option(help=f"Image with a Java 17 runtime, or {DEBOOTSTRAP} to make one here.")
    ] = None,
    if_engine: Annotated[
        bool, typer.Option("--if-engine", help="Say so and end with 0 where there is no engine or no base image.")
    ] = False,
) -> None:
    """Build the images that are missing or outdated.

    Example: python -m infra.images.build --base eclipse-temurin:17-jre
    """
    try:
        if not engine_answers():
            raise ImageError("there is no Docker engine that answers")
        for name in build(fetch(Settings().dist), base):
            typer.echo(f"built {name}")
    except StackError as e:
        typer.echo(f"{'no images' if if_engine else 'error'}: {e}", err=True)
        sys.exit(0 if if_engine else 1)


if __name__ == "__main__":
    typer.run(main)
