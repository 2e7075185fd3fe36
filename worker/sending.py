"""One POST to somebody else's server, which may be slow, broken or hostile, and what came of it.

Addresses are checked where the connection is made: all that a name has, each time it is looked up, and the one that a
socket is about to connect to. Why aiohttp, and why so: docs/decisions/0022. For operators: docs/webhook-safety.md.
"""

import asyncio
import contextlib
import email.utils
import errno
import functools
import os
import re
import socket
import ssl
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from ipaddress import ip_address
from typing import Any

import aiohttp
import structlog
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from runtime.egress import AllowedHosts, url_fault

log = structlog.get_logger()

DEADLINE_S = 15.0  # of one attempt, over everything: those who publish theirs give receivers 5 to 30 s
BODY_S = 2.0  # of the deadline, for the answer's body: it is for people only, the status has decided
BODY_MAX_BYTES = 1_024  # of the answer's body that are kept: an error's message, no page
READ_MAX_BYTES = 16_384  # of it that are read; a longer one costs its connection
RAW_MAX_BYTES = 2**20  # of all that comes: interim answers, headers, framing; asyncio hands on up to 2**18 at once
HEADER_MAX_BYTES = 8_190  # of the status line, and of each header
HEADERS_MAX = 128
IDLE_S = 4.0  # that a connection waits for the next attempt: most servers close theirs after 5 s or more
NAMES_KEPT_S = 10  # that a name's addresses are kept
LOOKUPS_MAX = 32  # names looked up at once: a name server that never answers holds one for 10 s (resolv.conf)

# What we are short of, not the receiver.
_OURS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}
# Control characters but tab and newline; what turns the direction of writing, so that a text reads as another one.
_HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class Failure(StrEnum):
    """Why an attempt failed."""

    REFUSED_URL = "refused_url"  # such a URL is not taken, or not any more (runtime.egress.url_fault); nothing was sent
    REFUSED_ADDRESS = "refused_address"  # the host has an address that is not public; nothing was sent
    DNS = "dns"  # the name has no address, or its name servers did not say
    CONNECT = "connect"  # refused, or unreachable
    TLS = "tls"  # no handshake, or a certificate that is not good for this host
    TIMEOUT = "timeout"  # not done by the deadline
    RESET = "reset"  # the connection ended before an answer came
    REDIRECT = "redirect"  # 3xx; never followed
    STATUS = "status"  # any other than 2xx
    INVALID_RESPONSE = "invalid_response"  # no HTTP, or headers beyond their limits
    OVERLOADED = "overloaded"  # this process had no connection free within half the deadline; nothing was sent
    FAULT = "fault"  # a defect of ours; the log has it


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of an attempt.

    The status decides as soon as it is there; a body that breaks off or never ends changes nothing. `failure` is None
    for 2xx: the receiver has it. `detail` says the same for a person, and is empty for 2xx. `body` is the beginning of
    the answer's, at most BODY_MAX_BYTES of UTF-8, and both are texts that PostgreSQL takes. `retry_after_s` is as the
    receiver said it, not negative and not bounded.
    """

    status: int | None
    failure: Failure | None
    detail: str
    body: str
    retry_after_s: float | None
    took_s: float


class RefusedAddress(OSError):
    """The host has an address that is not public. An OSError: to aiohttp, a connection that failed."""


@dataclass(slots=True)
class _Attempt:
    """How far an attempt has come; aiohttp's traces tell."""

    doing: str | None = None
    reused: bool = False
    response: aiohttp.ClientResponse | None = None
    body: bytearray = field(default_factory=bytearray)


class Sender:
    """Posts at most `connections_max` webhooks at a time. Belongs to the event loop in which it was made."""

    def __init__(
        self,
        allowed: AllowedHosts,
        *,
        deadline_s: float = DEADLINE_S,
        connections_max: int,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """`ssl_context`: whom to trust; unless given, whom the system trusts."""
        self._allowed = allowed
        self._deadline_s = deadline_s
        self._connections_max = connections_max
        self._ssl_context = ssl_context or ssl.create_default_context()
        self._free = asyncio.Semaphore(connections_max)
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._lookups = _Lookups()
        self._sessions: dict[tuple[bool, bool], aiohttp.ClientSession] = {}

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """One attempt, at most `deadline_s` long, the wait for a free connection included. Never raises."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        attempt = _Attempt()
        failure, detail = None, ""
        if fault := url_fault(url, self._allowed):
            failure, detail = Failure.REFUSED_URL, fault
        else:
            try:
                async with asyncio.timeout(self._deadline_s):
                    async with asyncio.timeout(self._deadline_s / 2):  # no receiver is blamed for our queue
                        await self._free.acquire()
                    try:
                        await self._exchange(attempt, url, headers, body)
                    finally:
                        self._free.release()
            except TimeoutError:
                if attempt.doing is None:
                    failure, detail = Failure.OVERLOADED, "This process had no connection free."
                else:
                    failure, detail = Failure.TIMEOUT, f"Not done within {self._deadline_s:g} s: {attempt.doing}."
            except (aiohttp.ClientError, OSError) as error:
                failure, detail = _explained(error)
            except Exception as error:
                log.exception(
                    "sending.fault", host=URL(url, encoded=True).raw_host
                )  # the rest of the URL may be a secret
                failure, detail = Failure.FAULT, f"A defect of the sender: {type(error).__name__}."
        took_s = loop.time() - start
        if attempt.response is None:
            return Answer(None, failure, detail, "", None, took_s)
        return _answer(attempt.response, bytes(attempt.body), took_s)

    async def close(self) -> None:
        """Close every connection. Attempts under way fail."""
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()

    async def _exchange(self, attempt: _Attempt, url: str, headers: Mapping[str, str], body: bytes) -> None:
        """Send it and read the answer into `attempt`."""
        target = URL(url, encoded=True)  # as it was registered, to the letter
        trusted = self._allowed.has_name(target.raw_host or "")
        while True:
            attempt.doing, attempt.reused = "connecting", False
            session = self._session(trusted=trusted, kept=self._few_sockets())
            try:
                async with session.post(
                    target, data=body, headers=headers, allow_redirects=False, trace_request_ctx=attempt
                ) as response:
                    attempt.response = response
                    await _read_body(response, attempt.body)
                return
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                # The receiver may have closed a kept connection just when it was taken again. It says nothing of the
                # receiver, and to send again is safe: receivers know a webhook by its id (RFC 9110, 9.2.2).
                if not attempt.reused or attempt.response is not None:
                    raise

    def _session(self, *, trusted: bool, kept: bool) -> aiohttp.ClientSession:
        """For hosts that the list has by name, or for all others; with connections kept, or without."""
        key = (trusted, kept)
        if key not in self._sessions:
            keeping: dict[str, Any] = {"keepalive_timeout": IDLE_S} if kept else {"force_close": True}
            connector = _Connector(
                limit=0,  # ours is over all sessions
                resolver=_Resolver(self._lookups, None if trusted else self._allowed),
                ttl_dns_cache=NAMES_KEPT_S,
                ssl=self._ssl_context,
                socket_factory=functools.partial(self._socket, trusted),
                **keeping,
            )
            self._sessions[key] = aiohttp.ClientSession(
                connector=connector,
                headers={"Accept-Encoding": "identity", "User-Agent": "Bursar"},
                timeout=aiohttp.ClientTimeout(total=None),  # the deadline is ours, and covers what theirs leaves out
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,  # no proxy and no .netrc of this machine
                auto_decompress=False,
                read_bufsize=READ_MAX_BYTES,
                max_line_size=HEADER_MAX_BYTES,
                max_field_size=HEADER_MAX_BYTES,
                max_headers=HEADERS_MAX,
                trace_configs=[_tracing()],
            )
        return self._sessions[key]

    def _few_sockets(self) -> bool:
        """Whether one more connection may be kept. No limit of aiohttp counts those that are idle."""
        limit = 2 * self._connections_max
        return len(self._sockets) < limit or sum(made.fileno() >= 0 for made in self._sockets) < limit

    def _socket(self, trusted: bool, where: tuple[Any, ...]) -> socket.socket:
        """For an address, as getaddrinfo tells it. The last look before the connection; raises RefusedAddress."""
        family, kind, protocol, _, address = where
        if not trusted:
            _check(address[0], self._allowed)
        made = socket.socket(family, kind, protocol)
        self._sockets.add(made)
        return made


class TooLong(aiohttp.ClientError):
    """RAW_MAX_BYTES came, and no end."""


class _Connector(aiohttp.TCPConnector):
    """Its connections stop reading at RAW_MAX_BYTES. aiohttp bounds no interim answers and no framing."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._factory = functools.partial(_Capped, loop=self._loop)


class _Capped(ResponseHandler):
    _left = RAW_MAX_BYTES

    def set_response_params(self, **settings: Any) -> None:
        self._left = RAW_MAX_BYTES  # a request begins
        super().set_response_params(**settings)

    def data_received(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left >= 0:
            super().data_received(data)
        elif self.transport is not None:
            self.set_exception(TooLong(f"more than {RAW_MAX_BYTES} bytes"))
            self.transport.abort()


class _Lookups:
    """Names looked up in threads of their own: not in the loop's few, which others wait for, nor at the exit."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(LOOKUPS_MAX)

    async def addresses(self, host: str, port: int) -> list[tuple[Any, ...]]:
        """As getaddrinfo tells them. Raises socket.gaierror."""
        loop = asyncio.get_running_loop()
        told: asyncio.Future[list[tuple[Any, ...]]] = loop.create_future()

        def tell(found: list[tuple[Any, ...]] | BaseException) -> None:
            self._free.release()  # only now: a lookup that nobody waits for any more still has its thread
            if not told.done():
                told.set_exception(found) if isinstance(found, BaseException) else told.set_result(found)

        def look_up() -> None:
            try:
                found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except Exception as error:
                found = error
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(tell, found)

        await self._free.acquire()
        threading.Thread(target=look_up, name="lookup", daemon=True).start()
        return await told


class _Resolver(AbstractResolver):
    """Looks names up, and refuses one that has any address which is not public: half a trap is one."""

    def __init__(self, lookups: _Lookups, allowed: AllowedHosts | None) -> None:
        """`allowed`: None for hosts that may be anywhere."""
        self._lookups = lookups
        self._allowed = allowed

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        results: list[ResolveResult] = []
        for found_family, _, protocol, _, (address, *_) in await self._lookups.addresses(host, port):
            if self._allowed is not None:
                _check(address, self._allowed)
            results.append(
                ResolveResult(
                    hostname=host,
                    host=address,
                    port=port,
                    family=found_family,
                    proto=protocol,
                    flags=socket.AI_NUMERICHOST,
                )
            )
        return results

    async def close(self) -> None:
        """Lookups end by themselves."""


def _check(address: str, allowed: AllowedHosts) -> None:
    if not allowed.may_connect(ip_address(address)):
        log.warning("sending.refused", address=address)  # told to the operator, not to whom the webhook belongs
        raise RefusedAddress("The host has an address that is not one of the public internet.")


def _tracing() -> aiohttp.TraceConfig:
    """Tells an _Attempt how far it is."""
    tracing = aiohttp.TraceConfig()

    def on(signal: Any, **news: Any) -> None:
        async def tell(_session: aiohttp.ClientSession, context: Any, _params: object) -> None:
            for name, value in news.items():
                setattr(context.trace_request_ctx, name, value)

        signal.append(tell)

    on(tracing.on_dns_resolvehost_start, doing="looking up the host's name")
    on(tracing.on_dns_resolvehost_end, doing="connecting")
    on(tracing.on_connection_reuseconn, reused=True)
    on(tracing.on_request_headers_sent, doing="waiting for the answer")
    return tracing


async def _read_body(response: aiohttp.ClientResponse, body: bytearray) -> None:
    """Into `body`, what comes within BODY_S, up to READ_MAX_BYTES. What is left unread costs the connection."""
    try:
        async with asyncio.timeout(BODY_S):
            while len(body) < READ_MAX_BYTES:
                piece = await response.content.read(READ_MAX_BYTES - len(body))
                if not piece:
                    return
                body += piece
    except TimeoutError:
        pass
    response.close()


def _answer(response: aiohttp.ClientResponse, body: bytes, took_s: float) -> Answer:
    match response.status:
        case status if 200 <= status <= 299:
            failure, detail = None, ""
        case status if 300 <= status <= 399:
            failure, detail = Failure.REDIRECT, f"Answered {status}; redirects are not followed."
        case status if 400 <= status <= 599:
            failure, detail = Failure.STATUS, f"Answered {status}."
        case status:
            detail = f"Answered {status}, which is no final status of HTTP."
            return Answer(None, Failure.INVALID_RESPONSE, detail, "", None, took_s)
    encoding = response.headers.get("Content-Encoding", "identity")
    text = _text(body) if encoding == "identity" else f"[{_text(encoding.encode())[:20]}, not decoded]"
    return Answer(status, failure, detail, text, _retry_after_s(response.headers.get("Retry-After")), took_s)


def _text(raw: bytes) -> str:
    text = raw[:BODY_MAX_BYTES].decode(errors="replace").replace("\r\n", "\n")
    # What is replaced may take more bytes than before.
    return _HARMFUL.sub("\N{REPLACEMENT CHARACTER}", text).encode()[:BODY_MAX_BYTES].decode(errors="ignore")


def _retry_after_s(value: str | None) -> float | None:
    """Seconds or a date (RFC 9110, 10.2.3); None for anything else."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return float(value[:18]) if len(value) <= 18 else None
    try:
        at = email.utils.parsedate_to_datetime(value)
        return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    except (ValueError, OverflowError):
        return None


def _explained(error: aiohttp.ClientError | OSError) -> tuple[Failure, str]:
    """The code and a sentence that names no address: whose webhook it is need not learn where our names lead."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    why = os.strerror(cause.errno) if isinstance(cause, OSError) and cause.errno and cause.errno > 0 else ""
    match error:
        case _ if isinstance(cause, RefusedAddress):
            return Failure.REFUSED_ADDRESS, str(cause)
        case aiohttp.ClientConnectorCertificateError():
            said = getattr(error.certificate_error, "verify_message", "") or "it could not be verified"
            return Failure.TLS, f"Its certificate is not good: {said}."
        case aiohttp.ClientConnectorDNSError():
            return Failure.DNS, f"The host's name was not found: {error.os_error.strerror or 'no address'}."
        case aiohttp.ClientConnectorSSLError() | aiohttp.ClientSSLError():
            reason = getattr(cause, "reason", None) or "UNKNOWN"
            return Failure.TLS, f"The TLS handshake failed: {str(reason).replace('_', ' ').lower()}."
        case OSError(errno=number) if number in _OURS:
            return Failure.OVERLOADED, f"This process is short of something: {why}."
        case aiohttp.ClientConnectorError():
            return Failure.CONNECT, f"No connection: {why or 'none of its addresses could be reached'}."
        case TooLong():
            return Failure.INVALID_RESPONSE, f"The answer has {error}."
        case aiohttp.ClientResponseError():
            said = _text(error.message.strip().partition("\n")[0].encode(errors="replace"))[:100]
            return Failure.INVALID_RESPONSE, f"The answer is no HTTP that we read: {said}"
        case _:
            return Failure.RESET, f"The connection ended before an answer came: {why or 'closed'}."
