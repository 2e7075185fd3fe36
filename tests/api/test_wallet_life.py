"""A wallet's life over HTTP: frozen in whole or in its debits, and who did it, when and why."""

from datetime import datetime
from typing import Any

import httpx2
import pytest

from ledger.keys import Scope
from tests.api.conftest import NewKey
from tests.api.serving import Served, code
from tests.api.test_wallets import pages
from tests.books import GOLD, Bank


def changes(client: httpx2.Client, path: str = "/v1/wallets/alice") -> list[dict[str, Any]]:
    return client.get(f"{path}/changes").json()["data"]


# --- freezing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [None, {}, {"scope": "all"}, {"scope": "all", "reason": "fraud, case 12"}])
def test_a_freeze_is_of_all_unless_it_says_otherwise(client: httpx2.Client, bank: Bank, body: object) -> None:
    bank.top_up("alice", 100)
    frozen = client.post("/v1/wallets/alice/freeze", json=body) if body is not None else freeze(client)
    assert frozen.json()["status"] == "frozen"
    assert [bank.spend("alice", 1).code, bank.top_up("alice", 1).code] == ["wallet_frozen"] * 2


def freeze(client: httpx2.Client) -> httpx2.Response:
    """As an operator in a hurry sends it: no body, no media type."""
    return client.post("/v1/wallets/alice/freeze")


def test_debits_alone_can_be_frozen(client: httpx2.Client, bank: Bank) -> None:
    bank.top_up("alice", 100)
    assert client.post("/v1/wallets/alice/freeze", json={"scope": "debits"}).json()["status"] == "debits_frozen"
    assert client.get("/v1/wallets").json()["data"][0]["status"] == "debits_frozen"
    codes = [bank.spend("alice", 1).code, bank.transfer("alice", "bob", 1).code, bank.top_up("alice", 1).code]
    assert codes == ["wallet_frozen", "wallet_frozen", "applied"]
    assert client.post("/v1/wallets/alice/freeze", json={}).json()["status"] == "frozen"
    assert bank.top_up("alice", 1).code == "wallet_frozen"
    assert client.post("/v1/wallets/alice/unfreeze").json()["status"] == "active"
    assert bank.spend("alice", 1).code == "applied"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"scope": "credits"}, "/scope"),
        ({"scope": None}, "/scope"),
        ({"reason": ""}, "/reason"),
        ({"reason": "two\nlines"}, "/reason"),
        ({"reason": "x" * 501}, "/reason"),
        ({"why": "because"}, "/why"),
        ([], ""),
    ],
)
def test_what_no_freeze_can_say(client: httpx2.Client, bank: Bank, body: object, pointer: str) -> None:
    bank.open_wallet("alice")
    answer = client.post("/v1/wallets/alice/freeze", json=body)
    assert code(answer) == "422 validation_failed"
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert client.get("/v1/wallets/alice").json()["status"] == "active"
    assert changes(client) == []


def test_a_body_that_is_no_json_freezes_nothing(client: httpx2.Client, bank: Bank) -> None:
    bank.open_wallet("alice")
    assert code(client.post("/v1/wallets/alice/freeze", content=b"{}")) == "415 unsupported_media_type"
    answer = client.post("/v1/wallets/alice/freeze", content=b"{", headers={"Content-Type": "application/json"})
    assert code(answer) == "400 malformed_json"
    assert client.get("/v1/wallets/alice").json()["status"] == "active"


# --- who, when, why ------------------------------------------------------------------------------------------------


def test_each_change_says_who_when_and_why(api: Served, client: httpx2.Client, bank: Bank, new_key: NewKey) -> None:
    bank.open_wallet("alice")
    client.post("/v1/wallets/alice/freeze", json={"scope": "debits", "reason": "a chargeback"})
    with api.client(new_key(Scope.WALLETS_WRITE)) as support:
        freeze(support)
    client.post("/v1/wallets/alice/unfreeze", json={"reason": "it was settled"})
    found = changes(client)
    assert [(change["before"], change["after"], change["reason"]) for change in found] == [
        ("frozen", "active", "it was settled"),
        ("debits_frozen", "frozen", None),
        ("active", "debits_frozen", "a chargeback"),
    ]
    assert {change["client"] for change in found} == {"a game"}
    keys = [change["key_id"] for change in found]
    assert keys[0] == keys[2] != keys[1]
    assert {(change["wallet"], change["asset"], change["member"], change["command"]) for change in found} == {
        ("alice", None, "status", None)
    }
    times = [datetime.fromisoformat(change["at"]) for change in found]
    assert times == sorted(times, reverse=True)
    assert bank.in_seconds(-60) < times[-1] <= times[0] <= bank.in_seconds(0)


def test_what_changes_nothing_is_no_change(client: httpx2.Client, bank: Bank) -> None:
    bank.open_wallet("alice")
    client.post("/v1/wallets/alice/unfreeze", json={"reason": "to be sure"})
    assert changes(client) == []
    freeze(client)
    freeze(client)
    assert len(changes(client)) == 1


def test_changes_come_in_pages(client: httpx2.Client, bank: Bank) -> None:
    bank.open_wallet("alice")
    bank.open_wallet("bob")
    for scope in ("debits", "all", "debits", "all", "debits"):
        client.post("/v1/wallets/alice/freeze", json={"scope": scope})
        client.post("/v1/wallets/bob/freeze", json={"scope": scope})
    client.post(f"/v1/assets/{GOLD}/freeze")
    found = pages(client, "/v1/wallets/alice/changes", 2)
    assert [len(page) for page in found] == [2, 2, 1]
    assert [change["after"] for page in found for change in page] == [
        "debits_frozen", "frozen", "debits_frozen", "frozen", "debits_frozen"
    ]  # fmt: skip


def test_assets_have_theirs(client: httpx2.Client, bank: Bank) -> None:
    client.post(f"/v1/assets/{GOLD}/freeze", json={"reason": "a bad price"})
    client.patch(f"/v1/assets/{GOLD}", json={"status": "active", "limits": {"max_amount": "5"}, "reason": "mended"})
    bank.open_wallet("alice")
    client.put(f"/v1/wallets/alice/limits/{GOLD}", json={"max_amount": 3})
    found = changes(client, f"/v1/assets/{GOLD}")
    assert [(change["member"], change["before"], change["after"], change["reason"]) for change in found] == [
        ("limits", None, {"max_amount": "5"}, "mended"),
        ("status", "frozen", "active", "mended"),
        ("status", "active", "frozen", "a bad price"),
    ]
    assert {(change["wallet"], change["asset"]) for change in found} == {(None, GOLD)}


@pytest.mark.parametrize("path", ["/v1/wallets/nobody", "/v1/wallets/@treasury", "/v1/assets/nothing", "/v1/assets/N"])
def test_what_is_not_there_has_no_changes(client: httpx2.Client, path: str) -> None:
    assert client.get(f"{path}/changes").status_code == 404
