"""The Python client of game servers (docs/client.md). It needs httpx2 and nothing else of ours or others'."""

from bursar.client.aio import AsyncClient
from bursar.client.answers import Account, Balance, Command, Hold, Moved, Outcome, Preview, Wallet
from bursar.client.buffer import Fired, Firing
from bursar.client.core import Result, Retries
from bursar.client.orders import Order
from bursar.client.problems import (
    BadRequest,
    BufferFull,
    BursarError,
    Closed,
    Conflict,
    CursorExpired,
    Forbidden,
    Invalid,
    KeyReused,
    NotFound,
    Problem,
    Refused,
    ServerFault,
    TooMany,
    Unauthorized,
    Unknown,
    Unreachable,
    WebhookRefused,
)
from bursar.client.sync import Client
from bursar.client.webhooks import Event, verify_webhook

__all__ = [
    "Account",
    "AsyncClient",
    "BadRequest",
    "Balance",
    "BufferFull",
    "BursarError",
    "Client",
    "Closed",
    "Command",
    "Conflict",
    "CursorExpired",
    "Event",
    "Fired",
    "Firing",
    "Forbidden",
    "Hold",
    "Invalid",
    "KeyReused",
    "Moved",
    "NotFound",
    "Order",
    "Outcome",
    "Preview",
    "Problem",
    "Refused",
    "Result",
    "Retries",
    "ServerFault",
    "TooMany",
    "Unauthorized",
    "Unknown",
    "Unreachable",
    "Wallet",
    "WebhookRefused",
    "verify_webhook",
]
