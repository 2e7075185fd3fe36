"""The outermost layer of the api, plain ASGI because every request pays for it: a few microseconds.

A Request-Id on each request and response, a limit on the body counted as it arrives, and the last resort for what
nobody caught.
"""

import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from itertools import count
from time import perf_counter

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import Problem, database_problem
from runtime.log import request_id as logged_request_id

log = structlog.get_logger()

HEADERS_MAX_BYTES = 32 * 1024  # a browser behind a proxy sends 2 KB; the parser below has no limit of its own
BODY_MAX_BYTES = 1024 * 1024  # a full batch of 1,000 commands is some 200 KB

# What a caller may choose for a Request-Id: no spaces, quotes or control characters that would play tricks in logs.
_SANE = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}").fullmatch
CLIENT_LEFT = 499  # what the metrics call it; nobody is answered with it
_HEADERS = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]


Endpoint = Callable[[Request], Awaitable[Response]]
Answered = Callable[[Scope, int, float], None]  # with this status, after so many seconds


def _tell_nobody(_scope: Scope, _status: int, _seconds: float) -> None:
    pass


class Edge:
    """`hot`: endpoints by path whose POSTs go straight there. The framework's own layers cost as much as they do."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        hot: Mapping[str, Endpoint] | None = None,
        body_max_bytes: int = BODY_MAX_BYTES,
        answered: Answered = _tell_nobody,
    ) -> None:
        """`answered`: told of each request, for the metrics."""
        self._app = app
        self._answered = answered
        self._hot = hot or {}
        self._body_max_bytes = body_max_bytes
        self._prefix = secrets.token_hex(6)  # of this process: ids are its number, not a secret
        self._numbers = count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = perf_counter()
        request_id = declared = None
        chunked = False
        size = 0
        for name, value in scope["headers"]:
            size += len(name) + len(value)
            if name == b"request-id":
                request_id = value
            elif name == b"content-length":
                declared = value
            elif name == b"transfer-encoding":
                chunked = True
        if request_id is None or not _SANE(request_id):
            request_id = b"%s-%x" % (self._prefix.encode(), next(self._numbers))
        scope.setdefault("state", {})["request_id"] = request_id.decode()
        logged_request_id.set(request_id.decode())
        status = CLIENT_LEFT

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"request-id", request_id), *_HEADERS]
            await send(message)

        try:
            if chunked:  # a declared length is the server's to enforce
                receive = self._counting(receive)
            elif declared is not None and int(declared) > self._body_max_bytes:
                raise self._too_large()
            if size > HEADERS_MAX_BYTES:
                raise Problem("headers_too_large", f"the headers are larger than {HEADERS_MAX_BYTES} bytes")
            endpoint = self._hot.get(scope["path"])
            if endpoint is not None and scope["method"] == "POST":
                scope["endpoint"] = endpoint
                response = await endpoint(Request(scope, receive))
                await response(scope, receive, send_with_headers)
            else:
                await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            return  # nobody is left to answer
        except Exception as error:
            if status != CLIENT_LEFT:  # too late for another answer: the server closes the connection
                raise
            problem = error if isinstance(error, Problem) else database_problem(error)
            if problem is None:
                log.exception("request.failed", request_id=request_id.decode(), path=scope["path"])
                problem = Problem("internal_error", f"a defect; report it with request id {request_id.decode()}")
            response = problem.response(instance=scope["path"], request_id=request_id.decode())
            await response(scope, receive, send_with_headers)
        finally:
            self._answered(scope, status, perf_counter() - began)

    def _counting(self, receive: Receive) -> Receive:
        left = self._body_max_bytes

        async def receive_counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise self._too_large()
            return message

        return receive_counted

    def _too_large(self) -> Problem:
        # The rest of the body is still on its way: the connection cannot serve another request.
        detail = f"the body is larger than {self._body_max_bytes} bytes"
        return Problem("body_too_large", detail, headers={"Connection": "close"})
