"""What a field is, and which kinds of field each topic may hold: the separation principle as a table.

Who links never sees attributes; who sees attributes never sees tokens or identifiers; the enclave sees neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Classification = Literal[
    "identifier",  # names, dates of birth, postcodes, ids that a supplier or the state gave
    "token",  # keyed hash of identifiers, to compare subjects by
    "reference",  # keyed hash of a local id, to follow a record by
    "pseudonym",  # id under the research key only
    "quasi",  # could single a person out together with others: birth year, sex, area
    "attribute",  # what the research is about
    "technical",  # how Lethe handles the record
    "sealed",  # identifiers, encrypted to the one processor that may see them
]


class UnclassifiedFieldError(ValueError):
    """A field has no classification, or one that its topic may not hold."""


class _Allowed(dict[str, frozenset[str]]):
    def __missing__(self, name: str) -> frozenset[str]:
        if name.startswith("identified/"):
            return frozenset({"identifier", "quasi", "attribute", "technical", "sealed"})
        return frozenset()  # an unknown topic may hold nothing


ALLOWED: Mapping[str, frozenset[str]] = _Allowed(
    {
        "linkage/identity": frozenset({"token", "reference", "technical"}),
        "linkage/candidate": frozenset({"token", "reference", "technical"}),
        "linkage/link": frozenset({"reference", "technical"}),
        "linkage/activity": frozenset({"reference", "quasi", "attribute", "technical"}),
        "linkage/contribution": frozenset({"reference", "quasi", "attribute", "technical"}),
        "linkage/enquiry": frozenset({"token", "technical"}),
        "linkage/sought": frozenset({"reference", "technical"}),
        "linkage/found": frozenset({"reference", "technical"}),
        "linkage/unmatched": frozenset({"technical"}),
        "linkage/suppression": frozenset({"token", "technical"}),
        "research/person": frozenset({"pseudonym", "quasi", "attribute"}),
        "research/edition": frozenset({"technical"}),
        "governance/quarantine": frozenset({"technical"}),
        "governance/ledger": frozenset({"reference", "technical"}),
        "governance/acknowledgement": frozenset({"technical"}),
        "governance/clock": frozenset({"technical"}),
        "governance/enquiry": frozenset({"sealed", "technical"}),
        "governance/erasure": frozenset({"sealed", "technical"}),
        "governance/finding": frozenset({"reference", "technical"}),  # hashes of references, for the audit
        "governance/audit": frozenset({"reference", "technical"}),
        "governance/operation": frozenset({"technical"}),
        "governance/answer": frozenset({"technical"}),
        "governance/alert": frozenset({"technical"}),
        "governance/account": frozenset({"technical"}),
        "governance/batch": frozenset({"technical"}),
        "governance/reconciliation": frozenset({"technical"}),
    }
)
