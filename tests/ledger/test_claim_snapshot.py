"""A claim deletes rows that were committed while it ran. It must see their commands, too."""

import psycopg

from tests.books import Bank
from tests.ledger.races import Started, wait_for_a_waiter


def test_a_command_committed_while_a_claim_runs_is_claimed_whole_or_not_at_all(bank: Bank) -> None:
    bank.top_up(first := bank.wallet_in(1), 10)
    bank.top_up(second := bank.wallet_in(2), 10)
    held = bank.order("spend", first, 1)
    waiting = bank.order("spend", second, 1)
    with psycopg.connect(bank.url) as hand, bank.another_drain() as drain:
        hand.execute("SELECT FROM pending WHERE seq = %s FOR UPDATE", (held,))
        with Started(lambda: drain.claim()) as claiming:  # it stops at the first partition's row …
            wait_for_a_waiter(bank)
            late = bank.order("spend", second, 1)  # … and has not read the second partition yet
            hand.rollback()
        assert claiming.result() == [held, waiting, late]
        assert drain.apply() == [held, waiting, late]
        drain.connection.commit()
    assert bank.codes([held, waiting, late]) == ["applied"] * 3
    bank.assert_settled()
