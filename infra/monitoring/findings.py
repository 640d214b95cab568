"""What `lethe doctor` finds: pure functions from facts to findings, each with what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from infra.monitoring.picture import Seen, Stage
from infra.monitoring.ports import PROCESSES
from stream_processors.edition import edition_of

Severity = Literal["info", "warning", "critical"]
WORST_FIRST: Mapping[Severity, int] = {"critical": 0, "warning": 1, "info": 2}
_MS = 1_000
_DAY_MS = 86_400_000


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be. `where` is a file, process, topic or topic-partition; never a value."""

    check: str
    severity: Severity
    where: str
    what: str
    advice: str


@dataclass(frozen=True)
class Disk:
    """A folder that holds data, and the disk below it, in bytes."""

    path: str
    free: int
    total: int


def disks(found: Iterable[Disk]) -> list[Finding]:
    """Disks with less than a tenth free; under a thirtieth the broker may stop at any moment."""
    out = []
    for disk in found:
        share = disk.free / disk.total if disk.total else 1.0
        if share < 0.1:
            severity: Severity = "critical" if share < 1 / 30 else "warning"
            what = f"{share:.1%} of the disk is free"
            out.append(Finding("disk", severity, disk.path, what, "free space, or move LETHE_HOME to a larger disk"))
    return out


def clocks(skews_ms: Mapping[str, int]) -> list[Finding]:
    """Clocks of other machines against this one's, in ms: receipt dates and the clock's days follow them."""
    out = []
    for where, skew in skews_ms.items():
        if abs(skew) >= 5 * _MS:
            severity: Severity = "critical" if abs(skew) >= 60 * _MS else "warning"
            what = f"its clock is {skew / _MS:+.0f} s off this machine's"
            out.append(Finding("clocks", severity, where, what, "run a time service (NTP) on both machines"))
    return out


def days(last_told: int | None, today: int, simulated: bool) -> list[Finding]:
    """The last day that `governance.clock` was told, and today, in days since 1970."""
    if simulated:
        return []
    advice = "`lethe run control` tells it each day; `lethe alerts` says whether it withholds the clock"
    if last_told is None:
        return [Finding("clock", "info", "governance.clock", "no day was ever told: nothing expires yet", advice)]
    if today - last_told > 2:
        what = f"the last day was told {today - last_told} days ago: nothing has expired since"
        return [Finding("clock", "critical", "governance.clock", what, advice)]
    if last_told > today + 1:
        what = f"it was told a day that is {last_told - today} days ahead"
        return [Finding("clock", "critical", "governance.clock", what, "find out who ticked; what expired is gone")]
    return []


def topic_settings(
    wanted: Mapping[str, Mapping[str, str]], found: Mapping[str, Mapping[str, str | None]], same: Any
) -> list[Finding]:
    """Topics that are missing or set otherwise than `infra/topics.yaml` says. `same(now, wanted)` compares values."""
    out = []
    for topic, config in wanted.items():
        if topic not in found:
            out.append(Finding("topics", "critical", topic, "it does not exist", "`lethe provision` makes it"))
            continue
        differ = sorted(k for k, v in config.items() if not same(found[topic].get(k), v))
        if differ:
            what = f"{', '.join(differ)} differ from infra/topics.yaml: deleted bytes may stay too long, or go too soon"
            out.append(Finding("topics", "warning", topic, what, "`lethe provision` corrects it"))
    return out


def partition_counts(found: Mapping[str, int], wanted: int) -> list[Finding]:
    """Topics with another number of partitions than all must have."""
    return [
        Finding(
            "topics",
            "critical",
            topic,
            f"it has {n} partitions, not {wanted}: joins would miss",
            "set LETHE_PARTITIONS to what the topics have; keys cannot be repartitioned in place",
        )
        for topic, n in found.items()
        if n != wanted
    ]


def open_transactions(since_ms: Mapping[str, int], now_ms: int, bound_ms: int) -> list[Finding]:
    """Partitions with a transaction that has been open for longer than one may last (KIP-664)."""
    return [
        Finding(
            "transactions",
            "critical",
            where,
            f"a transaction has been open for {(now_ms - at) // _MS} s: readers wait, and nothing behind it is erased",
            "`kafka-transactions find-hanging`, then `abort`",
        )
        for where, at in since_ms.items()
        if now_ms - at > bound_ms
    ]


def idle_partitions(
    last_ms: Mapping[str, int], segment_ms: Mapping[str, int], beat_ms: int, now_ms: int
) -> list[Finding]:
    """Topics with a partition to which nothing was appended, no heartbeat either, for longer than a segment and two
    heartbeats: segments roll only on append, so its deleted bytes stay. Keys of `last_ms` are `topic-partition`."""
    late: dict[str, list[str]] = {}
    for where, at in last_ms.items():
        topic, _, partition = where.rpartition("-")
        if topic in segment_ms and now_ms - at > segment_ms[topic] + 2 * beat_ms:
            late.setdefault(topic, []).append(partition)
    return [
        Finding(
            "idle",
            "warning",
            f"{topic}-{','.join(sorted(partitions, key=int))}",
            "nothing was appended for longer than a segment lasts: bytes that were deleted stay on disk",
            "`lethe run control` sends heartbeats",
        )
        for topic, partitions in late.items()
    ]


def processes(
    stages: Sequence[Stage], seen: Sequence[Seen], members: Mapping[str, int], names: Sequence[str] = PROCESSES
) -> list[Finding]:
    """Processors that nobody runs, instances that are stuck or silent. `members`: of each group, wherever they run;
    `names`: of all that should run."""
    out = []
    here = {s.process for s in seen}
    for process in names:
        if process not in here and not members.get(process):
            waits = next((s.behind for s in stages if s.processor == process), 0)
            severity: Severity = "critical" if waits else "warning"
            what = f"nobody runs it{f'; {waits:,} records wait' if waits else ''}"
            out.append(Finding("processes", severity, process, what, f"`{_run(process)}`"))
    for one in seen:
        where = f"{one.process} {one.instance} (pid {one.pid})"
        if one.health in ("stuck", "silent"):
            what = "its loop does not turn" if one.health == "stuck" else "it does not answer"
            advice = f"end pid {one.pid}, then `{_run(one.process)}`: it goes on where it was"
            out.append(Finding("processes", "critical", where, what, advice))
    return out


def stalled(stages: Sequence[Stage], bound_s: float = 600.0) -> list[Finding]:
    """Processors whose oldest waiting record is older than `bound_s`."""
    return [
        Finding(
            "lag",
            "warning",
            f"{stage.processor} on {arrow.topic}",
            f"{arrow.behind:,} records wait, the oldest for {arrow.age_s:,.0f} s",
            f"`lethe lag --partitions`; another instance helps: `{_run(stage.processor)}`",
        )
        for stage in stages
        for arrow in stage.arrows
        if arrow.behind and arrow.age_s > bound_s
    ]


def _run(process: str) -> str:
    name, edition = edition_of(process)
    return f"LETHE_EDITION={edition.name} lethe run {name}" if edition.name else f"lethe run {name}"


def damaged(folders: Iterable[str]) -> list[Finding]:
    """State folders that were found damaged while they were in use, and have not been rebuilt since."""
    what = "it was found damaged while it was in use, and its processor stopped"
    advice = "start the processor again: it discards the folder and rebuilds it from Kafka"
    return [Finding("state", "critical", folder, what, advice) for folder in folders]


def grants(missing: Iterable[str], extra: Iterable[str]) -> list[Finding]:
    """What the brokers should grant and do not, and what they grant and should not."""
    lacks = [
        Finding("grants", "critical", where, "it is not granted: who needs it waits", "`lethe provision` grants it")
        for where in missing
    ]
    advice = "ask who granted it; `lethe provision` takes it back"
    return lacks + [Finding("grants", "warning", where, "nothing declares it", advice) for where in extra]


def standing_alerts(rows: Iterable[Mapping[str, Any]]) -> list[Finding]:
    """Alerts of the control plane that are not over."""
    return [
        Finding(
            "alerts",
            row["severity"],
            row["where"],
            f"{row['kind'].replace('_', ' ')}: {row['count']:,}",
            "docs/operations.md, The control plane, says what to do about each",
        )
        for row in rows
    ]


def quarantine(counts: Mapping[tuple[str, str, str], int]) -> list[Finding]:
    """Records in quarantine, by supplier (`dfe`, `dfe@v2`), dataset and class of error."""
    return [
        Finding(
            "quarantine",
            "info",
            f"{supplier}.{dataset}",
            f"{n:,} records in quarantine: {error}",
            f"`lethe quarantine ls --supplier {edition_of(supplier)[0]}`",
        )
        for (supplier, dataset, error), n in sorted(counts.items())
    ]


def worst(findings: Iterable[Finding]) -> list[Finding]:
    """The worst first."""
    return sorted(findings, key=lambda f: (WORST_FIRST[f.severity], f.check, f.where))
