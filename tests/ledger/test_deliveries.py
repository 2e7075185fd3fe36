"""Deliveries: an outcome that an endpoint wants to hear of is owed to it, in its transaction, and nothing else is."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from ledger import cancelling, closing, db, deliveries, endpoints, inbox, journal
from ledger.endpoints import Endpoint, Settings
from ledger.events import lane_of
from tests.books import Bank
from tests.ledger.listening import listen, transaction
from tests.ledger.races import Started, wait_for_a_waiter


def change(bank: Bank, id_: int, **chosen: Any) -> None:
    status = chosen.pop("status", "enabled")

    def changed(stands: Endpoint) -> tuple[Settings, endpoints.Status]:
        return replace(stands.settings, **chosen), status

    with transaction(bank) as connection:
        assert endpoints.change(connection, bank.tenant, id_, changed, owed=True)


def owed(bank: Bank, id_: int) -> list[int]:
    """The seqs that the endpoint has a delivery of, in order."""
    return [seq for (seq,) in bank.rows("SELECT seq FROM deliveries WHERE endpoint_id = %s ORDER BY seq", id_)]


def types(bank: Bank, id_: int) -> dict[int, str]:
    """By seq, as they are shown."""
    with transaction(bank) as connection:
        return {each.seq: each.type for each in endpoints.deliveries_of(connection, id_, before=None, limit=100)}


# --- which outcomes ------------------------------------------------------------------------------------------------


def test_an_outcome_is_owed_whatever_it_is(bank: Bank) -> None:
    id_ = listen(bank)
    applied, refused = bank.top_up("alice", 100).seq, bank.spend("alice", 1_000).seq
    late = bank.spend("alice", 1, expires_at=bank.in_seconds(-1)).seq
    assert types(bank, id_) == {applied: "command.applied", refused: "command.rejected", late: "command.expired"}
    ((status, attempts, due, at, outcome_at),) = bank.rows(
        "SELECT d.status, d.attempts, d.due_at <= now(), d.at, o.at FROM deliveries d JOIN outcomes o USING (seq)"
        " WHERE d.seq = %s",
        applied,
    )
    assert (status, attempts, due, at) == ("pending", 0, True, outcome_at)


def test_of_a_group_every_member_is_owed(bank: Bank) -> None:
    id_ = listen(bank)
    outcomes = bank.group([bank.new("top_up", "alice", 5), bank.new("spend", "alice", 9)])
    assert types(bank, id_) == {outcome.seq: "command.rejected" for outcome in outcomes}


def test_a_cancelled_command_is_owed_and_so_is_its_whole_group_and_a_key_never_seen(bank: Bank) -> None:
    id_ = listen(bank)
    alone = bank.order("top_up", "alice", 1)
    group = [each.seq for each in bank.accept_group([bank.new("top_up", "bob", n) for n in (1, 2)]) if each]
    with transaction(bank) as desk:
        cancelling.cancel(desk, alone)
        cancelling.cancel(desk, group[1])
        unseen = cancelling.cancel_key(desk, tenant_id=bank.tenant, client_id=bank.client, key="never came").seq
    assert types(bank, id_) == dict.fromkeys([alone, *group, unseen], "command.cancelled")
    assert bank.one(
        "SELECT bool_and(d.at = o.at) FROM deliveries d JOIN outcomes o USING (seq) WHERE endpoint_id = %s", id_
    )


def test_a_cancel_that_rolls_back_owes_nothing(bank: Bank) -> None:
    id_ = listen(bank)
    seq = bank.order("top_up", "alice", 1)
    with transaction(bank) as desk, desk.transaction() as inner:
        cancelling.cancel(desk, seq)
        raise psycopg.Rollback(inner)
    assert owed(bank, id_) == []


def test_a_command_that_is_cancelled_twice_is_owed_once(bank: Bank) -> None:
    id_ = listen(bank)
    seq = bank.order("top_up", "alice", 1)
    for _ in range(2):
        with transaction(bank) as desk:
            cancelling.cancel(desk, seq)
    assert owed(bank, id_) == [seq]


def test_a_quarantined_command_is_owed(bank: Bank) -> None:
    id_ = listen(bank)
    seq = bank.conjure("alice")
    with bank.another_drain() as drain:
        drain.claim()
        poison, now = drain.commands, bank.in_seconds(0)
        drain.rollback()
        assert inbox.reclaim(drain.connection, poison)
        written = journal.quarantine(drain.connection, poison, now, task_id=None)
        drain.commit()
    assert (written.seqs, written.deliveries) == ([seq], 1)
    assert types(bank, id_) == {seq: "command.failed"}


def test_what_the_ledger_does_by_itself_is_owed(bank: Bank) -> None:
    """The end of a hold, the end of credits, the closing of a wallet."""
    bank.top_up("alice", 100, credits_expire_at=bank.in_seconds(0.2))
    bank.top_up("bob", 10)
    bank.hold("bob", 3, hold_expires_at=bank.in_seconds(0.2))
    bank.top_up("carol", 5)
    id_ = listen(bank)
    bank.sql.execute("SELECT pg_sleep(0.25)")
    bank.expire_due()
    with psycopg.connect(bank.url, autocommit=True) as connection:
        closing.close(connection, bank.tenant, "carol", sweep_to="bob", by=bank.by)
    kinds = bank.rows(
        "SELECT c.type FROM deliveries JOIN commands c USING (seq) WHERE endpoint_id = %s ORDER BY seq", id_
    )
    assert sorted(kind for (kind,) in kinds) == ["close", "expire_credits", "expire_hold"]


# --- which endpoints -----------------------------------------------------------------------------------------------


def test_an_endpoint_hears_of_the_types_that_it_chose(bank: Bank) -> None:
    refusals, rest = listen(bank, event_types=["command.rejected"]), listen(bank, event_types=["command.applied"])
    lateness = listen(bank, event_types=["command.expired", "command.failed"])
    applied, refused = bank.top_up("alice", 1).seq, bank.spend("alice", 2).seq
    late = bank.spend("alice", 1, expires_at=bank.in_seconds(-1)).seq
    assert [owed(bank, id_) for id_ in (refusals, rest, lateness)] == [[refused], [applied], [late]]


def test_an_endpoint_hears_of_the_wallets_that_it_chose_on_either_side(bank: Bank) -> None:
    id_ = listen(bank, wallets=["bob", "carol"])
    bank.top_up("alice", 100)
    received = bank.transfer("alice", "bob", 10).seq
    paid = bank.transfer("bob", "alice", 5).seq
    bank.spend("alice", 1)
    with transaction(bank) as desk:  # of no wallet
        cancelling.cancel_key(desk, tenant_id=bank.tenant, client_id=bank.client, key="of no wallet")
    assert owed(bank, id_) == [received, paid]


def test_tenants_hear_nothing_of_each_other(bank: Bank) -> None:
    id_ = listen(bank)
    other = Bank(bank.url)
    try:
        theirs = listen(other)
        mine, bound = bank.order("top_up", "alice", 1), other.order("top_up", "alice", 1)
        bank.drain()  # one batch of both
        assert (owed(bank, id_), owed(bank, theirs)) == ([mine], [bound])
        cancelled = other.order("top_up", "alice", 1)
        with transaction(other) as desk:
            cancelling.cancel(desk, cancelled)
        assert (owed(bank, id_), owed(bank, theirs)) == ([mine], [bound, cancelled])
    finally:
        other.close()


def test_two_endpoints_are_owed_one_delivery_each(bank: Bank) -> None:
    ids = [listen(bank), listen(bank)]
    seqs = [bank.top_up("alice", 1).seq for _ in range(3)]
    assert [owed(bank, id_) for id_ in ids] == [seqs, seqs]


@pytest.mark.parametrize("ended", ["disabled", "deleted"])
def test_an_endpoint_that_is_off_is_owed_nothing_more_and_keeps_what_it_is_owed(bank: Bank, ended: str) -> None:
    id_ = listen(bank)
    before = bank.top_up("alice", 1).seq
    if ended == "disabled":
        change(bank, id_, status="disabled")
    else:
        with transaction(bank) as connection:
            endpoints.delete(connection, bank.tenant, id_)
    bank.top_up("alice", 1)
    assert owed(bank, id_) == [before]


# --- lanes ---------------------------------------------------------------------------------------------------------


def test_an_ordered_endpoint_has_a_lane_for_each_wallet(bank: Bank) -> None:
    ordered, loose = listen(bank, ordering="per_wallet"), listen(bank)
    bank.top_up("alice", 5)
    bank.transfer("alice", "bob", 1)
    bank.top_up("bob", 1)
    with transaction(bank) as desk:
        cancelling.cancel_key(desk, tenant_id=bank.tenant, client_id=bank.client, key="of no wallet")
    lanes = "SELECT lane FROM deliveries WHERE endpoint_id = %s ORDER BY seq"
    alice, bob, none = (lane_of(wallet) for wallet in ("alice", "bob", None))
    assert [lane for (lane,) in bank.rows(lanes, ordered)] == [alice, alice, bob, none]
    assert [lane for (lane,) in bank.rows(lanes, loose)] == [None] * 4


# --- with the outcome, or not at all ---------------------------------------------------------------------------------


def test_a_drain_that_rolls_back_owes_nothing_and_the_next_one_owes_it_once(bank: Bank) -> None:
    id_ = listen(bank)
    seq = bank.order("top_up", "alice", 1)
    with bank.another_drain() as drain:
        drain.claim()
        assert drain.apply() == [seq]
        assert owed(bank, id_) == []  # nobody sees it before the commit
        drain.rollback()
    assert owed(bank, id_) == []
    bank.drain()
    assert owed(bank, id_) == [seq]


def a_new_one(bank: Bank) -> Callable[[], int]:
    return lambda: listen(bank)


def one_that_wants_more(bank: Bank) -> Callable[[], int]:
    id_ = listen(bank, event_types=["command.failed"])

    def widen() -> int:
        change(bank, id_, event_types=None)
        return id_

    return widen


@pytest.mark.parametrize("begin", [a_new_one, one_that_wants_more])
def test_a_choice_waits_for_the_drain_under_way_and_counts_from_then_on(
    bank: Bank, begin: Callable[[Bank], Callable[[], int]]
) -> None:
    choose = begin(bank)
    bank.order("top_up", "alice", 1)
    with bank.another_drain() as drain:
        drain.claim()
        drain.apply()
        with Started(choose) as under_way:
            wait_for_a_waiter(bank)
            drain.commit()
            id_ = under_way.result()
    assert owed(bank, id_) == []
    seq = bank.top_up("alice", 1).seq
    assert owed(bank, id_) == [seq]
    behind_its_mark = """
        SELECT o.seq FROM outcomes o JOIN webhook_endpoints e ON o.position > e.owed_after
        WHERE e.id = %s AND o.client_id = %s
    """
    assert bank.rows(behind_its_mark, id_, bank.client) == [(seq,)]


def test_a_choice_waits_for_a_cancel_under_way(bank: Bank) -> None:
    seq = bank.order("top_up", "alice", 1)
    with psycopg.connect(bank.url) as desk:
        cancelling.cancel(desk, seq)
        with Started(lambda: listen(bank)) as under_way:
            wait_for_a_waiter(bank)
            desk.commit()
            id_ = under_way.result()
    assert owed(bank, id_) == []


def test_two_changes_at_once_are_both_there(bank: Bank) -> None:
    """And whoever disables it meanwhile is not overruled by who changes something else."""
    id_ = listen(bank)

    def rename(stands: Endpoint) -> tuple[Settings, endpoints.Status]:
        return replace(stands.settings, description="renamed"), stands.status

    def renamed() -> None:
        with transaction(bank) as connection:
            endpoints.change(connection, bank.tenant, id_, rename, owed=False)

    with psycopg.connect(bank.url) as courier:
        courier.execute(
            "UPDATE webhook_endpoints SET status = 'disabled', disabled_reason = 'why' WHERE id = %s", (id_,)
        )
        with Started(renamed) as under_way:
            wait_for_a_waiter(bank)
            courier.commit()
            under_way.result()
    assert bank.rows("SELECT status, disabled_reason, description FROM webhook_endpoints WHERE id = %s", id_) == [
        ("disabled", "why", "renamed")
    ]


# --- what was missed -------------------------------------------------------------------------------------------------


def replayed(bank: Bank, id_: int, after: int = 0, most: int = 1_000) -> tuple[int, int | None]:
    with transaction(bank) as connection:
        endpoint = endpoints.find(connection, bank.tenant, id_)
        assert endpoint
        return endpoints.replay(connection, bank.tenant, endpoint, after=after, most=most)


def test_a_replay_owes_what_it_wants_and_nothing_twice(bank: Bank) -> None:
    start = bank.top_up("alice", 10).seq - 1
    id_ = listen(bank, event_types=["command.applied"], ordering="per_wallet")
    missed, there = start + 1, bank.top_up("bob", 1).seq
    bank.spend("alice", 1_000)
    bank.order("spend", "alice", 1)  # no outcome yet
    assert replayed(bank, id_, start) == (1, None)
    assert replayed(bank, id_, start) == (0, None)
    assert owed(bank, id_) == [missed, there]
    assert bank.rows(
        "SELECT lane, d.at = o.at FROM deliveries d JOIN outcomes o USING (seq) WHERE endpoint_id = %s AND seq = %s",
        id_, missed,
    ) == [(lane_of("alice"), True)]  # fmt: skip


def test_a_replay_goes_on_where_it_stopped(bank: Bank) -> None:
    seqs = [bank.top_up("alice", 1).seq for _ in range(5)]
    id_ = listen(bank)
    assert replayed(bank, id_, seqs[0] - 1, most=2) == (2, seqs[1])
    assert replayed(bank, id_, seqs[1], most=2) == (2, seqs[3])
    assert replayed(bank, id_, seqs[3], most=2) == (1, None)
    assert owed(bank, id_) == seqs


def test_a_time_is_a_seq(bank: Bank) -> None:
    seqs = [bank.top_up("alice", 1).seq for _ in range(6)]
    times = [bank.one("SELECT accepted_at FROM commands WHERE seq = %s", seq) for seq in seqs]
    with transaction(bank) as connection:
        before = [endpoints.seq_before(connection, at) for at in times]
        end = endpoints.seq_before(connection, times[-1] + timedelta(days=1))
        begin = endpoints.seq_before(connection, times[0] - timedelta(days=365))
    assert all(place < seq for place, seq in zip(before, seqs, strict=True))
    assert all(place >= seq for place, seq in zip(before[1:], seqs, strict=False))
    assert (end, begin) == (seqs[-1], 0)


# --- when it is over -------------------------------------------------------------------------------------------------


def purge(bank: Bank, days: int) -> None:
    async def purged() -> None:
        async with await db.connect_async(bank.url, application="test-purge") as connection:
            await deliveries.purge(connection, bank.in_seconds(0), retention=timedelta(days=days), most=100, after={})

    bank._loop.run(purged())


def test_what_is_over_is_kept_for_so_long_and_what_is_owed_for_ever(bank: Bank) -> None:
    id_ = listen(bank)
    old, new, waits = (bank.top_up("alice", 1).seq for _ in range(3))
    bank.do(
        "UPDATE deliveries SET status = 'delivered', due_at = NULL WHERE endpoint_id = %s AND seq <> %s", id_, waits
    )
    bank.do("UPDATE deliveries SET at = at - interval '31 days' WHERE seq IN (%s, %s)", old, waits)
    bank.do("INSERT INTO attempts SELECT endpoint_id, seq, 1, at, 200, NULL, NULL, 1, '' FROM deliveries")
    purge(bank, 30)
    assert owed(bank, id_) == [new, waits]
    assert bank.rows("SELECT seq FROM attempts WHERE endpoint_id = %s ORDER BY 1", id_) == [(new,), (waits,)]


def test_what_a_deleted_endpoint_was_owed_goes_too(bank: Bank) -> None:
    id_ = listen(bank)
    bank.top_up("alice", 1)
    with transaction(bank) as connection:
        endpoints.delete(connection, bank.tenant, id_)
    bank.do("UPDATE deliveries SET at = at - interval '31 days' WHERE endpoint_id = %s", id_)
    purge(bank, 30)
    assert owed(bank, id_) == []


def test_what_a_delivery_tells_of_is_kept_as_long_as_it(bank: Bank) -> None:
    id_ = listen(bank)
    with transaction(bank) as connection:
        seq = deliveries.send_test(connection, bank.tenant, id_)
    bank.do("UPDATE deliveries SET status = 'delivered', due_at = NULL WHERE endpoint_id = %s", id_)
    bank.do("UPDATE events SET at = at - interval '31 days' WHERE seq = %s", seq)
    purge(bank, 30)
    assert types(bank, id_) == {seq: "webhook.test"}
    bank.do("UPDATE deliveries SET at = at - interval '31 days' WHERE endpoint_id = %s", id_)
    purge(bank, 30)
    assert (owed(bank, id_), bank.rows("SELECT seq FROM events WHERE seq = %s", seq)) == ([], [])
