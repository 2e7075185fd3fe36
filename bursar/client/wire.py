"""Between the core and httpx2: what both shells need."""

from collections.abc import Mapping
from typing import Any, TypedDict
from urllib.parse import urlsplit

import httpx2

from bursar.client.core import Answer, Lost, Open, Send
from bursar.client.problems import BursarError

# Before any of these the request has not left.
_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)
_CONNECTIONS_MAX = 100  # at once; whoever comes when they are in use waits for one

Failure = httpx2.RequestError


class Options(TypedDict):
    """What both of httpx2's clients take."""

    base_url: str
    headers: Mapping[str, str]
    trust_env: bool
    follow_redirects: bool
    limits: httpx2.Limits
    verify: Any
    proxy: str | None


def options(url: str, api_key: str, verify: Any, proxy: str | None) -> Options:
    """Raises ValueError; the key stands in no message."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"{url!r} is no address of a service, such as https://bursar.example")
    if not (api_key and api_key.isascii() and api_key.isprintable() and " " not in api_key):
        raise ValueError("the API key is empty, or has characters that no key has")
    headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json", "User-Agent": "bursar-client"}
    # trust_env: nobody's environment or .netrc decides where players' credits are sent, or with whose key.
    return {
        "base_url": url,
        "headers": headers,
        "trust_env": False,
        "follow_redirects": False,
        "limits": httpx2.Limits(max_connections=_CONNECTIONS_MAX, max_keepalive_connections=_CONNECTIONS_MAX),
        # Without TLS nothing is verified, and a context would cost tens of milliseconds.
        "verify": verify if parts.scheme == "https" or proxy is not None else False,
        "proxy": proxy,
    }


def built(http: httpx2.Client | httpx2.AsyncClient, step: Send | Open) -> httpx2.Request:
    request = step.request
    return http.build_request(
        request.method,
        request.path,
        content=request.body,
        headers=request.headers,
        params=request.params or None,
        timeout=httpx2.Timeout(step.timeout_s, read=step.quiet_s if isinstance(step, Open) else step.timeout_s),
    )


def answer(response: httpx2.Response, content: bytes) -> Answer:
    return Answer(response.status_code, dict(response.headers), content)


def lost(error: httpx2.RequestError) -> Lost:
    return Lost(
        f"{type(error).__name__}: {error}" if str(error) else type(error).__name__,
        sent=not isinstance(error, _NOT_SENT),
    )


class Abandoned(BursarError):
    """Whoever performs the steps of a flow has been told to stop."""
