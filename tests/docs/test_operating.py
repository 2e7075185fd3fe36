"""docs/operating.md: its events and figures are the code's, its queries run, its roles suffice and no more."""

import asyncio
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import cast

import psycopg
import pytest
from psycopg.sql import SQL
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from api.feed import READS_AT_ONCE
from api.intake import FLUSHERS
from api.sessions import SIZE
from ledger import (
    audit,
    db,
    deliveries,
    drain,
    endpoints,
    exporting,
    importing,
    inbox,
    keys,
    operators,
    overview,
    reads,
    registers,
    requeuing,
    timeline,
)
from ledger.changes import By
from ledger.deliveries import Settled
from ledger.importing import Credit, Into
from ledger.inbox import Claim, NewCommand
from ledger.keys import Scope
from ledger.limits import Limits
from ledger.operators import Role
from tests.docs.pages import OPERATING, ROOT, fences, rows, section, sources

EVENT = re.compile(r'log\.(debug|info|warning|error|exception)\(\s*"([a-z_.]+)"')


def events() -> dict[str, str]:
    """Event → level, of everything that the service logs."""
    found: dict[str, str] = {}
    for source in sources():
        for level, event in EVENT.findall(source.read_text()):
            found[event] = "error" if level == "exception" else level
    return found


def test_the_events_are_those_that_the_code_logs() -> None:
    documented = {row[0].strip("`"): row[1] for row in rows(section(OPERATING, "Log events"))}
    assert documented == events()


def test_events_named_in_the_text_exist() -> None:
    named = re.findall(r"`([a-z]+\.[a-z_]+)`", OPERATING.read_text())
    assert named
    assert set(named) <= set(events())


def test_an_api_process_holds_no_more_connections_than_it_says() -> None:
    of_one_kind = len(re.findall(r" = Sessions\(", (ROOT / "api/app.py").read_text()))
    most = db.READ_POOL_SIZE + FLUSHERS + READS_AT_ONCE + len(["outcomes", "backlog", "dashboard"]) + of_one_kind * SIZE
    text = re.sub(r"\s+", " ", section(OPERATING, "Growing"))
    assert (
        f"at most {most} ({db.READ_POOL_SIZE} for reads, {FLUSHERS} for the intake, {READS_AT_ONCE} for the feed,"
        in text
    )
    assert f"{SIZE} each for cancels" in text


def test_sessions_name_themselves_so() -> None:
    code = "\n".join(source.read_text() for source in sources())
    used = set(re.findall(r'application="(bursar-[a-z]+)"', code))
    named = set(re.findall(r"`(bursar-[a-z]+)`", section(OPERATING, "Look here")))
    assert named <= used
    assert used - named <= {"bursar-run", "bursar-bench"}, "processes of the command line that last a moment"


def statements(marker: str) -> list[str]:
    text = OPERATING.read_text()
    found = re.search(rf"<!-- {marker} -->\n```sql\n(.*?)```", text, re.DOTALL)
    assert found, marker
    return [part.strip() for part in re.sub(r"--.*", "", found[1]).split(";") if part.strip()]


def as_role(url: str, role: str) -> str:
    """The same database for another role. SET ROLE by option: what a login as that role may do, without a password."""
    return f"{url}{'&' if '?' in url else '?'}options=-c%20role%3D{role}"


def run(connection: psycopg.Connection, texts: list[str]) -> None:
    for text in texts:
        connection.execute(SQL(text))  # pyright: ignore[reportArgumentType]  # our own page


def test_the_queries_run(database_url: str) -> None:
    [queries] = [block for block in fences(OPERATING, "sql") if "pg_stat_activity" in block]
    with psycopg.connect(database_url, autocommit=True) as connection:
        run(connection, [query for query in re.sub(r"--.*", "", queries).split(";") if query.strip()])


@pytest.fixture
def roles(database_url: str) -> Iterator[str]:
    """A database whose tables belong to bursar_owner, with the roles of the page."""
    with psycopg.connect(database_url, autocommit=True) as superuser:
        run(superuser, statements("roles:superuser"))
        try:
            tables = superuser.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
            run(superuser, [f'ALTER TABLE "{table}" OWNER TO bursar_owner' for (table,) in tables])
            with psycopg.connect(database_url, autocommit=True) as owner:
                owner.execute("SET ROLE bursar_owner")
                run(owner, statements("roles:owner"))
            yield database_url
        finally:
            for role in ("bursar_owner", "bursar_work", "bursar_read"):
                superuser.execute(SQL(cast(str, f"DROP OWNED BY {role} CASCADE")))  # pyright: ignore[reportArgumentType]
                superuser.execute(SQL(cast(str, f"DROP ROLE {role}")))  # pyright: ignore[reportArgumentType]


async def work(url: str, client_id: int) -> None:
    """What an api and a worker do with their tables, as the role that they connect as."""
    engine = db.async_engine(url, application="test")
    intake = await psycopg.AsyncConnection.connect(url, autocommit=True)
    try:
        async with engine.begin() as connection:
            await registers.create_asset(connection, 1, code="gold", name="Gold", scale=0)
            for _ in range(2):
                await registers.put_wallet(connection, 1, "alice", name="Alice", metadata="{}")
            await registers.set_wallet_status(connection, 1, "alice", "frozen", by=By(client_id))
            await registers.set_wallet_status(connection, 1, "alice", "active", by=By(client_id))
            await registers.set_asset_status(connection, 1, "gold", "frozen", by=By(client_id))
            await registers.set_asset_status(connection, 1, "gold", "active", by=By(client_id))
            for max_supply in (5, 6):
                await registers.set_asset_limits(connection, 1, "gold", Limits(max_supply=max_supply), by=By(client_id))
            await registers.set_wallet_limits(connection, 1, "alice", "gold", Limits(max_amount=9), by=By(client_id))
            await registers.set_asset_limits(connection, 1, "gold", None, by=By(client_id))
            await keys.record_use(connection, [1])
            opened = await operators.open_session(connection, key_id=1)
            session = await operators.session_of(connection, opened)
            assert session is not None
            await operators.password_of(connection, "ada")
            await operators.note_action(connection, session, "look", target=None, reason="a test")
            await operators.actions(connection, 1)
            await operators.last_audit(connection)
            await operators.close_session(connection, opened)
            await reads.backlog(connection)
            await reads.schema_and_age(connection)
        for key in ("k-1", "k-1", "k-2"):
            command = NewCommand(
                1, client_id, 0, "top_up", key, b"", "bob", None, "gold", 5, None, None, None
            )  # fmt: skip
            await inbox.accept(intake, [command])
    finally:
        await intake.close()
        await engine.dispose()


def drained(url: str) -> int:
    with psycopg.connect(url) as connection:
        claim = inbox.claim(connection, range(8), max_rows=10)
        assert isinstance(claim, Claim)
        inbox.reclaim(connection, claim.commands)
        inbox.count_attempt(connection, 1)
        return len(drain.apply(connection, claim, task_id=None).seqs)


def listen(url: str, client_id: int) -> None:
    """What an api does for webhooks."""
    with psycopg.connect(url) as connection:
        settings = endpoints.Settings("https://receiver.example.com/", None, None, None, "none", None, [], None)
        made = endpoints.create(connection, 1, client_id, settings, b"sealed")
        endpoints.change(connection, 1, made.id, lambda stands: (stands.settings, "enabled"), owed=True)
        endpoints.rotate(connection, 1, made.id, b"sealed", overlap=timedelta(days=1))
        deliveries.send_test(connection, 1, made.id)


async def deliver(url: str) -> None:
    """What a courier does."""
    async with await db.connect_async(url, application="test") as connection:
        now = datetime.now(UTC) + timedelta(seconds=5)
        taken = await deliveries.take(connection, now, but=[], most=1)
        (target,) = (await deliveries.targets(connection, taken, now)).values()
        due = await deliveries.due(connection, [(target.endpoint_id, 10)], now)
        contents = await deliveries.contents(connection, [each.seq for each in due])
        assert len(due) == len(contents) == 3
        settled = [Settled(each, True, None, now, 200, None, None, 1, "") for each in due]
        await deliveries.settle(connection, settled)
        await deliveries.note_health(connection, target.endpoint_id, failing_since=now, paused_until=None)
        await deliveries.disable(connection, target, "gone", now)
        await deliveries.share(connection)
        await deliveries.purge(connection, now + timedelta(days=2), retention=timedelta(days=1), most=10, after={})


async def look(url: str) -> None:
    """What people do."""
    engine = db.async_engine(url, application="test")
    async with engine.connect() as connection:
        await overview.partitions(connection)
        await overview.rates(connection)
        await overview.recent(connection, None)
        await overview.webhooks(connection, None)
        await overview.database(connection)
        await reads.supply(connection, 1, after="", limit=10)
        seq = await timeline.find(connection, 1, "k-1")
        assert (await timeline.timeline(connection, seq)).entries
        await timeline.pending(connection, 1, limit=10)
        await requeuing.failed(connection, 1, before=None, limit=10)
    await engine.dispose()


def test_the_roles_suffice_and_no_more(roles: str) -> None:
    owner, worker, reader = (as_role(roles, role) for role in ("bursar_owner", "bursar_work", "bursar_read"))
    engine = create_engine(db.sqlalchemy_url(owner), poolclass=NullPool)
    keys.create_key(engine, env="test", client="shop", scopes=[Scope.ADMIN])
    with psycopg.connect(roles) as superuser:
        ((client_id,),) = superuser.execute("SELECT id FROM clients").fetchall()

    listen(worker, client_id)
    asyncio.run(work(worker, client_id))
    assert drained(worker) == 2
    asyncio.run(deliver(worker))
    auditor = create_engine(db.sqlalchemy_url(reader), poolclass=NullPool)
    assert all(finding.holds for finding in audit.audit(auditor))
    operators.keep_audit(auditor, operators.Audit(datetime.now(UTC), 1, []))
    operators.add_operator(engine, name="ada", password="correct horse", role=Role.OPERATOR)
    operators.disable_operator(engine, "ada")
    asyncio.run(look(reader))
    with psycopg.connect(reader, autocommit=True) as connection:
        moved = list(exporting.lines(connection, 1, "default"))
    assert moved[-1]["object"] == "end"
    with psycopg.connect(worker, autocommit=True) as connection:
        into = Into("an export", 1, client_id, 8)
        assert importing.carry_out(connection, into, [importing.command(into, Credit("carol", "gold", "5"))])[0].new

    forbidden = [
        (worker, "DELETE FROM entries"),
        (worker, "ALTER TABLE entries DISABLE TRIGGER ALL"),
        (worker, "UPDATE outcomes SET code = 'applied'"),
        (worker, "UPDATE api_keys SET scopes = '{admin}'"),
        (worker, "INSERT INTO api_keys (client_id, prefix, key_hash, scopes) VALUES (1, '', '', '{}')"),
        (worker, "DROP TABLE commands"),
        (worker, "UPDATE operator_actions SET who = 'somebody else'"),
        (worker, "UPDATE operators SET role = 'operator'"),
        (reader, "SELECT password_hash FROM operators"),
        (reader, "SELECT cookie_hash FROM dashboard_sessions"),
        (reader, "DELETE FROM audits"),
        (reader, "SELECT key_hash FROM api_keys"),
        (reader, "SELECT secret FROM webhook_endpoints"),
        (reader, "SELECT url FROM webhook_endpoints"),
        (reader, "INSERT INTO pending (partition, seq) VALUES (0, 0)"),
    ]
    for url, statement in forbidden:
        with psycopg.connect(url, autocommit=True) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            run(connection, [statement])
