"""What a drain writes: entries, balances, outcomes, to the last digit."""

import json
from time import sleep
from typing import Any
from uuid import uuid4

import pytest

from ledger.money import AMOUNT_MAX
from tests.books import ALL, PARTITIONS, Bank, Entry


def test_a_spend_moves_credits_from_the_wallet_to_revenue(bank: Bank) -> None:
    bank.top_up("alice", 100)
    assert bank.spend("alice", 30).status == "applied"
    assert bank.available("alice") == 70
    assert bank.system("@treasury") == -100
    assert bank.system("@revenue") == 30
    bank.assert_settled()


def test_a_bonus_comes_from_the_bonus_wallet(bank: Bank) -> None:
    assert bank.bonus("alice", 5).status == "applied"
    assert (bank.available("alice"), bank.system("@bonus"), bank.system("@treasury")) == (5, -5, 0)
    bank.assert_settled()


def test_a_transfer_changes_the_owner_and_nothing_else(bank: Bank) -> None:
    bank.top_up("alice", 100)
    assert bank.transfer("alice", "bob", 60).status == "applied"
    assert (bank.available("alice"), bank.available("bob")) == (40, 60)
    assert bank.system("@revenue") == 0
    bank.assert_settled()


def test_entries_are_numbered_without_a_gap_and_carry_the_balance_after_them(bank: Bank) -> None:
    seqs = [
        bank.order("top_up", "alice", 100),
        bank.order("spend", "alice", 30),
        bank.order("spend", "alice", 999),
        bank.order("transfer", "alice", 20, to_wallet="bob"),
    ]
    bank.drain()
    seqs.append(bank.spend("alice", 50).seq)
    assert bank.entries("alice") == [
        Entry(seqs[0], 100, 100, 1),
        Entry(seqs[1], -30, 70, 2),
        Entry(seqs[3], -20, 50, 3),
        Entry(seqs[4], -50, 0, 4),
    ]
    assert bank.entries("bob") == [Entry(seqs[3], 20, 20, 1)]
    bank.assert_settled()


def test_each_partition_has_its_own_shard_of_a_system_wallet(bank: Bank) -> None:
    payers = [bank.wallet_in(partition) for partition in ALL]
    for partition, wallet in enumerate(payers):
        bank.top_up(wallet, 100 + partition)
        bank.spend(wallet, 1 + partition)
    for partition in ALL:
        assert bank.account("@treasury", shard=partition) == {"posted": -100 - partition, "held": 0, "version": 1}
        assert bank.account("@revenue", shard=partition) == {"posted": 1 + partition, "held": 0, "version": 1}
    assert [len(bank.entries(wallet, shard=1)) for wallet in payers] == [0] * PARTITIONS, "a player has no shards"
    bank.assert_settled()


def test_an_applied_outcome_tells_the_balances_that_it_left_behind(bank: Bank) -> None:
    seqs = [bank.order("top_up", "alice", 100), bank.order("transfer", "alice", 30, to_wallet="bob")]
    seqs += [bank.order("spend", "bob", 10)]
    bank.drain()

    def left(wallet: str, balance: str, version: int) -> dict[str, object]:
        return {
            "wallet": wallet,
            "asset": "gold",
            "posted": balance,
            "held": "0",
            "available": balance,
            "version": version,
        }

    assert [bank.outcome(seq).accounts for seq in seqs] == [
        [left("alice", "100", 1)],
        [left("alice", "70", 2), left("bob", "30", 1)],
        [left("bob", "20", 2)],
    ]


def test_a_refusal_tells_why_and_the_balance_as_it_is(bank: Bank) -> None:
    bank.top_up("alice", 10)
    refused = bank.spend("alice", 30)
    assert (refused.status, refused.code) == ("rejected", "insufficient_funds")
    assert refused.detail == "available 10, needed 30"
    assert refused.accounts == [
        {"wallet": "alice", "asset": "gold", "posted": "10", "held": "0", "available": "10", "version": 1}
    ]
    assert bank.entries("alice")[1:] == []
    bank.assert_settled()


def test_a_refusal_of_a_stranger_shows_no_account(bank: Bank) -> None:
    refused = bank.spend("nobody", 30)
    assert (refused.status, refused.code, refused.accounts) == ("rejected", "wallet_not_found", [])
    assert bank.account("nobody") is None
    bank.assert_settled()


def test_outcomes_carry_the_drains_time_and_the_task_that_drained_them(bank: Bank) -> None:
    task_id = uuid4()
    before = bank.in_seconds(0)
    seqs = [bank.order("top_up", "alice", 1), bank.order("spend", "alice", 5)]
    bank.drain(task_id=task_id)
    outcomes = [bank.outcome(seq) for seq in seqs]
    assert [outcome.task_id for outcome in outcomes] == [task_id, task_id]
    assert before <= outcomes[0].at == outcomes[1].at <= bank.in_seconds(0)
    written = bank.rows(
        "SELECT t.at, e.at FROM transfers t JOIN entries e USING (seq) WHERE t.seq = %s", outcomes[0].seq
    )
    assert written == [(outcomes[0].at, outcomes[0].at)] * 2


def test_the_look_out_drains_without_a_task(bank: Bank) -> None:
    assert bank.top_up("alice", 1).task_id is None


def test_the_largest_amounts_are_exact_to_the_last_digit(bank: Bank) -> None:
    for _ in range(9):
        assert bank.top_up("whale", AMOUNT_MAX).status == "applied"
    full = bank.top_up("whale", 1)
    assert (full.status, full.code) == ("rejected", "limit_exceeded")
    assert bank.spend("whale", 1).status == "applied"
    assert bank.available("whale") == 8_999_999_999_999_999_999
    assert bank.outcome(full.seq).accounts == [
        {
            "wallet": "whale",
            "asset": "gold",
            "posted": "9000000000000000000",
            "held": "0",
            "available": "9000000000000000000",
            "version": 9,
        }
    ]
    bank.assert_settled()


def test_wallets_of_the_widest_alphabet_come_back_as_they_are(bank: Bank) -> None:
    name = "Az09._:@+=~-"
    (account,) = bank.top_up(name, 1).accounts or []
    assert account["wallet"] == name
    assert bank.available(name) == 1


def test_assets_do_not_mix(bank: Bank) -> None:
    bank.open_asset("diamonds")
    bank.top_up("alice", 100)
    bank.top_up("alice", 5, asset="diamonds")
    assert bank.spend("alice", 6, asset="diamonds").code == "insufficient_funds"
    assert bank.spend("alice", 5, asset="diamonds").status == "applied"
    assert (bank.available("alice"), bank.available("alice", "diamonds")) == (100, 0)
    bank.assert_settled()


def test_tenants_do_not_mix(bank: Bank) -> None:
    other = Bank(bank.url)
    try:
        seqs = [bank.order("top_up", "alice", 100), other.order("spend", "alice", 1), other.order("top_up", "alice", 7)]
        bank.drain()  # one drain serves them all
        assert bank.codes(seqs) == ["applied", "wallet_not_found", "applied"]
        assert (bank.available("alice"), other.available("alice")) == (100, 7)
        bank.assert_settled()
        other.assert_settled()
    finally:
        other.close()


def test_a_batch_of_refusals_alone_writes_outcomes_alone(bank: Bank) -> None:
    seqs = [bank.order("spend", "nobody", 1), bank.order("spend", "nobody", 2)]
    assert bank.drain() == seqs
    bank.assert_settled()


def test_outcomes_read_as_json_documents_also_as_text(bank: Bank) -> None:
    seq = bank.top_up("alice", 3).seq
    text = bank.one("SELECT accounts::text FROM outcomes WHERE seq = %s", seq)
    assert json.loads(text) == bank.outcome(seq).accounts


@pytest.mark.parametrize("size", [1, 2, 500])
def test_a_batch_of_any_size_is_one_transaction(bank: Bank, size: int) -> None:
    bank.accept([bank.new("top_up", f"player-{n % 40}", 1 + n) for n in range(size)])
    with bank.another_drain() as second:
        assert len(second.claim()) == size
        second.apply()
        assert bank.one("SELECT count(*) FROM outcomes WHERE seq = ANY(%s)", bank.pending()) == 0
        second.rollback()
    assert bank.system("@treasury") == 0
    bank.assert_books_balance()
    assert len(bank.drain(max_rows=size)) == size
    bank.assert_settled()


def test_counts_that_come_before_the_pipeline_ends_are_kept(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    """A notice makes the server send what it has so far; the client then reads it amid the pipeline."""
    bank.top_up("alice", 100)
    spent = bank.spend("alice", 30)
    bank.drains.execute("SET client_min_messages = 'debug2'")
    bank.drains.commit()
    execute = bank.drains.execute

    def execute_late(*arguments: Any, **options: Any) -> Any:
        sleep(0.02)  # long enough for the answers so far to have come
        return execute(*arguments, **options)

    monkeypatch.setattr(bank.drains, "execute", execute_late)
    assert bank.reverse(spent).status == "applied"
    bank.assert_settled()
