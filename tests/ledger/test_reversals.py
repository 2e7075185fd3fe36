"""What names an earlier command, as the books keep it: in one batch, and from one to the next."""

import pytest

from tests.books import Bank


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "one by one"])
def test_parts_of_a_reversal_add_up(bank: Bank, together: bool) -> None:
    """Three parts of a spend that has been reversed in part before: the last one finds too little."""
    bank.top_up("alice", 100)
    spent = bank.spend("alice", 60)
    assert bank.reverse(spent, 10).status == "applied"
    parts = [bank.new_about("reverse", spent, 20) for _ in range(3)]
    for some in [parts] if together else [[part] for part in parts]:
        bank.accept(some)
        bank.drain()
    codes = bank.rows("SELECT code FROM outcomes JOIN commands USING (seq) WHERE ref_seq = %s ORDER BY seq", spent.seq)
    assert [code for (code,) in codes] == ["applied", "applied", "applied", "reversal_exceeded"]
    assert bank.rows("SELECT reversed FROM reversals WHERE seq = %s", spent.seq) == [(50,)]
    assert bank.available("alice") == 90
    bank.assert_settled()


def test_a_command_is_reversed_in_its_own_batch(bank: Bank) -> None:
    bank.top_up("alice", 100)
    spent = bank.order("spend", "alice", 60)
    parts = bank.accept([bank.new_about("reverse", spent, 50), bank.new_about("reverse", spent)])
    bank.drain()
    assert bank.codes([spent, *(part.seq for part in parts)]) == ["applied"] * 3
    assert bank.rows("SELECT reversed FROM reversals WHERE seq = %s", spent) == [(60,)]
    assert bank.available("alice") == 100
    bank.assert_settled()


def test_in_its_own_batch_a_reversed_bonus_is_taken_back_out_of_its_own_lot(bank: Bank) -> None:
    """Though the same batch brought the wallet another one, of which a debit would be paid first."""
    kept, given = bank.order("bonus", "alice", 10, priority=1), bank.order("bonus", "alice", 10, priority=2)
    bank.accept([bank.new_about("reverse", given)])
    bank.drain()
    assert [(lot.seq, lot.remaining) for lot in bank.lots("alice")] == [(kept, 10)]
    bank.assert_settled()


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "one by one"])
def test_a_reversed_capture_gives_back_what_it_captured_not_what_it_released(bank: Bank, together: bool) -> None:
    """What the end of the hold released went to a debt: that is no part of what the capture moved."""
    captured, released = bank.bonus("alice", 10, priority=1), bank.bonus("alice", 20, priority=2)
    bought = bank.top_up("alice", 20)
    hold = bank.hold("alice", 30, hold_expires_at=bank.in_seconds(3_600))
    bank.spend("alice", 20)
    assert bank.reverse(bought, allow_negative=True).status == "applied"
    assert bank.available("alice") == -20
    if together:
        taken = bank.accept([bank.new_about("capture", hold, 10)])[0].seq
        bank.accept([bank.new_about("reverse", taken)])
        bank.drain()
    else:
        bank.reverse(bank.capture(hold, 10))
    assert [(lot.seq, lot.remaining) for lot in bank.lots("alice")] == [(captured.seq, 10)]
    assert released.seq not in [lot.seq for lot in bank.lots("alice")]
    bank.assert_settled()


def test_what_may_be_owed_shrinks_with_what_is_repaid(bank: Bank) -> None:
    """A floor below zero is no credit line: whoever repaid a part cannot owe it again."""
    bought = bank.top_up("alice", 50)
    bank.spend("alice", 50)
    assert bank.reverse(bought, allow_negative=True).status == "applied"
    assert floor(bank) == -50
    bank.top_up("alice", 30)
    assert floor(bank) == -20
    bank.top_up("alice", 30)
    assert floor(bank) == 0
    bank.assert_settled()


def test_credits_do_not_thaw_a_wallet_within_a_batch(bank: Bank) -> None:
    """Its debits stay frozen, also behind a credit that the same drain applies to it."""
    bank.open_wallet("alice")
    bank.freeze("alice", "debits_frozen")
    seqs = [bank.order("top_up", "alice", 10), bank.order("spend", "alice", 1)]
    bank.drain()
    assert bank.codes(seqs) == ["applied", "wallet_frozen"]


def test_a_hold_is_captured_in_its_own_batch(bank: Bank) -> None:
    bank.top_up("alice", 100)
    hold = bank.order("hold", "alice", 40, hold_expires_at=bank.in_seconds(3600))
    captures = bank.accept([bank.new_about("capture", hold, amount, final=False) for amount in (30, 30)])
    bank.drain()
    assert bank.codes([hold, *(each.seq for each in captures)]) == ["applied", "applied", "hold_exceeded"]
    assert bank.hold_status(hold) == ("open", 10, 30)
    bank.assert_settled()


def floor(bank: Bank) -> int:
    query = "SELECT a.floor FROM accounts a JOIN wallets w ON w.id = a.wallet_id WHERE w.tenant_id = %s AND w.code = %s"
    return bank.one(query, bank.tenant, "alice")
