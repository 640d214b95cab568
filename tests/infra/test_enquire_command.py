"""`lethe enquire`: what it asks, what it shows, and clear errors that hold no value."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from infra.cli import app
from infra.errors import EXIT_ERROR, EXIT_NOT_UP
from infra.keys import council_secret, export_enquiry_key, init_council, init_keys, read_key, token_key
from infra.settings import Settings
from stream_processors.control.signing import Request, authentic
from stream_processors.enquiry.seal import private_key, unseal

PERSON = {"forename": "Zq9x", "surname": "Begum", "date_of_birth": "2001-02-03", "postcode": "SE13 7AB"}
HELD = {
    "enquiry_id": "e",
    "council": "council-northam",
    "outcome": "held",
    "reason": None,
    "answered_ms": 1,
    "holdings": [
        {
            "supplier": "dfe",
            "dataset": "absence",
            "records": 3,
            "since": "2015-08-25",
            "until": "2022-12-31",
            "purpose": "To compare attendance.",
        }
    ],
    "how_to_object": "Say so.",
}


class View:
    """Stands where the control plane would, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.status, self.answer = 200, dict(HELD)
        view = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                view.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(view.status)
                self.end_headers()
                self.wfile.write(json.dumps(view.answer).encode())

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def view() -> Iterator[View]:
    made = View()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def settings(tmp_path: Path, view: View, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("LETHE_HOME", str(tmp_path))
    monkeypatch.setenv("LETHE_CONTROL_PORT", str(view.server.server_port))
    found = Settings()
    init_keys(found)
    init_council(found, "council-northam")
    export_enquiry_key(found)
    (tmp_path / "p.json").write_text(json.dumps(PERSON))
    return found


def lethe(settings: Settings, *more: str, council: str = "northam") -> tuple[int, str]:
    person = str(settings.base / "p.json")
    result = CliRunner().invoke(app, ["enquire", "--council", council, "--person", person, *more])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_it_asks_sealed_and_signed(settings: Settings, view: View) -> None:
    assert lethe(settings)[0] == 0
    (asked,) = view.asked
    assert "Zq9x" not in json.dumps(asked)
    assert authentic(Request(**asked), read_key(council_secret(settings, "council-northam")))
    opened = unseal(asked["sealed"], "council-northam", asked["enquiry_id"], private_key(read_key(token_key(settings))))
    assert opened.surname == "Begum"


def test_every_enquiry_has_an_id_of_its_own(settings: Settings, view: View) -> None:
    lethe(settings)
    lethe(settings, council="council-northam")
    assert view.asked[0]["enquiry_id"] != view.asked[1]["enquiry_id"]


def test_the_answer_is_shown(settings: Settings) -> None:
    code, out = lethe(settings)
    assert code == 0
    assert out.startswith("held\n")
    wanted = "dfe absence: 3, received 2015-08-25, held until 2022-12-31. To compare attendance."
    assert wanted in " ".join(out.split())
    assert out.rstrip().endswith("Say so.")


def test_or_given_to_programs(settings: Settings) -> None:
    assert json.loads(lethe(settings, "--json")[1]) == HELD


def test_a_refusal_says_why(settings: Settings, view: View) -> None:
    view.status, view.answer = 429, {"outcome": "refused", "reason": "too_many", "advice": "ask later"}
    assert lethe(settings) == (EXIT_ERROR, "error: too_many: ask later\n")


def test_no_answer_in_time_is_an_exit_code_of_its_own(settings: Settings, view: View) -> None:
    view.status, view.answer = 504, {"outcome": "refused", "reason": "unanswered", "advice": "ask again"}
    assert lethe(settings) == (EXIT_NOT_UP, "error: unanswered: ask again\n")
    view.server.shutdown()
    view.server.server_close()
    code, out = lethe(settings)
    assert code == EXIT_NOT_UP
    assert "lethe run control" in out


def test_what_is_missing_says_how_to_make_it(settings: Settings) -> None:
    code, out = lethe(settings, council="southam")
    assert code == EXIT_ERROR
    assert "lethe keys council council-southam" in out
    (settings.keys / "enquiry.pub").unlink()
    assert "lethe keys init" in lethe(settings)[1]


def test_a_bad_file_or_council_is_refused_without_a_value(settings: Settings, view: View) -> None:
    (settings.base / "p.json").write_text(json.dumps(PERSON | {"date_of_birth": "Zq9x"}))
    code, out = lethe(settings)
    assert (code, "date_of_birth" in out, "Zq9x" in out) == (EXIT_ERROR, True, False)
    assert "council-<code>" in lethe(settings, council="North am")[1]
    assert view.asked == []
