"""The hash chain: every change behind our back is found, at the row that was changed."""

import hashlib
from datetime import datetime
from functools import partial

import pytest
from sqlalchemy import Engine

from ledger import audit, chain, receipts
from ledger.audit.chain import CHAIN
from ledger.chain import GENESIS
from ledger.inbox import Claim
from tests.books import Bank
from tests.ledger.races import Started, wait_for_a_waiter
from tests.ledger.tampering import account_id, by_hand
from tests.ledger.tampering import engine as engine

ALTERED = "its hash is not that of the transfer, its entries, its request and the hash before"
Found = list[tuple[int | None, str]]


@pytest.fixture
def seqs(own_bank: Bank) -> list[int]:
    """Five transfers of one partition, in the order of its chain; a sixth command was refused."""
    wallet = own_bank.wallet_in(3)
    seqs = [own_bank.top_up(wallet, 100).seq]
    own_bank.spend(wallet, 1_000)
    batch = [own_bank.order("spend", wallet, 30), own_bank.order("spend", wallet, 20)]
    own_bank.drain()
    seqs += batch
    return [*seqs, own_bank.bonus(wallet, 5).seq, own_bank.spend(wallet, 1).seq]


def found(engine: Engine) -> Found:
    """What the audit of the chain finds: at which transfer, and what."""
    (finding,) = audit.audit(engine, CHAIN)
    return [(breach["seq"], breach["what"]) for breach in finding.breaches]


def test_a_chain_that_nobody_touched_holds(own_bank: Bank, seqs: list[int], engine: Engine) -> None:
    other = own_bank.top_up(own_bank.wallet_in(5), 1).seq
    (finding,) = audit.audit(engine, CHAIN)
    assert (finding.breaches, finding.note) == ([], None)
    places = dict(own_bank.rows("SELECT seq, position FROM transfers"))
    assert [places[seq] for seq in seqs] == [1, 2, 3, 4, 5]
    assert places[other] == 1


def test_the_hash_is_what_the_pure_function_says(own_bank: Bank, seqs: list[int]) -> None:
    head = GENESIS
    for seq in seqs:
        ((tenant, partition, position, at, stored, request),) = own_bank.rows(
            "SELECT t.tenant_id, t.partition, position, at, hash, request_hash"
            " FROM transfers t JOIN commands USING (seq) WHERE seq = %s",
            seq,
        )
        lines: list[chain.Line] = own_bank.rows(  # pyright: ignore[reportAssignmentType]
            "SELECT account_id, version, seq, asset_id, amount, balance_after, held_after FROM entries"
            " WHERE seq = %s ORDER BY account_id",
            seq,
        )
        assert isinstance(at, datetime)
        text = chain.canonical(seq, tenant, partition, position, chain.microseconds(at), lines, request)
        head = hashlib.sha256(head + text).digest()
        assert stored == head


def test_a_link_is_read_with_the_hash_before_it_and_its_lines_in_order(own_bank: Bank, seqs: list[int]) -> None:
    """As a receipt tells it: before the first one of a chain there are zeros."""
    links = [own_bank._register(partial(receipts.link, seq=seq)) for seq in seqs]
    before = [link.previous_hash for link in links if link is not None]
    assert before == [GENESIS, *(link.hash for link in links[:-1] if link is not None)]
    for link in links:
        assert link is not None
        accounts = [line.account_id for line in link.lines]
        assert len(accounts) == 2
        assert accounts == sorted(accounts)


def test_an_amount_changed_on_both_sides(own_bank: Bank, seqs: list[int], engine: Engine) -> None:
    by_hand(own_bank)
    own_bank.do("UPDATE entries SET amount = amount * 2 WHERE seq = %s", seqs[2])
    assert found(engine) == [(seqs[2], ALTERED)]


def test_an_entry_on_another_account(own_bank: Bank, seqs: list[int], engine: Engine) -> None:
    by_hand(own_bank)
    elsewhere = account_id(own_bank, "@expired", 3)
    own_bank.do("UPDATE entries SET account_id = %s WHERE seq = %s AND amount > 0", elsewhere, seqs[2])
    assert found(engine) == [(seqs[2], ALTERED)]


def test_another_request_under_an_applied_command(own_bank: Bank, seqs: list[int], engine: Engine) -> None:
    by_hand(own_bank)
    own_bank.do("UPDATE commands SET request_hash = 'another' WHERE seq = %s", seqs[1])
    assert found(engine) == [(seqs[1], ALTERED)]


def test_a_transfer_at_another_time(own_bank: Bank, seqs: list[int], engine: Engine) -> None:
    by_hand(own_bank)
    own_bank.do("UPDATE transfers SET at = at + interval '1 microsecond' WHERE seq = %s", seqs[0])
    assert found(engine) == [(seqs[0], ALTERED)]


def test_a_transfer_deleted(own_bank: Bank, seqs: list[int], engine: Engine) -> None:
    by_hand(own_bank)
    own_bank.do("DELETE FROM entries WHERE seq = %s", seqs[2])
    own_bank.do("DELETE FROM transfers WHERE seq = %s", seqs[2])
    assert found(engine) == [(seqs[3], "follows position 2")]


def test_a_transfer_deleted_and_the_gap_closed(own_bank: Bank, seqs: list[int], engine: Engine) -> None:
    by_hand(own_bank)
    own_bank.do("DELETE FROM transfers WHERE seq = %s", seqs[2])
    for seq in seqs[3:]:
        own_bank.do("UPDATE transfers SET position = position - 1 WHERE seq = %s", seq)
    own_bank.do("UPDATE chain_heads SET position = position - 1 WHERE partition = 3")
    assert found(engine) == [(seqs[3], ALTERED), (seqs[4], ALTERED)]


def test_two_transfers_swapped(own_bank: Bank, seqs: list[int], engine: Engine) -> None:
    by_hand(own_bank)
    own_bank.do("DROP INDEX ix_transfers_position")
    own_bank.do(
        "UPDATE transfers SET position = 5 - position, hash = (SELECT hash FROM transfers o WHERE o.partition = 3"
        " AND o.position = 5 - transfers.position) WHERE seq = ANY(%s)",
        [seqs[1], seqs[2]],
    )
    assert found(engine) == [(seqs[2], ALTERED), (seqs[1], ALTERED)]


def test_the_tail_cut_off(own_bank: Bank, seqs: list[int], engine: Engine) -> None:
    by_hand(own_bank)
    own_bank.do("DELETE FROM transfers WHERE seq = ANY(%s)", seqs[3:])
    assert found(engine) == [(seqs[2], "the head is here, the last transfer at position 3")]


def test_a_tail_that_was_written_anew(own_bank: Bank, seqs: list[int], engine: Engine) -> None:
    by_hand(own_bank)
    own_bank.do("UPDATE transfers SET hash = sha256(hash) WHERE seq = %s", seqs[4])
    assert found(engine) == [(seqs[4], ALTERED), (seqs[4], "the head has another hash than the last transfer")]


def test_a_transfer_slipped_in_without_a_link(own_bank: Bank, seqs: list[int], engine: Engine) -> None:
    seq = own_bank.order("spend", own_bank.wallet_in(3), 1)
    own_bank.do("INSERT INTO transfers SELECT seq, tenant_id, partition, now() FROM commands WHERE seq = %s", seq)
    assert found(engine) == [(seq, "without a link, since the chain began")]


def test_a_head_that_is_gone(own_bank: Bank, seqs: list[int], engine: Engine) -> None:
    own_bank.do("DELETE FROM chain_heads WHERE partition = 3")
    assert found(engine) == [(seqs[4], "the chain of this partition has no head")]


def test_what_was_before_the_chain_is_said_and_not_held_against_it(
    own_bank: Bank, seqs: list[int], engine: Engine
) -> None:
    by_hand(own_bank)
    old = own_bank.order("spend", own_bank.wallet_in(3), 1)
    own_bank.do(
        "INSERT INTO transfers SELECT seq, tenant_id, partition, '2020-01-01' FROM commands WHERE seq = %s",
        old,
    )
    assert found(engine) == [(old, "without a link, since the chain began")]
    own_bank.do("UPDATE chain_heads SET began_at = now()")  # as the migration finds a database with a past
    (finding,) = audit.audit(engine, CHAIN)
    assert finding.holds
    assert finding.note is not None
    assert finding.note.startswith("transfers without a link, from before the chain began at ")
    assert finding.note.endswith(": 1")


def test_two_drains_forced_on_one_partition_make_one_chain(own_bank: Bank, engine: Engine) -> None:
    """They have no account in common. The second one waits for the head, and goes on from where the first one ends."""
    wallets = own_bank.wallets_in(3, 4)
    for wallet in wallets:
        own_bank.top_up(wallet, 10)
    for payer, taker in ((wallets[0], wallets[1]), (wallets[2], wallets[3])):
        own_bank.order("transfer", payer, 1, to_wallet=taker)
    with own_bank.another_drain() as first, own_bank.another_drain() as second:
        first.claim()
        commands = first.commands
        first.rollback()
        now = own_bank.in_seconds(0)
        first.claimed, second.claimed = Claim(now, commands[:1]), Claim(now, commands[1:])
        first.apply()
        with Started(second.apply) as applying:
            wait_for_a_waiter(own_bank)
            first.commit()
            applying.result()
        second.commit()
    places = own_bank.rows("SELECT seq FROM transfers ORDER BY position DESC LIMIT 2")
    assert places == [(command.seq,) for command in reversed(commands)]
    assert found(engine) == []


def test_no_two_transfers_have_one_place(own_bank: Bank, seqs: list[int]) -> None:
    assert own_bank.one("SELECT indisunique FROM pg_index WHERE indexrelid = 'ix_transfers_position'::regclass")
