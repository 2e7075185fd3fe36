"""Webhooks: whether the request that came is one that Bursar sent (Standard Webhooks, https://www.standardwebhooks.com)."""

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from bursar.client.problems import WebhookRefused

TOLERANCE_S = 300  # the specification's: a request that was recorded is of no use five minutes later
_PREFIX = "whsec_"

Headers = Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]]


@dataclass(frozen=True, slots=True)
class Event:
    """What a webhook tells. `id` is the same on every attempt: an event whose id you have seen is the same event."""

    id: str
    type: str
    timestamp: datetime
    data: Mapping[str, Any]


def verify_webhook(
    headers: Headers,
    body: bytes | str,
    secret: str | Iterable[str],
    *,
    tolerance_s: float = TOLERANCE_S,
    now: float | None = None,
) -> Event:
    """The event in a request, once its signature is good and its time near.

    `body`: the very bytes that came. `secret`: `whsec_…`; several during a rotation, any of them will do. `now`:
    seconds since the epoch. Raises WebhookRefused; ValueError for a secret that is none.
    """
    raw = body.encode() if isinstance(body, str) else body
    keys = [_key(each) for each in ([secret] if isinstance(secret, str) else secret)]
    if not keys:
        raise ValueError("no secret was given")
    pairs = list(cast(Mapping[str, str], headers).items() if isinstance(headers, Mapping) else headers)
    id, sent_at, signatures = (_header(pairs, f"webhook-{name}") for name in ("id", "timestamp", "signature"))
    _check_time(sent_at, tolerance_s, time.time() if now is None else now)
    signed = b".".join((id.encode(), sent_at.encode(), raw))
    good = [hmac.new(key, signed, hashlib.sha256).digest() for key in keys]
    told = [_signature(each) for each in signatures.split(" ") if each.startswith("v1,")]
    if not any(hmac.compare_digest(one, other) for one in good for other in told):
        raise WebhookRefused("no signature fits")
    return _event(id, raw)


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise ValueError(f"a webhook secret is {_PREFIX} and base64")  # never with the secret in it
    return key


def _header(pairs: Iterable[tuple[str | bytes, str | bytes]], name: str) -> str:
    found = {_text(value) for key, value in pairs if _text(key).lower() == name}
    if len(found) != 1:
        raise WebhookRefused(f"{name} is {'missing' if not found else 'there more than once'}")
    return found.pop()


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _check_time(sent_at: str, tolerance_s: float, now: float) -> None:
    if not (sent_at.isascii() and sent_at.isdigit() and len(sent_at) <= 12):
        raise WebhookRefused("webhook-timestamp is no time")
    if abs(now - int(sent_at)) > tolerance_s:
        raise WebhookRefused("webhook-timestamp is too far from now")


def _signature(versioned: str) -> bytes:
    """Empty where it is no base64: that fits nothing."""
    try:
        return base64.b64decode(versioned.removeprefix("v1,"), validate=True)
    except (binascii.Error, ValueError):
        return b""


def _event(id: str, raw: bytes) -> Event:
    try:
        told = json.loads(raw)
        return Event(id, told["type"], datetime.fromisoformat(told["timestamp"]), told["data"])
    except (ValueError, KeyError, TypeError) as error:
        raise WebhookRefused("the body is no event") from error
