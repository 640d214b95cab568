"""The live view of `lethe top`: tables that are drawn anew at each look."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from confluent_kafka import KafkaException
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.widgets import Footer, Header, Static

from infra.monitoring.picture import Sample, Sampler, Stage, picture, quarantined
from infra.settings import Settings
from infra.tables import listing
from stream_processors.runtime.kafka import describe, error_of

_ONWARD = ("linkage.", "research.")
"""What leads on in the picture; the rest is beside it."""
_WIDE = 110
"""Columns of a screen that has room for what a processor writes."""
_STYLE = {"ready": "green", "catching up": "yellow", "stuck": "bold red", "silent": "red", "not running": "dim"}


@dataclass(frozen=True)
class Watched:
    """One look: a sample, records in quarantine by (supplier, dataset, class of error), and open alerts."""

    sample: Sample
    quarantine: Mapping[tuple[str, str, str], int]
    alerts: Sequence[Mapping[str, Any]]


def watched(settings: Settings, sampler: Sampler) -> Watched:
    """Look at everything once.

    Raises:
        KafkaException: the broker does not answer.
        RegistryDownError: the registry does not.
    """
    from infra.topic_table import table
    from schemas.registry import Registry
    from schemas.rows import from_value

    registry = Registry(settings.registry, deadline_seconds=5)
    try:
        failed = quarantined(settings, registry)
        alerts = [from_value("governance.alert", v, registry) for v in table(settings, "governance.alert").values()]
    finally:
        registry.close()
    return Watched(sampler.sample(), failed, alerts)


@dataclass(frozen=True)
class _Flow:
    stages: Sequence[Stage]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield _flow(self.stages, with_writes=options.max_width >= _WIDE)


def shown(stages: Sequence[Stage]) -> RenderableType:
    """The flow, top to bottom: what arrives on each arrow, and the processor that it leads to; on a narrow screen not
    what that writes, which is what others read."""
    return _Flow(stages)


def _flow(stages: Sequence[Stage], *, with_writes: bool) -> Table:
    out = listing()
    names = ("reads", "in, a second", "behind", "oldest waits", "", "processor", "here")
    for name in (*names, "writes") if with_writes else names:
        numbers = name in ("in, a second", "behind", "oldest waits")
        whole = name in ("reads", "processor")
        out.add_column(name, justify="right" if numbers else "left", overflow="fold", no_wrap=whole)
    for stage in stages:
        writes = [", ".join(t for t in stage.writes if t.startswith(_ONWARD))] if with_writes else []
        for i, arrow in enumerate(stage.arrows):
            late = "bold red" if arrow.age_s > 600 else "yellow" if arrow.age_s > 30 else ""
            out.add_row(
                arrow.topic,
                "" if arrow.rate is None else f"{arrow.rate:,.0f}",
                Text(f"{arrow.behind:,}", late),
                Text(f"{arrow.age_s:,.0f} s" if arrow.behind else "", late),
                "──►",
                Text(stage.processor, "bold") if i == 0 else "",
                Text(_instances(stage), _STYLE.get(stage.health, "")) if i == 0 else "",
                *writes[i:1],
            )
    return out


def _instances(stage: Stage) -> str:
    return stage.health if len(stage.instances) < 2 else f"{len(stage.instances)} instances, {stage.health}"


def beside(watched: Watched) -> RenderableType:
    """What is beside the flow: restores under way, quarantine, alerts."""
    parts: list[RenderableType] = []
    restores = [(s.process, p, ratio) for s in watched.sample.seen for p, ratio in s.restores.items()]
    if restores:
        table = Table("state is restored", "partition", "", expand=True)
        for process, partition, ratio in restores:
            table.add_row(process, partition, ProgressBar(total=1.0, completed=ratio, width=40))
        parts.append(table)
    table = listing("in quarantine", "dataset", "class", "records")
    for (supplier, dataset, error), n in sorted(watched.quarantine.items(), key=lambda kv: -kv[1])[:10]:
        table.add_row(supplier, dataset, error, f"{n:,}")
    parts.append(table if watched.quarantine else Text("nothing is in quarantine", "green"))
    table = listing("alert", "where", "severity", "count")
    for row in watched.alerts:
        table.add_row(row["kind"], row["where"], row["severity"], f"{row['count']:,}")
    parts.append(table if watched.alerts else Text("no alerts", "green"))
    return Group(*parts)


class TopApp(App[None]):
    """The view. `look` is called in a thread of its own, and a look that fails says so and is tried again."""

    TITLE = "lethe top"
    BINDINGS: ClassVar[list[BindingType]] = [("q", "quit", "Quit"), ("space", "pause", "Pause")]

    def __init__(self, look: Callable[[], Watched], every_s: float = 2.0) -> None:
        super().__init__()
        self._look, self._every_s = look, every_s
        self._before: Sample | None = None
        self._paused = False
        self._looking = False

    def compose(self) -> ComposeResult:
        """The flow above, the rest below."""
        yield Header(show_clock=True)
        with VerticalScroll():
            yield Static("looking…", id="flow")
            yield Static("", id="beside")
        yield Footer()

    def on_mount(self) -> None:
        """Look now, and then again and again."""
        self.call_after_refresh(self._again)  # once what it draws into is there
        self.set_interval(self._every_s, self._again)

    def action_pause(self) -> None:
        """Hold the picture, or let it go on."""
        self._paused = not self._paused
        self.sub_title = "paused" if self._paused else ""

    def _again(self) -> None:
        if not self._paused and not self._looking and self.query("#flow"):
            self._looking = True
            self.run_worker(self._take, thread=True, exclusive=True)

    def _take(self) -> None:
        try:
            found = self._look()
        except KafkaException as e:
            self.call_from_thread(self._say, f"the broker does not answer ({describe(error_of(e))}): `lethe up`")
        except ConnectionError:
            self.call_from_thread(self._say, "the registry does not answer: `lethe up`")
        else:
            self.call_from_thread(self._show, found)
        finally:
            self._looking = False

    def _say(self, text: str) -> None:
        for flow in self.query("#flow").results(Static):  # none any more, if a look ends after the view was quit
            flow.update(Text(text, "bold red"))

    def _show(self, found: Watched) -> None:
        if not self.query("#flow"):
            return
        self.query_one("#flow", Static).update(shown(picture(self._before, found.sample)))
        self.query_one("#beside", Static).update(beside(found))
        self._before = found.sample
