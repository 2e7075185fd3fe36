"""Webhooks as they go out: the body, and the headers that sign it, to the Standard Webhooks specification 1.0.

    webhook-id, webhook-timestamp, webhook-signature: v1,<base64 of HMAC-SHA256 over "{id}.{timestamp}.{body}">

The id is the event's and the same in every attempt; the timestamp is the attempt's. While a secret is being rotated,
both sign, and a receiver is content with either.
"""

import base64
import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import cast

import msgspec

from ledger.deliveries import Event
from ledger.events import outcome_type
from ledger.ids import event_id
from ledger.outcomes import CommandState
from runtime.shown import represent

SECRET_PREFIX = "whsec_"
SECRET_BYTES = 32  # the specification wants 24 to 64
OF_SECRET = "webhook secret of tenant {}"  # what a sealed one belongs to (runtime.vault)
OF_HEADERS = "webhook headers of tenant {}"
CONTENT_TYPE = "application/json"
USER_AGENT = "Bursar-Webhooks/1"

_encode = msgspec.json.Encoder().encode


def new_secret() -> str:
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def message(content: CommandState | Event) -> tuple[str, bytes]:
    """(webhook-id, body) of what is told: `{"type", "timestamp", "data"}`, where `data` is the command with its
    outcome, as every read shows it."""
    if isinstance(content, Event):
        shown = {"type": content.type, "timestamp": content.at, "data": msgspec.Raw(content.data.encode())}
        return event_id(content.seq, content.at), _encode(shown)
    at = cast(datetime, content.at)  # it has its outcome
    type_ = outcome_type(cast(str, content.status), cast(str, content.code))
    return event_id(content.seq, at), _encode({"type": type_, "timestamp": at, "data": represent(content)})


def signed_headers(id_: str, body: bytes, keys: Sequence[str], *, unix_s: int) -> dict[str, str]:
    """The specification's three headers. `keys`: secrets as clients know them, the newest first."""
    signatures = " ".join(_sign(key, id_, unix_s, body) for key in keys)
    return {"webhook-id": id_, "webhook-timestamp": str(unix_s), "webhook-signature": signatures}


def _sign(key: str, id_: str, unix_s: int, body: bytes) -> str:
    secret = base64.b64decode(key.removeprefix(SECRET_PREFIX))
    digest = hmac.digest(secret, f"{id_}.{unix_s}.".encode() + body, "sha256")
    return f"v1,{base64.b64encode(digest).decode()}"
