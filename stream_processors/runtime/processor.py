"""A processor: a declaration (what it reads, keeps and writes) and the pure functions behind it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from stream_processors.runtime.records import Inputs, Outputs
from stream_processors.runtime.state import Table, View


@dataclass(frozen=True)
class Declaration:
    """What a processor reads, keeps and writes.

    `reads` are topics or patterns (`identified.*`) that are partitioned alike, so that one partition number of all of
    them meets in one place. `by` names what decides the partition of the input. A processor that keeps nothing has no
    changelog. `writes` names every topic that it may write besides its changelog. `headers`: whether it looks at them.
    `recalls`: those of `reads` that are small, and are read to their ends into memory before anything else is read.
    `form`: of what it keeps; a state of another form is not read but rebuilt.
    `says_anew`: whether it can say again all that is true, as if nothing had been said; not what is said once and for
    all.
    `counts_held`: whether its accounts tell what it holds. They are counted from the state when it was restored, since
    a log that was compacted meanwhile does not tell all that came and went.
    `says_in_parts`: whether its outputs may say that there is `more`, and need a step without records after a start.
    """

    name: str
    by: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    keeps: tuple[Table, ...] = ()
    headers: bool = False
    recalls: tuple[str, ...] = ()
    form: str = ""
    says_anew: bool = True
    counts_held: bool = False
    says_in_parts: bool = False

    @property
    def stateless(self) -> bool:
        """Whether nothing is kept that outlives the process."""
        return all(t.kind == "memory" for t in self.keeps)

    @property
    def derives(self) -> tuple[str, ...]:
        """Topics of the linkage zone that it writes as a function of its inputs: those that it recalls are none."""
        return tuple(t for t in self.writes if t.startswith("linkage.") and t not in self.recalls)

    @property
    def changelog(self) -> str | None:
        """Topic of what was said, or None."""
        return f"state.{self.name}" if any(t.kind == "said" for t in self.keeps) else None

    @property
    def said(self) -> str | None:
        """Name of the table that the changelog restores."""
        return next((t.name for t in self.keeps if t.kind == "said"), None)


class Processor(Protocol):
    """The functions of a processor. They read no clock, no file and no topic: only the view and the batch."""

    declaration: Declaration
    version: str
    """What outputs depend on besides the inputs. A processor without state whose version is another than that of its
    last commit reads its inputs again from the beginning; one with state follows its inputs, and has the version "".
    What is only in memory is no state."""

    def absorb(self, view: View, inputs: Sequence[Inputs]) -> set[bytes]:
        """Fold the batch into what is true; return the keys whose outputs may have to change."""

    def settle(self, view: View, touched: Iterable[bytes], inputs: Sequence[Inputs]) -> Outputs:
        """Compare what should now be said of the touched keys with what was said; return the difference."""

    def everything(self, view: View) -> set[bytes]:
        """Every key that something is true of or was said of: what to settle after tombstones may have been missed."""


class CountsHeld(Protocol):
    """What a processor besides has that declares `counts_held`."""

    def held(self, view: View) -> Mapping[str, Mapping[str, int]]:
        """How many records are held, by topic and by what its tallies count as `<name> new`, `deleted`, `destroyed`."""
