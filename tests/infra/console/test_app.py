"""The console's pages: who may see them, what they show, and that no value of a person is on any."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from confluent_kafka import KafkaError, KafkaException
from starlette.testclient import TestClient

from infra.console.app import Console
from infra.console.sources import Chosen
from tests.infra.console.support import CANARY, TOKEN, FakeSources

PATHS = ("/", "/batches", "/quarantine", "/retention", "/ledger", "/enquiry")
DETAILS = {"forename": "Aysha", "surname": CANARY, "date_of_birth": "2001-02-03", "sex": "F", "postcode": "SE13 7AB"}
LINE = {"supplier": "dfe", "dataset": "person", "error": "BadId"}


@pytest.fixture
def sources() -> FakeSources:
    return FakeSources()


@pytest.fixture
def stranger(sources: FakeSources) -> TestClient:
    return TestClient(Console(sources, TOKEN).app(), base_url="http://127.0.0.1:19095", raise_server_exceptions=False)


@pytest.fixture
def client(stranger: TestClient) -> TestClient:
    assert stranger.get(f"/?token={TOKEN}").status_code == 200
    return stranger


class Labels(HTMLParser):
    """Ids of labels, and controls without one."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.labelled: set[str] = set()
        self.controls: list[dict[str, str | None]] = []
        self.inside = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "label":
            self.labelled.add(found.get("for") or "")
            self.inside += 1
        elif tag in ("input", "select") and found.get("type") != "hidden" and not self.inside:
            self.controls.append(found)

    def handle_endtag(self, tag: str) -> None:
        self.inside -= tag == "label"


# Who may.


@pytest.mark.parametrize("path", PATHS)
def test_nobody_without_the_token_sees_a_page(stranger: TestClient, path: str) -> None:
    for url in (path, f"{path}?token=another"):
        answer = stranger.get(url)
        assert answer.status_code == 403
        assert "dfe" not in answer.text


def test_the_token_becomes_a_cookie_and_leaves_the_address(stranger: TestClient) -> None:
    answer = stranger.get(f"/batches?token={TOKEN}", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/batches")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


def test_another_name_for_this_machine_is_not_answered(client: TestClient) -> None:
    assert client.get("/", headers={"host": "evil.example:19095"}).status_code == 400


def test_a_form_without_the_token_does_nothing(client: TestClient, sources: FakeSources) -> None:
    answer = client.post("/quarantine", data={**LINE, "act": "requeue", "by": "x", "reason": "y"})
    assert answer.status_code == 403
    assert sources.asked == []


@pytest.mark.parametrize("path", PATHS)
def test_nothing_comes_from_elsewhere_and_nothing_is_kept(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
    assert "http://" not in answer.text
    assert "https://" not in answer.text


# What they show.


@pytest.mark.parametrize(
    ("path", "shows"),
    [
        ("/", ["join", "catching up", "linkage.activity", "30", "700 s", "40%", "quarantine ratio", "1,200"]),
        ("/flow", ["stuck", "not running"]),
        ("/batches", ["agreed", "pending", "b1"]),
        ("/batches?supplier=moj", ["pending"]),
        ("/quarantine", ["BadId", "UPN", "1,234", "Preview"]),
        ("/retention", ["120 days", "2022-12-31", "4,000"]),
        ("/ledger", ["3 lines", "erasure", "certificate-2022-12-31.json"]),
        ("/enquiry", ["council-northam", "Date of birth"]),
    ],
)
def test_a_page_shows(client: TestClient, path: str, shows: list[str]) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    for text in shows:
        assert text in answer.text


def test_a_preview_changes_nothing_and_offers_to_act(client: TestClient, sources: FakeSources) -> None:
    answer = client.post("/quarantine", data={**LINE, "act": "preview", "token": TOKEN})
    assert sources.asked == [(Chosen(**LINE), "", "", False)]
    assert "1,200 would be put back" in " ".join(answer.text.split())
    assert "34 left as they are: superseded" in answer.text


def test_a_requeue_says_who_and_why(client: TestClient, sources: FakeSources) -> None:
    form = {**LINE, "act": "requeue", "token": TOKEN}
    assert client.post("/quarantine", data={**form, "by": " ", "reason": "mended"}).status_code == 400
    assert sources.asked == []
    answer = client.post("/quarantine", data={**form, "by": "A. Officer", "reason": "mended"})
    assert sources.asked == [(Chosen(**LINE), "mended", "A. Officer", True)]
    assert "operation op1" in answer.text


def test_only_a_line_that_is_there_can_be_put_back(client: TestClient, sources: FakeSources) -> None:
    form = {**LINE, "error": "Another", "act": "preview", "token": TOKEN}
    assert client.post("/quarantine", data=form).status_code == 400
    assert sources.asked == []


def test_an_enquiry_is_answered_and_what_was_typed_is_not_shown(client: TestClient, sources: FakeSources) -> None:
    answer = client.post("/enquiry", data={**DETAILS, "council": "council-northam", "token": TOKEN})
    assert "Held" in answer.text
    assert "to compare attendance" in answer.text
    assert sources.asked == [("council-northam", DETAILS)]
    for value in ("Aysha", CANARY, "2001-02-03", "SE13"):
        assert value not in answer.text


def test_an_enquiry_that_cannot_be_asked_names_the_field_and_not_the_value(client: TestClient) -> None:
    form = {**DETAILS, "date_of_birth": f"{CANARY}", "council": "council-northam", "token": TOKEN}
    answer = client.post("/enquiry", data=form)
    assert answer.status_code == 400
    assert "date_of_birth" in answer.text
    assert CANARY not in answer.text


@pytest.mark.parametrize(
    ("failing", "says"),
    [
        (KafkaException(KafkaError(KafkaError._ALL_BROKERS_DOWN)), "lethe up"),
        (ConnectionError(CANARY), "lethe up"),
        (ValueError(CANARY), "lethe doctor"),
    ],
)
def test_what_fails_is_said_without_its_message(
    client: TestClient, sources: FakeSources, failing: Exception, says: str
) -> None:
    sources.failing = failing
    answer = client.get("/")
    assert answer.status_code == 503
    assert says in answer.text
    assert CANARY not in answer.text


@pytest.mark.parametrize("path", PATHS)
def test_every_control_has_a_label_and_every_page_its_landmarks(client: TestClient, path: str) -> None:
    text = client.get(path).text
    labels = Labels(text)
    assert [c for c in labels.controls if c.get("id") not in labels.labelled] == []
    assert text.count("<h1>") == 1
    for landmark in ('lang="en"', 'id="main"', "<nav", 'class="skip"', 'aria-current="page"'):
        assert landmark in text
