"""The data dictionary of the research record, rendered from what runs: the contract, the rules of generalisation and
the guard. `docs/data-dictionary.md` is this text; a test holds one to the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from schemas import contracts
from schemas.contracts import Contract, Field
from stream_processors import generalise
from stream_processors.guard import Permission, load_allowed

RESEARCH = contracts.contract("research/person")
_HOW = {generalise.keep: "as supplied", generalise.month: "to the month", generalise.year: "to the year"}
_OF_RULES = {make("x").make: how for make, how in _HOW.items()}
_MISSING = {"to the month": "; missing before 1950", "to the year": "; missing for dates that stand for none"}
_MADE: Mapping[str, tuple[str, str]] = {
    "person_id": ("the linkage", "keyed hash under the research key; another recipient would have another id"),
    "family_id": ("council person: family_id", "keyed hash under the research key"),
    "area": (
        "council person: postcode",
        "to the LSOA by the postcode directory; the council's own code where it has none",
    ),
    "months_from_start": ("derived", "from two months of this record"),
}
_NOTES = """\
Written by `lethe dictionary`; change the contract, not this file.

- One record per person, on the topic `research.person` and in the enclave's table `persons`; each list is a table of
  its own there, with `person_id`. The table `families` is derived from `persons`.
- A field of the person comes from one record of one council: a participant's before a comparison's, then the earliest
  start. A year of birth or sex that it lacks is taken from the next record, departments' last.
- Missing values are missing in the source, malformed, or outside the domain. No value is imputed.
- What is published is held to the domain by the guard (`stream_processors/guard.yaml`); a record with a value outside
  it is left out and counted."""


@dataclass(frozen=True)
class Entry:
    """One field, as the dictionary has it."""

    name: str
    description: str
    unit: str
    domain: str
    source: str
    generalised: str

    def row(self) -> str:
        """A row of a table in Markdown."""
        cells = (f"`{self.name}`", self.description, self.unit, self.domain, self.source, self.generalised)
        return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"


def entries(contract: Contract = RESEARCH) -> dict[str, list[Entry]]:
    """Fields of the person under `persons`, then those of each list under its name, in the contract's order.

    Raises:
        ValueError: a field without a description, or a number without a unit.
        LookupError: nobody knows where a field comes from, or the guard does not allow it.
    """
    allowed = load_allowed()
    units = dict(_units(contract.json, ""))
    out: dict[str, list[Entry]] = {"persons": []}
    for leaf in contract.leaves:
        if leaf.kind == "array":
            out[leaf.path] = []
            continue
        table, _, name = leaf.path.rpartition(".")
        out[table or "persons"].append(_entry(leaf, name, table, units[leaf.path], allowed[leaf.path]))
    return out


def _entry(leaf: Field, name: str, table: str, unit: str | None, permission: Permission) -> Entry:
    if not leaf.doc:
        raise ValueError(f"{leaf.path} has no description")
    if unit is None:
        if leaf.kind not in ("enum", "boolean", "string"):
            raise ValueError(f"{leaf.path} has no unit")
        unit = {"enum": "category", "boolean": "yes or no", "string": "code"}[leaf.kind]
    source, generalised = _MADE.get(name) or _kept(name, table)
    domain = _domain(permission) + ("" if not leaf.nullable else "; may be missing")
    return Entry(name, leaf.doc, unit, domain, source, generalised)


def _kept(name: str, table: str) -> tuple[str, str]:
    """Where a kept field comes from, and what was done to it, by the rules that run."""
    dataset = table or "person"
    sources: dict[str, list[str]] = {}
    hows: list[str] = []
    for contract_name, kept in generalise.KEPT.items():
        supplier, _, of = contract_name.removeprefix("identified/").partition(".")
        rule = kept.rules.get(name)
        if of == dataset and rule is not None:
            sources.setdefault(rule.source, []).append(supplier)
            hows.append(_OF_RULES[rule.make])
    if len(set(hows)) != 1:
        raise LookupError(f"{table}.{name}: no one rule says how it is generalised")
    places = (f"{', '.join(suppliers)} {dataset}: {source}" for source, suppliers in sources.items())
    return "; ".join(places), hows[0] + _MISSING.get(hows[0], "")


def _domain(permission: Permission) -> str:
    match permission.domain:
        case "month":
            return "first day of a month"
        case "pseudonym":
            return "32 hex digits"
        case "area":
            return "a code of the postcode directory, or of the council"
        case (low, high):
            return f"{low} to {high}"
    return ", ".join(permission.symbols) or "true, false"


def _units(record: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str | None]]:
    for f in record["fields"]:
        yield prefix + f["name"], f.get("unit")
        if isinstance(f["type"], dict) and f["type"]["type"] == "array":
            yield from _units(f["type"]["items"], f"{prefix}{f['name']}.")


def render(contract: Contract = RESEARCH) -> str:
    """The whole dictionary as Markdown."""
    docs = {f.name: f.doc for f in contract.fields}
    parts = ["# Data dictionary of the research record\n", _NOTES]
    for table, fields in entries(contract).items():
        parts.append(f"\n## {table}\n\n{docs.get(table, contract.json['doc'])}.\n")
        parts.append("| field | description | unit | domain | source | how it was generalised |")
        parts.append("|---|---|---|---|---|---|")
        parts += [entry.row() for entry in fields]
    return "\n".join(parts) + "\n"
