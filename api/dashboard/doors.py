"""Who gets in: signing in and out, the session's cookie, the token that each form carries, and what a role may do."""

import asyncio
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from urllib.parse import parse_qsl, quote

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from api.dashboard.inward import Refused
from api.dashboard.pages import HEADERS, show
from api.problems import Problem, database_problem, unavailable
from api.state import autocommit, transaction
from ledger import keys, operators
from ledger.changes import REASON_MAX
from ledger.names import NAME_MAX
from ledger.operators import PASSWORD_MAX, SESSION_LASTS_H, Session

log = structlog.get_logger()

COOKIE = "bursar_session"
SIGN_IN_COOKIE = "bursar_sign_in"  # the token of the sign-in form: nobody is signed in yet who could have one
FORM_MAX_BYTES = 64 * 1024  # the longest form is a reason and a name
FIELDS_MAX = 30
THROTTLE_S = 300.0
BY_NAME_MAX = 5  # attempts under one name from one address: a person mistypes twice
BY_ADDRESS_MAX = 30  # from one address, which may be that of a proxy or an office
REMEMBERED_MAX = 4_096  # counts at once, 1 MB; to push his own out, a guesser needs as many attempts, at 50 ms each

Form = Mapping[str, str]
Page = Callable[[Request, Session], Awaitable[Response]]
Act = Callable[[Request, Session, Form], Awaitable[Response]]


# --- pages and actions -----------------------------------------------------------------------------------------------


def page(path: str, handler: Page) -> Route:
    """A GET for whoever is signed in."""

    async def endpoint(request: Request) -> Response:
        session = None
        try:
            session = await _signed_in(request)
            if session is None:
                return _to_sign_in(request)
            return await handler(request, session)
        except Exception as error:
            return _told(request, session, error)

    return Route(path, endpoint, methods=["GET"], name=f"dashboard {path}")


def action(path: str, name: str, target: Callable[[Request, Form], str | None], handler: Act) -> Route:
    """A POST for operators: with the session's token, noted with who, what and why before it is done."""

    async def endpoint(request: Request) -> Response:
        session = None
        try:
            session = await _signed_in(request)
            if session is None:
                return _to_sign_in(request)
            form = await read_form(request)
            _require_token(session.csrf, form, request)
            if not session.acts:
                raise Refused(403, "insufficient_scope", "you may look, and not act: your role is read-only")
            reason = form.get("reason", "").strip()
            if not reason or len(reason) > REASON_MAX:
                raise Refused(422, "reason_missing", f"say why, in 1 to {REASON_MAX} characters")
            async with transaction(request) as connection:
                await operators.note_action(
                    connection, session, name, target=_plain(target(request, form)), reason=_plain(reason)
                )
            return await handler(request, session, form)
        except Exception as error:
            return _told(request, session, error)

    return Route(path, endpoint, methods=["POST"], name=f"action: {name}")


def actions(routes: Iterable[BaseRoute]) -> list[Route]:
    """Those of them that `action` made."""
    return [route for route in routes if isinstance(route, Route) and route.name.startswith("action: ")]


def back(to: str, request: Request) -> Response:
    """After an action: show where it happened."""
    if "hx-request" in request.headers:
        return Response(status_code=204, headers={**HEADERS, "HX-Redirect": to})
    return RedirectResponse(to, 303, headers=HEADERS)


def _plain(text: str | None) -> str | None:
    """Without what PostgreSQL cannot store, and no longer than any name."""
    return text.encode("utf-8", "replace").decode().replace("\0", "")[: 2 * REASON_MAX] if text else None


async def _signed_in(request: Request) -> Session | None:
    cookie = request.cookies.get(COOKIE)
    if not cookie or len(cookie) > 100:
        return None
    async with autocommit(request) as connection:
        return await operators.session_of(connection, cookie)


async def still_signed_in(request: Request) -> bool:
    """For what stays open."""
    return await _signed_in(request) is not None


def _to_sign_in(request: Request) -> Response:
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    to = "/sign-in" if request.method != "GET" or here == "/" else f"/sign-in?next={quote(here, safe='')}"
    if "hx-request" in request.headers:
        return Response(status_code=401, headers={**HEADERS, "HX-Redirect": "/sign-in"})
    return RedirectResponse(to, 303, headers=HEADERS)


def _told(request: Request, session: Session | None, error: Exception) -> Response:
    """An error as a page, or as a line where a part of a page was asked for. Raises what is no problem of ours."""
    if isinstance(error, ClientDisconnect):  # nobody is left to tell (api.edge)
        raise error
    if isinstance(error, TimeoutError):
        error = unavailable()
    problem = error if isinstance(error, Problem) else database_problem(error)
    if isinstance(error, Refused):
        status, detail, code = error.status, error.detail, error.code
    elif problem is not None:
        status, detail, code = problem.status, problem.detail, problem.code
    else:
        log.exception("request.failed", request_id=request.state.request_id, path=request.url.path)
        status, code = 500, "internal_error"
        detail = f"a defect; report it with request id {request.state.request_id}"
    part = "hx-request" in request.headers
    values = {"status": status, "detail": detail, "code": code}
    if part:  # htmx shows no error on its own
        return show(request, "parts/refusal.html", values, session=session, headers={"Bursar-Status": str(status)})
    return show(request, "refusal.html", values, session=session, status=status)


# --- forms -----------------------------------------------------------------------------------------------------------


async def read_form(request: Request) -> Form:
    """The fields of a posted form, each once. Raises Refused."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        raise Refused(415, "unsupported_media_type", "this takes a form")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_MAX_BYTES:
            raise Refused(413, "body_too_large", f"a form is at most {FORM_MAX_BYTES} bytes")
    try:
        fields = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=FIELDS_MAX, errors="strict")
    except ValueError:  # UnicodeDecodeError is one
        raise Refused(400, "bad_request", "this is not a form that a browser sends") from None
    form = dict(fields)
    if len(form) != len(fields):
        raise Refused(400, "bad_request", "a field stands in the form twice")
    return form


def _require_token(expected: str, form: Form, request: Request) -> None:
    """Raises Refused, 403, where the form is not one that this session was given."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Refused(403, "forged_form", "the form came from another site")
    if not hmac.compare_digest(form.get("csrf", "").encode(), expected.encode()):
        raise Refused(403, "forged_form", "the form is not of this session; load the page again")


# --- signing in ------------------------------------------------------------------------------------------------------


class Throttle:
    """How often somebody has tried to sign in lately. In memory, in each api process, and bounded."""

    def __init__(self) -> None:
        self._attempts: OrderedDict[tuple[str, ...], tuple[int, float]] = OrderedDict()

    def admit(self, address: str, name: str) -> bool:
        """Counts an attempt; False: it is one too many."""
        allowed = self._count((address,), BY_ADDRESS_MAX)
        return self._count((address, name), BY_NAME_MAX) and allowed

    def forgive(self, address: str, name: str) -> None:
        """It was he."""
        self._attempts.pop((address, name), None)

    def _count(self, who: tuple[str, ...], most: int) -> bool:
        now = time.monotonic()
        attempts, began = self._attempts.pop(who, (0, now))
        if now - began > THROTTLE_S:
            attempts, began = 0, now
        while len(self._attempts) >= REMEMBERED_MAX:
            self._attempts.popitem(last=False)
        self._attempts[who] = (min(attempts + 1, most + 1), began)
        return attempts < most


class Hashing:
    """Passwords are verified one at a time: each takes 64 MiB and 50 ms of a processor."""

    QUEUE_MAX = 8  # half a second of them

    def __init__(self) -> None:
        self._one = asyncio.Lock()
        self._queued = 0

    async def verify(self, password_hash: str | None, password: str) -> bool:
        if self._queued >= self.QUEUE_MAX:
            raise Refused(429, "too_many_attempts", "many are signing in at this moment; try again in a minute")
        self._queued += 1
        try:
            async with self._one:
                return await asyncio.to_thread(operators.verify_password, password_hash, password)
        finally:
            self._queued -= 1


async def sign_in_page(request: Request) -> Response:
    try:
        if await _signed_in(request) is not None:
            return RedirectResponse(_next(request.query_params.get("next", "")), 303, headers=HEADERS)
    except Exception as error:
        return _told(request, None, error)
    return _sign_in_form(request, next_=request.query_params.get("next", ""))


def _sign_in_form(request: Request, *, next_: str, refusal: str = "", name: str = "", status: int = 200) -> Response:
    token = request.cookies.get(SIGN_IN_COOKIE, "")
    if not 20 <= len(token) <= 100:
        token = secrets.token_urlsafe(32)
    values = {"token": token, "next": _next(next_), "refusal": refusal, "name": name[:100]}
    shown = show(request, "sign_in.html", values, session=None, status=status)
    _set_cookie(request, shown, SIGN_IN_COOKIE, token, max_age_s=3_600)
    return shown


async def sign_in(request: Request) -> Response:
    """With an API key, or with an operator's name and password. Either refusal is the same for all reasons."""
    try:
        form = await read_form(request)
        token = request.cookies.get(SIGN_IN_COOKIE, "")
        if not token:
            raise Refused(403, "forged_form", "the form is not of this browser; load the page again and allow cookies")
        _require_token(token, form, request)
        address = request.client.host if request.client else ""
        key, name = form.get("key", "").strip(), form.get("name", "").strip()
        throttle: Throttle = request.app.state.throttle
        if not throttle.admit(address, name.casefold()[:NAME_MAX] if not key else "an API key"):
            log.warning("dashboard.throttled", address=address)
            refusal = "Too many attempts. Try again in five minutes."
            return _sign_in_form(request, next_=form.get("next", ""), refusal=refusal, name=name, status=429)
        cookie = await (_by_key(request, key) if key else _by_password(request, name, form.get("password", "")))
        if cookie is None:
            log.warning("dashboard.sign_in_refused", address=address, by="key" if key else "password")
            what = (
                "This key is unknown, expired or revoked, or opens no wallets." if key else "Name or password is wrong."
            )
            return _sign_in_form(request, next_=form.get("next", ""), refusal=what, name=name, status=401)
        throttle.forgive(address, name.casefold()[:NAME_MAX] if not key else "an API key")
    except Exception as error:
        return _told(request, None, error)
    answer = RedirectResponse(_next(form.get("next", "")), 303, headers=HEADERS)
    _set_cookie(request, answer, COOKIE, cookie, max_age_s=3_600 * SESSION_LASTS_H)
    answer.delete_cookie(SIGN_IN_COOKIE, path="/")
    return answer


async def _by_key(request: Request, key: str) -> str | None:
    if not keys.is_well_formed(key):
        return None
    async with transaction(request) as connection:
        found = await keys.find_key(connection, keys.key_hash(key))
        if found is None or operators.role_of(found.scopes) is None:
            return None
        return await operators.open_session(connection, key_id=found.key_id)


async def _by_password(request: Request, name: str, password: str) -> str | None:
    if not name or len(name) > NAME_MAX or not password or len(password) > PASSWORD_MAX or "\0" in name:
        return None
    async with autocommit(request) as connection:
        found = await operators.password_of(connection, name)
    hashing: Hashing = request.app.state.hashing
    if not await hashing.verify(found[1] if found else None, password) or found is None:
        return None
    async with transaction(request) as connection:
        return await operators.open_session(connection, operator_id=found[0])


async def sign_out(request: Request) -> Response:
    try:
        session = await _signed_in(request)
        if session is not None:
            _require_token(session.csrf, await read_form(request), request)
            async with transaction(request) as connection:
                await operators.close_session(connection, request.cookies[COOKIE])
    except Exception as error:
        return _told(request, None, error)
    answer = RedirectResponse("/sign-in", 303, headers=HEADERS)
    answer.delete_cookie(COOKIE, path="/")
    return answer


def _next(asked: str) -> str:
    """A page of ours, and nothing else that a link may have brought along."""
    ours = asked.startswith("/") and not asked.startswith(("//", "/\\")) and asked.isprintable() and len(asked) < 500
    return asked if ours and "\\" not in asked else "/"


def _set_cookie(request: Request, answer: Response, name: str, value: str, *, max_age_s: int) -> None:
    # What a proxy says of the way before it can only make the cookie stricter.
    tls = request.url.scheme == "https" or request.headers.get("x-forwarded-proto") == "https"
    answer.set_cookie(name, value, max_age=max_age_s, path="/", secure=tls, httponly=True, samesite="strict")


routes = [
    Route("/sign-in", sign_in_page, methods=["GET"], name="dashboard sign-in"),
    Route("/sign-in", sign_in, methods=["POST"], name="dashboard sign in"),
    Route("/sign-out", sign_out, methods=["POST"], name="dashboard sign out"),
]
