"""The audit of what follows the journal: each register is bent by hand once, and the audit names it and no other."""

from typing import LiteralString

import pytest
from sqlalchemy import Engine

from tests.books import GOLD, Bank
from tests.ledger.tampering import account_id, broken, by_hand
from tests.ledger.tampering import engine as engine


@pytest.fixture
def bank(own_bank: Bank) -> Bank:
    """Holds in every state, lots taken, held and swept, reversals in part and whole, a debt, a capped asset."""
    bank = own_bank
    bank.open_asset("diamonds")
    bank.limit_asset("diamonds", max_supply=70)
    bank.top_up("dora", 7, asset="diamonds")
    bank.limit_asset(max_supply=10_000)
    bank.top_up("alice", 1_000)
    bank.bonus("alice", 50, priority=10)
    bank.top_up("bob", 100, credits_expire_at=bank.in_seconds(3_600))
    held = [bank.hold("alice", amount, hold_expires_at=bank.in_seconds(3_600)) for amount in (40, 30, 20, 10)]
    bank.capture(held[0], 15)
    bank.capture(held[1], 12, final=False)
    bank.release(held[2])
    spent = bank.spend("alice", 200)
    bank.reverse(spent, 50)
    bank.reverse(spent, 20)
    bank.spend("bob", 60)
    given = bank.top_up("carol", 10)
    bank.spend("carol", 10)
    bank.reverse(given, allow_negative=True)
    bank.hold("bob", 15, hold_expires_at=bank.in_seconds(3_600))
    return bank


def test_registers_that_nobody_bent_pass(bank: Bank, engine: Engine) -> None:
    assert broken(engine) == {}
    assert bank.available("carol") == -10


def test_3_held_and_no_hold_for_it(bank: Bank, engine: Engine) -> None:
    bank.do("UPDATE accounts SET held = held + 1 WHERE id = %s", account_id(bank, "alice"))
    assert broken(engine) == {3: ["29 held, the last entry says 28", "29 held, the open holds have 28"]}


def test_3_a_debt_deeper_than_was_allowed(bank: Bank, engine: Engine) -> None:
    bank.do("ALTER TABLE accounts DROP CONSTRAINT ck_accounts_not_overspent")
    bank.do("UPDATE accounts SET floor = -5 WHERE id = %s", account_id(bank, "carol"))
    found = broken(engine)
    assert found[3] == ["posted -10, held 0, never to fall below -5"]


def test_3_a_debt_that_was_not_allowed_or_was_but_by_its_end(bank: Bank, engine: Engine) -> None:
    bank.top_up("carol", 4)
    assert broken(engine) == {}, "a debt that shrinks"
    by_hand(bank)
    bank.do("UPDATE commands SET options = NULL WHERE type = 'reverse'")
    assert broken(engine) == {3: ["version 3 left -10"]}
    bank.do("UPDATE commands SET type = 'expire_credits' WHERE type = 'reverse'")
    assert 3 not in broken(engine)


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("UPDATE holds SET captured = 14 WHERE status = 'captured'", "14 captured, its captures took 15"),
        ("UPDATE holds SET status = 'expired' WHERE status = 'released'", "expired, by its commands released"),
        ("UPDATE holds SET status = 'released' WHERE status = 'captured'",
         "released, by its commands neither released nor expired"),
        ("UPDATE holds SET ended_at = now() WHERE seq = (SELECT max(seq) FROM holds)",
         "open, by its commands neither released nor expired"),
        ("UPDATE holds SET amount = 41 WHERE amount = 40", "41 held at first, its command said 40"),
        ("INSERT INTO holds (seq, account_id, status, amount, remaining, expires_at, ended_at)"
         " SELECT 999999, account_id, 'released', 1, 0, now(), now() FROM holds LIMIT 1",
         "no applied command placed it"),
    ],
)  # fmt: skip
def test_9_a_hold_that_is_not_what_its_commands_made_of_it(
    bank: Bank, engine: Engine, statement: LiteralString, what: str
) -> None:
    bank.do(statement)
    assert broken(engine) == {9: [what]}


def test_9_a_hold_that_is_gone(bank: Bank, engine: Engine) -> None:
    bank.do("DELETE FROM holds WHERE status = 'released'")
    assert broken(engine) == {9: ["placed, and not in the register"]}


def test_9_a_hold_with_less_left_than_its_pieces(bank: Bank, engine: Engine) -> None:
    bank.do("UPDATE holds SET lots = json_build_array(json_build_array(lots->0->0, 1, 14)) WHERE amount = 15")
    assert broken(engine)[9] == ["15 left, its pieces have 14"]


def test_9_a_hold_that_lost_something_ended_for_nothing_or_twice(bank: Bank, engine: Engine) -> None:
    bank.do("UPDATE holds SET remaining = 9 WHERE amount = 10")
    assert broken(engine)[9] == ["open: 0 captured and 9 left of 10"]
    bank.do("UPDATE holds SET remaining = 0, status = 'captured', ended_at = now(), lots = NULL WHERE amount = 10")
    assert broken(engine)[9] == ["captured, by its commands neither released nor expired"]
    bank.do("UPDATE holds SET remaining = 10, status = 'open', ended_at = NULL WHERE amount = 10")
    by_hand(bank)
    bank.do("""
        UPDATE commands SET type = 'release', ref_seq = (SELECT seq FROM holds WHERE status = 'released')
        WHERE type = 'spend' AND amount = 60
    """)
    assert broken(engine)[9] == ["ended 2 times"]


def test_10_a_lot_that_its_changes_do_not_make(bank: Bank, engine: Engine) -> None:
    bank.do("UPDATE lots SET remaining = remaining - 1 WHERE account_id = %s", account_id(bank, "bob"))
    assert broken(engine) == {10: ["39 left, its changes sum to 40"]}


def test_10_a_lot_held_by_no_hold(bank: Bank, engine: Engine) -> None:
    bank.do("UPDATE lots SET held = held + 1 WHERE account_id = %s", account_id(bank, "bob"))
    assert broken(engine) == {10: ["16 held, its changes sum to 15"]}
    by_hand(bank)
    bob = account_id(bank, "bob")
    hold = bank.one("SELECT seq FROM holds WHERE account_id = %s", bob)
    bank.do("UPDATE lot_entries SET held = 16 WHERE seq = %s", hold)
    assert broken(engine) == {10: ["16 held, open holds have 15"]}


def test_10_more_in_lots_than_there_is(bank: Bank, engine: Engine) -> None:
    by_hand(bank)
    bob = account_id(bank, "bob")
    bank.do("UPDATE lots SET remaining = 41 WHERE account_id = %s", bob)
    bank.do("UPDATE lot_entries SET amount = 101 WHERE amount = 100")
    assert broken(engine) == {10: ["26 of the 25 available are in lots"]}


def test_10_a_lot_that_is_gone(bank: Bank, engine: Engine) -> None:
    bank.do("DELETE FROM lots WHERE account_id = %s", account_id(bank, "bob"))
    assert "changed, and not in the register" in broken(engine)[10]


def test_10_lots_miscounted(bank: Bank, engine: Engine) -> None:
    bank.do("UPDATE accounts SET lots = 7 WHERE id = %s", account_id(bank, "bob"))
    assert broken(engine) == {10: ["says 7 lots, 1 are not used up"]}


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("UPDATE reversals SET reversed = 71 WHERE reversed = 70", "71 reversed, its reversals moved 70"),
        ("DELETE FROM reversals WHERE reversed = 70", "0 reversed, its reversals moved 70"),
    ],
)
def test_11_reversed_is_not_what_its_reversals_moved(
    bank: Bank, engine: Engine, statement: LiteralString, what: str
) -> None:
    bank.do(statement)
    assert broken(engine) == {11: [what]}


def test_11_more_reversed_than_moved(bank: Bank, engine: Engine) -> None:
    """A spend of 200 of which two reversals made 270: the entries were raised, the register with them."""
    by_hand(bank)
    reverse = bank.one("SELECT max(ref_seq) FROM commands WHERE type = 'reverse' AND amount = 20")
    bank.do("UPDATE reversals SET reversed = 270 WHERE seq = %s", reverse)
    bank.do(
        "UPDATE entries SET amount = sign(amount) * 220 WHERE seq = (SELECT max(seq) FROM commands WHERE amount = 20"
        " AND type = 'reverse')"
    )
    assert broken(engine)[11] == ["270 reversed of 200"]


def test_12_a_share_of_the_supply_that_came_from_nowhere(bank: Bank, engine: Engine) -> None:
    bank.do("UPDATE supply_shares SET headroom = headroom + 1 WHERE partition = 0 AND headroom > 100")
    (finding,) = broken(engine)[12]
    assert f"'asset': '{GOLD}', 'max_supply': 10000" in finding
    assert list(broken(engine)) == [12]
