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
    for other in ("gems", "silver"):
        bank.open_asset(other)
        bank.freeze_asset(other)
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


# --- closing -------------------------------------------------------------------------------------------------------


def close(client: httpx2.Client, wallet: str = "alice", **body: object) -> httpx2.Response:
    return client.post(f"/v1/wallets/{wallet}/close", json=body)


def test_an_empty_wallet_is_closed_for_ever(client: httpx2.Client, bank: Bank) -> None:
    bank.open_wallet("alice")
    closed = client.post("/v1/wallets/alice/close")  # no body
    assert (closed.status_code, closed.json()["status"]) == (200, "closed")
    assert close(client, reason="again").json() == closed.json()
    assert code(freeze(client)) == code(client.post("/v1/wallets/alice/unfreeze")) == "409 wallet_closed"
    assert bank.top_up("alice", 1).code == "wallet_closed"
    assert client.get("/v1/wallets").json()["data"] == client.get("/v1/wallets?metadata={}").json()["data"] != []
    assert [change["after"] for change in changes(client)] == ["closed"]


def test_a_wallet_is_swept_to_another_and_the_command_is_told(client: httpx2.Client, bank: Bank) -> None:
    bank.open_asset("amber")
    bank.top_up("alice", 100)
    bank.bonus("alice", 5, priority=1)
    bank.top_up("alice", 7, asset="amber")
    bank.open_wallet("bob")
    swept = close(client, sweep_to="bob", reason="one player, two wallets").json()
    assert (swept["status"], {account["posted"] for account in swept["accounts"]}) == ("closed", {"0"})
    bobs = {account["asset"]: account for account in client.get("/v1/wallets/bob").json()["accounts"]}
    assert (bobs[GOLD]["posted"], bobs["amber"]["posted"], bobs[GOLD]["lots"][0]["remaining"]) == ("105", "7", "5")
    (change,) = changes(client)
    assert (change["reason"], change["client"]) == ("one player, two wallets", "a game")
    command = client.get(f"/v1/commands/{change['command']}").json()
    assert (command["type"], command["status"], command["to_wallet"]) == ("close", "applied", "bob")
    (transfer,) = command["outcome"]["transfers"]
    entries = client.get(f"/v1/transfers/{transfer}").json()["entries"]
    assert {(entry["wallet"], entry["asset"], entry["direction"], entry["amount"]) for entry in entries} == {
        ("alice", GOLD, "debit", "105"), ("bob", GOLD, "credit", "105"),
        ("alice", "amber", "debit", "7"), ("bob", "amber", "credit", "7"),
    }  # fmt: skip
    bank.assert_settled()


def test_what_keeps_a_wallet_open(client: httpx2.Client, bank: Bank) -> None:
    bank.top_up("alice", 100)
    bank.hold("alice", 40)
    bank.open_wallet("bob")
    answer = close(client)
    assert code(answer) == "409 wallet_not_empty"
    assert "40 gold of alice are held" in answer.json()["detail"]
    assert code(close(client, sweep_to="bob")) == "409 wallet_not_empty"
    bank.top_up("carol", 1)
    assert code(close(client, "carol")) == "409 wallet_not_empty"
    bank.freeze("bob")
    assert code(close(client, "carol", sweep_to="bob")) == "409 wallet_frozen"
    bank.unfreeze("bob")
    bank.freeze_asset()
    assert code(close(client, "carol", sweep_to="bob")) == "409 asset_frozen"
    assert close(client, "bob").is_success
    bank.unfreeze_asset()
    assert code(close(client, "carol", sweep_to="bob")) == "409 wallet_closed"
    assert changes(client) == changes(client, "/v1/wallets/carol") == []
    assert client.get("/v1/wallets/carol").json()["status"] == "active"


@pytest.mark.parametrize("target", ["alice", "nobody", "@treasury", "a b", "", 7])
def test_what_no_wallet_can_be_swept_to(client: httpx2.Client, bank: Bank, target: object) -> None:
    bank.top_up("alice", 1)
    answer = close(client, sweep_to=target)
    assert code(answer) == "422 validation_failed"
    assert answer.json()["errors"][0]["pointer"] == "/sweep_to"
    assert client.get("/v1/wallets/alice").json()["status"] == "active"


@pytest.mark.parametrize("wallet", ["nobody", "@treasury", "a%00"])
def test_what_is_not_there_cannot_be_closed(client: httpx2.Client, wallet: str) -> None:
    assert code(client.post(f"/v1/wallets/{wallet}/close")) == "404 wallet_not_found"


def test_a_close_does_not_wait_for_a_drain_that_hangs(client: httpx2.Client, bank: Bank) -> None:
    """No longer than for any lock: then it is a 503, and nothing has changed."""
    bank.open_wallet("alice")
    bank.order("top_up", "bob", 1)
    with bank.another_drain() as drain:
        drain.claim()
        assert code(client.post("/v1/wallets/alice/close")) == "503 database_unavailable"
    assert client.get("/v1/wallets/alice").json()["status"] == "active"
    assert client.post("/v1/wallets/alice/close").json()["status"] == "closed"
