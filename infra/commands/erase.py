"""`lethe erase`: a subject or a person is destroyed everywhere, and refused from then on."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from confluent_kafka import KafkaException

from infra.commands.options import AsJson, away, up_with_edition
from infra.errors import EXIT_ERROR, EXIT_NOT_UP, EXIT_USAGE, fail
from infra.operation import Kind, Operation, OperationLog, now_ms, whoever
from infra.settings import Settings

if TYPE_CHECKING:
    from infra.erasure import Followed
    from schemas.registry import SchemaIds
    from stream_processors.erasure.order import Reason, Target

_LONGEST_NAME = 100
_WHY_NOT = {
    "ambiguous": "the details fit more than one person, or a record that is linked to other details: nobody is erased. "
    "Ask the suppliers for their own ids, and go on with `lethe erase --supplier S --subject ID` for each",
    "insufficient": "forename, surname, date of birth and postcode are needed to say who it is; or go on with "
    "`lethe erase --supplier S --subject ID`",
    "unreadable": "pseudonymise cannot open the order: enquiry.pub belongs to another key; `lethe keys init` makes it",
}


def erase(
    reason: Annotated[str, typer.Option(help="objection, court-order, error or withdrawal: kept in the ledger.")],
    supplier: Annotated[
        str | None, typer.Option(metavar="SUPPLIER", help="Whose subject, such as dfe.", show_default=False)
    ] = None,
    subject: Annotated[
        str | None,
        typer.Option(metavar="ID", help="The supplier's own id; - reads it from standard input.", show_default=False),
    ] = None,
    person: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The person's details, as for lethe enquire.", show_default=False),
    ] = None,
    by: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who orders it; else the machine's user.", show_default=False)
    ] = None,
    execute: Annotated[bool, typer.Option("--execute", help="Do it; without this, count what would go.")] = False,
    lift: Annotated[bool, typer.Option("--lift", help="Refuse the subject or person no longer.")] = False,
    as_json: AsJson = False,
) -> None:
    """Destroy what is held of a subject of one supplier, or of a person of all, and refuse them from then on.

    Their records are deleted at their source, quarantine included; the deletion flows down to the research topic. When
    a supplier sends them again, or records are read again, they are refused. Previews by default: which suppliers and
    datasets, how many records, never a value. A person is found by strict match keys, with the subjects that are
    linked to them; one who is not for sure one person is not erased.

    \b
    Examples:
      lethe erase --supplier dfe --subject A1234 --reason objection
      lethe erase --person person.json --reason court-order --by "C. Clerk" --execute
      lethe erase --supplier dfe --subject A1234 --reason error --lift --execute
    \b
    Exit codes:
      0  counted, or done
      1  not for sure one person, or a file or key cannot be used: nobody was erased
      2  wrong usage
      3  the broker or pseudonymise did not answer; what was ordered is followed when they are up
    """
    from stream_processors.access import ERASURE

    settings = Settings()
    why, target = _reason(reason), _target(supplier, subject, person)
    name = by or whoever()
    if len(name) > _LONGEST_NAME:
        fail(f"--by is longer than {_LONGEST_NAME} characters", EXIT_USAGE)
    followed = _follow(settings.acting_as(ERASURE), target, why, name, execute=execute, lift=lift)
    if followed.outcome in _WHY_NOT:
        if as_json:
            typer.echo(json.dumps(_document(followed, why, name, executed=False), indent=1))
        fail(_WHY_NOT[followed.outcome], EXIT_ERROR)
    _show(followed, why, name, execute=execute, lift=lift, as_json=as_json)


def _follow(settings: Settings, target: Target, reason: Reason, by: str, *, execute: bool, lift: bool) -> Followed:
    from infra.erasure import NotFollowedError, Orders
    from infra.keys import KeyFileError, read_enquiry_key
    from schemas.registry import Registry, RegistryDownError, SchemaNotRegisteredError

    try:
        public = read_enquiry_key(settings)  # what is missing here is said before anybody is waited for
        registry = Registry(up_with_edition(settings).registry, deadline_seconds=10)
        with Orders(settings, registry, public) as orders:
            if lift and execute:
                with _noted(settings, registry, "erasure_lift", target, reason, by) as note:
                    followed = orders.give("lift", target, reason, by)
                    note(followed)
            else:
                followed = orders.give("preview", target, reason, by)
                if execute and followed.outcome not in _WHY_NOT:
                    with _noted(settings, registry, "erasure", target, reason, by) as note:
                        followed = orders.give("erase", target, reason, by, followed.order_id)
                        note(followed)
            orders.forget(followed.order_id)
            return followed
    except KeyFileError as e:
        fail(str(e), EXIT_ERROR)
    except SchemaNotRegisteredError as e:
        fail(f"{e}", EXIT_ERROR)
    except RegistryDownError as e:
        fail(str(e), EXIT_NOT_UP)
    except NotFollowedError as e:
        fail(f"{e}: start pseudonymise, link and join (`lethe run all`) and repeat the command", EXIT_NOT_UP)
    except KafkaException as e:
        away(e)


@contextmanager
def _noted(
    settings: Settings, ids: SchemaIds, kind: Kind, target: Target, reason: Reason, by: str
) -> Iterator[Callable[[Followed], None]]:
    """Say in `governance.operation` that it has begun, and what came of it; without the id and without a detail."""
    log = OperationLog(settings, ids)
    whose = {"of": "person"} if target.person is not None else {"of": "subject", "supplier": target.supplier}
    operation = Operation(kind, by, reason, whose, now_ms())
    log.write(operation)

    def note(followed: Followed) -> None:
        what = {**whose, "order_id": followed.order_id, "outcome": followed.outcome}
        log.write(operation.now(now_ms(), what=what, state="done", done=followed.records))

    yield note


def _reason(text: str) -> Reason:
    from stream_processors.erasure.order import REASONS

    found = next((reason for reason in REASONS if reason == text.replace("-", "_")), None)
    if found is None:
        fail(f"--reason must be one of {', '.join(r.replace('_', '-') for r in REASONS)}", EXIT_USAGE)
    return found


def _target(supplier: str | None, subject: str | None, person: Path | None) -> Target:
    from schemas.contracts import UnknownSupplierError, kind_of
    from stream_processors.enquiry.person import PersonError, read_person
    from stream_processors.erasure.order import Target

    if person is not None:
        if supplier is not None or subject is not None:
            fail("either --supplier and --subject, or --person", EXIT_USAGE)
        try:
            return Target(person=read_person(person))
        except PersonError as e:
            fail(str(e), EXIT_ERROR)
    if supplier is None or subject is None:
        fail("either --supplier and --subject, or --person", EXIT_USAGE)
    try:
        kind_of(supplier)
    except UnknownSupplierError as e:
        fail(str(e), EXIT_USAGE)
    id_ = sys.stdin.readline().strip() if subject == "-" else subject
    if not id_.strip() or len(id_) > 200 or "|" in id_:
        fail("--subject is no supplier's id: blank, too long, or with a bar", EXIT_USAGE)
    return Target(supplier, id_)


def _document(followed: Followed, reason: str, by: str, *, executed: bool) -> dict[str, Any]:
    return {
        "order_id": followed.order_id,
        "executed": executed,
        "outcome": followed.outcome,
        "reason": reason,
        "by": by,
        "records": followed.records,
        "holdings": [
            {
                "supplier": h.supplier,
                "dataset": h.dataset,
                "records": h.records,
                "since": h.since.isoformat() if h.since else None,
                "until": h.until.isoformat(),
            }
            for h in followed.holdings
        ],
    }


def _show(followed: Followed, reason: str, by: str, *, execute: bool, lift: bool, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(_document(followed, reason, by, executed=execute), indent=1))
        return
    for h in followed.holdings:
        typer.echo(f"  {h.supplier} {h.dataset}: {h.records}, held until {h.until}")
    if lift:
        said = "refused no longer" if followed.outcome == "lifted" else "no order refuses them"
        typer.echo(said if execute else "nothing was lifted: repeat with --execute")
    elif execute:
        typer.echo(f"{followed.records} records deleted at their source, and refused from now on")
        typer.echo(f"order {followed.order_id}", err=True)
    else:
        typer.echo(f"{followed.records} records would go")
        typer.echo("nothing was erased: repeat with --execute", err=True)
