"""Reads of the past look at a bounded number of rows, each by its key, whatever the planner's statistics say.

The plans are those that PostgreSQL really ran, as in test_plans; so are the numbers of rows.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from ledger import db, history
from ledger.history import Filter
from tests.books import Bank
from tests.ledger.test_plans import EXPLAIN, Plan, explain, nodes

ENTRIES = 30_000  # of one wallet, a second apart; as many commands, each with a reference and metadata
BEGAN = datetime(2025, 1, 1, tzinfo=UTC)

Answer = TypeVar("Answer")


def fill(bank: Bank) -> None:
    """The reference of every command but each thousandth is the same, and so are the metadata."""
    for wallet in ("alice", "bob"):
        bank.open_wallet(wallet)
    psycopg.ClientCursor(bank.sql).execute(
        """
        INSERT INTO accounts (wallet_id, asset_id, posted, version, changed_at)
        SELECT w.id, s.id, %(entries)s, %(entries)s, %(began)s + %(entries)s * interval '1 second'
        FROM wallets w JOIN assets s USING (tenant_id) WHERE tenant_id = %(tenant)s AND w.code = 'alice';
        INSERT INTO commands (
            tenant_id, client_id, partition, type, idempotency_key, request_hash, wallet, asset, amount, reference,
            metadata
        )
        SELECT %(tenant)s, %(client)s, 0, 'top_up', 'past-' || n, '', 'alice', 'gold', 1,
               CASE WHEN n %% 1000 = 0 THEN 'rare' ELSE 'common' END,
               CASE WHEN n %% 1000 = 0 THEN '{"is": "rare"}' ELSE '{"is": "common"}' END::jsonb
        FROM generate_series(1, %(entries)s) n;
        SET session_replication_role = replica;
        INSERT INTO entries (account_id, version, seq, asset_id, amount, balance_after, at)
        SELECT a.id, n, c.seq, a.asset_id, 1, n, %(began)s + n * interval '1 second'
        FROM (SELECT max(id) AS id, max(asset_id) AS asset_id FROM accounts WHERE posted = %(entries)s) a,
             (SELECT seq, row_number() OVER (ORDER BY seq) AS n FROM commands) c;
        SET session_replication_role = DEFAULT;
        """,
        {"tenant": bank.tenant, "client": bank.client, "entries": ENTRIES, "began": BEGAN},
    )


def never_analysed(bank: Bank) -> None:
    fill(bank)


def analysed_while_empty(bank: Bank) -> None:
    bank.do("ANALYZE")
    fill(bank)


def up_to_date(bank: Bank) -> None:
    fill(bank)
    bank.sql.execute("VACUUM ANALYZE")


@pytest.fixture(params=[never_analysed, analysed_while_empty, up_to_date])
def old_bank(own_bank: Bank, request: pytest.FixtureRequest) -> Bank:
    for table in ("commands", "entries", "wallets", "accounts"):
        own_bank.do("ALTER TABLE " + table + " SET (autovacuum_enabled = false)")
    request.param(own_bank)
    return own_bank


def told(bank: Bank, ask: Callable[[AsyncConnection], Awaitable[Answer]]) -> tuple[Answer, list[Plan]]:
    """What is answered on a connection of the api's pool, and the plans that were run for it."""
    plans: list[Plan] = []

    async def asked() -> Answer:
        engine = db.async_engine(bank.url, application="test-api")
        try:
            async with engine.connect() as connection:
                await connection.execution_options(isolation_level="AUTOCOMMIT")
                driver: Any = (await connection.get_raw_connection()).driver_connection
                explain(driver, plans)
                await driver.execute(EXPLAIN + "; SET auto_explain.log_analyze = on", prepare=False)
                return await ask(connection)
        finally:
            await engine.dispose()

    return asyncio.run(asked()), plans


def assert_bounded(plans: list[Plan], *, rows_max: int) -> None:
    """No table of the past is scanned, and no more rows of it are looked at than this."""
    seen = 0
    for plan in plans:
        if plan["Query Text"].startswith("EXPLAIN"):  # asked for, not run
            continue
        for node, _ in nodes(plan["Plan"]):
            if node.get("Relation Name") in ("entries", "commands"):
                assert node["Node Type"] in ("Index Scan", "Index Only Scan", "Bitmap Heap Scan"), plan["Query Text"]
                loops = node["Actual Loops"]
                seen += (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * loops
                seen += node.get("Rows Removed by Index Recheck", 0) * loops
    assert plans
    assert seen <= rows_max


def page(which: Filter, limit: int = 50) -> Callable[[AsyncConnection], Awaitable[list[history.Entry]]]:
    async def asked(connection: AsyncConnection) -> list[history.Entry]:
        left = await history.spans(connection, TENANT, "alice", which)
        assert left is not None
        seqs = await history.commands_of(connection, TENANT, which)
        return (await history.entries(connection, "alice", left, which, limit=limit, seqs=seqs))[0]

    return asked


TENANT = 2  # of the only bank of its database: the first after the default tenant
PAGES = (  # the filter, the versions on its first page, how many rows may be looked at for them
    (Filter(), range(ENTRIES, ENTRIES - 50, -1), 102),
    (Filter(asset="gold", type="top_up"), range(ENTRIES, ENTRIES - 50, -1), 102),
    (Filter(until=BEGAN + timedelta(seconds=500)), range(499, 449, -1), 150),
    (Filter(since=BEGAN + timedelta(seconds=ENTRIES - 5)), range(ENTRIES, ENTRIES - 6, -1), 60),
    (Filter(type="spend"), (), 2 * history.WALK_MAX),
    (Filter(reference="common"), [n for n in range(ENTRIES, ENTRIES - 60, -1) if n % 1000][:50], 700),
    (Filter(reference="rare"), range(ENTRIES, 0, -1000), 100),
    (Filter(reference="none"), (), 0),
    (Filter(metadata='{"is":"rare"}'), range(ENTRIES, 0, -1000), 100),
    (Filter(metadata='{"is":"common"}'), [n for n in range(ENTRIES, ENTRIES - 60, -1) if n % 1000][:50], 700),
    (Filter(metadata='{"is":"none"}'), (), 0),
)


def test_reads_of_a_long_history_look_at_few_rows(old_bank: Bank) -> None:
    assert old_bank.tenant == TENANT
    for which, versions, rows_max in PAGES:
        found, plans = told(old_bank, page(which))
        assert [entry.version for entry in found] == list(versions)
        assert_bounded(plans, rows_max=rows_max)

    found, plans = told(old_bank, page_in_the_middle)
    assert found[0].version == ENTRIES // 2
    assert_bounded(plans, rows_max=102)

    old_bank.do("UPDATE wallets SET created_at = %s", BEGAN)
    at = BEGAN + timedelta(seconds=12_345.5)
    wallet, plans = told(old_bank, lambda to: history.wallet_as_of(to, TENANT, "alice", at))
    assert wallet is not None
    assert [(account.version, account.posted) for account in wallet.accounts] == [(12_345, 12_345)]
    assert_bounded(plans, rows_max=20)


async def page_in_the_middle(connection: AsyncConnection) -> list[history.Entry]:
    whole = await history.spans(connection, TENANT, "alice", Filter())
    assert whole is not None
    left = {account: history.Span(span.asset, 1, ENTRIES // 2) for account, span in whole.items()}
    return (await history.entries(connection, "alice", left, Filter(), limit=50))[0]


def test_metadata_of_most_commands_are_not_looked_up(own_bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "METADATA_EXPECTED_MAX", 1_000)
    up_to_date(own_bank)
    found, plans = told(own_bank, page(Filter(metadata='{"is":"common"}')))
    assert len(found) == 50
    assert_bounded(plans, rows_max=110)
