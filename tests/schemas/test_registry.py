"""Both registries, the one in memory and the client of the real one, the latter against a scripted server."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from schemas import contracts, registry
from schemas.contracts import Contract
from schemas.registry import (
    Registry,
    RegistryDownError,
    RegistryRefusedError,
    SchemaDriftError,
    SchemaIds,
    SchemaIncompatibleError,
    SchemaNotRegisteredError,
    StaticRegistry,
    UnknownSchemaError,
    canonical,
    static_id,
)

LINK = contracts.contract("linkage/link")
Answer = tuple[int, Any]
NO_SUBJECT = (404, {"error_code": 40401, "message": "no such subject"})
NO_SCHEMA = (404, {"error_code": 40403, "message": "no such schema"})


class Scripted:
    """A server that gives the answers it was told, in turn, the last again and again; it notes what was asked."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                outer.asked.append(f"{self.command} {self.path.partition('?')[0]}")
                status, body = outer.answers[0] if len(outer.answers) == 1 else outer.answers.pop(0)
                raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            do_GET = do_POST = do_PUT = _answer  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(registry, "_FIRST_WAIT_SECONDS", 0.01)
    servers: list[Scripted] = []

    def start(*answers: Answer) -> Scripted:
        servers.append(Scripted(*answers))
        return servers[-1]

    yield start
    for one in servers:
        one.server.shutdown()
        one.server.server_close()


def latest(contract: Contract, id_: int = 7) -> Answer:
    return 200, {"subject": "s", "id": id_, "version": 1, "schema": contract.text, "schemaType": "AVRO"}


def reclassified(contract: Contract) -> Contract:
    schema = copy.deepcopy(contract.json)
    schema["fields"][0]["classification"] = "reference"
    return Contract(contract.name, json.dumps(schema))


def redocumented(contract: Contract) -> Contract:
    schema = copy.deepcopy(contract.json)
    schema["doc"] = schema["fields"][0]["doc"] = "In other words"
    return Contract(contract.name, json.dumps(dict(reversed(schema.items()))))


def test_canonical_text_keeps_classifications_and_not_words() -> None:
    assert canonical(redocumented(LINK).text) == canonical(LINK.text)
    assert canonical(reclassified(LINK).text) != canonical(LINK.text)


def test_a_field_named_doc_counts() -> None:
    plain = {"type": "record", "name": "A", "fields": [{"name": "doc", "type": "string"}]}
    assert '"doc"' in canonical(json.dumps(plain))


# --- in memory ---


def test_static_ids_are_the_same_in_every_process_and_tell_contracts_apart() -> None:
    ids: SchemaIds = StaticRegistry()
    assert ids.schema_id("linkage.link") == static_id(LINK) == 449309457
    every = {static_id(contracts.contract(n)) for n in contracts.names()}
    assert len(every) == len(contracts.names())
    assert all(0 < i < 2**31 for i in every)


def test_static_knows_every_topic_of_the_contracts_and_no_other() -> None:
    ids = StaticRegistry()
    person = contracts.contract("identified/council.person")
    assert ids.check("identified.council-hackney.person", person) == ids.schema_id("identified.council-x.person")
    assert ids.writer(ids.schema_id("linkage.link")) == LINK.parsed
    with pytest.raises(SchemaNotRegisteredError, match="lethe provision"):
        ids.schema_id("state.join")
    with pytest.raises(UnknownSchemaError):
        ids.writer(1)


def test_static_drift_is_an_error() -> None:
    ids = StaticRegistry()
    with pytest.raises(SchemaDriftError, match=r"linkage\.link"):
        ids.check("linkage.link", reclassified(LINK))
    id_ = ids.register("linkage.link", reclassified(LINK))
    assert ids.check("linkage.link", reclassified(LINK)) == ids.schema_id("linkage.link") == id_
    assert ids.check("linkage.link", reclassified(LINK)) != static_id(LINK)
    assert ids.writer(static_id(LINK)) == LINK.parsed


# --- the client ---


def test_the_latest_id_is_asked_once(serve: Any) -> None:
    server = serve(latest(LINK, 7), latest(LINK, 8))
    ids: SchemaIds = Registry(server.url)
    assert [ids.schema_id("linkage.link") for _ in range(3)] == [7, 7, 7]
    assert server.asked == ["GET /subjects/linkage.link-value/versions/latest"]


@pytest.mark.parametrize(
    ("topic", "command"),
    [
        ("linkage.link", "lethe provision"),
        ("identified.council-hackney.person", "lethe supplier add council-hackney"),
    ],
)
def test_what_is_not_registered_says_the_command_that_registers_it(serve: Any, topic: str, command: str) -> None:
    with pytest.raises(SchemaNotRegisteredError, match=f"{topic}.*`{command}`"):
        Registry(serve(NO_SUBJECT).url).schema_id(topic)


def test_check_takes_other_words_and_no_other_classification(serve: Any) -> None:
    assert Registry(serve(latest(redocumented(LINK))).url).check("linkage.link", LINK) == 7
    with pytest.raises(SchemaDriftError, match=r"linkage\.link.*id 7.*`lethe provision`"):
        Registry(serve(latest(reclassified(LINK))).url).check("linkage.link", LINK)


def test_check_asks_afresh(serve: Any) -> None:
    ids = Registry(serve(latest(LINK, 7), latest(LINK, 8)).url)
    assert ids.schema_id("linkage.link") == 7
    assert ids.check("linkage.link", LINK) == ids.schema_id("linkage.link") == 8


def test_a_writers_schema_is_asked_once(serve: Any) -> None:
    server = serve((200, {"schema": LINK.text}))
    ids = Registry(server.url)
    assert ids.writer(7) is ids.writer(7)
    assert ids.writer(7)["name"] == "lethe.linkage.Link"
    assert server.asked == ["GET /schemas/ids/7"]


@pytest.mark.parametrize(
    "down",
    [
        (503, "out of order"),
        (500, {"error_code": 50001, "message": "store"}),
        (404, "<html>nothing here</html>"),
        (200, "<html>"),
    ],
    ids=["503", "500", "a proxy's 404", "a page"],
)
def test_down_is_waited_for_and_is_not_unknown(serve: Any, down: Answer) -> None:
    said: list[str] = []
    ids = Registry(serve(down, down, NO_SCHEMA).url, on_wait=said.append)
    with pytest.raises(UnknownSchemaError):
        ids.writer(7)
    assert len(said) == 2
    assert all("waiting for the schema registry" in s and "schema 7" in s for s in said)


def test_what_was_unknown_is_asked_again(serve: Any) -> None:
    ids = Registry(serve(NO_SCHEMA, (200, {"schema": LINK.text})).url)
    with pytest.raises(UnknownSchemaError):
        ids.writer(7)
    assert ids.writer(7)["name"] == "lethe.linkage.Link"


def test_a_registry_that_is_not_there_is_waited_for_until_the_deadline(serve: Any) -> None:
    server = serve(NO_SCHEMA)
    server.server.shutdown()
    server.server.server_close()
    said: list[str] = []
    with pytest.raises(RegistryDownError, match="gave up waiting"):
        Registry(server.url, on_wait=said.append, deadline_seconds=0.1).writer(7)
    assert said


def test_who_is_told_of_the_wait_may_end_it(serve: Any) -> None:
    class StoppedError(Exception):
        pass

    def stop(message: str) -> None:
        raise StoppedError(message)

    with pytest.raises(StoppedError):
        Registry(serve((503, "")).url, on_wait=stop).schema_id("linkage.link")


def test_registering_what_does_not_fit_names_the_topic_and_the_difference(serve: Any) -> None:
    refused = (409, {"error_code": 409, "message": "x at /fields/6"})
    with pytest.raises(SchemaIncompatibleError, match=r"linkage\.link.*x at /fields/6"):
        Registry(serve(refused).url).register("linkage.link", LINK)


def test_a_refusal_is_not_waited_for(serve: Any) -> None:
    refused = (401, {"error_code": 40101, "message": "who are you"})
    with pytest.raises(RegistryRefusedError, match="who are you"):
        Registry(serve(refused).url).schema_id("linkage.link")


def test_registering_forgets_the_latest(serve: Any) -> None:
    server = serve(latest(LINK, 7), (200, {"id": 8}), latest(LINK, 8))
    ids = Registry(server.url)
    assert ids.schema_id("linkage.link") == 7
    assert ids.register("linkage.link", LINK) == 8
    assert ids.schema_id("linkage.link") == 8
