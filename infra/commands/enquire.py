"""`lethe enquire`: is this person's data held?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from infra.commands.options import AsJson, council_named
from infra.errors import EXIT_ERROR, EXIT_NOT_UP, fail
from infra.settings import Settings


def enquire(
    council: Annotated[str, typer.Option(metavar="CODE", help="The council that asks: council-<code>, or its code.")],
    person: Annotated[
        Path, typer.Option(metavar="FILE", help="JSON object, or CSV with one row: the details to ask with.")
    ],
    as_json: AsJson = False,
) -> None:
    """Ask whether a person's data is held: which datasets, how many records, since when, until when, what for.

    The file has forename, middle_names, surname, date_of_birth, sex, postcode; all but middle_names and sex are
    needed. The answer never holds a value or an id. Details that could be several people's get "needs checking", and
    no counts. Needs the council's secret (lethe keys council) and enquiry.pub (lethe keys init).

    \b
    Example: lethe enquire --council northam --person person.json --json
    \b
    Exit codes:
      0  answered, whatever the answer is
      1  refused, or the file or a key cannot be used
      2  wrong usage
      3  the control plane or the processors did not answer; ask again
    """
    from infra.enquirer import Enquirer, EnquiryRefusedError, NotAnsweredError
    from infra.keys import KeyFileError, council_secret, read_enquiry_key, read_key
    from stream_processors.enquiry.person import PersonError, read_person

    settings = Settings()
    name = council_named(council)
    try:
        asked = read_person(person)
        if not council_secret(settings, name).exists():
            fail(f"{council_secret(settings, name)} is missing; `lethe keys council {name}` makes it where Lethe runs")
        secret = read_key(council_secret(settings, name))
        enquirer = Enquirer(name, secret, read_enquiry_key(settings), settings.control_port)
        answer = enquirer.ask(asked)
    except (KeyFileError, PersonError, EnquiryRefusedError) as e:
        fail(str(e), EXIT_ERROR)
    except NotAnsweredError as e:
        fail(str(e), EXIT_NOT_UP)
    if as_json:
        typer.echo(json.dumps(answer, indent=1))
    else:
        _show(answer, Console())


def _show(answer: dict[str, Any], console: Console) -> None:
    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    say(answer["outcome"].replace("_", " ") + (f": {answer['reason']}" if answer["reason"] else ""))
    for h in answer["holdings"]:
        since = f"received {h['since']}" if h["since"] else "received"
        say(f"  {h['supplier']} {h['dataset']}: {h['records']}, {since}, held until {h['until']}. {h['purpose']}")
    say(answer["how_to_object"])
