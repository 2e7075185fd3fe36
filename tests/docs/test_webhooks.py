"""docs/webhooks.md: its tables are the code's, and a receiver who does what it says has what was sent."""

import asyncio
import json
import re
import ssl
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from api.routes import webhook_endpoints as routes
from bursar.client import WebhookRefused
from bursar.local.valkey import Valkey
from ledger import db, endpoints
from ledger.events import BALANCE_LOW, EVENT_TYPES, TEST
from ledger.keys import Scope, create_key
from runtime import base64url
from runtime.egress import AllowedHosts
from runtime.settings import Settings
from runtime.vault import Vault
from tests.api.serving import served
from tests.books import GOLD, Bank
from tests.docs.pages import ROOT, fences, rows, section
from tests.docs.walking import Shell, answers
from tests.receivers import Receiver, Request
from worker import courier, sending
from worker.courier import Courier
from worker.sending import Sender

PAGE = ROOT / "docs/webhooks.md"
REGISTERING, ASKING, WATCHING = fences(PAGE, "bash")
BODY, LOW_BODY = fences(PAGE, "json")
RECEIVERS = fences(PAGE, "python")
UNITS_S = {"s": 1, "min": 60, "h": 3_600}
KEY = b"k" * base64url.KEY_BYTES


def says(text: str) -> None:
    words = re.sub(r"\s+", " ", PAGE.read_text())
    assert text in words, text


def test_the_attempts_are_the_couriers() -> None:
    stated = rows(section(PAGE, "Attempts").partition("###")[0])
    assert [row[0] for row in stated] == [str(n) for n in range(2, len(courier.RETRIES_S) + 2)]
    pauses = [row[1].split() for row in stated]
    assert tuple(int(number) * UNITS_S[unit] for number, unit in pauses) == courier.RETRIES_S
    says(f"up to {courier.JITTER * 100:.0f} % shorter or longer")


def test_the_event_types_are_the_codes() -> None:
    assert [row[0].strip("`") for row in rows(section(PAGE, "What comes"))] == [*EVENT_TYPES, TEST]


def test_the_members_are_those_of_the_request() -> None:
    stated = [row[0].strip("`") for row in rows(section(PAGE, "Registering"))]
    assert set(stated) == set(routes.NewEndpoint.__struct_fields__)


def test_the_limits_are_the_codes() -> None:
    stated = {row[0].strip("`"): int(row[1]) for row in rows(section(PAGE, "Limits"))}
    assert stated == {name: getattr(routes, name, None) or getattr(endpoints, name) for name in stated}
    code = (ROOT / "api/routes/webhook_endpoints.py").read_text()
    assert set(re.findall(r"^([A-Z_]+_MAX) = ", code, re.MULTILINE)) < stated.keys()


def test_the_numbers_are_the_codes() -> None:
    says(f"`overlap_hours` ({routes.OVERLAP_DEFAULT_H} unless said, 0 to {routes.OVERLAP_MAX_H})")
    says(f"an attempt has {sending.DEADLINE_S:.0f} seconds")
    says(f"the first {sending.BODY_MAX_BYTES:,} bytes of your answer")
    says(f"At most {courier.WINDOW_MAX} attempts are under way")
    says(f"{', '.join(map(str, courier.SLOW_DOWN[:-1]))} or {courier.SLOW_DOWN[-1]} with `Retry-After`")
    says(f"an answer {courier.GONE}")
    says(f"loses them after {courier.SESSION_IDLE_MAX_MS // 1_000} s")
    says(f"has {courier.IN_THE_AIR_MAX} attempts in the air")
    says(f"looks at {endpoints.REPLAY_MAX:,} of them")
    says(f"how the newest {endpoints.STATS_MAX:,} went")
    says(f"`BURSAR_WEBHOOK_RETENTION_DAYS` ({Settings.model_fields['webhook_retention_days'].default})")
    assert timedelta(seconds=courier.RETRY_AFTER_MAX_S) == timedelta(hours=1)
    says("of an hour at the most")
    assert timedelta(days=5) == courier.FAILING_MAX
    says("five days of nothing but failures")
    assert timedelta(days=3) < timedelta(seconds=sum(courier.RETRIES_S)) < timedelta(days=3.5)
    says("for three days")


# --- its examples ----------------------------------------------------------------------------------------------------


async def deliver(database_url: str, receiver: Receiver, count: int) -> list[Request]:
    """What came, once there is so much."""
    untrusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # the system's takes long to load
    allowed = AllowedHosts.parse("127.0.0.1")
    running = Courier(
        database_url,
        Vault(KEY),
        lambda: Sender(allowed, connections_max=4, ssl_context=untrusting),
        retention=timedelta(days=90),
    )
    task = asyncio.create_task(running.run())
    try:
        return await asyncio.to_thread(receiver.wait_for, count)
    finally:
        running.stop()
        await task


@pytest.fixture(scope="module")
def told(
    module_database_url: str, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, list[Request], Request]]:
    """The secret, and what came to a receiver that was registered as the page says: a test, and a top-up. Then, what
    came to one that wants low balances."""
    bank = Bank(module_database_url)
    engine = db.engine(module_database_url, application="test-keys")
    tenant = bank.one("SELECT code FROM tenants WHERE id = %s", bank.tenant)
    key = create_key(
        engine, env="test", client="a shop", scopes=[Scope.WEBHOOKS_MANAGE, Scope.ASSETS_WRITE], tenant=tenant
    )
    with pytest.MonkeyPatch.context() as environment, Receiver() as receiver, Receiver() as poor:
        environment.setenv("BURSAR_SECRETS_KEY", base64url.encode(KEY))
        environment.setenv("BURSAR_WEBHOOK_ALLOWED_HOSTS", "127.0.0.1")
        with served(module_database_url, valkey.url) as api:
            shell = Shell(tmp_path_factory.mktemp("shop"), BURSAR_URL=api.url, BURSAR_API_KEY=key)
            (made,) = answers(shell.run(REGISTERING.replace("https://shop.example.com/bursar", receiver.url)))
            bank.top_up("player-42", 50)
            shell.run(WATCHING.replace("gold_coins", GOLD))
            of_low = json.dumps([BALANCE_LOW])
            want_low = REGISTERING.replace('["command.applied", "command.rejected"]', of_low)
            shell.run(want_low.replace("https://shop.example.com/bursar", poor.url))
            tested, listed = answers(shell.run(f"ENDPOINT={made['id']}\n{ASKING}"))
        assert tested["event_type"] == TEST
        assert listed["data"][0]["id"] == tested["id"]
        requests = asyncio.run(deliver(module_database_url, receiver, 2))
        bank.do("UPDATE webhook_endpoints SET status = 'disabled' WHERE url = %s", receiver.url)
        bank.spend("player-42", 1)
        (low,) = asyncio.run(deliver(module_database_url, poor, 1))
        yield made["secret"], requests, low
    engine.dispose()
    bank.close()


def test_what_comes_looks_as_the_page_says(told: tuple[str, list[Request], Request]) -> None:
    _, requests, _ = told
    (came,) = (event for event in map(json.loads, (each.body for each in requests)) if event["type"] != TEST)
    example = json.loads(BODY)
    assert came.keys() == example.keys()
    assert came["type"] == example["type"]
    assert example["data"].keys() <= came["data"].keys()
    assert example["data"]["outcome"].keys() <= came["data"]["outcome"].keys()


def test_a_low_balance_looks_as_the_page_says(told: tuple[str, list[Request], Request]) -> None:
    came, example = json.loads(told[2].body), json.loads(LOW_BODY)
    assert (came["type"], came["data"].keys()) == (example["type"], example["data"].keys())
    same = ("object", "wallet", "posted", "held", "available", "below")
    assert [came["data"][name] for name in same] == [example["data"][name] for name in same]


@pytest.mark.parametrize("example", RECEIVERS)
def test_a_receiver_verifies_what_comes(
    told: tuple[str, list[Request], Request], example: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret, requests, _ = told
    monkeypatch.setenv("BURSAR_WEBHOOK_SECRET", secret)
    scope: dict[str, Any] = {}
    exec(compile(example, PAGE.name, "exec"), scope)
    (request,) = (each for each in requests if json.loads(each.body)["type"] != TEST)
    event = json.loads(request.body)
    assert scope["receive"](request.headers, request.body) == (
        f"{request.headers['webhook-id']} {event['type']} {event['data']['id']}"
    )
    with pytest.raises(Exception) as refused:  # noqa: PT011
        scope["receive"](request.headers, request.body.replace(b'"50"', b'"51"'))
    assert type(refused.value).__name__ in (WebhookRefused.__name__, "WebhookVerificationError")
