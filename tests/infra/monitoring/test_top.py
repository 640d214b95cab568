"""The live view: drawn from looks that a test makes, driven as a person would drive it."""

from __future__ import annotations

import asyncio
import io

from confluent_kafka import KafkaError, KafkaException
from rich.console import Console, RenderableType
from textual.widgets import Static

from infra.monitoring.picture import Sample, Seen, picture
from infra.monitoring.top import TopApp, Watched, shown
from infra.rest import Lag

LATE = Lag("join", "linkage.activity", 0, 100, 130)
SEEN = (Seen("join", 1, 11, "catching up", {"3": 0.5}),)
ALERT = {"kind": "clock_withheld", "where": "governance.clock", "severity": "critical", "count": 1}


def watched(at_s: float = 0.0) -> Watched:
    sample = Sample(at_s, [LATE], {LATE: (30, 60)}, SEEN)
    return Watched(sample, {("dfe", "person", "BadId"): 7}, [ALERT])


def text(drawn: RenderableType) -> str:
    written = io.StringIO()
    Console(width=200, file=written).print(drawn)
    return written.getvalue()


def drawn(app: TopApp, id_: str) -> str:
    return "".join(text(found.content) for found in app.query(id_).results(Static))  # type: ignore[arg-type]


def test_the_flow_as_text() -> None:
    found = text(shown(picture(None, watched().sample)))
    line = next(x for x in found.splitlines() if "linkage.activity" in x and "join" in x)
    assert "30" in line
    assert "60 s" in line
    assert "catching up" in line


def test_it_shows_what_it_sees_and_pauses() -> None:
    looks: list[float] = []

    def look() -> Watched:
        looks.append(0)
        return watched(len(looks))

    async def drive() -> None:
        app = TopApp(look, every_s=0.05)
        async with app.run_test(size=(160, 50)) as pilot:
            while not looks or "linkage.activity" not in drawn(app, "#flow"):
                await pilot.pause(0.02)
            beside = drawn(app, "#beside")
            assert "BadId" in beside
            assert "clock_withheld" in beside
            await pilot.press("space")
            await app.workers.wait_for_complete()
            seen = len(looks)
            await pilot.pause(0.2)
            assert len(looks) == seen
            await pilot.press("q")

    asyncio.run(asyncio.wait_for(drive(), 60))


def test_a_broker_that_is_away_is_said_and_asked_again() -> None:
    looks: list[int] = []

    def look() -> Watched:
        looks.append(1)
        if len(looks) == 1:
            raise KafkaException(KafkaError(KafkaError._ALL_BROKERS_DOWN))
        return watched()

    async def drive() -> None:
        app = TopApp(look, every_s=0.05)
        async with app.run_test(size=(160, 50)) as pilot:
            while "linkage.activity" not in drawn(app, "#flow"):
                await pilot.pause(0.02)
            assert len(looks) > 1

    asyncio.run(asyncio.wait_for(drive(), 60))
