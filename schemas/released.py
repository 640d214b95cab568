"""Released versions of the contracts, and whether the current ones still fit them.

`released/<version>/` is a copy of every contract as it was released. `python -m schemas.released 0.2.0` makes one: once
for each release, after which its files never change.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import avro.schema
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType

from schemas import contracts
from schemas.contracts import Contract
from schemas.registry import Compatibility

FOLDER = Path(__file__).with_name("released")


def release(version: str, folder: Path = FOLDER) -> Path:
    """Copy the current contracts to `<folder>/<version>/` and return it.

    Raises:
        FileExistsError: that version is released already.
    """
    target = folder / version
    target.mkdir(parents=True)
    for name in contracts.names():
        file = target / f"{name}.avsc"
        file.parent.mkdir(exist_ok=True)
        file.write_text(contracts.contract(name).text)
    return target


def versions(folder: Path = FOLDER) -> tuple[str, ...]:
    """Released versions, oldest first."""
    found = (p.name for p in folder.iterdir() if p.is_dir())
    return tuple(sorted(found, key=lambda v: [int(part) for part in v.split(".")]))


@cache
def released(version: str, folder: Path = FOLDER) -> tuple[Contract, ...]:
    """Every contract as that version had it."""
    base = folder / version
    files = sorted(base.glob("*/*.avsc"))
    return tuple(Contract(str(f.relative_to(base).with_suffix("")), f.read_text()) for f in files)


def faults(new: Contract, old: Contract, level: Compatibility) -> list[str]:
    """Why `new` may not follow `old` at that level; nothing where it may.

    At BACKWARD_TRANSITIVE what is new reads what is old; at FULL_TRANSITIVE what is old reads what is new, too.
    """
    found = [f"new cannot read old: {m}" for m in _unreadable(reader=new, writer=old)]
    if level == "FULL_TRANSITIVE":
        found += [f"old cannot read new: {m}" for m in _unreadable(reader=old, writer=new)]
    return found


def _unreadable(*, reader: Contract, writer: Contract) -> list[str]:
    result = ReaderWriterCompatibilityChecker().get_compatibility(
        avro.schema.parse(reader.text), avro.schema.parse(writer.text)
    )
    if result.compatibility is SchemaCompatibilityType.compatible:
        return []
    return sorted(result.messages)


if __name__ == "__main__":
    print(release(sys.argv[1]))
