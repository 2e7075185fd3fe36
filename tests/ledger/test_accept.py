"""The durable inbox: a key makes one command, and what is answered is committed."""

import asyncio
from datetime import timedelta

import msgspec
import psycopg
import pytest
from msgspec.structs import replace

from ledger import db, inbox
from ledger.inbox import Accepted, NewCommand
from tests.books import Bank


async def accept_in_parallel(url: str, batches: list[list[NewCommand]]) -> list[list[Accepted]]:
    """Each batch on a connection of its own, all at once."""
    connections = await asyncio.gather(*(db.connect_async(url, application="test-intake") for _ in batches))
    try:
        pairs = zip(connections, batches, strict=True)
        return await asyncio.gather(*(inbox.accept(connection, batch) for connection, batch in pairs))
    finally:
        await asyncio.gather(*(connection.close() for connection in connections))


def stored(bank: Bank) -> int:
    return bank.one("SELECT count(*) FROM commands WHERE tenant_id = %s", bank.tenant)


def test_a_batch_is_numbered_in_its_own_order(bank: Bank) -> None:
    batch = [bank.new("top_up", f"w{n % 7}", n, key=f"k{(n * 37) % 200}") for n in range(1, 200)]
    accepted = bank.accept(batch)
    seqs = [answer.seq for answer in accepted]
    assert seqs == sorted(set(seqs))
    assert bank.pending() == seqs
    amounts = bank.rows("SELECT amount FROM commands WHERE tenant_id = %s ORDER BY seq", bank.tenant)
    assert [amount for (amount,) in amounts] == list(range(1, 200))
    assert not any(answer.replayed for answer in accepted)


def test_whoever_saw_an_answer_comes_after_it(bank: Bank) -> None:
    seqs = [bank.order("top_up", "alice", 1) for _ in range(5)]
    assert seqs == sorted(set(seqs))


def test_an_accepted_command_is_stored_as_it_was_sent(bank: Bank) -> None:
    expires_at = bank.in_seconds(60)
    sent = bank.new(
        "transfer", "alice", 7, to_wallet="bob", key="k-é", reference="order-99", metadata='{"a": [1, "ü"]}',
        request_hash=b"\x00\xff", expires_at=expires_at, options='{"final":false}', ref_seq=7,
    )  # fmt: skip
    (answer,) = bank.accept([sent])
    (row,) = bank.rows(
        """SELECT tenant_id, client_id, partition, type, idempotency_key, request_hash, wallet, to_wallet, asset,
                  amount, reference, metadata::text, expires_at, options::text, ref_seq, accepted_at
           FROM commands WHERE seq = %s""",
        answer.seq,
    )
    assert row == (*msgspec.structs.astuple(sent), answer.accepted_at)


def test_what_is_answered_is_committed(bank: Bank) -> None:
    seq = bank.order("top_up", "alice", 1)
    with psycopg.connect(bank.url) as stranger:
        assert stranger.execute("SELECT count(*) FROM commands WHERE seq = %s", (seq,)).fetchone() == (1,)
        assert stranger.execute("SELECT count(*) FROM pending WHERE seq = %s", (seq,)).fetchone() == (1,)


def test_the_same_key_again_is_the_same_command(bank: Bank) -> None:
    command = bank.new("top_up", "alice", 100)
    (first,) = bank.accept([command])
    (again,) = bank.accept([command])
    assert again == replace(first, replayed=True)
    assert bank.pending() == [first.seq]


def test_a_replay_of_a_drained_command_queues_nothing(bank: Bank) -> None:
    command = bank.new("top_up", "alice", 100)
    (first,) = bank.accept([command])
    bank.drain()
    (again,) = bank.accept([command])
    assert (again.seq, again.replayed, again.same_request) == (first.seq, True, True)
    assert bank.pending() == []
    assert bank.drain() == []
    assert bank.available("alice") == 100


def test_a_replay_of_a_refusal_is_the_refusal(bank: Bank) -> None:
    command = bank.new("spend", "alice", 100)
    (first,) = bank.accept([command])
    bank.drain()
    bank.top_up("alice", 1_000)
    (again,) = bank.accept([command])
    bank.drain()
    assert again.seq == first.seq
    assert bank.outcome(again.seq).code == "wallet_not_found"
    assert bank.available("alice") == 1_000


def test_another_request_under_the_same_key_is_seen_and_stores_nothing(bank: Bank) -> None:
    command = bank.new("top_up", "alice", 100)
    (first,) = bank.accept([command])
    other = msgspec.structs.replace(command, amount=999, request_hash=b"another request")
    (answer,) = bank.accept([other])
    assert (answer.seq, answer.replayed, answer.same_request) == (first.seq, True, False)
    assert stored(bank) == 1
    bank.drain()
    assert bank.available("alice") == 100


def test_the_request_is_compared_not_the_state_that_we_made_of_it(bank: Bank) -> None:
    """Another partition count, say, is no other request."""
    command = bank.new("top_up", "alice", 100)
    bank.accept([command])
    (again,) = bank.accept([msgspec.structs.replace(command, partition=(command.partition + 1) % 8)])
    assert again.same_request


def test_a_key_twice_in_one_batch_is_one_command(bank: Bank) -> None:
    command = bank.new("top_up", "alice", 100)
    mismatch = msgspec.structs.replace(command, request_hash=b"another request")
    between = bank.new("top_up", "bob", 1)
    first, second, third, fourth = bank.accept([command, between, command, mismatch])
    assert (first.replayed, first.same_request) == (False, True)
    assert second.seq > first.seq
    assert (third.seq, third.replayed, third.same_request) == (first.seq, True, True)
    assert (fourth.seq, fourth.replayed, fourth.same_request) == (first.seq, True, False)
    assert bank.pending() == [first.seq, second.seq]


def test_a_batch_of_old_and_new_is_answered_in_its_order(bank: Bank) -> None:
    old = [bank.new("top_up", "alice", n) for n in range(1, 4)]
    seqs = [answer.seq for answer in bank.accept(old)]
    new = [bank.new("top_up", "bob", n) for n in range(1, 3)]
    answers = bank.accept([new[0], old[2], old[0], new[1], old[1]])
    assert [answer.replayed for answer in answers] == [False, True, True, False, True]
    assert [answers[1].seq, answers[2].seq, answers[4].seq] == [seqs[2], seqs[0], seqs[1]]
    assert answers[0].seq < answers[3].seq


def test_another_clients_equal_key_is_another_key(bank: Bank) -> None:
    mine = bank.new("top_up", "alice", 100, key="k-1")
    theirs = msgspec.structs.replace(mine, client_id=bank.new_client())
    first, second = bank.accept([mine, theirs])
    assert (first.replayed, second.replayed) == (False, False)
    assert first.seq != second.seq
    assert bank.accept([theirs, mine]) == [replace(second, replayed=True), replace(first, replayed=True)]
    bank.drain()
    assert bank.available("alice") == 200


def test_keys_differ_by_case_and_by_every_character(bank: Bank) -> None:
    keys = ["key", "Key", "key ", "ke", "key!"]
    answers = bank.accept([bank.new("top_up", "alice", 1, key=key) for key in keys])
    assert not any(answer.replayed for answer in answers)


def test_a_hundred_identical_posts_at_once_make_one_command(bank: Bank) -> None:
    command = bank.new("top_up", "alice", 100)
    rounds = [asyncio.run(accept_in_parallel(bank.url, [[command]] * 20)) for _ in range(5)]
    answers = [answer for answered in rounds for (answer,) in answered]
    assert len(answers) == 100
    assert len({answer.seq for answer in answers}) == 1
    assert [answer.replayed for answer in answers].count(False) == 1
    assert all(answer.same_request for answer in answers)
    bank.drain()
    assert bank.available("alice") == 100
    bank.assert_settled()


def test_a_post_that_meets_an_unfinished_twin_waits_and_answers_with_it(bank: Bank) -> None:
    """The twin's transaction is still open; had it rolled back, this one would have been the first."""
    command = bank.new("top_up", "alice", 100)

    async def meet(commit: bool) -> Accepted:
        async with await psycopg.AsyncConnection.connect(bank.url) as twin:
            async with twin.transaction(force_rollback=not commit):
                await inbox.accept(twin, [command])
                late = asyncio.create_task(accept_in_parallel(bank.url, [[command]]))
                await asyncio.sleep(0.15)
                assert not late.done(), "an answer now could be wrong either way"
            return (await late)[0][0]

    rolled_back = asyncio.run(meet(commit=False))
    assert not rolled_back.replayed
    command = bank.new("top_up", "alice", 1)
    committed = asyncio.run(meet(commit=True))
    assert (committed.replayed, committed.same_request) == (True, True)
    assert bank.pending() == [rolled_back.seq, committed.seq]


def test_a_statement_that_fails_stores_nothing_of_its_batch(bank: Bank) -> None:
    good = bank.new("top_up", "alice", 1)
    with pytest.raises(psycopg.DataError):
        bank.accept([good, bank.new("top_up", "alice", 1, metadata='{"no": "\\u0000"}')])
    assert stored(bank) == 0
    assert not bank.accept([good])[0].replayed, "its key is still free"


def test_a_backlog_is_counted_up_to_its_bound(bank: Bank) -> None:
    bank.do("DELETE FROM pending")
    bank.accept([bank.new("top_up", "alice", 1) for _ in range(3)])

    async def exceeds(bound: int) -> bool:
        connection = await db.connect_async(bank.url, application="test")
        async with connection:
            return await inbox.backlog_exceeds(connection, bound)

    assert [asyncio.run(exceeds(bound)) for bound in (0, 2, 3, 4)] == [True, True, False, False]


def test_the_time_of_acceptance_is_the_databases(bank: Bank) -> None:
    before = bank.in_seconds(0)
    (answer,) = bank.accept([bank.new("top_up", "alice", 1)])
    assert before <= answer.accepted_at <= bank.in_seconds(0)
    assert answer.accepted_at.utcoffset() == timedelta(0)
