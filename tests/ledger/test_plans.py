"""Accepting and draining look rows up by their keys, however stale the planner's statistics are.

The plans are those that PostgreSQL really ran, told by auto_explain, the ones inside `claim_pending` included.
"""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from ledger import cancelling, db, drain, feed, inbox, outcomes, previews
from ledger.inbox import Claim
from tests.books import ALL, PARTITIONS, Bank

ROWS = 50_000  # a scan of this many is far dearer than a lookup, and takes a second to make

LARGE = ("commands", "pending", "outcomes", "transfers", "entries", "wallets", "accounts")
# What an index condition on each of these must fix: the whole of a key, so that a lookup finds one row.
KEYS = {
    "pk_commands": {"seq"},
    "uq_commands_client_id_idempotency_key": {"client_id", "idempotency_key"},
    "ix_commands_group_seq": {"group_seq"},
    "pk_pending": {"partition", "seq"},
    "pk_outcomes": {"seq"},
    "uq_wallets_tenant_id_code": {"tenant_id", "code"},
    "pk_wallets": {"id"},
    "uq_accounts_wallet_id_asset_id_shard": {"wallet_id", "asset_id", "shard"},
    "pk_accounts": {"id"},
    "pk_tenants": {"id"},  # by the foreign key of a wallet that is opened
    "uq_assets_tenant_id_code": {"tenant_id", "code"},
    "pk_assets": {"id"},
    "pk_chain_heads": {"partition"},
    "pk_traces": {"seq"},
    "ix_webhook_endpoints_tenant_id": {"tenant_id"},
    "ix_outcomes_feed": {"client_id", "stream", "position"},
}
# The oldest rows of a partition, the newest of a stream: read from one end of the index, up to a limit.
FROM_ONE_END = {"pk_pending": {"partition"}, "ix_outcomes_feed": {"client_id", "stream"}}

# The rows of a group, and the endpoints of a tenant: there may be many, so they may be read by a bitmap.
OF_MANY = ("ix_commands_group_seq", "ix_webhook_endpoints_tenant_id")

Plan = dict[str, Any]


def fill(bank: Bank) -> None:
    """A ledger with a past: 50,000 players, each topped up once, and 50,000 commands pending."""
    psycopg.ClientCursor(bank.sql).execute(
        """
        INSERT INTO wallets (tenant_id, code) SELECT %(tenant)s, 'w' || n FROM generate_series(1, %(rows)s) n;
        INSERT INTO accounts (wallet_id, asset_id, posted, version)
        SELECT w.id, a.id, 100, 1 FROM wallets w JOIN assets a USING (tenant_id)
        WHERE tenant_id = %(tenant)s AND w.code LIKE 'w%%';
        INSERT INTO commands
            (tenant_id, client_id, partition, type, idempotency_key, request_hash, wallet, asset, amount)
        SELECT %(tenant)s, %(client)s, n %% 8, 'top_up', 'past-' || n, '', 'w' || (n + 1) / 2, 'gold', 100
        FROM generate_series(1, 2 * %(rows)s) n;
        INSERT INTO outcomes (seq, status, code, at, client_id, stream)
        SELECT seq, 'applied', 'applied', now(), client_id, partition FROM commands
        WHERE idempotency_key LIKE 'past-%%' AND seq %% 2 = 0;
        INSERT INTO pending (partition, seq)
        SELECT partition, seq FROM commands WHERE idempotency_key LIKE 'past-%%' AND seq %% 2 = 1;
        """,
        {"tenant": bank.tenant, "client": bank.client, "rows": ROWS},
    )


def keep_statistics(bank: Bank) -> None:
    """No autovacuum: what the planner knows stays what the test says."""
    for table in LARGE:
        bank.do("ALTER TABLE " + table + " SET (autovacuum_enabled = false)")


def never_analysed(bank: Bank) -> None:
    fill(bank)


def analysed_while_empty(bank: Bank) -> None:
    bank.do("ANALYZE")
    fill(bank)


def analysed_while_small(bank: Bank) -> None:
    """A tenant with a dozen wallets, before the launch."""
    for n in range(12):
        bank.top_up(f"early-{n}", 1)
    bank.do("ANALYZE")
    fill(bank)


def vacuumed_while_small(bank: Bank) -> None:
    for n in range(12):
        bank.top_up(f"early-{n}", 1)
    bank.sql.execute("VACUUM ANALYZE")
    fill(bank)


def up_to_date(bank: Bank) -> None:
    fill(bank)
    bank.do("ANALYZE")


STATISTICS = (never_analysed, analysed_while_empty, analysed_while_small, vacuumed_while_small, up_to_date)


def explain(connection: psycopg.Connection | psycopg.AsyncConnection, plans: list[Plan]) -> None:
    """Every statement's plan comes to this list as it runs."""

    def told(notice: psycopg.errors.Diagnostic) -> None:
        _, _, plan = (notice.message_primary or "").partition("plan:\n")
        if plan:
            plans.append(json.loads(plan))

    connection.add_notice_handler(told)


EXPLAIN = """
    LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_nested_statements = on;
    SET auto_explain.log_format = 'json'; SET auto_explain.log_level = 'notice'; SET client_min_messages = 'notice'
"""


def nodes(plan: Plan, *, limited: bool = False) -> Iterator[tuple[Plan, bool]]:
    """Each node, and whether it stands right below a LIMIT."""
    yield plan, limited
    for inner in plan.get("Plans", []):
        yield from nodes(inner, limited=plan["Node Type"] == "Limit")


def faults_of(plan: Plan) -> Iterator[str]:
    """Where this plan does anything else to a table than looking rows up by a whole key."""
    for node, limited in nodes(plan["Plan"]):
        kind, index = node["Node Type"], node.get("Index Name")
        if kind == "Bitmap Heap Scan" and node["Plans"][0]["Index Name"] in OF_MANY:
            continue
        if kind in ("Seq Scan", "Bitmap Heap Scan", "Hash Join", "Merge Join"):
            yield f"{kind} {node.get('Relation Name', '')}"
        elif index:
            key = FROM_ONE_END.get(index, KEYS[index]) if limited else KEYS[index]
            condition = node.get("Index Cond", "")
            if missing := {column for column in key if column not in condition}:
                yield f"{kind} by {index} without {missing}: {condition or 'no condition'}"


def assert_by_key(plans: list[Plan], *, at_least: int) -> None:
    assert len(plans) >= at_least, "auto_explain told too little"
    faults = [(fault, plan["Query Text"].strip()[:200]) for plan in plans for fault in faults_of(plan)]
    assert faults == []


@pytest.fixture(params=STATISTICS)
def large_bank(own_bank: Bank, request: pytest.FixtureRequest) -> Bank:
    keep_statistics(own_bank)
    request.param(own_bank)
    return own_bank


def test_a_drain_finds_its_rows_by_their_keys(large_bank: Bank) -> None:
    plans: list[Plan] = []
    drain_as_a_worker_does(large_bank, plans)
    assert_by_key(plans, at_least=20)


def test_the_api_finds_its_rows_by_their_keys(large_bank: Bank) -> None:
    plans: list[Plan] = []
    asyncio.run(accept_and_read_as_the_api_does(large_bank, plans))
    assert_by_key(plans, at_least=4)


def test_a_cancel_and_a_projection_find_their_rows_by_their_keys(large_bank: Bank) -> None:
    plans: list[Plan] = []
    cancel_and_project_as_the_api_does(large_bank, plans)
    assert_by_key(plans, at_least=9)


def test_the_feed_finds_its_rows_by_their_keys(large_bank: Bank) -> None:
    plans: list[Plan] = []
    asyncio.run(follow_as_the_api_does(large_bank, plans))
    assert_by_key(plans, at_least=4)


async def follow_as_the_api_does(bank: Bank, plans: list[Plan]) -> None:
    """From somewhere in the middle; who waits at the end, and at many ends."""
    async with await db.connect_async(bank.url, application="test-feed") as connection:
        explain(connection, plans)
        await connection.execute(EXPLAIN, prepare=False)
        end = await feed.end(connection, bank.client, PARTITIONS)
        assert max(end) > ROWS // 2
        middle = (0, *[position // 2 for position in end[1:]])
        assert len(await feed.after(connection, bank.client, middle, limit=200)) == 200
        assert await feed.after(connection, bank.client, end, limit=200) == []
        assert await feed.news(connection, [(bank.client, end), (bank.client, middle), (0, end)] * 300) != set()


def cancel_and_project_as_the_api_does(bank: Bank, plans: list[Plan]) -> None:
    explain(bank.drains, plans)
    with bank.drains.transaction():
        bank.drains.execute(EXPLAIN, prepare=False)
        for key in ("past-1", "never seen", "never seen"):
            cancelling.cancel_key(bank.drains, tenant_id=bank.tenant, client_id=bank.client, key=key)
    seq = bank.one("SELECT seq FROM pending WHERE partition = 3 ORDER BY seq OFFSET 100 LIMIT 1")
    assert previews.project(bank.drains, seq=seq, partition=3) is not None


def drain_as_a_worker_does(bank: Bank, plans: list[Plan]) -> None:
    """Claim, lock, open, write; the search for a poison; a look for what is overdue."""
    explain(bank.drains, plans)
    with bank.drains.transaction():
        bank.drains.execute(EXPLAIN, prepare=False)
    bank.accept([bank.new("transfer", f"w{n}", 1, to_wallet=f"newcomer-{n}") for n in range(20)])
    for _ in range(2):
        claim = inbox.claim(bank.drains, ALL, max_rows=500)
        assert isinstance(claim, Claim)
        drain.apply(bank.drains, claim, task_id=None)
        bank.drains.commit()
    claim = inbox.claim(bank.drains, ALL, max_rows=500)
    assert isinstance(claim, Claim)
    bank.drains.rollback()
    inbox.count_attempt(bank.drains, claim.commands[0].seq)
    assert inbox.reclaim(bank.drains, claim.commands[:50]) is not None
    inbox.overdue(bank.drains, ALL, age_s=1)
    bank.drains.commit()


async def accept_and_read_as_the_api_does(bank: Bank, plans: list[Plan]) -> None:
    connection = await db.connect_async(bank.url, application="test-intake")
    async with connection:
        explain(connection, plans)
        await connection.execute(EXPLAIN, prepare=False)
        batch = [bank.new("spend", f"w{n}", 1) for n in range(200)]
        accepted = await inbox.accept(connection, batch)
        assert all(answer.replayed for answer in await inbox.accept(connection, batch))
        seqs = [answer.seq for answer in accepted]
        assert len(await outcomes.states(connection, seqs)) == 200
        assert await outcomes.state_by_key(connection, bank.client, batch[0].idempotency_key) is not None
