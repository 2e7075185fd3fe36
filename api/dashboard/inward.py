"""Asking the api's own routes from within the process, as whoever is signed in to the dashboard.

There is one way to read a wallet and one to post a command. The pages take it, too: what is validated, refused, scoped
to a tenant or limited over HTTP is so for them (docs/decisions/0026-the-dashboard.md).
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from starlette.requests import Request
from starlette.types import Message

from api.auth import PRINCIPAL, Principal
from ledger.keys import Scope
from ledger.operators import Session


class Answer(msgspec.Struct, frozen=True):
    status: int
    body: Any  # decoded JSON


class Refused(Exception):
    """It is not done, or not shown. `body`: the api's problem, where it was the api that refused."""

    def __init__(self, status: int, code: str, detail: str, *, body: Mapping[str, Any] | None = None) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.detail = detail
        self.body = body or {}


def _principal(session: Session, method: str) -> Principal:
    scopes = session.scopes
    if method == "GET" and session.key_id is None:
        scopes = scopes | {Scope.WEBHOOKS_MANAGE}  # the one scope that shows webhooks; a GET manages nothing
    return Principal(tenant_id=session.tenant_id, client_id=session.client_id, key_id=session.key_id, scopes=scopes)


async def get(request: Request, session: Session, path: str, **query: str | int) -> Any:
    """The body of the answer. Raises Refused."""
    return (await ask(request, session, "GET", path, query=query)).body


async def post(
    request: Request, session: Session, path: str, body: object, *, headers: Mapping[str, str] | None = None
) -> Answer:
    """Raises Refused."""
    return await ask(request, session, "POST", path, body=msgspec.json.encode(body), headers=headers)


async def ask(
    request: Request,
    session: Session,
    method: str,
    path: str,
    *,
    query: Mapping[str, str | int] | None = None,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Like a request that came over the network, but for its key. Raises Refused where it is answered by a problem."""
    given = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    scope: dict[str, Any] = {
        **{name: request.scope[name] for name in ("type", "asgi", "http_version", "server", "client", "scheme")},
        "method": method,
        "path": path,
        "raw_path": quote(path).encode(),
        "root_path": "",
        "query_string": urlencode(query or {}).encode(),
        "headers": [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in given.items()],
        "state": {},
        PRINCIPAL: _principal(session, method),
    }
    status, chunks = 500, list[bytes]()
    sent = False

    async def receive() -> Message:
        nonlocal sent
        if sent:
            return {"type": "http.disconnect"}
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        elif message["type"] == "http.response.body":
            chunks.append(message.get("body", b""))

    await request.app(scope, receive, send)
    answered = b"".join(chunks)
    decoded: Any = msgspec.json.decode(answered) if answered else {}
    if status >= 400:
        raise Refused(status, decoded["code"], decoded["detail"], body=decoded)
    return Answer(status, decoded)
