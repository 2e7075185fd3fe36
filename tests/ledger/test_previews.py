"""Previews and projections: what would come of a command, and nothing done about it.

That they tell what the drain then does is held by tests/properties/test_previews.py.
"""

from collections.abc import Generator
from typing import Any, LiteralString

import psycopg
import pytest

from ledger import books, cancelling, db, inbox, previews
from ledger.decisions import Books
from ledger.previews import Projection
from tests.books import Bank


@pytest.fixture
def reader(bank: Bank) -> Generator[psycopg.Connection]:
    connection = db.connect(bank.url, application="test-preview")
    yield connection
    connection.close()


def project(bank: Bank, reader: psycopg.Connection, seq: int) -> Projection | None:
    partition = bank.one("SELECT partition FROM commands WHERE seq = %s", seq)
    return previews.project(reader, seq=seq, partition=partition)


# --- previews --------------------------------------------------------------------------------------------------------


def test_a_preview_stores_nothing_and_counts_nothing_that_is_queued(bank: Bank, reader: psycopg.Connection) -> None:
    bank.top_up("alice", 100)
    queued = bank.order("spend", "alice", 90)
    before = bank.account("alice")
    (foreseen,) = previews.preview(reader, [bank.new("spend", "alice", 40)])
    assert (foreseen.status, foreseen.code, foreseen.detail) == ("applied", "applied", None)
    assert '"available":"60"' in foreseen.accounts
    (refused,) = previews.preview(reader, [bank.new("spend", "alice", 101)])
    assert (refused.status, refused.code, refused.detail) == (
        "rejected", "insufficient_funds", "available 100, needed 101",
    )  # fmt: skip
    assert bank.account("alice") == before
    assert bank.pending() == [queued]


def test_a_preview_waits_for_nobody(bank: Bank, reader: psycopg.Connection) -> None:
    bank.top_up("alice", 100)
    bank.order("spend", "alice", 90)
    reader.execute("SET lock_timeout = 1")
    reader.commit()
    with bank.another_drain() as drain:
        drain.claim()
        drain.apply()
        (foreseen,) = previews.preview(reader, [bank.new("spend", "alice", 40)])
        assert foreseen.status == "applied", "what the drain has not committed has not happened"


def test_a_preview_counts_with_what_may_still_be_issued(bank: Bank, reader: psycopg.Connection) -> None:
    bank.limit_asset(max_supply=80)
    foreseen = [previews.preview(reader, [bank.new("top_up", "alice", amount)])[0].code for amount in (80, 81)]
    assert foreseen == ["applied", "supply_limit_exceeded"]


def test_a_lot_that_would_be_made_has_no_id_yet(bank: Bank, reader: psycopg.Connection) -> None:
    bonus = bank.new("bonus", "alice", 5, options='{"priority": 3}')
    spend = bank.new("spend", "alice", 5)
    (made,) = previews.preview(reader, [bonus])
    assert made.result is not None
    assert '"lot":null' in made.result
    _, taken = previews.preview(reader, [bonus, spend])
    assert taken.result is not None
    assert '"lot":null' in taken.result, "not by a later one of its group either"
    bank.bonus("alice", 5, options='{"priority": 3}')
    (taken,) = previews.preview(reader, [spend])
    assert taken.result is not None
    assert '"lot":null' not in taken.result, "this one is there"


def test_a_group_is_previewed_as_one(bank: Bank, reader: psycopg.Connection) -> None:
    bank.top_up("alice", 10)
    spends = [bank.new("spend", "alice", 6), bank.new("spend", "alice", 6)]
    assert [each.code for each in previews.preview(reader, spends)] == ["group_refused", "insufficient_funds"]


# --- projections -----------------------------------------------------------------------------------------------------


def test_projections_of_a_queue_add_up(bank: Bank, reader: psycopg.Connection) -> None:
    bank.top_up("alice", 100)
    seqs = [bank.order("spend", "alice", 30) for _ in range(4)]
    assert [project(bank, reader, seq) for seq in seqs] == [
        Projection(0, 70, "applied", "applied"),
        Projection(1, 40, "applied", "applied"),
        Projection(2, 10, "applied", "applied"),
        Projection(3, 10, "rejected", "insufficient_funds"),
    ]
    bank.drain()
    assert bank.codes(seqs) == ["applied"] * 3 + ["insufficient_funds"]


def test_what_has_its_outcome_is_not_projected(bank: Bank, reader: psycopg.Connection) -> None:
    assert project(bank, reader, bank.top_up("alice", 1).seq) is None
    _, cancelled = bank.order("top_up", "alice", 1), bank.order("top_up", "alice", 1)
    with bank.drains.transaction():
        cancelling.cancel(bank.drains, cancelled)
    assert project(bank, reader, cancelled) is None


def test_others_in_the_partition_are_not_in_its_queue(bank: Bank, reader: psycopg.Connection) -> None:
    alice, bob = bank.wallets_in(3, 2)
    stranger = Bank(bank.url)
    try:
        bank.order("top_up", bob, 7)
        stranger.order("top_up", alice, 7, partition=3)
        mine = bank.order("top_up", alice, 1)
        bank.order("top_up", alice, 7)
        assert project(bank, reader, mine) == Projection(0, 1, "applied", "applied")
    finally:
        stranger.close()


def test_what_paid_the_payer_is_in_its_queue(bank: Bank, reader: psycopg.Connection) -> None:
    alice, bob, charlie = bank.wallets_in(3, 3)
    bank.order("top_up", alice, 9)
    bank.order("transfer", alice, 9, to_wallet=bob)
    bank.order("transfer", bob, 9, to_wallet=charlie)
    assert project(bank, reader, bank.order("spend", charlie, 9)) == Projection(3, 0, "applied", "applied")


def test_a_reversal_that_takes_from_the_wallet_is_in_its_queue(bank: Bank, reader: psycopg.Connection) -> None:
    alice, bob = bank.wallets_in(3, 2)
    bank.top_up(alice, 10)
    given = bank.transfer(alice, bob, 10)
    bank.order("reverse", alice, 10, ref_seq=given.seq)
    assert project(bank, reader, bank.order("spend", bob, 1)) == Projection(1, 0, "rejected", "insufficient_funds")


def test_a_group_ahead_counts_with_all_its_commands(bank: Bank, reader: psycopg.Connection) -> None:
    bank._loop.run(inbox.accept_group(bank._intake, [bank.new("top_up", "alice", n) for n in (1, 2, 3)]))
    assert project(bank, reader, bank.order("spend", "alice", 6)) == Projection(3, 0, "applied", "applied")


def test_a_group_ahead_counts_for_the_wallet_of_any_of_its_commands(bank: Bank, reader: psycopg.Connection) -> None:
    alice, bob = bank.wallets_in(3, 2)
    bank.accept_group([bank.new("top_up", bob, 1), bank.new("top_up", alice, 5)])
    assert project(bank, reader, bank.order("spend", alice, 5)) == Projection(2, 0, "applied", "applied")


def test_what_another_partition_would_pay_is_not_in_the_queue(bank: Bank, reader: psycopg.Connection) -> None:
    """Nobody knows which of the two is drained first."""
    alice, bob = bank.wallet_in(1), bank.wallet_in(2)
    bank.top_up(bob, 5)
    bank.order("transfer", bob, 5, to_wallet=alice)
    assert project(bank, reader, bank.order("top_up", alice, 1)) == Projection(0, 1, "applied", "applied")


def test_too_long_a_queue_is_not_projected(
    bank: Bank, reader: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(previews, "LOOK_MAX", 6)
    monkeypatch.setattr(previews, "DECIDE_MAX", 3)
    seqs = [bank.order("top_up", "alice", 1) for _ in range(8)]
    projected = [project(bank, reader, seq) for seq in seqs]
    assert projected[2] == Projection(2, 3, "applied", "applied")
    assert projected[3:] == [Projection(3), Projection(4), Projection(5), Projection(None), Projection(None)]


def test_one_moment_is_seen_and_nothing_can_be_written(
    bank: Bank, reader: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, seen = books.read, list[Any]()

    def watched(connection: psycopg.Connection, *rest: Any) -> Books:
        asked: tuple[LiteralString, ...] = ("SHOW transaction_isolation", "SHOW transaction_read_only")
        seen.append([connection.execute(each).fetchone() for each in asked])
        return read(connection, *rest)

    monkeypatch.setattr(books, "read", watched)
    previews.preview(reader, [bank.new("top_up", "alice", 1)])
    project(bank, reader, bank.order("top_up", "alice", 1))
    assert seen == [[("repeatable read",), ("on",)]] * 2
