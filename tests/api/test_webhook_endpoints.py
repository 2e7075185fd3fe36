"""Webhook endpoints over HTTP: registering and changing them, their secrets, and what became of what they were owed."""

import base64
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import msgspec
import pytest
import redis

from api.routes.webhook_endpoints import DESCRIPTION_MAX, HEADERS_MAX, OVERLAP_MAX_H, RATE_MAX, WALLETS_MAX
from bursar.local.valkey import Valkey
from ledger.endpoints import ENDPOINTS_MAX
from ledger.ids import Kind, endpoint_id, parse_id
from ledger.keys import Scope
from runtime import base64url, webhooks
from runtime.doorbell import COURIERS, flag_key
from runtime.vault import Vault
from tests.api.conftest import SECRETS_KEY, NewKey
from tests.api.serving import Served, code
from tests.books import ALL, GOLD, Bank
from tests.worker.conftest import eventually

URL = "https://receiver.example.com/hooks"
PATH = "/v1/webhook_endpoints"
NOWHERE = "01941f29-7c00-8e4d-8000-000000000001"
RINGS_WITHIN_S = 1.9  # a flag's time to live is 2 s
EPOCH = "1970-01-01T00:00:00Z"


def register(client: httpx2.Client, **chosen: Any) -> dict[str, Any]:
    answer = client.post(PATH, json={"url": URL} | chosen)
    assert answer.status_code == 201, answer.text
    return answer.json()


def patch(client: httpx2.Client, id_: str, **chosen: Any) -> dict[str, Any]:
    answer = client.patch(f"{PATH}/{id_}", json=chosen)
    assert answer.status_code == 200, answer.text
    return answer.json()


def get(client: httpx2.Client, path: str, **query: Any) -> dict[str, Any]:
    answer = client.get(f"{PATH}/{path}", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def pages(client: httpx2.Client, path: str, limit: int, **query: Any) -> list[list[dict[str, Any]]]:
    """All pages of a list, asked for as each says."""
    answer = client.get(path, params={"limit": limit, **query})
    found = [answer.json()["data"]]
    while answer.json()["next_cursor"]:
        answer = client.get(answer.headers["link"].partition(">")[0].removeprefix("<"))
        found.append(answer.json()["data"])
    return found


def commands(client: httpx2.Client, id_: str) -> list[str | None]:
    """Whose outcomes the endpoint is owed, oldest first."""
    return [each["command"] for each in reversed(get(client, f"{id_}/deliveries")["data"])]


def seq(delivery: dict[str, Any]) -> int:
    parsed = parse_id(Kind.EVENT, delivery["id"])
    assert parsed
    return parsed[0]


def settle(bank: Bank, delivery: dict[str, Any], *answers: int) -> None:
    """What a courier leaves behind: an attempt for each answer, the last of which ends it."""
    number = seq(delivery)
    for n, status in enumerate(answers, delivery["attempts"] + 1):
        failure = None if status < 300 else "status"
        bank.do(
            "INSERT INTO attempts (endpoint_id, seq, n, at, status, failure, detail, took_ms, body)"
            " SELECT endpoint_id, seq, %s, now(), %s, %s, NULL, %s, 'as it answered' FROM deliveries WHERE seq = %s",
            n, status, failure, 10 * n, number,
        )  # fmt: skip
    over = "delivered" if answers[-1] < 300 else "exhausted"
    statement = "UPDATE deliveries SET status = %s, due_at = NULL, attempts = attempts + %s WHERE seq = %s"
    bank.do(statement, over, len(answers), number)


def fault(answer: httpx2.Response) -> tuple[str, str]:
    """(what it comes to, which member is meant)"""
    return code(answer), answer.json()["errors"][0]["pointer"]


# --- registering -----------------------------------------------------------------------------------------------------


def test_an_endpoint_with_nothing_but_a_url(client: httpx2.Client) -> None:
    made = register(client)
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
    assert made == {
        "id": made["id"],
        "object": "webhook_endpoint",
        "url": URL,
        "description": None,
        "event_types": None,
        "wallets": None,
        "ordering": "none",
        "max_per_second": None,
        "header_names": [],
        "status": "enabled",
        "disabled_reason": None,
        "failing_since": None,
        "paused_until": None,
        "former_secret_until": None,
        "created_at": made["created_at"],
    }
    assert get(client, made["id"]) == made
    assert client.get(PATH).json()["data"] == [made]
    assert register(client)["secret"] != secret


FULL: dict[str, Any] = {
    "url": URL + "?shop=1",
    "description": "The shop",
    "event_types": ["command.applied", "webhook_endpoint.disabled"],
    "wallets": ["alice", "bob"],
    "ordering": "per_wallet",
    "max_per_second": 5,
    "headers": {"Authorization": "Bearer of-the-receiver", "X-Shop": "1"},
}


def test_an_endpoint_with_everything(client: httpx2.Client) -> None:
    made = register(client, **FULL)
    chosen = {name: value for name, value in FULL.items() if name != "headers"}
    assert {name: made[name] for name in chosen} == chosen
    assert made["header_names"] == ["Authorization", "X-Shop"]


def test_what_is_named_twice_is_meant_once(client: httpx2.Client) -> None:
    made = register(client, event_types=["command.applied"] * 2, wallets=["bob", "alice", "bob"])
    assert (made["event_types"], made["wallets"]) == (["command.applied"], ["bob", "alice"])


def test_a_list_has_pages_oldest_first(client: httpx2.Client) -> None:
    ids = [register(client)["id"] for _ in range(5)]
    found = pages(client, PATH, 2)
    assert [[each["id"] for each in page] for page in found] == [ids[:2], ids[2:4], ids[4:]]
    assert "secret" not in found[0][0]


def test_a_tenant_has_a_hundred_and_room_again_when_one_goes(client: httpx2.Client, bank: Bank) -> None:
    last = register(client)["id"]
    bank.do(
        "INSERT INTO webhook_endpoints (tenant_id, client_id, url, ordering, header_names, secret, status, owed_after)"
        " SELECT tenant_id, client_id, url, ordering, header_names, secret, 'disabled', 0 FROM webhook_endpoints,"
        " generate_series(2, %s) WHERE tenant_id = %s",
        ENDPOINTS_MAX, bank.tenant,
    )  # fmt: skip
    answer = client.post(PATH, json={"url": URL})
    assert code(answer) == "409 too_many_endpoints"
    assert str(ENDPOINTS_MAX) in answer.json()["detail"]
    assert client.delete(f"{PATH}/{last}").status_code == 204
    register(client)


# --- changing --------------------------------------------------------------------------------------------------------

CHANGES: list[dict[str, Any]] = [{name: value} for name, value in FULL.items()]
NULLS = {"description", "event_types", "wallets", "max_per_second", "headers"}


def test_one_member_is_changed_and_the_others_stay(client: httpx2.Client) -> None:
    made = register(client)
    del made["secret"]
    for change in [*CHANGES, {"status": "disabled"}]:
        shown = {"header_names": list(change["headers"])} if "headers" in change else change
        made |= shown
        assert patch(client, made["id"], **change) == made
        assert get(client, made["id"]) == made


def test_null_takes_a_member_back_or_is_refused(client: httpx2.Client) -> None:
    made = register(client, **FULL)
    del made["secret"]
    for name in FULL:
        answer = client.patch(f"{PATH}/{made['id']}", json={name: None})
        if name in NULLS:
            made |= {"header_names": []} if name == "headers" else {name: None}
            assert answer.json() == made
        else:
            assert fault(answer) == ("422 validation_failed", f"/{name}")
        assert get(client, made["id"]) == made


def test_headers_are_replaced_whole_and_sealed(client: httpx2.Client, bank: Bank) -> None:
    id_ = register(client, **FULL)["id"]
    assert patch(client, id_, headers={"X-Other": "2"})["header_names"] == ["X-Other"]
    sealed = bank.one("SELECT headers FROM webhook_endpoints WHERE tenant_id = %s", bank.tenant)
    opened = opener().open(sealed, of=webhooks.OF_HEADERS.format(bank.tenant))
    assert msgspec.json.decode(opened) == {"X-Other": "2"}


def test_a_change_of_nothing_is_none(client: httpx2.Client) -> None:
    id_ = register(client)["id"]
    assert code(client.patch(f"{PATH}/{id_}", json={})) == "422 validation_failed"


def trouble(bank: Bank) -> None:
    """As a courier leaves it."""
    bank.do(
        "UPDATE webhook_endpoints SET status = 'disabled', disabled_reason = 'it answered 410 Gone',"
        " failing_since = now(), paused_until = now() WHERE tenant_id = %s",
        bank.tenant,
    )


def test_enabling_it_again_is_a_clean_slate(client: httpx2.Client, bank: Bank) -> None:
    id_ = register(client)["id"]
    trouble(bank)
    assert get(client, id_)["disabled_reason"] == "it answered 410 Gone"
    changed = patch(client, id_, status="enabled")
    assert changed["status"] == "enabled"
    assert changed["disabled_reason"] is changed["failing_since"] is changed["paused_until"] is None


def test_another_description_is_none(client: httpx2.Client, bank: Bank) -> None:
    id_ = register(client)["id"]
    trouble(bank)
    before = get(client, id_)
    assert patch(client, id_, description="renamed") == before | {"description": "renamed"}


def test_a_deleted_endpoint_is_gone(client: httpx2.Client, bank: Bank) -> None:
    id_ = register(client, **FULL)["id"]
    assert client.delete(f"{PATH}/{id_}").status_code == 204
    assert client.get(PATH).json()["data"] == []
    for method in ("GET", "DELETE"):
        assert code(client.request(method, f"{PATH}/{id_}")) == "404 webhook_endpoint_not_found"
    secrets = "SELECT secret, former_secret, headers FROM webhook_endpoints WHERE tenant_id = %s"
    assert bank.rows(secrets, bank.tenant) == [(b"", None, None)]


# --- what is refused -------------------------------------------------------------------------------------------------

HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "a private address": ({"url": "https://10.0.0.1/"}, "/url"),
    "a metadata service": ({"url": "https://169.254.169.254/latest"}, "/url"),
    "a number for a host": ({"url": "https://2130706433/"}, "/url"),
    "localhost": ({"url": "https://localhost/"}, "/url"),
    "http": ({"url": "http://receiver.example.com/"}, "/url"),
    "a password": ({"url": "https://me:pw@receiver.example.com/"}, "/url"),
    "another scheme": ({"url": "file:///etc/passwd"}, "/url"),
    "no url": ({"url": ""}, "/url"),
    "a url that never ends": ({"url": URL + "a" * 2_000}, "/url"),
    "a url as a number": ({"url": 1}, "/url"),
    "a description without end": ({"description": "x" * (DESCRIPTION_MAX + 1)}, "/description"),
    "a description in lines": ({"description": "a\nb"}, "/description"),
    "an event type of theirs": ({"event_types": ["command.applied", "payout"]}, "/event_types/1"),
    "a test as a type": ({"event_types": ["webhook.test"]}, "/event_types/0"),
    "no event types": ({"event_types": []}, "/event_types"),
    "too many wallets": ({"wallets": [f"w{n}" for n in range(WALLETS_MAX + 1)]}, "/wallets"),
    "no wallets": ({"wallets": []}, "/wallets"),
    "a system wallet": ({"wallets": ["@treasury"]}, "/wallets/0"),
    "another order": ({"ordering": "strict"}, "/ordering"),
    "no attempts a second": ({"max_per_second": 0}, "/max_per_second"),
    "too many a second": ({"max_per_second": RATE_MAX + 1}, "/max_per_second"),
    "half an attempt": ({"max_per_second": 0.5}, "/max_per_second"),
    "the host": ({"headers": {"HOST": "elsewhere"}}, "/headers/HOST"),
    "a signature": ({"headers": {"Webhook-Signature": "v1,x"}}, "/headers/Webhook-Signature"),
    "an id": ({"headers": {"webhook-id": "x"}}, "/headers/webhook-id"),
    "a length": ({"headers": {"Content-Length": "0"}}, "/headers/Content-Length"),
    "a proxy's": ({"headers": {"Proxy-Authorization": "x"}}, "/headers/Proxy-Authorization"),
    "a header in two cases": ({"headers": {"X-A": "1", "x-a": "2"}}, "/headers/X-A"),
    "a header's value in lines": ({"headers": {"X-A": "1\r\nHost: elsewhere"}}, "/headers"),
    "a value with a last newline": ({"headers": {"X-A": "1\n"}}, "/headers"),
    "a value beyond ASCII": ({"headers": {"X-A": "\N{SNOWMAN}"}}, "/headers"),
    "a value without end": ({"headers": {"X-A": "x" * 1_001}}, "/headers"),
    "a name with a space": ({"headers": {"X A": "1"}}, "/headers"),
    "a name with a last newline": ({"headers": {"X-A\n": "1"}}, "/headers"),
    "no name": ({"headers": {"": "1"}}, "/headers"),
    "too many headers": ({"headers": {f"X-{n}": "1" for n in range(HEADERS_MAX + 1)}}, "/headers"),
    "a member of theirs": ({"secret": "whsec_of-my-own"}, "/secret"),
}


def test_what_cannot_be_is_refused_by_its_name_and_nothing_is_stored(client: httpx2.Client, bank: Bank) -> None:
    for what, (body, pointer) in HOSTILE.items():
        assert fault(client.post(PATH, json={"url": URL} | body)) == ("422 validation_failed", pointer), what
    assert bank.one("SELECT count(*) FROM webhook_endpoints WHERE tenant_id = %s", bank.tenant) == 0
    made = register(client)
    del made["secret"]
    for what, (body, pointer) in HOSTILE.items():
        assert fault(client.patch(f"{PATH}/{made['id']}", json=body)) == ("422 validation_failed", pointer), what
    assert get(client, made["id"]) == made


def test_an_endpoint_has_a_url(client: httpx2.Client) -> None:
    assert fault(client.post(PATH, json={})) == ("422 validation_failed", "/url")


def test_a_status_is_changed_and_never_given(client: httpx2.Client) -> None:
    assert fault(client.post(PATH, json={"url": URL, "status": "disabled"})) == ("422 validation_failed", "/status")
    id_ = register(client)["id"]
    assert fault(client.patch(f"{PATH}/{id_}", json={"status": "deleted"})) == ("422 validation_failed", "/status")


def test_a_header_that_stands_there_twice(client: httpx2.Client) -> None:
    body = f'{{"url": "{URL}", "headers": {{"X-A": "1", "X-A": "2"}}}}'
    answer = client.post(PATH, content=body, headers={"Content-Type": "application/json"})
    assert fault(answer) == ("400 duplicate_member", "/headers/X-A")


def at_another_time(id_: str) -> str:
    return f"{int(id_[:8], 16) ^ 1:08x}{id_[8:]}"


def other_kinds(client: httpx2.Client, bank: Bank) -> list[str]:
    """Ids that are no endpoint's: of a command, of a delivery, of an endpoint with another time, and no ids at all."""
    made = register(client)["id"]
    bank.top_up("alice", 1)
    (delivery,) = get(client, f"{made}/deliveries")["data"]
    beyond = endpoint_id(2**31, datetime.now(UTC))
    return [NOWHERE, at_another_time(made), beyond, delivery["command"], delivery["id"], "1", "x", made + "0", "%00"]


def test_an_id_of_ones_own_making_leads_nowhere(client: httpx2.Client, bank: Bank) -> None:
    for id_ in other_kinds(client, bank):
        assert code(client.get(f"{PATH}/{id_}")) == "404 webhook_endpoint_not_found", id_


@pytest.mark.parametrize("path", ["", "/{id}/deliveries"])
def test_a_cursor_of_ones_own_making(client: httpx2.Client, path: str) -> None:
    path = PATH + path.format(id=register(client)["id"])
    for cursor in ("x", "%00", "gA", "kQ", "AA", "A" * 100):
        assert code(client.get(path, params={"cursor": cursor})) == "400 invalid_cursor", cursor


def test_a_parameter_that_cannot_be(client: httpx2.Client) -> None:
    path = f"{PATH}/{register(client)['id']}/deliveries"
    for query in ("status=lost", "limit=0", "form=short", "status=pending&status=delivered"):
        answer = client.get(f"{path}?{query}")
        assert fault(answer) == ("422 validation_failed", f"/query/{query.partition('=')[0]}")


@pytest.mark.parametrize("action", ["recover", "replay"])
def test_a_since_that_cannot_be(client: httpx2.Client, action: str) -> None:
    path = f"{PATH}/{register(client)['id']}/{action}"
    wrong: list[tuple[dict[str, str], str]] = [
        ({}, "/since"),
        ({"since": "yesterday"}, "/since"),
        ({"since": "2026-11-25T12:00:00"}, "/since"),
        ({"since": EPOCH, "until": EPOCH}, "/until"),
        ({"since": EPOCH, "cursor": "x" * 101}, "/cursor"),
    ]
    for body, pointer in wrong:
        assert fault(client.post(path, json=body)) == ("422 validation_failed", pointer), body
    assert code(client.post(path, json={"since": EPOCH, "cursor": "kQ"})) == "400 invalid_cursor"


# --- who may ---------------------------------------------------------------------------------------------------------

ROUTES: dict[str, dict[str, Any]] = {
    "POST ": {"url": URL},
    "GET ": {},
    "GET /{id}": {},
    "PATCH /{id}": {"description": "mine"},
    "DELETE /{id}": {},
    "POST /{id}/rotate_secret": {},
    "POST /{id}/test": {},
    "GET /{id}/deliveries": {},
    "GET /{id}/deliveries/{delivery}": {},
    "POST /{id}/deliveries/{delivery}/resend": {},
    "POST /{id}/recover": {"since": EPOCH},
    "POST /{id}/replay": {"since": EPOCH},
    "GET /{id}/stats": {},
}


def ask(client: httpx2.Client, route: str, **ids: str) -> httpx2.Response:
    method, _, path = route.partition(" ")
    return client.request(method, PATH + path.format(**ids), json=ROUTES[route] or None)


def test_every_route_is_here(api: Served) -> None:
    documented = {
        f"{method.upper()} {path.removeprefix(PATH)}"
        for path, operations in api.document["paths"].items()
        for method in operations
        if path.startswith(PATH)
    }
    assert documented == ROUTES.keys()


def test_the_key_must_open_webhooks(api: Served, client: httpx2.Client, new_key: NewKey) -> None:
    id_ = register(client)["id"]
    with api.client(new_key(*set(Scope) - {Scope.ADMIN, Scope.WEBHOOKS_MANAGE})) as other:
        for route in ROUTES:
            assert code(ask(other, route, id=id_, delivery=NOWHERE)) == "403 insufficient_scope", route


def test_a_key_that_opens_webhooks_will_do(api: Served, new_key: NewKey) -> None:
    with api.client(new_key(Scope.WEBHOOKS_MANAGE)) as manager:
        assert get(manager, register(manager)["id"])["url"] == URL


def test_a_stranger_finds_no_endpoint(client: httpx2.Client, stranger: httpx2.Client, bank: Bank) -> None:
    made = register(client, description="ours")
    bank.top_up("alice", 1)
    (delivery,) = get(client, f"{made['id']}/deliveries")["data"]
    before = bank.rows("SELECT * FROM webhook_endpoints WHERE tenant_id = %s", bank.tenant)
    for route in (route for route in ROUTES if "{id}" in route):
        answer = ask(stranger, route, id=made["id"], delivery=delivery["id"])
        assert code(answer) == "404 webhook_endpoint_not_found", route
    assert stranger.get(PATH).json()["data"] == []
    assert get(client, f"{made['id']}/deliveries")["data"] == [delivery]
    assert bank.rows("SELECT * FROM webhook_endpoints WHERE tenant_id = %s", bank.tenant) == before


def test_a_delivery_is_found_at_its_own_endpoint_alone(
    client: httpx2.Client, stranger: httpx2.Client, bank: Bank
) -> None:
    ours, other, theirs = register(client), register(client, wallets=["bob"]), register(stranger)
    bank.top_up("alice", 1)
    (delivery,) = get(client, f"{ours['id']}/deliveries")["data"]
    for route in (route for route in ROUTES if "{delivery}" in route):
        assert code(ask(client, route, id=other["id"], delivery=delivery["id"])) == "404 delivery_not_found"
        assert code(ask(stranger, route, id=theirs["id"], delivery=delivery["id"])) == "404 delivery_not_found"
        for wrong in (NOWHERE, ours["id"], delivery["command"], at_another_time(delivery["id"]), "x"):
            assert code(ask(client, route, id=ours["id"], delivery=wrong)) == "404 delivery_not_found"


# --- secrets ---------------------------------------------------------------------------------------------------------


def opener() -> Vault:
    return Vault(base64url.key_bytes(SECRETS_KEY))


def opened(bank: Bank) -> list[str | None]:
    """The secret that signs, and the one before it."""
    ((secret, former),) = bank.rows(
        "SELECT secret, former_secret FROM webhook_endpoints WHERE tenant_id = %s", bank.tenant
    )
    of = webhooks.OF_SECRET.format(bank.tenant)
    return [opener().open(each, of=of).decode() if each is not None else None for each in (secret, former)]


def test_a_rotated_secret_signs_beside_the_one_before(client: httpx2.Client, bank: Bank) -> None:
    made = register(client)
    assert opened(bank) == [made["secret"], None]
    began = datetime.now(UTC)
    first = client.post(f"{PATH}/{made['id']}/rotate_secret").json()
    assert opened(bank) == [first["secret"], made["secret"]]
    until = datetime.fromisoformat(first["former_secret_until"])
    assert timedelta(hours=23) < until - began < timedelta(hours=25)
    second = client.post(f"{PATH}/{made['id']}/rotate_secret", json={"overlap_hours": 0}).json()
    assert opened(bank) == [second["secret"], first["secret"]]
    assert bank.one("SELECT former_until <= now() FROM webhook_endpoints WHERE tenant_id = %s", bank.tenant)
    assert "secret" not in get(client, made["id"])


def test_an_overlap_that_cannot_be(client: httpx2.Client, bank: Bank) -> None:
    made = register(client)
    for hours in (-1, OVERLAP_MAX_H + 1, 1.5, None, "1"):
        answer = client.post(f"{PATH}/{made['id']}/rotate_secret", json={"overlap_hours": hours})
        assert fault(answer) == ("422 validation_failed", "/overlap_hours")
    assert opened(bank) == [made["secret"], None]


def test_no_secret_and_no_header_is_kept_or_logged_in_the_clear(
    client: httpx2.Client, bank: Bank, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    made = register(client, **FULL)
    again = client.post(f"{PATH}/{made['id']}/rotate_secret").json()
    patch(client, made["id"], headers={"X-Token": "t0ken-of-the-receiver"})
    hidden = [made["secret"], again["secret"], "Bearer of-the-receiver", "t0ken-of-the-receiver"]
    client.patch(f"{PATH}/{made['id']}", json={"headers": {"Host": hidden[3]}})
    client.patch(f"{PATH}/{made['id']}", json={"headers": {"X-Token": hidden[3] + "\n"}})
    bank.top_up("alice", 1)
    assert client.post(f"{PATH}/{made['id']}/test").status_code == 202
    written = "".join(
        value.decode("latin-1") if isinstance(value, bytes) else str(value)
        for table in ("webhook_endpoints", "events", "deliveries", "attempts", "changes")
        for row in bank.sql.execute(f"SELECT * FROM {table}".encode()).fetchall()
        for value in row
    )
    assert FULL["url"] in written
    told = caplog.text + "".join(capfd.readouterr())
    for each in hidden:
        plain = each.removeprefix("whsec_")
        assert plain not in written
        assert plain not in told


def test_without_a_key_there_are_no_webhooks(
    module_database_url: str, valkey: Valkey, client: httpx2.Client, new_key: NewKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there can still be seen, disabled and deleted."""
    id_ = register(client, headers={"X-A": "1"})["id"]
    monkeypatch.delenv("BURSAR_SECRETS_KEY", raising=False)
    keyless = Served(module_database_url, valkey.url)
    try:
        with keyless.client(new_key()) as poor:
            for answer in (
                poor.post(PATH, json={"url": URL}),
                poor.post(f"{PATH}/{id_}/rotate_secret"),
                poor.patch(f"{PATH}/{id_}", json={"headers": {"X-A": "2"}}),
            ):
                assert code(answer) == "404 webhooks_not_offered"
                assert "BURSAR_SECRETS_KEY" in answer.json()["detail"]
            assert [each["header_names"] for each in poor.get(PATH).json()["data"]] == [["X-A"]]
            assert patch(poor, id_, status="disabled")["status"] == "disabled"
            assert poor.delete(f"{PATH}/{id_}").status_code == 204
    finally:
        keyless.stop()


# --- deliveries ------------------------------------------------------------------------------------------------------


@pytest.fixture
def endpoint(client: httpx2.Client) -> str:
    return register(client)["id"]


@pytest.fixture
def three(client: httpx2.Client, bank: Bank, endpoint: str) -> list[dict[str, Any]]:
    """The deliveries of three outcomes, oldest first: delivered at once, given up after two attempts, pending."""
    for amount in (10, 20, 30):
        bank.top_up("alice", amount)
    found = list(reversed(get(client, f"{endpoint}/deliveries")["data"]))
    settle(bank, found[0], 204)
    settle(bank, found[1], 500, 503)
    return list(reversed(get(client, f"{endpoint}/deliveries")["data"]))


def test_deliveries_are_listed_newest_first(client: httpx2.Client, endpoint: str, three: list[dict[str, Any]]) -> None:
    assert [[each["status"], each["attempts"], each["event_type"]] for each in three] == [
        ["delivered", 1, "command.applied"],
        ["exhausted", 2, "command.applied"],
        ["pending", 0, "command.applied"],
    ]
    assert [each["next_attempt_at"] is None for each in three] == [True, True, False]
    for each in three:
        command = client.get(f"/v1/commands/{each['command']}").json()
        assert each["at"] == command["outcome"]["at"]


def test_deliveries_have_pages(client: httpx2.Client, endpoint: str, three: list[dict[str, Any]]) -> None:
    path = f"{PATH}/{endpoint}/deliveries"
    assert pages(client, path, 2) == [[three[2], three[1]], [three[0]]]
    assert pages(client, path, 3) == [[three[2], three[1], three[0]]]


def test_deliveries_of_a_status(client: httpx2.Client, bank: Bank, endpoint: str, three: list[dict[str, Any]]) -> None:
    path = f"{PATH}/{endpoint}/deliveries"
    for place, status in enumerate(("delivered", "exhausted", "pending")):
        assert pages(client, path, 1, status=status) == [[three[place]]]
    bank.do("UPDATE deliveries SET status = 'exhausted', due_at = NULL WHERE due_at IS NOT NULL")
    assert len(pages(client, path, 1, status="exhausted")) == 2  # the next page is of that status, too


def test_a_delivery_has_its_attempts_oldest_first(
    client: httpx2.Client, endpoint: str, three: list[dict[str, Any]]
) -> None:
    shown = get(client, f"{endpoint}/deliveries/{three[1]['id']}")
    attempts = shown.pop("attempt_list")
    assert shown == three[1]
    assert [[each["number"], each["status"], each["failure"], each["took_ms"]] for each in attempts] == [
        [1, 500, "status", 10],
        [2, 503, "status", 20],
    ]
    assert attempts[0]["response"] == "as it answered"
    assert get(client, f"{endpoint}/deliveries/{three[2]['id']}")["attempt_list"] == []


def test_a_delivery_is_sent_again(client: httpx2.Client, endpoint: str, three: list[dict[str, Any]]) -> None:
    for before in three:
        again = client.post(f"{PATH}/{endpoint}/deliveries/{before['id']}/resend")
        assert again.status_code == 202
        shown = again.json()
        assert datetime.fromisoformat(shown["next_attempt_at"]) <= datetime.now(UTC)
        now_pending = {"status": "pending", "next_attempt_at": shown["next_attempt_at"]}
        assert shown == before | now_pending  # the same id, and as many attempts as before


def test_what_was_given_up_is_recovered_since_a_time(
    client: httpx2.Client, bank: Bank, endpoint: str, three: list[dict[str, Any]]
) -> None:
    settle(bank, three[0], 500)
    since = client.get(f"/v1/commands/{three[1]['command']}").json()["accepted_at"]
    answer = client.post(f"{PATH}/{endpoint}/recover", json={"since": since})
    assert (answer.status_code, answer.json()) == (202, {"queued": 1, "next_cursor": ""})
    found = reversed(get(client, f"{endpoint}/deliveries")["data"])
    assert [each["status"] for each in found] == ["exhausted", "pending", "pending"]
    late = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert client.post(f"{PATH}/{endpoint}/recover", json={"since": late}).json()["queued"] == 0
    assert client.post(f"{PATH}/{endpoint}/recover", json={"since": EPOCH}).json()["queued"] == 1


def test_a_replay_owes_what_came_before_the_endpoint_and_while_it_was_disabled(
    client: httpx2.Client, bank: Bank
) -> None:
    since = bank.in_seconds(0).isoformat()
    before = client.post(f"{PATH}", json={"url": URL, "description": "a witness"}).json()["id"]
    bank.top_up("alice", 1)
    id_ = register(client, event_types=["command.applied"])["id"]
    bank.top_up("alice", 2)
    patch(client, id_, status="disabled")
    bank.top_up("alice", 3)
    bank.spend("alice", 1_000)
    patch(client, id_, status="enabled")
    bank.top_up("alice", 4)
    every = commands(client, before)
    assert commands(client, id_) == [every[1], every[4]]
    (delivered,) = (each for each in get(client, f"{id_}/deliveries")["data"] if each["command"] == every[1])
    settle(bank, delivered, 200)
    answer = client.post(f"{PATH}/{id_}/replay", json={"since": since})
    assert (answer.status_code, answer.json()) == (202, {"queued": 2, "next_cursor": ""})
    assert commands(client, id_) == [every[0], every[1], every[2], every[4]]  # not the refusal
    assert get(client, f"{id_}/deliveries/{delivered['id']}")["status"] == "delivered"
    assert client.post(f"{PATH}/{id_}/replay", json={"since": since}).json()["queued"] == 0


def test_a_replay_begins_at_its_time(client: httpx2.Client, bank: Bank) -> None:
    bank.top_up("alice", 1)
    since = bank.in_seconds(0).isoformat()
    bank.top_up("alice", 2)
    id_ = register(client)["id"]
    assert client.post(f"{PATH}/{id_}/replay", json={"since": since}).json()["queued"] == 1


def test_a_replay_of_many_goes_on_by_its_cursor(
    client: httpx2.Client, bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    since = bank.in_seconds(0).isoformat()
    for _ in range(3):
        bank.top_up("alice", 1)
    id_ = register(client)["id"]
    defaults = {"most": 2}
    monkeypatch.setattr("ledger.endpoints.replay.__kwdefaults__", defaults)
    monkeypatch.setattr("ledger.endpoints.recover.__kwdefaults__", defaults)
    for action in ("replay", "recover"):
        first = client.post(f"{PATH}/{id_}/{action}", json={"since": since}).json()
        assert first["queued"] == 2
        rest = {"since": since, "cursor": first["next_cursor"]}
        assert client.post(f"{PATH}/{id_}/{action}", json=rest).json() == {"queued": 1, "next_cursor": ""}
        for each in get(client, f"{id_}/deliveries")["data"]:
            settle(bank, each, 500)
            bank.do("DELETE FROM attempts")


def test_a_test_event_is_owed_to_whom_it_is_asked_for(client: httpx2.Client) -> None:
    id_ = register(client, event_types=["command.failed"], wallets=["nobody"], ordering="per_wallet")["id"]
    other = register(client)["id"]
    answer = client.post(f"{PATH}/{id_}/test")
    assert answer.status_code == 202
    told = answer.json()
    assert (told["event_type"], told["command"], told["status"]) == ("webhook.test", None, "pending")
    assert get(client, f"{id_}/deliveries")["data"] == [told]
    assert get(client, f"{id_}/deliveries/{told['id']}")["attempt_list"] == []
    assert commands(client, other) == []


def test_stats(client: httpx2.Client, endpoint: str, three: list[dict[str, Any]]) -> None:
    assert get(client, f"{endpoint}/stats") == {
        "object": "delivery_stats",
        "pending": 1,
        "delivered": 1,
        "exhausted": 1,
        "attempts": 3,
        "failed_attempts": 2,
        "p50_ms": 10,
        "p99_ms": 10,
        "oldest_pending_at": three[2]["at"],
    }


def test_stats_of_nothing(client: httpx2.Client, endpoint: str) -> None:
    stats = get(client, f"{endpoint}/stats")
    assert set(stats.values()) == {"delivery_stats", 0, None}


# --- the drains ----------------------------------------------------------------------------------------------------


def test_what_changes_what_is_owed_rings_for_the_drains_that_it_turned_away(
    client: httpx2.Client, valkey: Valkey
) -> None:
    with redis.Redis.from_url(valkey.url) as flags:

        def rung() -> bool:
            return flags.exists(*map(flag_key, ALL)) == len(ALL)

        flags.delete(*map(flag_key, ALL))
        made = register(client)
        eventually(rung, within_s=RINGS_WITHIN_S)
        for chosen in ({"wallets": ["alice"]}, {"event_types": ["command.failed"]}, {"status": "disabled"}):
            flags.delete(*map(flag_key, ALL))
            patch(client, made["id"], **chosen)
            eventually(rung, within_s=RINGS_WITHIN_S)


@pytest.mark.parametrize("how", ["a cancel", "a cancel of a key never seen", "a close"])
def test_outcomes_that_no_drain_writes_ring_for_the_couriers(
    client: httpx2.Client, bank: Bank, valkey: Valkey, how: str
) -> None:
    register(client)
    bank.top_up("alice", 1)
    bank.open_wallet("bob")
    command = {"type": "top_up", "wallet": "alice", "asset": GOLD, "amount": "1"}
    waits = client.post("/v1/commands", json=command, headers={"Idempotency-Key": "waits"}).json()["id"]
    path, body = {
        "a cancel": (f"/v1/commands/{waits}/cancel", None),
        "a cancel of a key never seen": ("/v1/commands/cancel", {"idempotency_key": "never-came"}),
        "a close": ("/v1/wallets/alice/close", {"sweep_to": "bob"}),
    }[how]
    with redis.Redis.from_url(valkey.url) as flags:
        flags.delete(flag_key(COURIERS))
        assert client.post(path, json=body).is_success
        eventually(lambda: bool(flags.exists(flag_key(COURIERS))), within_s=RINGS_WITHIN_S)


def test_what_does_not_change_what_is_owed_stops_no_drain(client: httpx2.Client, bank: Bank) -> None:
    made = register(client)
    bank.order("top_up", "alice", 1)
    with bank.another_drain() as drain:
        drain.claim()
        patch(client, made["id"], description="the shop", url=f"{URL}/new", max_per_second=5, ordering="per_wallet")
        drain.apply_and_commit()
