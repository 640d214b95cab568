"""What operators' commands share: options that mean the same everywhere, moments and durations, Ctrl-C, progress, and
who is asking."""

from __future__ import annotations

import json
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from confluent_kafka import KafkaError, KafkaException
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from infra.errors import EXIT_ERROR, EXIT_NOT_UP, EXIT_USAGE, fail
from infra.settings import Settings

if TYPE_CHECKING:
    from infra.keys import KeyFile

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document, for programs.")]
Execute = Annotated[bool, typer.Option("--execute", help="Do it; without this, say what would be done.")]
Reason = Annotated[str | None, typer.Option(help="Why; goes into the audit.", show_default=False)]
By = Annotated[
    str | None, typer.Option(metavar="NAME", help="Who does it; else the machine's user.", show_default=False)
]

_CONNECT_S = 1.5
EXIT_INTERRUPTED = 130  # as shells have it
_UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_TAKEN_OVER = {KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED}
_UNKNOWN_TOPIC = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}


def duration(text: str) -> timedelta | None:
    """`90m`, `2h30m`, `7d`, or ISO 8601's `PT2H30M` and `P7D`; None for what is none."""
    plain = text.strip().lower().removeprefix("p").replace("t", "")
    found = re.fullmatch(r"(?:\d+[dhms])+", plain)
    if found is None:
        return None
    return timedelta(
        **{_UNITS[u]: sum(int(n) for n, v in re.findall(r"(\d+)([dhms])", plain) if v == u) for u in _UNITS}
    )


def moment_ms(option: str, text: str | None, now: datetime | None = None) -> int | None:
    """A moment in ms since 1970, from `2026-03-01T12:00` (UTC unless it says otherwise) or a duration before now.

    Ends the command with 2 if it is neither.
    """
    if text is None:
        return None
    ago = duration(text)
    if ago is not None:
        return int(((now or datetime.now(UTC)) - ago).timestamp() * 1000)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        fail(f"{option} must be a moment such as 2026-03-01T12:00, or how long ago such as 2h or 7d", EXIT_USAGE)
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)


def shown_ms(ms: int | None) -> str:
    """A moment as people read it, in UTC; empty for none."""
    return "" if ms is None else f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%SZ}"


def shown_seconds(seconds: float) -> str:
    """A duration as people read it: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C or SIGTERM came: what is in hand is finished, and the command ends between two transactions."""
    asked = threading.Event()
    before = {s: signal.signal(s, lambda *_: asked.set()) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


@contextmanager
def bar() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on a terminal, to be told what is done, how far, and how far it goes; nothing elsewhere."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        yield lambda what, done, of: progress.update(task, description=what, completed=done, total=of)


def answers(settings: Settings) -> bool:
    """Whether somebody listens where the broker should: known at once, where a client would try for half a minute."""
    host, _, port = settings.bootstrap.split(",")[0].rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
    except OSError:
        return False
    return True


def council_named(text: str) -> str:
    """The council's name, from it or from its code alone; ends the command with 2 if it can be none's."""
    from schemas.contracts import UnknownSupplierError, kind_of

    name = text if text.startswith("council-") else f"council-{text}"
    try:
        kind_of(name)
    except UnknownSupplierError:
        fail(f"{text!r} is no council's name; councils are named council-<code>, such as council-northam", EXIT_USAGE)
    return name


def known_supplier(settings: Settings, supplier: str) -> None:
    """End the command with 1 if nobody of that name supplies anything here."""
    from infra.provision import BrokerDownError, suppliers_of

    try:
        if supplier in suppliers_of(settings, deadline_seconds=10):
            return
    except BrokerDownError as e:
        fail(str(e), EXIT_NOT_UP)
    fail(f"{supplier} is no supplier here: `lethe supplier ls` lists them, `lethe supplier add` makes one")


def up(settings: Settings) -> Settings:
    """The settings, if somebody listens where the broker should; else the command ends at once with 3."""
    if not answers(settings):
        fail(f"nobody answers at {settings.bootstrap}: `lethe up` brings the stack up", EXIT_NOT_UP)
    return settings


def up_with_edition(settings: Settings) -> Settings:
    """As `up`, if the edition that the settings name is here; else the command ends with 1 and names those that are.

    Without this, what was retired would look like all being lost.
    """
    from infra.editions import topics
    from stream_processors.edition import Edition, editions_of

    mine = Edition(up(settings).edition)
    with asking():
        there = editions_of(topics(settings))
    if there and mine not in there:
        names = ", ".join(e.named() for e in there)
        fail(f"the edition {mine.named()} is not here; there is {names}: set LETHE_EDITION (`lethe rollout ls`)")
    return settings


def away(error: KafkaException, go_on: str = "") -> NoReturn:
    """End the command for an error of the broker: what it is by name, and what to do. `go_on`: how to go on later."""
    from stream_processors.runtime.kafka import describe, error_of

    found = error_of(error)
    if found.code() in _TAKEN_OVER:
        fail(f"another command of this kind took over ({describe(found)}); wait for it{go_on}", EXIT_ERROR)
    if found.code() in _UNKNOWN_TOPIC:
        fail(f"a topic is missing ({describe(found)}): `lethe provision` makes it{go_on}", EXIT_ERROR)
    fail(
        f"the broker does not answer ({describe(found)}): `lethe up` brings it up{go_on}. If it is up, it does not "
        "know this client: see LETHE_BOOTSTRAP, LETHE_SECURITY, and the credential (`lethe doctor`)",
        EXIT_NOT_UP,
    )


@contextmanager
def asking(go_on: str = "") -> Iterator[None]:
    """End the command with advice where the broker or the registry does not answer, or something is not provisioned.
    `go_on`: how to go on later."""
    from schemas.registry import RegistryDownError, SchemaNotRegisteredError

    try:
        yield
    except KafkaException as e:
        away(e, go_on)
    except RegistryDownError as e:
        fail(f"{e}: `lethe up` brings it up{go_on}", EXIT_NOT_UP)
    except SchemaNotRegisteredError as e:
        fail(f"{e}; `lethe provision` registers what is missing{go_on}", EXIT_ERROR)


def tell(document: Mapping[str, object], lines: Iterable[str], as_json: bool) -> None:
    """What came of a command: as one JSON document for programs, or in lines for people."""
    if as_json:
        typer.echo(json.dumps(document, indent=1))
        return
    for line in lines:
        typer.echo(line)


def files_told(files: Iterable[KeyFile]) -> dict[str, list[str]]:
    """Files that were made, and those that were there already, for `--json`."""
    files = list(files)
    return {"made": [str(f.path) for f in files if f.made], "kept": [str(f.path) for f in files if not f.made]}
