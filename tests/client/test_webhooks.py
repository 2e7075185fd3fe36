"""Webhooks: what a stranger or a recording can send is refused. Held to the `standardwebhooks` package."""

import base64
import hmac
import json
from datetime import UTC, datetime
from hashlib import sha256

import pytest
from standardwebhooks import Webhook

from bursar import verify_webhook
from bursar.client import WebhookRefused

SECRET = "whsec_" + base64.b64encode(b"s" * 24).decode()
OTHER = "whsec_" + base64.b64encode(b"o" * 24).decode()
AT = 1_795_600_000
DATA = {"id": "01941f29", "status": "applied"}
BODY = json.dumps({"type": "command.applied", "timestamp": "2026-11-25T12:00:00Z", "data": DATA}).encode()


def signature(body: bytes = BODY, *, secret: str = SECRET, id: str = "evt-1", at: int | str = AT) -> str:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    return "v1," + base64.b64encode(hmac.digest(key, f"{id}.{at}.".encode() + body, sha256)).decode()


def headers(**changed: str) -> dict[str, str]:
    """Good ones, `signature=…` and the like in their place."""
    told = {"id": "evt-1", "timestamp": str(AT), "signature": signature()} | changed
    return {f"Webhook-{name.title()}": value for name, value in told.items()}


def test_a_good_one_is_an_event() -> None:
    event = verify_webhook(headers(), BODY, SECRET, now=AT + 300)
    assert (event.id, event.type, event.data) == ("evt-1", "command.applied", DATA)
    assert event.timestamp == datetime(2026, 11, 25, 12, tzinfo=UTC)
    assert verify_webhook(headers(), BODY.decode(), SECRET, now=AT - 300) == event


def test_the_standards_own_package_finds_the_same_good() -> None:
    at = int(datetime.now(UTC).timestamp())
    told = {name.lower(): value for name, value in headers(timestamp=str(at), signature=signature(at=at)).items()}
    assert Webhook(SECRET).verify(BODY, told)["data"] == verify_webhook(told, BODY, SECRET).data


def test_headers_may_come_as_pairs_of_bytes_in_any_case() -> None:
    pairs = [(name.upper().encode(), value.encode()) for name, value in headers().items()]
    assert verify_webhook(iter(pairs), BODY, SECRET, now=AT).id == "evt-1"


def test_a_rotation_has_two_of_everything() -> None:
    both = f"v1a,abc v1,!!! {signature(secret=OTHER)} {signature()}"
    for secret in (SECRET, OTHER, [OTHER, SECRET], (SECRET,)):
        assert verify_webhook(headers(signature=both), BODY, secret, now=AT).id == "evt-1"
    assert verify_webhook(headers(), BODY, [OTHER, SECRET], now=AT).id == "evt-1"


@pytest.mark.parametrize(
    "changed",
    [
        {"id": "evt-2"},
        {"timestamp": str(AT + 1)},
        {"signature": signature(secret=OTHER)},
        {"signature": signature(BODY + b" ")},
        {"signature": signature().removeprefix("v1,")},
        {"signature": signature().replace("v1,", "v2,")},
        {"signature": "v1,"},
        {"signature": ""},
        {"timestamp": "now", "signature": signature(at="now")},
        {"timestamp": f"-{AT}", "signature": signature(at=f"-{AT}")},
    ],
    ids=str,
)
def test_another_id_time_or_signature_is_refused(changed: dict[str, str]) -> None:
    with pytest.raises(WebhookRefused):
        verify_webhook(headers(**changed), BODY, SECRET, now=AT)


@pytest.mark.parametrize("now", [AT - 301, AT + 301])
def test_a_recording_is_refused(now: int) -> None:
    with pytest.raises(WebhookRefused, match="too far from now"):
        verify_webhook(headers(), BODY, SECRET, now=now)
    assert verify_webhook(headers(), BODY, SECRET, now=now, tolerance_s=301)
    with pytest.raises(WebhookRefused, match="too far from now"):
        verify_webhook(headers(timestamp="1", signature=signature(at=1)), BODY, SECRET)


@pytest.mark.parametrize("name", ["id", "timestamp", "signature"])
def test_a_header_that_is_missing_or_doubled_is_refused(name: str) -> None:
    full = headers()
    with pytest.raises(WebhookRefused, match="missing"):
        verify_webhook({key: value for key, value in full.items() if name not in key.lower()}, BODY, SECRET, now=AT)
    with pytest.raises(WebhookRefused, match="more than once"):
        verify_webhook([*full.items(), (f"webhook-{name}", "another")], BODY, SECRET, now=AT)


@pytest.mark.parametrize("body", [b"", b"[]", b'"text"', b"{}", b'{"type": "a", "timestamp": "soon", "data": {}}'])
def test_a_body_that_is_no_event_is_refused(body: bytes) -> None:
    with pytest.raises(WebhookRefused, match="no event"):
        verify_webhook(headers(signature=signature(body)), body, SECRET, now=AT)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_no base64!", []])
def test_a_secret_that_is_none_is_a_mistake_of_ours(secret: str | list[str]) -> None:
    with pytest.raises(ValueError, match="secret"):
        verify_webhook(headers(), BODY, secret, now=AT)
