"""The feed: each client's outcomes, none skipped and none twice, in whatever order drains commit."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest

from ledger import cancelling, db, feed, inbox, journal
from ledger.feed import Cursor, Told
from ledger.inbox import Claim
from tests.books import ALL, PARTITIONS, Bank

START: Cursor = (0,) * (PARTITIONS + 1)


class Reader:
    """A client that asks for what is new, and remembers how far it came."""

    def __init__(self, bank: Bank, client: int | None = None) -> None:
        self._loop = asyncio.Runner()
        self._connection = self._loop.run(db.connect_async(bank.url, application="test-feed"))
        self._client = bank.client if client is None else client
        self.cursor = START

    def close(self) -> None:
        self._loop.run(self._connection.close())
        self._loop.close()

    def told(self, limit: int = 200) -> list[Told]:
        told = self._loop.run(feed.after(self._connection, self._client, self.cursor, limit=limit))
        self.cursor = told[-1].cursor if told else self.cursor
        return told

    def seqs(self, limit: int = 200) -> list[int]:
        return [each.state.seq for each in self.told(limit)]

    def end(self) -> Cursor:
        return self._loop.run(feed.end(self._connection, self._client, PARTITIONS))

    def news(self) -> bool:
        return bool(self._loop.run(feed.news(self._connection, [(self._client, self.cursor)])))


@pytest.fixture
def reader(bank: Bank) -> Iterator[Reader]:
    reader = Reader(bank)
    yield reader
    reader.close()


def test_outcomes_of_every_kind_are_told_once(bank: Bank, reader: Reader) -> None:
    applied = bank.top_up("alice", 100)
    rejected = bank.spend("alice", 101)
    hold = bank.hold("alice", 40)
    pending = bank.order("spend", "alice", 1)
    with bank.drains.transaction():
        cancelling.cancel(bank.drains, pending)
        unseen = cancelling.cancel_key(bank.drains, tenant_id=bank.tenant, client_id=bank.client, key="never came").seq
    told = {each.state.seq: each.state.status for each in reader.told()}
    cancelled = dict.fromkeys((pending, unseen), "cancelled")
    assert told == {applied.seq: "applied", rejected.seq: "rejected", hold.seq: "applied"} | cancelled
    assert reader.told() == []


def test_the_end_of_a_hold_is_told_to_who_placed_it(bank: Bank, reader: Reader) -> None:
    start = bank.in_seconds(3600)
    bank.set_clock(start)
    bank.top_up("alice", 100)
    hold = bank.hold("alice", 40, hold_expires_at=start + timedelta(seconds=30))
    reader.told()
    bank.set_clock(start + timedelta(seconds=30))
    bank.expire_due()
    (told,) = reader.told()
    assert (told.state.type, told.state.ref_seq, told.state.status) == ("expire_hold", hold.seq, "applied")


def test_a_quarantined_command_is_told(bank: Bank, reader: Reader) -> None:
    seq = bank.order("top_up", "alice", 1)
    with bank.drains.transaction():
        claim = inbox.claim(bank.drains, ALL, max_rows=1)
        assert isinstance(claim, Claim)
        journal.quarantine(bank.drains, claim.commands, claim.now, task_id=None)
    assert [(each.state.seq, each.state.status) for each in reader.told()] == [(seq, "failed")]


def test_a_late_commit_of_an_early_position_is_not_skipped(bank: Bank, reader: Reader) -> None:
    """One drain takes its positions first and commits last. Whoever followed the highest position alone would pass
    over its outcomes for ever."""
    early, late = bank.order("top_up", bank.wallet_in(1), 1), bank.order("top_up", bank.wallet_in(2), 1)
    with bank.another_drain() as first, bank.another_drain() as second:
        assert first.claim([1]) == [early]
        first.apply()
        assert second.claim([2]) == [late]
        second.apply_and_commit()
        assert reader.seqs() == [late]
        assert not reader.news()
        first.commit()
    naive = "SELECT count(*) FROM outcomes WHERE client_id = %s AND position > %s"
    assert bank.one(naive, bank.client, max(reader.cursor)) == 0
    assert reader.news()
    assert reader.seqs() == [early]
    assert not reader.news()


def test_cancels_commit_in_the_order_of_their_positions(bank: Bank, reader: Reader) -> None:
    """The second cancel has to wait for the first one's commit, though they have nothing else in common."""
    seqs = [bank.order("top_up", bank.wallet_in(partition), 1) for partition in (1, 2)]
    with psycopg.connect(bank.url) as first, psycopg.connect(bank.url) as second:
        cancelling.cancel(first, seqs[0])
        second.execute("SET lock_timeout = '50ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            cancelling.cancel(second, seqs[1])
        second.rollback()
        first.commit()
        cancelling.cancel(second, seqs[1])
        second.commit()
    assert reader.seqs() == seqs


def test_pages_of_any_size_are_the_whole(bank: Bank, reader: Reader) -> None:
    wallets = [bank.wallet_in(partition) for partition in range(PARTITIONS)]
    sent = [bank.order("top_up", wallet, 1) for _ in range(5) for wallet in wallets]
    for _ in range(4):
        bank.drain(max_rows=13)
    bank.drain()
    whole = [each.state.seq for each in reader.told()]
    assert sorted(whole) == sent
    for limit in (1, 3, 7):
        reader.cursor = START
        paged: list[int] = []
        while page := reader.seqs(limit):
            assert len(page) <= limit
            paged += page
        assert paged == whole


def test_each_wallets_outcomes_come_in_their_order(bank: Bank, reader: Reader) -> None:
    seqs = [bank.order("top_up", "alice", 1) for _ in range(20)]
    for _ in range(3):
        bank.drain(max_rows=7)
    assert reader.seqs() == seqs


def test_clients_hear_of_their_own_alone(bank: Bank, reader: Reader) -> None:
    other = Reader(bank, bank.new_client())
    try:
        bank.top_up("alice", 1)
        assert other.told() == []
        assert other.end() == START
        assert not other.news()
        assert reader.news()
        assert len(reader.told()) == 1
    finally:
        other.close()


def test_from_the_end_only_what_comes_is_told(bank: Bank, reader: Reader) -> None:
    """Also what was under way when the end was asked for: its position was taken before."""
    bank.top_up(bank.wallet_in(1), 1)
    under_way = bank.order("top_up", bank.wallet_in(2), 1)
    with bank.another_drain() as drain:
        assert drain.claim([2]) == [under_way]
        drain.apply()
        bank.top_up(bank.wallet_in(3), 1)
        reader.cursor = reader.end()
        assert reader.told() == []
        drain.commit()
    assert reader.seqs() == [under_way]


def test_nothing_is_told_of_what_was_rolled_back(bank: Bank, reader: Reader) -> None:
    seq = bank.order("top_up", "alice", 1)
    with bank.another_drain() as drain:
        assert drain.claim() == [seq]
        drain.apply()
        drain.rollback()
    assert reader.told() == []
    bank.drain()
    assert reader.seqs() == [seq]
