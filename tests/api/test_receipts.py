"""Receipts over HTTP: who gets one, what it says, and that it can be checked without us."""

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import msgspec
import pytest

from bursar.local.valkey import Valkey
from ledger.keys import Scope
from runtime import base64url
from runtime.receipts import Signer, Unverified, new_key, verify
from tests.api.conftest import NewKey
from tests.api.serving import Served, code
from tests.books import Bank

PRIVATE, PUBLIC = new_key()
_, FORMER = new_key()
SPEND = {"type": "spend", "wallet": "alice", "asset": "gold", "amount": "30", "metadata": {"item": "sword"}}


@pytest.fixture(scope="module")
def signing_api(module_database_url: str, valkey: Valkey) -> Iterator[Served]:
    """An api that signs."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("BURSAR_RECEIPT_KEY", PRIVATE)
        environment.setenv("BURSAR_RECEIPT_FORMER_KEYS", FORMER["x"])
        running = Served(module_database_url, valkey.url)
    yield running
    running.stop()


@pytest.fixture
def game(signing_api: Served, new_key: NewKey) -> Iterator[httpx2.Client]:
    with signing_api.client(new_key()) as client:
        yield client


def posted(game: httpx2.Client, body: dict[str, Any]) -> str:
    return game.post("/v1/commands", json=body, headers={"Idempotency-Key": "k-1"}).json()["id"]


def receipt(game: httpx2.Client, command: str) -> dict[str, str]:
    answer = game.get(f"/v1/commands/{command}/receipt")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/jose+json"
    return answer.json()


def keys(game: httpx2.Client) -> list[dict[str, str]]:
    return game.get("/.well-known/jwks.json").json()["keys"]


def test_the_receipt_of_a_spend(game: httpx2.Client, bank: Bank) -> None:
    bank.top_up("alice", 100)
    command = posted(game, SPEND)
    bank.drain()
    said = verify(receipt(game, command), keys(game))
    assert said["command"] == game.get(f"/v1/commands/{command}").json()
    transfer = said["transfer"]
    assert [transfer["id"]] == said["command"]["outcome"]["transfers"]
    lines = {(e["wallet"], e["asset"], e["amount"], e["held_after"]): e["balance_after"] for e in transfer["entries"]}
    assert lines["alice", "gold", "-30", "0"] == "70"
    assert ("@revenue", "gold", "30", "0") in lines
    stored = bank.rows("SELECT position, hash FROM transfers WHERE seq = %s", int(transfer["seq"]))
    assert stored == [(int(transfer["position"]), bytes.fromhex(transfer["hash"]))]


def test_the_same_command_has_the_same_receipt(game: httpx2.Client, bank: Bank) -> None:
    bank.top_up("alice", 100)
    command = posted(game, SPEND)
    bank.drain()
    assert receipt(game, command) == receipt(game, command)


def test_receipts_of_a_partition_hold_on_to_each_other(game: httpx2.Client, bank: Bank) -> None:
    bank.top_up("alice", 100)
    first = posted(game, SPEND)
    second = game.post("/v1/commands", json=SPEND, headers={"Idempotency-Key": "k-2"}).json()["id"]
    bank.drain()
    said = [verify(receipt(game, command), keys(game))["transfer"] for command in (first, second)]
    assert said[1]["previous_hash"] == said[0]["hash"]
    assert int(said[1]["position"]) == int(said[0]["position"]) + 1


def test_a_refusal_has_a_receipt_without_a_transfer(game: httpx2.Client, bank: Bank) -> None:
    command = posted(game, SPEND)
    bank.drain()
    said = verify(receipt(game, command), keys(game))
    assert said["command"]["outcome"]["code"] == "wallet_not_found"
    assert said["transfer"] is None


def test_a_transfer_from_before_the_chain(game: httpx2.Client, bank: Bank) -> None:
    bank.top_up("alice", 100)
    command = posted(game, SPEND)
    bank.drain()
    bank.do("SET session_replication_role = replica")
    bank.do("UPDATE transfers SET position = NULL, hash = NULL WHERE tenant_id = %s", bank.tenant)
    transfer = verify(receipt(game, command), keys(game))["transfer"]
    assert (transfer["position"], transfer["previous_hash"], transfer["hash"]) == (None, None, None)


def test_a_signed_receipt_whose_hash_is_not_its_own_is_found(game: httpx2.Client, bank: Bank) -> None:
    """Whoever holds the key still cannot sign another amount under a hash that is known elsewhere."""
    bank.top_up("alice", 100)
    command = posted(game, SPEND)
    bank.drain()
    said = verify(receipt(game, command), keys(game))
    said["transfer"]["entries"][0]["amount"] = "-31"
    forged = Signer(base64url.key_bytes(PRIVATE)).sign(msgspec.json.encode(said))
    with pytest.raises(Unverified, match="its hash should be"):
        verify(forged, keys(game))


def test_no_receipt_before_the_outcome(game: httpx2.Client, bank: Bank) -> None:
    answer = game.get(f"/v1/commands/{posted(game, SPEND)}/receipt")
    assert code(answer) == "409 command_pending"
    assert answer.json()["retryable"]
    assert answer.headers["retry-after"]


def test_who_gets_one(signing_api: Served, game: httpx2.Client, bank: Bank, new_key: NewKey) -> None:
    command = posted(game, SPEND)
    bank.drain()
    path = f"/v1/commands/{command}/receipt"
    with signing_api.client(new_key(Scope.WALLETS_READ)) as client:
        assert code(client.get(path)) == "403 insufficient_scope"
    with signing_api.client(new_key(Scope.COMMANDS_READ)) as client:
        assert client.get(path).status_code == 200
    other = Bank(bank.url)
    try:
        with signing_api.client(new_key(of=other)) as stranger:
            assert code(stranger.get(path)) == "404 command_not_found"
    finally:
        other.close()
    assert code(game.get("/v1/commands/nonsense/receipt")) == "404 command_not_found"


def test_the_public_keys_are_everybodys(signing_api: Served) -> None:
    with signing_api.client() as anyone:
        answer = anyone.get("/.well-known/jwks.json")
    assert answer.headers["content-type"] == "application/jwk-set+json"
    assert answer.headers["cache-control"] == "public, max-age=3600"
    assert [key["x"] for key in answer.json()["keys"]] == [PUBLIC["x"], FORMER["x"]]
    assert PRIVATE not in answer.text


def test_a_service_without_a_key_says_what_to_set(client: httpx2.Client, bank: Bank) -> None:
    answer = client.get(f"/v1/commands/{posted(client, SPEND)}/receipt")
    assert code(answer) == "404 receipts_not_offered"
    assert "BURSAR_RECEIPT_KEY" in answer.json()["detail"]
    assert json.loads(client.get("/.well-known/jwks.json").text) == {"keys": []}
