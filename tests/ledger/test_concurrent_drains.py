"""Two drains at once. The partitions keep them apart; where they do not, row locks keep the books right."""

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from psycopg.errors import DeadlockDetected

from ledger import books
from ledger.commands import TopUp, Transfer
from ledger.errors import BooksMoved
from ledger.inbox import Claim, Nothing
from tests.books import ALL, Bank, Entry
from tests.ledger.races import Started, partition_locks_stolen, wait_for_a_waiter


def test_a_transfer_into_another_partition_waits_for_the_wallets_row(bank: Bank) -> None:
    alice, bob = bank.wallet_in(1), bank.wallet_in(2)
    bank.top_up(alice, 100)
    bank.top_up(bob, 100)
    spent = bank.order("spend", bob, 80)
    with bank.another_drain() as first, bank.another_drain() as second:
        first.claim([2])
        first.apply()
        given = bank.order("transfer", alice, 30, to_wallet=bob)
        second.claim([1])
        with Started(second.apply) as applying:
            wait_for_a_waiter(bank)
            first.commit()
            assert applying.result() == [given]
        second.commit()
    assert bank.available(bob) == 50
    assert bank.entries(bob)[1:] == [Entry(spent, -80, 20, 2), Entry(given, 30, 50, 3)]
    bank.assert_settled()


def test_what_the_other_drain_rolls_back_never_happened(bank: Bank) -> None:
    alice, bob = bank.wallet_in(1), bank.wallet_in(2)
    bank.top_up(alice, 100)
    bank.top_up(bob, 100)
    bank.order("spend", bob, 80)
    with bank.another_drain() as first, bank.another_drain() as second:
        first.claim([2])
        first.apply()
        bank.order("transfer", alice, 30, to_wallet=bob)
        second.claim([1])
        with Started(second.apply) as applying:
            wait_for_a_waiter(bank)
            first.rollback()
            applying.result()
        second.commit()
    assert bank.available(bob) == 130
    bank.drain()
    assert bank.available(bob) == 50
    bank.assert_settled()


def test_a_second_spend_cannot_use_what_the_first_one_took(own_bank: Bank) -> None:
    """Both drains in the same partition, as if the lock had been stolen: the second sees what the first left."""
    bank = own_bank
    bank.top_up("alice", 100)
    partition_locks_stolen(bank)
    seqs = [bank.order("spend", "alice", 80)]
    with bank.another_drain() as first, bank.another_drain() as second:
        assert first.claim() == seqs
        first.apply()
        seqs.append(bank.order("spend", "alice", 80, partition=(bank.partition("alice") + 1) % 8))
        assert second.claim([(bank.partition("alice") + 1) % 8]) == seqs[1:]
        with Started(second.apply) as applying:
            wait_for_a_waiter(bank)
            first.commit()
            applying.result()
        second.commit()
    assert bank.codes(seqs) == ["applied", "insufficient_funds"]
    assert bank.available("alice") == 20
    bank.assert_settled()


def test_a_stolen_partition_lock_doubles_nothing(own_bank: Bank) -> None:
    """Two drains forced on the very same rows: leaving the queue is what only one of them can do."""
    bank = own_bank
    partition_locks_stolen(bank)
    seqs = [bank.order("top_up", "alice", 10) for _ in range(3)]
    with bank.another_drain() as first, bank.another_drain() as second:
        assert first.claim() == seqs
        first.apply()
        with Started(second.claim) as claiming:
            wait_for_a_waiter(bank)
            first.commit()
            assert claiming.result() == []
        assert second.commands == [], "it came in vain: an empty claim, and it must look again"
        second.rollback()
    assert bank.available("alice") == 30
    bank.assert_settled()


def test_many_workers_without_any_partition_lock_still_keep_the_books(own_bank: Bank) -> None:
    bank = own_bank
    partition_locks_stolen(bank)
    players = [f"w{n}" for n in range(12)]
    chance = random.Random(7)
    bank.accept([bank.new("top_up", player, 1_000) for player in players])
    for _ in range(6):
        batch = [
            bank.new("transfer", chance.choice(players), chance.randint(1, 900), to_wallet=target)
            for target in chance.choices(players, k=40)
        ]
        bank.accept([command for command in batch if command.wallet != command.to_wallet])

    def work(_: int) -> None:
        with bank.another_drain() as drain:
            while True:
                try:
                    claimed = drain.claim(max_rows=17)
                    if drain.claimed is Nothing.IDLE:
                        return
                    if claimed:
                        drain.apply()
                    drain.commit()
                except (BooksMoved, DeadlockDetected):  # two may claim the rows of two partitions in two orders
                    drain.rollback()

    with ThreadPoolExecutor(3) as workers:
        list(workers.map(work, range(3), timeout=30))
    assert sum(bank.available(player) for player in players) == 12_000
    assert bank.pending() == []
    bank.assert_books_balance(in_order=False)  # which only the partitions' locks can promise


def orders(bank: Bank, wallets: list[str]) -> list[TopUp]:
    return [TopUp(n, bank.tenant, bank.partition(wallet), wallet, "gold", 1, None) for n, wallet in enumerate(wallets)]


@pytest.mark.parametrize("seed", range(3))
def test_rows_are_locked_in_the_order_of_their_ids_whatever_the_commands_order(bank: Bank, seed: int) -> None:
    """While one drain waits for a row, it holds every row before that one and none behind it: no circle can form."""
    wallets = [f"w{n}" for n in range(40)]
    random.Random(seed).shuffle(wallets)
    bank.accept([bank.new("top_up", wallet, 1) for wallet in wallets])
    bank.drain()
    ids = [
        id_
        for (id_,) in bank.rows(
            """SELECT a.id FROM accounts a JOIN wallets w ON w.id = a.wallet_id
               WHERE w.tenant_id = %s AND w.code NOT LIKE '@%%' ORDER BY 1""",
            bank.tenant,
        )
    ]
    middle = len(ids) // 2
    random.Random(seed + 1).shuffle(wallets)
    with bank.another_drain() as blocker, bank.another_drain() as drain:
        blocker.connection.execute("SELECT FROM accounts WHERE id = %s FOR UPDATE", (ids[middle],))
        with Started(lambda: books.lock(drain.connection, orders(bank, wallets), bank.in_seconds(0))) as locking:
            wait_for_a_waiter(bank)
            free = bank.rows("SELECT id FROM accounts WHERE id = ANY(%s) ORDER BY id FOR UPDATE SKIP LOCKED", ids)
            blocker.rollback()
            locking.result()
    assert [id_ for (id_,) in free] == ids[middle + 1 :]


def test_drains_that_go_through_the_same_wallets_in_opposite_order_both_arrive(bank: Bank) -> None:
    ours = bank.wallets_in(1, 20)
    theirs = bank.wallets_in(2, 20)
    bank.accept([bank.new("top_up", wallet, 100) for wallet in ours + theirs])
    bank.drain()
    for _ in range(5):
        forth = [bank.new("transfer", a, 1, to_wallet=b) for a, b in zip(ours, theirs, strict=True)]
        back = [bank.new("transfer", b, 1, to_wallet=a) for a, b in zip(ours[::-1], theirs[::-1], strict=True)]
        bank.accept(forth + back)
        with bank.another_drain() as first, bank.another_drain() as second:
            first.claim([1])
            second.claim([2])

            with Started(first.apply_and_commit) as one, Started(second.apply_and_commit) as two:
                one.result()
                two.result()
    assert {bank.available(wallet) for wallet in ours + theirs} == {100}
    bank.assert_settled()


# --- opening wallets and accounts --------------------------------------------------------------------------------


def test_two_drains_that_open_the_same_wallet_credit_it_twice_in_one_account(bank: Bank) -> None:
    alice, bob = bank.wallet_in(1), bank.wallet_in(2)
    bank.top_up(alice, 100)
    bank.top_up(bob, 100)
    bank.order("transfer", alice, 10, to_wallet="newcomer")
    bank.order("transfer", bob, 20, to_wallet="newcomer")
    with bank.another_drain() as first, bank.another_drain() as second:
        first.claim([1])
        second.claim([2])
        first.apply()
        with Started(second.apply) as applying:
            wait_for_a_waiter(bank)
            first.commit()
            with pytest.raises(BooksMoved):
                applying.result()
        second.rollback()
        second.claim([2])
        second.apply()
        second.commit()
    assert [(entry.amount, entry.balance_after) for entry in bank.entries("newcomer")] == [(10, 10), (20, 30)]
    bank.assert_settled()


def test_the_second_opener_goes_on_when_the_first_gives_up(bank: Bank) -> None:
    alice, bob = bank.wallet_in(1), bank.wallet_in(2)
    bank.top_up(alice, 100)
    bank.top_up(bob, 100)
    bank.order("transfer", alice, 10, to_wallet="newcomer")
    bank.order("transfer", bob, 20, to_wallet="newcomer")
    with bank.another_drain() as first, bank.another_drain() as second:
        first.claim([1])
        second.claim([2])
        first.apply()
        with Started(second.apply) as applying:
            wait_for_a_waiter(bank)
            first.rollback()
            applying.result()
        second.commit()
    assert bank.available("newcomer") == 20
    bank.drain()
    assert bank.available("newcomer") == 30
    bank.assert_settled()


def test_an_account_of_a_known_wallet_is_opened_once_too(bank: Bank) -> None:
    bank.open_wallet("newcomer")
    alice, bob = bank.wallet_in(1), bank.wallet_in(2)
    for wallet in (alice, bob):
        bank.top_up(wallet, 100)
    for wallet in (alice, bob):
        bank.order("transfer", wallet, 10, to_wallet="newcomer")
    with bank.another_drain() as first, bank.another_drain() as second:
        first.claim([1])
        second.claim([2])
        first.apply()
        with Started(second.apply) as applying:
            wait_for_a_waiter(bank)
            first.commit()
            with pytest.raises(BooksMoved):
                applying.result()
        second.rollback()  # a connection that is closed lets go of its locks a moment later
    bank.drain()
    assert bank.available("newcomer") == 20
    bank.assert_settled()


def test_a_batch_is_as_late_as_the_latest_change_of_all_its_accounts(bank: Bank) -> None:
    """Its claim was made before either of two wallets changed, the one that was opened first the last."""
    claimed_at = bank.in_seconds(0)
    bank.top_up("alice", 100)
    bank.top_up("bob", 100)
    changed = bank.spend("alice", 1)
    given = bank.order("transfer", "alice", 30, to_wallet="bob")
    with bank.another_drain() as drain:
        drain.claim()
        drain.claimed = Claim(claimed_at, drain.commands)
        drain.apply_and_commit()
    assert bank.outcome(given).at == changed.at
    bank.assert_settled()


def test_a_batch_opens_a_wallet_once_however_often_it_names_it(bank: Bank) -> None:
    bank.open_asset("diamonds")
    batch = [bank.new("top_up", "newcomer", 10, asset=asset) for asset in ("gold", "diamonds", "gold", "diamonds")]
    bank.accept(batch)
    bank.drain()
    assert (bank.available("newcomer"), bank.available("newcomer", "diamonds")) == (20, 20)
    assert bank.one("SELECT count(*) FROM wallets WHERE tenant_id = %s AND code = 'newcomer'", bank.tenant) == 1
    bank.assert_settled()


def test_a_refused_command_opens_nothing(bank: Bank) -> None:
    bank.top_up("alice", 5)
    assert bank.transfer("alice", "newcomer", 6).code == "insufficient_funds"
    assert bank.rows("SELECT FROM wallets WHERE tenant_id = %s AND code = 'newcomer'", bank.tenant) == []


def test_a_command_may_spend_what_the_one_before_it_brought(bank: Bank) -> None:
    """A wallet opened, spent from and given from within one batch."""
    seqs = [
        bank.order("spend", "newcomer", 1),
        bank.order("top_up", "newcomer", 10),
        bank.order("spend", "newcomer", 4),
        bank.order("transfer", "newcomer", 6, to_wallet="another"),
        bank.order("spend", "newcomer", 1),
    ]
    bank.drain(ALL)
    assert bank.codes(seqs) == ["wallet_not_found", "applied", "applied", "applied", "insufficient_funds"]
    assert (bank.available("newcomer"), bank.available("another")) == (0, 6)
    bank.assert_settled()


def test_a_transfer_type_carries_its_target(bank: Bank) -> None:
    bank.order("transfer", "alice", 1, to_wallet="bob")
    with bank.another_drain() as drain:
        drain.claim()
        (command,) = drain.commands
        assert isinstance(command, Transfer)
        assert command.to_wallet == "bob"
