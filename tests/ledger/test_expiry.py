"""What is past its time becomes commands of the ledger's own: which, in what order, and once each."""

import pytest

from ledger import expiry
from ledger.commands import LEDGER_CLIENT
from tests.books import Bank


def enqueued(bank: Bank, limit: int = expiry.DUE_MAX) -> set[str]:
    """The keys of the ledger's own commands that wait after a look."""
    with bank.drains.transaction():
        expiry.enqueue_due(bank.drains, limit=limit)
    query = "SELECT idempotency_key FROM commands JOIN pending USING (seq) WHERE tenant_id = %s AND client_id = %s"
    return {key for (key,) in bank.rows(query, bank.tenant, LEDGER_CLIENT)}


def past(bank: Bank, table: str, seq: int, seconds: int) -> None:
    when = "SET expires_at = now() - make_interval(secs => %s) WHERE seq = %s"
    bank.do("UPDATE holds " + when if table == "holds" else "UPDATE lots " + when, seconds, seq)


def test_of_what_is_due_the_soonest_comes_first_and_no_more_than_asked(bank: Bank) -> None:
    bank.top_up("alice", 100)
    holds = [bank.hold("alice", 1).seq for _ in range(3)]
    lots = [bank.bonus("bob", 1, credits_expire_at=bank.in_seconds(3600)).seq for _ in range(3)]
    for hold, lot, seconds in zip(holds, lots, (10, 30, 20), strict=True):
        past(bank, "holds", hold, seconds)
        past(bank, "lots", lot, seconds)
    assert enqueued(bank, limit=1) == {f"hold:{holds[1]}", f"lot:{lots[1]}.1:0"}
    assert enqueued(bank, limit=2) == {f"{key}" for n in (1, 2) for key in (f"hold:{holds[n]}", f"lot:{lots[n]}.1:0")}
    assert len(enqueued(bank)) == 6
    bank.drain()
    bank.assert_settled()


def test_what_is_not_due_or_has_nothing_left_is_left_alone(bank: Bank) -> None:
    bank.top_up("alice", 100)
    captured, _later = bank.hold("alice", 1), bank.hold("alice", 1)
    bank.capture(captured)
    past(bank, "holds", captured.seq, 10)
    ends = bank.in_seconds(3600)
    held, used_up, _later = (bank.bonus(wallet, 5, credits_expire_at=ends) for wallet in ("bob", "carol", "dora"))
    bank.hold("bob", 5)
    bank.spend("carol", 5)
    for lot in (held, used_up):
        past(bank, "lots", lot.seq, 10)
    assert enqueued(bank) == set()
    assert bank.enqueue_due() == set(), "nor is anybody rung"


def test_each_lot_of_a_command_expires_for_itself(bank: Bank) -> None:
    ends = bank.in_seconds(3600)
    for amount in (3, 4):
        bank.bonus("alice", amount, credits_expire_at=ends)
    given = bank.transfer("alice", "bob", 7)
    past(bank, "lots", given.seq, 10)
    assert enqueued(bank) == {f"lot:{given.seq}.1:0", f"lot:{given.seq}.2:0"}
    bank.drain()
    assert (bank.available("bob"), bank.system("@expired")) == (0, 7)
    bank.assert_settled()


def test_a_lot_that_is_filled_again_expires_again(bank: Bank) -> None:
    given = bank.bonus("alice", 10, credits_expire_at=bank.in_seconds(3600))
    spent = bank.spend("alice", 4)
    past(bank, "lots", given.seq, 10)
    bank.expire_due()
    assert (bank.available("alice"), bank.system("@expired")) == (0, 6)
    bank.reverse(spent)
    assert enqueued(bank) == {f"lot:{given.seq}.1:1"}
    bank.drain()
    assert (bank.available("alice"), bank.system("@expired")) == (0, 10)
    bank.assert_settled()


@pytest.mark.parametrize("times", [1, 3])
def test_however_often_somebody_looks_what_is_due_ends_once(bank: Bank, times: int) -> None:
    bank.top_up("alice", 5)
    hold = bank.hold("alice", 5)
    past(bank, "holds", hold.seq, 10)
    for _ in range(times):
        assert enqueued(bank) == {f"hold:{hold.seq}"}
    bank.drain()
    assert bank.hold_status(hold) == ("expired", 0, 0)
    bank.assert_settled()
