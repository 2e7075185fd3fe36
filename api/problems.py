"""Errors as RFC 9457 problems: one table from code to status, one shape for every error of the api.

    {"type": "/problems/wallet_not_found", "title": …, "status": 404, "detail": …, "instance": "/v1/wallets/x",
     "code": "wallet_not_found", "request_id": …, "retryable": false, "errors": [{"pointer", "code", "detail"}]}

Clients match on `code`. `type` is relative to the api, and a GET there answers with the row of this table.
`retryable`: the very same request, with its idempotency key, may succeed later. A refusal by the books is no problem:
it is an outcome (ledger.errors).
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple, TypedDict

import msgspec
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from psycopg import InterfaceError, OperationalError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import BaseRoute, Match

log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1  # a failover or a restart takes seconds; clients with backoff ask again sooner than it hurts


class Kind(NamedTuple):
    status: int
    title: str
    retryable: bool = False


KINDS: dict[str, Kind] = {
    "bad_request": Kind(400, "The request cannot be understood"),
    "malformed_json": Kind(400, "The body is not JSON"),
    "duplicate_member": Kind(400, "An object in the body has the same member twice"),
    "invalid_cursor": Kind(400, "The cursor is not one that this list gave out"),
    "idempotency_key_missing": Kind(400, "The Idempotency-Key header is missing"),
    "idempotency_key_invalid": Kind(400, "The Idempotency-Key header is not one key of 1 to 255 visible characters"),
    "unauthorized": Kind(401, "No API key that works"),
    "insufficient_scope": Kind(403, "The API key may not do this"),
    "not_found": Kind(404, "Nothing is here"),
    "asset_not_found": Kind(404, "No such asset"),
    "command_not_found": Kind(404, "No such command"),
    "delivery_not_found": Kind(404, "No such delivery"),
    "hold_not_found": Kind(404, "No such hold"),
    "receipts_not_offered": Kind(404, "This service signs no receipts"),
    "transfer_not_found": Kind(404, "No such transfer"),
    "wallet_not_found": Kind(404, "No such wallet"),
    "webhook_endpoint_not_found": Kind(404, "No such webhook endpoint"),
    "webhooks_not_offered": Kind(404, "This service sends no webhooks"),
    "method_not_allowed": Kind(405, "The method does not apply here"),
    "already_decided": Kind(409, "The command has its outcome"),
    "asset_exists": Kind(409, "Another asset has this code"),
    "asset_frozen": Kind(409, "The asset is frozen"),
    "command_pending": Kind(409, "The command has no outcome yet", retryable=True),
    "key_cancelled": Kind(409, "A key of the atomic batch was cancelled before it came"),
    "command_not_failed": Kind(409, "The command has not failed"),
    "limit_exceeded": Kind(409, "A balance would be larger than any may be"),
    "too_many_endpoints": Kind(409, "The tenant has as many webhook endpoints as it may"),
    "too_many_lots": Kind(409, "The wallet has too many lots"),
    "wallet_closed": Kind(409, "The wallet is closed"),
    "wallet_frozen": Kind(409, "The wallet is frozen"),
    "wallet_not_empty": Kind(409, "Something is left in the wallet"),
    "cursor_expired": Kind(410, "What came after the cursor is kept no longer"),
    "body_too_large": Kind(413, "The body is too large"),
    "unsupported_media_type": Kind(415, "The body must be application/json"),
    "headers_too_large": Kind(431, "The headers are too large"),
    "validation_failed": Kind(422, "The request has a member that cannot be"),
    "idempotency_key_reused": Kind(422, "The idempotency key was used for another request"),
    "backlogged": Kind(429, "Too many commands are pending", retryable=True),
    "internal_error": Kind(500, "A defect of the service", retryable=True),
    "database_unavailable": Kind(503, "The database does not answer", retryable=True),
    "not_ready": Kind(503, "The service is not ready", retryable=True),
    "overloaded": Kind(503, "Too many requests at once", retryable=True),
}
_OF_STATUS = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}


class FieldError(TypedDict):
    """`pointer`: a JSON pointer into the body; `/query/…`, `/path/…` and `/header/…` name parameters."""

    pointer: str
    code: str
    detail: str


class Problem(Exception):
    """Raise it anywhere below a route; the handlers here turn it into the response."""

    def __init__(
        self,
        code: str,
        detail: str | None = None,
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        """`more`: extension members (RFC 9457, 3.2), of this code's own."""
        super().__init__(code)
        self.code = code
        self.status, self.title, self.retryable = KINDS[code]
        self.detail = detail or self.title
        self.errors = errors
        self.more = more or {}
        self.headers = dict(headers or {})
        if self.retryable:
            self.headers.setdefault("Retry-After", str(RETRY_AFTER_S))

    def body(self, *, instance: str, request_id: str) -> dict[str, Any]:
        """The problem as a JSON object: a response's body, or an item's of a batch."""
        return {
            "type": f"/problems/{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
            "code": self.code,
            "request_id": request_id,
            "retryable": self.retryable,
            "errors": list(self.errors),
            **self.more,
        }

    def response(self, *, instance: str, request_id: str) -> Response:
        body = msgspec.json.encode(self.body(instance=instance, request_id=request_id))
        return Response(body, self.status, self.headers, MEDIA_TYPE)


def invalid(pointer: str, detail: str, code: str = "invalid") -> Problem:
    """422 for one field."""
    fault = FieldError(pointer=pointer, code=code, detail=detail)
    return Problem("validation_failed", f"{pointer or 'the body'}: {detail}", errors=[fault])


def unavailable(detail: str = "the database did not answer in time; the request is safe to repeat") -> Problem:
    return Problem("database_unavailable", detail)


def respond(request: Request, problem: Problem) -> Response:
    return problem.response(instance=request.url.path, request_id=request.state.request_id)


# --- what frameworks and drivers raise ---------------------------------------------------------------------------


def install(app: FastAPI) -> None:
    """Every exception becomes a problem. What is left over is the last resort's (api.edge)."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(RequestValidationError, _validation_error)
    for error in (OperationalError, InterfaceError, DBAPIError, PoolTimeout):
        app.add_exception_handler(error, _database_error)


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return respond(request, error)


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(sorted(_allowed(request)))
        problem = Problem("method_not_allowed", f"{request.method} does not apply here; see Allow", headers=headers)
    else:
        # A status that only a framework knows is told by the nearest one in the table.
        nearest = "bad_request" if error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR else "internal_error"
        problem = Problem(_OF_STATUS.get(error.status_code, nearest), headers=headers)
    return respond(request, problem)


def _allowed(request: Request) -> set[str]:
    """The methods of every route on this path. The framework's own answer names those of the first route alone."""
    routes: list[BaseRoute] = request.app.routes
    methods: set[str] = set()
    for route in routes:
        match, _ = route.matches(dict(request.scope))
        if match != Match.NONE:
            methods.update(getattr(route, "methods", None) or ())
    return methods


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [
        FieldError(pointer="/" + "/".join(map(_escape, fault["loc"])), code=fault["type"], detail=fault["msg"])
        for fault in error.errors()
    ]
    detail = "; ".join(f"{fault['pointer']}: {fault['detail']}" for fault in errors)
    return respond(request, Problem("validation_failed", detail, errors=errors))


def _escape(token: str | int) -> str:
    return str(token).replace("~", "~0").replace("/", "~1")  # RFC 6901


async def _database_error(request: Request, error: Exception) -> Response:
    problem = database_problem(error)
    if problem is None:
        raise error
    return respond(request, problem)


def database_problem(error: Exception) -> Problem | None:
    """503 where the database is away or too slow; None for anything else, which is a defect of ours."""
    cause, lost = (error.orig, error.connection_invalidated) if isinstance(error, DBAPIError) else (error, False)
    if not lost and not isinstance(cause, OperationalError | InterfaceError | PoolTimeout):
        return None
    log.warning("database.unavailable", error=type(cause).__name__, detail=str(cause).strip()[:200])
    return unavailable()
