"""A wallet at a time of the past, and with a given command in it."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from ledger.ids import command_id
from tests.api.serving import code
from tests.books import GOLD, Bank

MICROSECOND = timedelta(microseconds=1)


def as_of(client: httpx2.Client, at: datetime, wallet: str = "alice") -> dict[str, dict[str, Any]]:
    """The accounts at that time, by asset."""
    answer = client.get(f"/v1/wallets/{wallet}", params={"as_of": at.isoformat()})
    assert answer.status_code == 200, answer.text
    return {account["asset"]: account for account in answer.json()["accounts"]}


# --- as_of ---------------------------------------------------------------------------------------------------------


def test_the_balances_of_a_time_are_those_after_its_last_entry(client: httpx2.Client, bank: Bank) -> None:
    bank.open_asset("diamonds")
    bank.open_wallet("alice")
    steps = [
        (bank.top_up("alice", 100), {GOLD: (100, 0, 1)}),
        (bank.hold("alice", 40), {GOLD: (100, 40, 2)}),
        (bank.top_up("alice", 7, asset="diamonds"), {GOLD: (100, 40, 2), "diamonds": (7, 0, 1)}),
        (bank.spend("alice", 30), {GOLD: (70, 40, 3), "diamonds": (7, 0, 1)}),
    ]
    before: dict[str, tuple[int, int, int]] = {}
    for outcome, expected in steps:
        for at, stood in ((outcome.at - MICROSECOND, before), (outcome.at, expected)):
            assert as_of(client, at) == {
                asset: {
                    "asset": asset, "posted": str(posted), "held": str(held), "queued": "0",
                    "available": str(posted - held), "version": version,
                }
                for asset, (posted, held, version) in stood.items()
            }  # fmt: skip
        before = expected


def test_every_moment_of_a_long_history(client: httpx2.Client, bank: Bank) -> None:
    """Entries of the same microseconds among them: several commands of one drain have one time."""
    bank.open_wallet("alice")
    for size in (1, 5, 1, 1, 9, 2):
        bank.accept([bank.new("top_up", "alice", 1) for _ in range(size)])
        bank.drain()
    entries = bank.rows(
        "SELECT e.at, e.version FROM entries e JOIN accounts a ON a.id = e.account_id"
        " JOIN wallets w ON w.id = a.wallet_id WHERE w.code = 'alice' AND w.tenant_id = %s",
        bank.tenant,
    )
    for moment in {at + step for at, _ in entries for step in (-MICROSECOND, timedelta(), MICROSECOND)}:
        expected = max((version for at, version in entries if at <= moment), default=0)
        found = as_of(client, moment)
        assert (found[GOLD]["version"] if found else 0) == expected


def test_what_waits_is_not_in_a_past_balance(client: httpx2.Client, bank: Bank) -> None:
    at = bank.top_up("alice", 100).at
    bank.order("spend", "alice", 30)
    assert as_of(client, at)[GOLD]["available"] == "100"


def test_before_it_was_there_a_wallet_is_not_found(client: httpx2.Client, bank: Bank) -> None:
    bank.open_wallet("alice")
    created = bank.one("SELECT created_at FROM wallets WHERE tenant_id = %s AND code = 'alice'", bank.tenant)
    assert as_of(client, created) == {}
    early = {"as_of": (created - MICROSECOND).isoformat()}
    assert code(client.get("/v1/wallets/alice", params=early)) == "404 wallet_not_found"
    assert code(client.get("/v1/wallets/bob", params=early)) == "404 wallet_not_found"
    assert code(client.get("/v1/wallets/@treasury", params=early)) == "404 wallet_not_found"


def test_a_wallet_that_its_first_credit_opened_was_there_at_that_credit(client: httpx2.Client, bank: Bank) -> None:
    assert as_of(client, bank.top_up("alice", 1).at)[GOLD]["posted"] == "1"


def test_a_past_balance_has_an_etag(client: httpx2.Client, bank: Bank) -> None:
    at = bank.top_up("alice", 100).at.isoformat()
    bank.spend("alice", 1)
    tag = client.get("/v1/wallets/alice", params={"as_of": at}).headers["etag"]
    assert tag != client.get("/v1/wallets/alice").headers["etag"]
    again = client.get("/v1/wallets/alice", params={"as_of": at}, headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "text",
    [
        "yesterday",
        "",
        "2026-11-21",
        "2026-11-21T12:00:05",
        "2026-13-01T00:00:00Z",
        "1761000000",
        "0001-01-01T00:00:00+14:00",
    ],
)
def test_a_time_that_is_none(client: httpx2.Client, bank: Bank, text: str) -> None:
    bank.open_wallet("alice")
    answer = client.get("/v1/wallets/alice", params={"as_of": text})
    assert code(answer) == "422 validation_failed"
    assert answer.json()["errors"][0]["pointer"] == "/query/as_of"


def test_a_bare_plus_is_told_of(client: httpx2.Client) -> None:
    answer = client.get("/v1/wallets/alice?as_of=2020-01-01T00:00:00+01:00")
    assert "%2B" in answer.json()["errors"][0]["detail"]


def test_a_time_to_come(client: httpx2.Client, bank: Bank) -> None:
    bank.open_wallet("alice")
    for at in (bank.in_seconds(60), datetime(9999, 12, 31, tzinfo=UTC)):
        answer = client.get("/v1/wallets/alice", params={"as_of": at.isoformat()})
        assert code(answer) == "422 validation_failed"
        assert answer.json()["errors"][0]["pointer"] == "/query/as_of"


def test_a_misspelt_parameter_is_not_answered_with_todays_balances(client: httpx2.Client, bank: Bank) -> None:
    bank.open_wallet("alice")
    assert code(client.get("/v1/wallets/alice", params={"asof": "2020-01-01T00:00:00Z"})) == "422 validation_failed"
    twice = "as_of=2020-01-01T00:00:00Z&as_of=2021-01-01T00:00:00Z"
    assert code(client.get(f"/v1/wallets/alice?{twice}")) == "422 validation_failed"


# --- after ---------------------------------------------------------------------------------------------------------


def id_of(bank: Bank, seq: int) -> str:
    return command_id(seq, bank.one("SELECT accepted_at FROM commands WHERE seq = %s", seq))


def test_a_read_waits_for_the_command_it_names(client: httpx2.Client, bank: Bank) -> None:
    bank.top_up("alice", 100)
    seq = bank.order("spend", "alice", 30)
    with ThreadPoolExecutor(1) as thread:
        reading = thread.submit(client.get, "/v1/wallets/alice", params={"after": id_of(bank, seq), "wait": 14})
        assert not reading.done()
        bank.drain()
        assert reading.result().json()["accounts"][0]["posted"] == "70"


def test_a_command_with_its_outcome_is_not_waited_for(client: httpx2.Client, bank: Bank) -> None:
    applied = bank.top_up("alice", 100).seq
    refused = bank.spend("alice", 500).seq
    for seq in (applied, refused):
        answer = client.get("/v1/wallets/alice", params={"after": id_of(bank, seq), "wait": 0})
        assert answer.json()["accounts"][0]["posted"] == "100"


def test_a_command_that_stays_pending_is_a_problem_to_try_again(client: httpx2.Client, bank: Bank) -> None:
    bank.open_wallet("alice")
    seq = bank.order("top_up", "alice", 1)
    answer = client.get("/v1/wallets/alice", params={"after": id_of(bank, seq), "wait": 0})
    assert code(answer) == "409 command_pending"
    assert answer.json()["retryable"]
    assert int(answer.headers["retry-after"]) >= 1


def test_a_command_that_is_not_ours_cannot_be_waited_for(
    client: httpx2.Client, stranger: httpx2.Client, bank: Bank
) -> None:
    id = id_of(bank, bank.top_up("alice", 1).seq)
    stranger.put("/v1/wallets/alice", json={})
    none = ("x", "", id[:-1] + ("0" if id[-1] != "0" else "1"), id.replace(id[:8], "00000000"))
    answers = [stranger.get("/v1/wallets/alice", params={"after": id})]
    answers += [client.get("/v1/wallets/alice", params={"after": other}) for other in none]
    for answer in answers:
        assert code(answer) == "422 validation_failed"
        assert answer.json()["errors"][0]["pointer"] == "/query/after"


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("after=x&as_of=2020-01-01T00:00:00Z", "/query/after"),
        ("wait=3", "/query/wait"),
        ("after=x&wait=-1", "/query/wait"),
        ("after=x&wait=soon", "/query/wait"),
    ],
)
def test_what_does_not_go_together(client: httpx2.Client, bank: Bank, query: str, pointer: str) -> None:
    bank.open_wallet("alice")
    answer = client.get(f"/v1/wallets/alice?{query}")
    assert code(answer) == "422 validation_failed"
    assert answer.json()["errors"][0]["pointer"] == pointer
