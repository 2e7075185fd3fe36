"""Lots, as the books load them: those of the wallet at hand, and what a reversal names, used up or not."""

from ledger import references
from tests.books import Bank


def remaining(bank: Bank, wallet: str) -> list[int]:
    """What its lots have left, the oldest first."""
    return [lot.remaining for lot in bank.lots(wallet)]


def test_a_debit_takes_from_the_lots_of_its_own_wallet(bank: Bank) -> None:
    for wallet in ("alice", "bob"):
        bank.bonus(wallet, 10, priority=1)
    bank.spend("alice", 4)
    assert (remaining(bank, "alice"), remaining(bank, "bob")) == ([6], [10])
    bank.assert_settled()


def test_a_reversal_gives_back_to_a_lot_that_was_used_up(bank: Bank) -> None:
    bank.bonus("alice", 10, priority=1)
    spent = bank.spend("alice", 10)
    assert remaining(bank, "alice") == []
    bank.reverse(spent)
    assert remaining(bank, "alice") == [10]
    bank.assert_settled()


def test_a_lot_that_is_given_back_to_is_spent_in_the_same_batch(bank: Bank) -> None:
    """The wallet and the reversal both name it: it is one lot all the same."""
    bank.bonus("alice", 30, priority=1)
    spent = bank.spend("alice", 10)
    seqs = [answer.seq for answer in bank.accept([bank.new_about("reverse", spent), bank.new("spend", "alice", 30)])]
    bank.drain()
    assert bank.codes(seqs) == ["applied", "applied"]
    assert remaining(bank, "alice") == []
    bank.assert_settled()


def test_a_reversal_takes_back_the_lot_that_its_command_made(bank: Bank) -> None:
    bank.bonus("alice", 10, priority=1)
    bank.reverse(bank.bonus("alice", 5, priority=2))
    assert remaining(bank, "alice") == [10]
    bank.assert_settled()


def test_lots_are_found_among_many_that_are_used_up(bank: Bank) -> None:
    bank.bonus("alice", 10, priority=1)
    account = bank.one("SELECT account_id FROM lots ORDER BY seq DESC LIMIT 1")
    bank.do("""
        INSERT INTO lots (seq, n, account_id, created_at, source, priority, remaining)
        SELECT 1000000 + more, 1, account_id, created_at, source, priority, 0
        FROM (SELECT * FROM lots ORDER BY seq DESC LIMIT 1) l CROSS JOIN generate_series(1, 5000) more
    """)
    bank.do("ANALYZE lots")
    plan = bank.one("EXPLAIN (FORMAT JSON) " + references._LOTS, [account], [], [])
    assert "ix_lots_account_id" in str(plan)
