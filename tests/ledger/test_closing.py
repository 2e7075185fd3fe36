"""Closing a wallet: nothing is left in it, one way or the other, and nothing comes after."""

import pytest

from ledger import closing, db, registers
from ledger.changes import By
from ledger.closing import Refusal
from ledger.errors import Code
from ledger.inbox import PARTITION_LOCKS, Nothing
from tests.books import GOLD, Bank
from tests.ledger.races import Started, wait_for_a_waiter


def close(bank: Bank, wallet: str, sweep_to: str | None = None, *, reason: str | None = None) -> bool:
    with db.connect(bank.url, application="test-closing") as connection:
        return closing.close(connection, bank.tenant, wallet, sweep_to=sweep_to, by=By(bank.client, 7, reason))


def status(bank: Bank, wallet: str) -> str:
    return bank.one("SELECT status FROM wallets WHERE tenant_id = %s AND code = %s", bank.tenant, wallet)


def refused(bank: Bank, wallet: str, sweep_to: str | None = None) -> Code:
    """Why the wallet cannot be closed; nothing has changed then, and nothing is kept of it."""
    before = status(bank, wallet), counted(bank)
    with pytest.raises(Refusal) as refusal:
        close(bank, wallet, sweep_to)
    assert (status(bank, wallet), counted(bank)) == before
    bank.assert_settled()
    return refusal.value.code


def counted(bank: Bank) -> list[int]:
    tables = ("commands", "outcomes", "transfers", "entries", "changes", "pending", "wallets", "accounts")
    return [bank.sql.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0] for table in tables]


# --- empty ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["active", "debits_frozen", "frozen"])
def test_an_empty_wallet_closes_whatever_its_status_and_without_a_command(
    bank: Bank, before: registers.WalletStatus
) -> None:
    bank.top_up("alice", 5)
    bank.spend("alice", 5)
    bank.open_wallet("newcomer")
    for wallet in ("alice", "newcomer"):
        bank.freeze(wallet, before)
        commands = counted(bank)[0]
        assert close(bank, wallet)
        assert counted(bank)[0] == commands
        assert status(bank, wallet) == "closed"
        assert bank.top_up(wallet, 1).code == "wallet_closed"
    assert bank.spend("alice", 1).code == "wallet_closed"
    bank.assert_settled()


def test_closing_twice_is_closing_once(bank: Bank) -> None:
    bank.open_wallet("alice")
    assert close(bank, "alice")
    changes = counted(bank)[4]
    assert not close(bank, "alice")
    assert counted(bank)[4] == changes


def test_a_wallet_that_is_not_there(bank: Bank) -> None:
    with pytest.raises(registers.NoSuch):
        close(bank, "nobody")


# --- not empty -----------------------------------------------------------------------------------------------------


def test_credits_must_go_somewhere(bank: Bank) -> None:
    bank.open_asset("diamonds")
    bank.top_up("alice", 5)
    bank.spend("alice", 5)
    bank.top_up("alice", 1, asset="diamonds")
    assert refused(bank, "alice") == "wallet_not_empty"


def test_an_open_hold_keeps_a_wallet_open_even_with_a_sweep(bank: Bank) -> None:
    bank.top_up("alice", 5)
    bank.open_wallet("bob")
    hold = bank.hold("alice", 2)
    assert refused(bank, "alice", "bob") == "wallet_not_empty"
    bank.release(hold.seq)
    assert close(bank, "alice", "bob")
    assert bank.available("bob") == 5


def test_a_debt_keeps_a_wallet_open(bank: Bank) -> None:
    bank.open_wallet("bob")
    paid = bank.top_up("alice", 5)
    bank.spend("alice", 5)
    bank.reverse(paid.seq, allow_negative=True)
    assert refused(bank, "alice", "bob") == "wallet_not_empty"


def test_credits_past_their_time_leave_first(bank: Bank) -> None:
    bank.open_wallet("bob")
    bank.bonus("alice", 5, credits_expire_at=bank.in_seconds(3600))
    bank.do("UPDATE lots SET expires_at = now() - interval '1 second'")
    assert refused(bank, "alice", "bob") == "wallet_not_empty"
    bank.expire_due()
    assert close(bank, "alice", "bob")
    assert bank.account("bob") is None


@pytest.mark.parametrize(("target", "code"), [("active", None), ("debits_frozen", None), ("frozen", "wallet_frozen")])
def test_what_a_sweep_goes_to_must_be_open_for_credits(
    bank: Bank, target: registers.WalletStatus, code: str | None
) -> None:
    bank.top_up("alice", 5)
    assert refused(bank, "alice", "bob") == "wallet_not_found"
    bank.open_wallet("bob")
    bank.freeze("bob", target)
    if code:
        assert refused(bank, "alice", "bob") == code
    else:
        assert close(bank, "alice", "bob")
        assert refused_to_closed(bank) == "wallet_closed"


def refused_to_closed(bank: Bank) -> str:
    bank.top_up("carol", 1)
    return refused(bank, "carol", "alice")


def test_a_frozen_asset_is_not_swept(bank: Bank) -> None:
    bank.top_up("alice", 5)
    bank.open_wallet("bob")
    bank.freeze_asset()
    assert refused(bank, "alice", "bob") == "asset_frozen"
    bank.unfreeze_asset()
    assert close(bank, "alice", "bob")


# --- swept ---------------------------------------------------------------------------------------------------------


def test_a_sweep_takes_every_asset_and_its_lots_in_one_transfer(bank: Bank) -> None:
    ends = bank.in_seconds(3600)
    bank.open_asset("diamonds")
    bank.top_up("alice", 100)
    bank.bonus("alice", 20, credits_expire_at=ends)
    bank.top_up("alice", 3, asset="diamonds")
    bank.top_up("bob", 1)
    bank.freeze("alice")
    assert close(bank, "alice", "bob", reason="merged accounts")
    assert [bank.available(wallet, asset) for wallet in ("alice", "bob") for asset in (GOLD, "diamonds")] == [
        0, 0, 121, 3
    ]  # fmt: skip
    seq = bank.one("SELECT max(seq) FROM commands WHERE tenant_id = %s AND type = 'close'", bank.tenant)
    assert bank.rows("SELECT client_id, wallet, to_wallet, options->>'reason' FROM commands WHERE seq = %s", seq) == [
        (bank.client, "alice", "bob", "merged accounts")
    ]
    assert bank.one("SELECT options->'assets' FROM commands WHERE seq = %s", seq) == ["diamonds", GOLD]
    lots = """
        SELECT w.code, l.remaining, l.expires_at FROM lots l JOIN accounts a ON a.id = l.account_id
        JOIN wallets w ON w.id = a.wallet_id WHERE w.tenant_id = %s AND l.remaining > 0
    """
    assert bank.rows(lots, bank.tenant) == [("bob", 20, ends)]
    changed = "SELECT before, after, reason, client_id, key_id, seq FROM changes WHERE tenant_id = %s ORDER BY id DESC"
    assert bank.rows(changed, bank.tenant)[0] == ("frozen", "closed", "merged accounts", bank.client, 7, seq)
    assert bank.outcome(seq).status == "applied"
    bank.assert_settled()


def test_a_close_overtakes_what_is_queued(bank: Bank) -> None:
    bank.top_up("alice", 5)
    bank.open_wallet("bob")
    queued = [bank.order("spend", "alice", 1), bank.order("top_up", "alice", 1)]
    assert close(bank, "alice", "bob")
    bank.drain()
    assert bank.codes(queued) == ["wallet_closed"] * 2
    bank.assert_settled()


# --- sharp ---------------------------------------------------------------------------------------------------------


def test_a_close_waits_for_the_drain_under_way_and_takes_what_it_left(bank: Bank) -> None:
    bank.top_up("alice", 5)
    bank.open_wallet("bob")
    bank.order("spend", "alice", 2)
    with bank.another_drain() as drain:
        drain.claim()
        with Started(lambda: close(bank, "alice", "bob")) as closing_:
            wait_for_a_waiter(bank)
            drain.apply_and_commit()
            assert closing_.result()
    assert bank.available("bob") == 3
    bank.assert_settled()


def test_two_at_once_close_it_once(bank: Bank) -> None:
    bank.top_up("alice", 5)
    bank.open_wallet("bob")
    with bank.another_drain() as register:
        every_partition = "SELECT count(pg_advisory_xact_lock(%s, partition)) FROM partitions"
        register.connection.execute(every_partition, (PARTITION_LOCKS,))
        with Started(lambda: close(bank, "alice", "bob")) as one, Started(lambda: close(bank, "alice", "bob")) as two:
            wait_for_a_waiter(bank)
            register.commit()
            assert sorted([one.result(), two.result()]) == [False, True]
    assert bank.available("bob") == 5
    bank.assert_settled()


def test_while_a_wallet_is_being_closed_no_drain_works(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    bank.top_up("alice", 5)
    bank.open_wallet("bob")
    bank.order("top_up", "bob", 1)
    seen: list[object] = []
    settle = closing.drain.settle

    def looked(*arguments: object, **more: object) -> object:
        with bank.another_drain() as drain:
            drain.claim()
            seen.append(drain.claimed)
        return settle(*arguments, **more)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(closing.drain, "settle", looked)
    assert close(bank, "alice", "bob")
    assert seen == [Nothing.BUSY]


def test_a_close_that_meets_the_opening_of_the_other_account_begins_again(
    bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wallet's limit opens an account without the partitions' locks."""
    bank.top_up("alice", 5)
    bank.open_wallet("bob")
    settle = closing.drain.settle
    settled: list[object] = []

    def opened(*arguments: object, **more: object) -> object:
        journal = settle(*arguments, **more)  # pyright: ignore[reportArgumentType]
        if not settled:
            bank.limit_wallet("bob", max_balance=100)
        settled.append(journal)
        return journal

    monkeypatch.setattr(closing.drain, "settle", opened)
    assert close(bank, "alice", "bob")
    assert (len(settled), bank.available("bob")) == (2, 5)
    bank.assert_settled()
