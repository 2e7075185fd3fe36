"""Wallets over HTTP: named, read with their queue, listed, paged, frozen."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from ledger import reads
from tests.api.serving import code
from tests.books import GOLD, PARTITIONS, Bank

DETAILS: dict[str, Any] = {"lots": [], "limits": None}  # of a wallet without any, read alone


def account(client: httpx2.Client, wallet: str, asset: str = GOLD) -> dict[str, Any]:
    (found,) = (a for a in client.get(f"/v1/wallets/{wallet}").json()["accounts"] if a["asset"] == asset)
    return found


def pages(client: httpx2.Client, path: str, limit: int) -> list[list[dict[str, Any]]]:
    """Every page, by `next_cursor`; the Link header must say the same."""
    found: list[list[dict[str, Any]]] = []
    cursor = ""
    while len(found) < 100:
        answer = client.get(path, params={"limit": limit, "cursor": cursor})
        assert answer.status_code == 200
        found.append(answer.json()["data"])
        cursor = answer.json()["next_cursor"]
        assert bool(cursor) == ("next" in answer.links)
        if not cursor:
            return found
        assert client.get(answer.links["next"]["url"]).json()["data"]
    raise AssertionError("the list does not end")


# --- naming --------------------------------------------------------------------------------------------------------


def test_put_creates_then_replaces(client: httpx2.Client) -> None:
    created = client.put("/v1/wallets/player-42", json={"name": "Alice", "metadata": {"level": 3, "tags": ["a"]}})
    assert (created.status_code, created.headers["location"]) == (201, "/v1/wallets/player-42")
    assert created.json() | {"created_at": ""} == {
        "id": "player-42",
        "object": "wallet",
        "status": "active",
        "name": "Alice",
        "metadata": {"level": 3, "tags": ["a"]},
        "created_at": "",
        "accounts": [],
    }
    replaced = client.put("/v1/wallets/player-42", json={"name": "Alicia"})
    assert replaced.status_code == 200
    assert (replaced.json()["name"], replaced.json()["metadata"]) == ("Alicia", {})
    assert replaced.json()["created_at"] == created.json()["created_at"]
    assert client.get("/v1/wallets/player-42").json() == replaced.json()


def test_put_keeps_status_and_balances(client: httpx2.Client, bank: Bank) -> None:
    bank.top_up("alice", 100)
    bank.freeze("alice")
    assert client.put("/v1/wallets/alice", json={"name": None}).json()["status"] == "frozen"
    assert account(client, "alice")["posted"] == "100"


@pytest.mark.parametrize("id", ["a", "a" * 128, "A.b_c:d@e+f=g~h-i", "0"])
def test_what_a_wallet_may_be_called(client: httpx2.Client, id: str) -> None:
    assert client.put(f"/v1/wallets/{id}", json={}).status_code == 201
    assert client.get(f"/v1/wallets/{id}").json()["id"] == id


@pytest.mark.parametrize("id", ["@treasury", "a" * 129, "-a", "a b", "é", "a%0A", "a%00", "a%22", "%F0%9F%92%B0"])
def test_what_no_wallet_can_be_called(client: httpx2.Client, id: str) -> None:
    assert code(client.put(f"/v1/wallets/{id}", json={})) == "422 validation_failed"
    assert code(client.get(f"/v1/wallets/{id}")) == "404 wallet_not_found"
    assert code(client.get(f"/v1/wallets/{id}/entries")) == "404 wallet_not_found"
    assert code(client.post(f"/v1/wallets/{id}/freeze")) == "404 wallet_not_found"


# --- reading -------------------------------------------------------------------------------------------------------


def test_available_is_posted_less_held_and_queued(client: httpx2.Client, bank: Bank) -> None:
    bank.top_up("alice", 100)
    alice = bank.one("SELECT id FROM wallets WHERE tenant_id = %s AND code = 'alice'", bank.tenant)
    bank.do("UPDATE accounts SET held = 7 WHERE wallet_id = %s", alice)
    bank.order("spend", "alice", 30)
    bank.order("transfer", "alice", 4, to_wallet="bob")
    bank.order("top_up", "alice", 1_000)  # a credit is not there before it is applied
    expected = {"asset": GOLD, "posted": "100", "held": "7", "queued": "34", "available": "59", "version": 1}
    assert account(client, "alice") == expected | DETAILS
    (listed,) = client.get("/v1/wallets").json()["data"]
    assert listed["accounts"] == [expected]
    bank.drain()
    expected = {"asset": GOLD, "posted": "1066", "held": "7", "queued": "0", "available": "1059", "version": 4}
    assert account(client, "alice") == expected | DETAILS


def test_queued_debits_show_before_the_asset_was_ever_held(client: httpx2.Client, bank: Bank) -> None:
    bank.open_wallet("alice")
    bank.order("spend", "alice", 30)
    assert account(client, "alice") == {
        "asset": GOLD, "posted": "0", "held": "0", "queued": "30", "available": "-30", "version": 0, **DETAILS
    }  # fmt: skip


def test_another_tenants_queue_is_not_ours(client: httpx2.Client, bank: Bank) -> None:
    bank.top_up("alice", 100)
    other = Bank(bank.url)
    try:
        # The same wallet id, forced into the same partition.
        other.order("spend", "alice", 30, partition=bank.partition("alice"))
        assert account(client, "alice")["queued"] == "0"
    finally:
        other.close()


def test_the_etag_follows_balance_queue_name_and_status(client: httpx2.Client, bank: Bank) -> None:
    bank.top_up("alice", 100)
    tags = [client.get("/v1/wallets/alice").headers["etag"]]

    def changed() -> bool:
        answer = client.get("/v1/wallets/alice", headers={"If-None-Match": tags[-1]})
        tags.append(answer.headers["etag"])
        return answer.status_code == 200

    assert not changed()
    bank.order("spend", "alice", 1)
    assert changed()
    bank.drain()
    assert changed()
    client.put("/v1/wallets/alice", json={"name": "Alice"})
    assert changed()
    client.post("/v1/wallets/alice/freeze")
    assert changed()
    assert not changed()


@pytest.mark.parametrize("header", ["{}", "W/{}", '"other", {}', "*"])
def test_not_modified(client: httpx2.Client, bank: Bank, header: str) -> None:
    bank.open_wallet("alice")
    etag = client.get("/v1/wallets/alice").headers["etag"]
    answer = client.get("/v1/wallets/alice", headers={"If-None-Match": header.format(etag)})
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)


def test_a_balance_and_its_version_are_of_one_instant(client: httpx2.Client, bank: Bank) -> None:
    """Each credit is 1, so posted = version at every instant; and a command is queued or applied, never both."""
    bank.top_up("alice", 1)
    seen: list[dict[str, Any]] = []
    with ThreadPoolExecutor(1) as thread:

        def read() -> None:
            seen.extend(account(client, "alice") for _ in range(60))

        reading = thread.submit(read)
        while not reading.done():
            bank.top_up("alice", 1)
        reading.result()
    assert [int(a["posted"]) for a in seen] == [a["version"] for a in seen]


# --- lists ---------------------------------------------------------------------------------------------------------


def test_wallets_are_listed_by_id_without_the_systems_own(client: httpx2.Client, bank: Bank) -> None:
    ids = [f"w{n:02}" for n in range(7)]
    for id in reversed(ids):
        bank.open_wallet(id)
    bank.top_up("w03", 5)
    found = pages(client, "/v1/wallets", 3)
    assert [[wallet["id"] for wallet in page] for page in found] == [ids[:3], ids[3:6], ids[6:]]
    assert found[1][0]["accounts"][0]["posted"] == "5"


def test_a_wallets_accounts_stand_by_asset(client: httpx2.Client, bank: Bank) -> None:
    for asset in ("silver", "amber"):
        bank.open_asset(asset)
    for asset in ("silver", GOLD, "amber"):
        bank.top_up("alice", 1, asset=asset)
    (listed,) = client.get("/v1/wallets").json()["data"]
    for found in (client.get("/v1/wallets/alice").json(), listed):
        assert [account["asset"] for account in found["accounts"]] == ["amber", GOLD, "silver"]


def test_no_more_wallets_are_read_than_asked_for(bank: Bank) -> None:
    for id in ("a", "b", "c"):
        bank.open_wallet(id)
    found = bank._register(lambda to: reads.wallets(to, bank.tenant, after="", limit=2, partitions=PARTITIONS))
    assert [wallet.id for wallet in found] == ["a", "b"]


def test_a_full_last_page_has_no_next(client: httpx2.Client, bank: Bank) -> None:
    for id in ("a", "b"):
        bank.open_wallet(id)
    assert [len(page) for page in pages(client, "/v1/wallets", 2)] == [2]


def test_limits(client: httpx2.Client, bank: Bank) -> None:
    bank.sql.execute(
        "INSERT INTO wallets (tenant_id, code) SELECT %s, 'w' || n FROM generate_series(1, 205) n", (bank.tenant,)
    )
    assert len(client.get("/v1/wallets").json()["data"]) == 50
    for large in ("201", "1000000000000000000000"):
        assert len(client.get("/v1/wallets", params={"limit": large}).json()["data"]) == 200


# --- entries -------------------------------------------------------------------------------------------------------


def test_entries_tell_what_moved(client: httpx2.Client, bank: Bank) -> None:
    bank.top_up("alice", 100)
    bank.transfer("alice", "bob", 30, reference="order-99", metadata='{"item": "sword"}')
    newest, oldest = client.get("/v1/wallets/alice/entries").json()["data"]
    assert newest | {"at": "", "transfer": "", "command": ""} == {
        "id": f"alice/{GOLD}/2", "object": "entry", "transfer": "", "command": "", "type": "transfer",
        "wallet": "alice", "asset": GOLD, "direction": "debit", "amount": "30", "balance_after": "70",
        "held_after": "0", "version": 2, "at": "", "reference": "order-99", "metadata": {"item": "sword"},
    }  # fmt: skip
    assert (oldest["direction"], oldest["amount"], oldest["metadata"]) == ("credit", "100", {})
    (bobs,) = client.get("/v1/wallets/bob/entries").json()["data"]
    assert (bobs["direction"], bobs["transfer"]) == ("credit", newest["transfer"])
    assert client.get(f"/v1/transfers/{newest['transfer']}").json()["command"] == newest["command"]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 50])
def test_pages_of_several_accounts_are_one_list_newest_first(client: httpx2.Client, bank: Bank, limit: int) -> None:
    assets = (GOLD, "diamonds", "points")
    for asset in assets[1:]:
        bank.open_asset(asset)
    seqs: list[tuple[str, int]] = []
    for n in range(12):
        asset = assets[(n * n) % 3]
        seqs.append((asset, bank.top_up("alice", n + 1, asset=asset).seq))
    found = [entry for page in pages(client, "/v1/wallets/alice/entries", limit) for entry in page]
    assert [(entry["asset"], int(entry["amount"])) for entry in found] == [
        (asset, n + 1) for n, (asset, _) in reversed(list(enumerate(seqs)))
    ]


def test_entries_written_meanwhile_disturb_no_page(client: httpx2.Client, bank: Bank) -> None:
    bank.open_asset("diamonds")
    for amount in range(1, 6):
        bank.top_up("alice", amount)
    first = client.get("/v1/wallets/alice/entries", params={"limit": 2}).json()
    bank.top_up("alice", 6)
    bank.top_up("alice", 1, asset="diamonds")  # an account that is newer than the cursor
    rest = client.get("/v1/wallets/alice/entries", params={"cursor": first["next_cursor"]}).json()
    assert [entry["amount"] for entry in first["data"] + rest["data"]] == ["5", "4", "3", "2", "1"]
    assert rest["next_cursor"] == ""


def test_entries_keep_the_order_of_versions_when_the_clock_steps_back(client: httpx2.Client, bank: Bank) -> None:
    bank.open_asset("diamonds")
    for n in range(4):
        bank.top_up("alice", 1, asset=(GOLD, "diamonds")[n % 2])
    bank.do("SET session_replication_role = replica")
    bank.do("UPDATE entries SET at = at - interval '1 hour' * version")
    bank.do("SET session_replication_role = DEFAULT")
    found = [entry for page in pages(client, "/v1/wallets/alice/entries", 1) for entry in page]
    for asset in (GOLD, "diamonds"):
        assert [entry["version"] for entry in found if entry["asset"] == asset] == [2, 1]


# --- freezing ------------------------------------------------------------------------------------------------------


def test_a_closed_wallet_is_neither_frozen_nor_opened(client: httpx2.Client, bank: Bank) -> None:
    bank.open_wallet("alice")
    bank.close_wallet("alice")
    assert code(client.post("/v1/wallets/alice/freeze")) == "409 wallet_closed"
    assert code(client.post("/v1/wallets/alice/unfreeze")) == "409 wallet_closed"
