"""The broker and the registry, fetched once from Maven Central by `pom.xml`."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
POM = HERE / "pom.xml"
JAVA_VERSION = 17
_SHOWN_LINES = 15


class StackError(RuntimeError):
    """The local stack cannot do what was asked. The message says what to do about it."""


class ToolMissingError(StackError):
    """Java or Maven is not there, or too old."""


class FetchError(StackError):
    """Maven could not fetch everything."""


@dataclass(frozen=True)
class Dist:
    """What was fetched."""

    root: Path

    @property
    def kafka_libs(self) -> Path:
        """Folder of the broker's jars."""
        return self.root / "kafka" / "libs"

    @property
    def registry(self) -> Path:
        """Folder of the registry's runner, with its libraries beside it."""
        return self.root / "registry"

    @property
    def registry_jar(self) -> Path:
        """The registry's runner."""
        return self.registry / f"apicurio-registry-app-{version('registry')}-runner.jar"

    @property
    def stamp(self) -> Path:
        """Names the pom that was fetched last, in full."""
        return self.root / "fetched"

    @property
    def complete(self) -> bool:
        """Whether everything that the pom names is there."""
        return self.stamp.is_file() and self.stamp.read_text() == _wanted()


def version(of: str) -> str:
    """The version of `kafka` or `registry` that the pom names."""
    found = re.search(rf"<{of}\.version>([^<]+)<", POM.read_text())
    if found is None:
        raise StackError(f"{POM} names no version of {of}")
    return found[1]


def fetch(root: Path) -> Dist:
    """Fetch what is missing; at once if nothing is. Two that fetch at the same time do it once.

    Raises:
        ToolMissingError: there is no Maven or no Java 17.
        FetchError: Maven failed.
    """
    dist = Dist(root)
    if dist.complete:
        return dist
    root.mkdir(parents=True, exist_ok=True)
    with locked(root / "lock"):
        if not dist.complete:
            _maven(dist)
            dist.stamp.write_text(_wanted())
    return dist


def java() -> str:
    """The Java to run with: of JAVA_HOME, else the first on the path.

    Raises:
        ToolMissingError: none, or one older than 17.
    """
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin" if home else None)
    advice = f"install a Java {JAVA_VERSION} runtime (Debian: apt-get install openjdk-17-jre-headless)"
    if found is None:
        raise ToolMissingError(f"there is no java{f' in JAVA_HOME={home}' if home else ''}: {advice}")
    said = subprocess.run([found, "-version"], capture_output=True, text=True, check=False).stderr
    match = re.search(r'version "(?:1\.)?(\d+)', said)
    if match is None or int(match[1]) < JAVA_VERSION:
        raise ToolMissingError(f"{found} is older than Java {JAVA_VERSION}: {advice}")
    return found


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Nobody else is inside with the same path; the lock goes with the process that holds it."""
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _wanted() -> str:
    return hashlib.sha256(POM.read_bytes()).hexdigest()


def _maven(dist: Dist) -> None:
    java()
    if shutil.which("mvn") is None:
        raise ToolMissingError("there is no mvn: install Maven (Debian: apt-get install maven)")
    dist.stamp.unlink(missing_ok=True)
    for old in (dist.kafka_libs, dist.registry):  # the jars of another version would share the class path
        shutil.rmtree(old, ignore_errors=True)
    command = ["mvn", "--quiet", "--batch-mode", "--no-transfer-progress", "--strict-checksums", "--file", str(POM)]
    done = subprocess.run(
        [*command, f"-Ddist={dist.root}", "generate-resources"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    shutil.rmtree(dist.root / "maven", ignore_errors=True)
    if done.returncode:
        shown = "\n".join(done.stdout.splitlines()[:_SHOWN_LINES])
        raise FetchError(f"Maven could not fetch the broker and the registry (exit code {done.returncode}):\n{shown}")


def main() -> None:
    """`python -m infra.broker.fetch FOLDER`: fetch, and say in one line why if that fails."""
    try:
        fetch(Path(sys.argv[1]).resolve())
    except StackError as e:
        sys.exit(f"error: {e}")


if __name__ == "__main__":
    main()
