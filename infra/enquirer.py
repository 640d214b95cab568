"""The council's side of an enquiry: seal, sign, ask over HTTP. A case system may use it, or do the same itself."""

from __future__ import annotations

import http.client
import json
import secrets
import time
from dataclasses import dataclass
from typing import Any

from infra.broker.ports import HOST
from stream_processors.control.signing import signed
from stream_processors.enquiry.person import PersonAsked
from stream_processors.enquiry.seal import seal

_ID_BYTES = 16


class EnquiryRefusedError(RuntimeError):
    """The control plane refuses the enquiry; the message says why and what to do."""


class NotAnsweredError(ConnectionError):
    """Nobody answers, or not in time."""


@dataclass(frozen=True)
class Enquirer:
    """Asks for one council. secret: the council's; public_key: what enquiries are sealed to (enquiry.pub)."""

    council: str
    secret: bytes
    public_key: bytes
    port: int
    host: str = HOST
    timeout_s: float = 30.0

    def ask(self, person: PersonAsked) -> dict[str, Any]:
        """The answer, as docs/operations.md describes it.

        Raises:
            EnquiryRefusedError: it was refused.
            NotAnsweredError: the control plane or the processors do not answer; ask again.
        """
        return self.send(self.request(person))

    def request(self, person: PersonAsked) -> dict[str, Any]:
        """A sealed and signed request under a new id; it can be sent once."""
        enquiry_id = secrets.token_hex(_ID_BYTES)
        sealed = seal(person, self.council, enquiry_id, self.public_key)
        request = signed(enquiry_id, self.council, time.time_ns() // 1_000_000, sealed, self.secret)
        return {"enquiry_id": enquiry_id, **request.row}

    def send(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send what `request` made; raises as `ask`."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=self.timeout_s)
        try:
            connection.request(
                "POST", "/v1/enquiries", json.dumps(request), {"Content-Type": "application/json; charset=utf-8"}
            )
            response = connection.getresponse()
            found: dict[str, Any] = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as e:
            raise NotAnsweredError(
                f"the control plane does not answer at {self.host}:{self.port} ({type(e).__name__}); "
                "`lethe run control` starts it"
            ) from None
        finally:
            connection.close()
        if response.status == http.client.OK:
            return found
        said = f"{found.get('reason')}: {found.get('advice')}"
        if response.status == http.client.GATEWAY_TIMEOUT:
            raise NotAnsweredError(said)
        raise EnquiryRefusedError(said)
