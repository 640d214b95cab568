"""Statistical disclosure control: what may leave the enclave, and as what.

`outputs` says what an output is, `rules` judges each of its rows and rounds, `audit` finds what could be worked out
from what is published and suppresses more, `history` compares with earlier reports, `release` does it all and keeps the
log. Pure functions: none reads a file or a clock.
"""

from stream_processors.enclave.disclosure.history import Snapshot
from stream_processors.enclave.disclosure.outputs import Output, Policy, Relation
from stream_processors.enclave.disclosure.release import LogEntry, Published, Release, release

__all__ = ["LogEntry", "Output", "Policy", "Published", "Relation", "Release", "Snapshot", "release"]
