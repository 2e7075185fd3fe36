"""The service at a glance: what stands there is what was done."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from ledger import overview, reads
from ledger.overview import Decided
from tests.books import PARTITIONS, Bank
from tests.ledger.listening import listen

Answer = TypeVar("Answer")


def read(bank: Bank, what: Callable[[AsyncConnection], Awaitable[Answer]]) -> Answer:
    return bank._register(what)


def test_partitions_tell_their_backlog_groups_among_it(bank: Bank) -> None:
    bank.top_up(bank.wallet_in(2), 100)
    bank.order("spend", bank.wallet_in(3), 1)
    bank.accept_group([bank.new("spend", bank.wallet_in(3), 1), bank.new("spend", bank.wallet_in(3), 2)])
    bank.do("UPDATE pending SET attempts = 2 WHERE size = 1")
    bank.do("SELECT pg_sleep(0.02)")
    found = read(bank, overview.partitions)
    assert [each.partition for each in found] == list(range(PARTITIONS))
    assert [each.pending for each in found] == [0, 0, 0, 3, 0, 0, 0, 0]
    assert [each.attempts for each in found] == [0, 0, 0, 2, 0, 0, 0, 0]
    assert 0.02 <= found[3].oldest_s < 60
    assert found[2].oldest_s == 0
    assert found[2].last_applied_at == bank.one("SELECT max(at) FROM transfers WHERE partition = 2")
    assert not any(each.more or each.holder for each in found)


def test_who_holds_a_partition_is_told_while_it_does(bank: Bank) -> None:
    bank.order("spend", bank.wallet_in(5), 1)
    with bank.another_drain() as drain:
        drain.claim()
        held = {each.partition: each for each in read(bank, overview.partitions) if each.holder}
        assert list(held) == [5]
        assert (held[5].holder, held[5].holder_pid) == ("test-second-drain", drain.connection.info.backend_pid)
        assert held[5].held_s is not None
        assert 0 <= held[5].held_s < 60
    assert not any(each.holder for each in read(bank, overview.partitions))


def test_rates_count_what_is_new(own_bank: Bank) -> None:
    for _ in range(4):
        own_bank.top_up("alice", 1)
    own_bank.spend("alice", 99)
    rates = read(own_bank, lambda to: overview.rates(to, over_s=100))
    assert (rates.accepted_per_s, rates.applied_per_s, rates.over_s) == (0.05, 0.04, 100)
    assert read(own_bank, lambda to: overview.rates(to, over_s=0.000001)).accepted_per_s == 0


def test_rates_past_what_is_looked_at_are_of_that_time(own_bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        own_bank.top_up("alice", 1)
    whole = read(own_bank, lambda to: overview.rates(to, over_s=1_000))
    monkeypatch.setattr(overview, "RECENT_MAX", PARTITIONS)  # one transfer of a partition
    cut = read(own_bank, lambda to: overview.rates(to, over_s=1_000))
    assert cut.accepted_per_s == whole.accepted_per_s, "three of eight"
    assert cut.applied_per_s > whole.applied_per_s


def test_recent_outcomes_by_code_of_a_tenant_and_of_all(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Bank(bank.url)
    try:
        other.spend("alice", 1, asset="nothing")
    finally:
        other.close()
    bank.top_up("alice", 1)
    for _ in range(2):
        bank.spend("alice", 9)
    seen = [Decided("rejected", "insufficient_funds", 2), Decided("applied", "applied", 1)]
    own = read(bank, lambda to: overview.recent(to, bank.tenant))
    assert (own.decided, own.more) == (seen, False)
    everyone = read(bank, lambda to: overview.recent(to, None))
    assert Decided("rejected", "asset_not_found", 1) in everyone.decided
    assert read(bank, lambda to: overview.recent(to, bank.tenant, over_s=0.000001)).decided == []
    for _ in range(20):
        bank.spend("alice", 9)
    monkeypatch.setattr(overview, "RECENT_MAX", 0)  # ten of each client in each stream, then
    assert read(bank, lambda to: overview.recent(to, bank.tenant)).more


def test_webhooks_due_failing_and_exhausted(bank: Bank) -> None:
    assert read(bank, lambda to: overview.webhooks(to, bank.tenant)).enabled == 0
    first, second = (listen(bank) for _ in range(2))
    for _ in range(3):
        bank.top_up("alice", 1)
    bank.do("UPDATE webhook_endpoints SET failing_since = now() WHERE id = %s", second)
    bank.do("UPDATE deliveries SET status = 'exhausted', due_at = NULL WHERE endpoint_id = %s", second)
    bank.do(
        """
        UPDATE deliveries SET due_at = now() + interval '1 hour'
        WHERE endpoint_id = %s AND seq = (SELECT max(seq) FROM deliveries WHERE endpoint_id = %s)
        """,
        first,
        first,
    )
    of_tenant = read(bank, lambda to: overview.webhooks(to, bank.tenant))
    of_all = read(bank, lambda to: overview.webhooks(to, None))
    for seen in (of_tenant, of_all):
        assert (seen.enabled, seen.disabled, seen.failing) == (2, 0, 1)
        assert (seen.due, seen.waiting, seen.exhausted) == (2, 1, 3)
        assert 0 < seen.overdue_s < 60


def test_the_database_tells_who_is_connected(bank: Bank) -> None:
    bank.do("SET application_name = 'bursar-worker'")
    found = read(bank, overview.database)
    assert (found.schema, found.schema_needed) == (reads.SCHEMA, reads.SCHEMA)
    assert found.version.startswith("18")
    assert 0 < found.connections < found.connections_max
    assert (found.count("bursar-worker"), found.count("bursar-courier")) == (1, 0)


def test_nothing_at_all(own_bank: Bank) -> None:
    """An empty ledger has an overview, too."""
    assert read(own_bank, lambda to: overview.recent(to, None)).decided == []
    assert read(own_bank, overview.rates).applied_per_s == 0
    assert sum(each.pending for each in read(own_bank, overview.partitions)) == 0
