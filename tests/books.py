"""A bank to test with: a tenant of its own in a real database, and verbs that read like the specification.

    bank.top_up("alice", 100)
    assert bank.spend("alice", 30).code == "applied"
    assert bank.available("alice") == 70
    bank.assert_books_balance()

`top_up`, `spend`, `hold` … accept one command and drain it. `order` and `accept` stop before the drain; `drain` does
the rest. Options of ledger.commands.Options and fields of NewCommand are said by name:

    hold = bank.hold("alice", 40, hold_expires_at=bank.in_seconds(60), credits_order="oldest_first")
    bank.capture(hold, 25, final=False)
"""

import asyncio
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count, islice
from typing import Any, LiteralString, TypeGuard, TypeVar
from uuid import UUID

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from ledger import db, drain, expiry, inbox, registers
from ledger.changes import By
from ledger.commands import Command, Options, write_options
from ledger.errors import BooksMoved
from ledger.inbox import Accepted, Claim, NewCommand, Nothing
from ledger.limits import Limits
from ledger.partitions import partition_of
from tests.invariants import INVARIANTS, PAID_IN_ORDER

PARTITIONS = 8
ALL = tuple(range(PARTITIONS))
GOLD = "gold"

# A clock_timestamp() that a session finds before PostgreSQL's own.
TESTS_CLOCK: LiteralString = """
CREATE SCHEMA IF NOT EXISTS clock;
CREATE TABLE IF NOT EXISTS clock.now AS SELECT pg_catalog.clock_timestamp() AS at;
CREATE OR REPLACE FUNCTION clock.clock_timestamp() RETURNS timestamptz
    LANGUAGE sql AS 'SELECT at FROM clock.now';
"""
LOOK_AT_THE_TESTS_CLOCK: LiteralString = "SET search_path = clock, pg_catalog, public"
OPTIONS = frozenset(Options.__struct_fields__)

Answer = TypeVar("Answer")
_numbers = count(1)


@dataclass(frozen=True)
class Outcome:
    seq: int
    status: str
    code: str
    detail: str | None
    accounts: list[dict[str, Any]] | None
    at: datetime
    task_id: UUID | None
    result: dict[str, Any] | None = None


@dataclass(frozen=True)
class Lot:
    """`remaining` of it, of which `held`."""

    seq: int
    n: int
    source: str
    priority: int
    expires_at: datetime | None
    remaining: int
    held: int


@dataclass(frozen=True)
class Entry:
    seq: int
    amount: int
    balance_after: int
    version: int


class Bank:
    """One tenant with an asset, `gold`, and one client. Close it: it holds connections."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.sql = psycopg.connect(url, autocommit=True)  # the eye and the hand at psql
        self.drains = db.connect(url, application="test-drain")
        self._loop = asyncio.Runner()
        self._intake = self._loop.run(db.connect_async(url, application="test-intake"))
        self._registers = db.async_engine(url, application="test-registers")
        self.tenant: int = self.one("INSERT INTO tenants (code) VALUES (%s) RETURNING id", f"game-{next(_numbers)}")
        self.client = self.new_client()
        self.by = By(self.client)
        self.clocked = False
        self.open_asset(GOLD)

    def close(self) -> None:
        self._loop.run(self._intake.close())
        self._loop.run(self._registers.dispose())
        self._loop.close()
        self.drains.close()
        self.sql.close()

    def forget(self) -> None:
        """Nothing in this database is pending, nor will it be due."""
        self.sql.execute("DELETE FROM pending; DELETE FROM holds; DELETE FROM lots")

    # --- asking and telling PostgreSQL ---------------------------------------------------------------------------

    def rows(self, query: LiteralString, *values: object) -> list[tuple[Any, ...]]:
        return self.sql.execute(query, values or None).fetchall()

    def one(self, query: LiteralString, *values: object) -> Any:
        """The one value of the one row."""
        ((value,),) = self.rows(query, *values)
        return value

    def do(self, statement: LiteralString, *values: object) -> None:
        self.sql.execute(statement, values or None)

    # --- registers -----------------------------------------------------------------------------------------------

    def new_client(self) -> int:
        insert = "INSERT INTO clients (tenant_id, name) VALUES (%s, %s) RETURNING id"
        return self.one(insert, self.tenant, f"client {next(_numbers)}")

    def open_asset(self, code: str) -> None:
        self._register(lambda to: registers.create_asset(to, self.tenant, code=code, name=code, scale=0))

    def freeze_asset(self, code: str = GOLD) -> None:
        self._register(lambda to: registers.set_asset_status(to, self.tenant, code, "frozen", by=self.by))

    def unfreeze_asset(self, code: str = GOLD) -> None:
        self._register(lambda to: registers.set_asset_status(to, self.tenant, code, "active", by=self.by))

    def open_wallet(self, wallet: str) -> None:
        self._register(lambda to: registers.put_wallet(to, self.tenant, wallet, name=None, metadata="{}"))

    def freeze(self, wallet: str, status: registers.WalletStatus = "frozen") -> None:
        self._register(lambda to: registers.set_wallet_status(to, self.tenant, wallet, status, by=self.by))

    def unfreeze(self, wallet: str) -> None:
        self.freeze(wallet, "active")

    def limit_asset(self, code: str = GOLD, **limits: Any) -> None:
        """Members of ledger.limits.Limits; none: no limits."""
        wanted = Limits(**limits)
        self._register(lambda to: registers.set_asset_limits(to, self.tenant, code, wanted, by=self.by))

    def limit_wallet(self, wallet: str, asset: str = GOLD, **limits: Any) -> None:
        wanted = Limits(**limits)
        self._register(lambda to: registers.set_wallet_limits(to, self.tenant, wallet, asset, wanted, by=self.by))

    def close_wallet(self, wallet: str) -> None:
        self.do("UPDATE wallets SET status = 'closed' WHERE tenant_id = %s AND code = %s", self.tenant, wallet)

    def _register(self, change: Callable[[AsyncConnection], Awaitable[Answer]]) -> Answer:
        async def changed() -> Answer:
            async with self._registers.begin() as connection:
                return await change(connection)

        return self._loop.run(changed())

    # --- giving commands -----------------------------------------------------------------------------------------

    def new(self, kind: str, wallet: str, amount: int | None, /, **more: Any) -> NewCommand:
        """A command that nobody has sent yet. `more`: fields of NewCommand, members of Options, or `key`."""
        options = {name: more.pop(name) for name in OPTIONS & more.keys()}
        fields: dict[str, Any] = {
            "tenant_id": self.tenant,
            "client_id": self.client,
            "partition": self.partition(wallet),
            "type": kind,
            "idempotency_key": more.pop("key", None) or f"key-{next(_numbers)}",
            "request_hash": b"hash of the request",
            "wallet": wallet,
            "to_wallet": None,
            "asset": GOLD,
            "amount": amount,
            "reference": None,
            "metadata": None,
            "expires_at": None,
            "options": write_options(Options(**options)),
        }
        return NewCommand(**(fields | more))

    def new_about(self, kind: str, seq: "int | Outcome", amount: int | None = None, /, **more: Any) -> NewCommand:
        """A command about another one, a hold or one to reverse: of its wallet, asset and partition, as the api has it.

        `amount` None: all that is left.
        """
        ref_seq = seq if isinstance(seq, int) else seq.seq
        ((wallet, asset, partition),) = self.rows(
            "SELECT wallet, asset, partition FROM commands WHERE seq = %s", ref_seq
        )
        where = {"asset": asset, "partition": partition, "ref_seq": ref_seq}
        return self.new(kind, wallet, amount, **(where | more))

    def accept(self, batch: Sequence[NewCommand]) -> list[Accepted]:
        return self._loop.run(inbox.accept(self._intake, batch))

    def order(self, kind: str, wallet: str, amount: int, /, **more: Any) -> int:
        """Accept one command and leave it pending; its seq."""
        return self.accept([self.new(kind, wallet, amount, **more)])[0].seq

    def accept_group(self, batch: Sequence[NewCommand]) -> list[Accepted | None]:
        """Accept commands as an atomic group; it stays pending."""
        return self._loop.run(inbox.accept_group(self._intake, batch))

    def group(self, batch: Sequence[NewCommand]) -> "list[Outcome]":
        """Accept commands as an atomic group and drain it."""
        answers = self.accept_group(batch)
        self.drain()
        return [self.outcome(answer.seq) for answer in answers if answer]

    def conjure(self, wallet: str) -> int:
        """A poison command, which no client can have sent: a type that nobody knows, put in by hand."""
        return self.order("conjure", wallet, 1)

    def top_up(self, wallet: str, amount: int, /, **more: Any) -> Outcome:
        return self._now("top_up", wallet, amount, **more)

    def bonus(self, wallet: str, amount: int, /, **more: Any) -> Outcome:
        return self._now("bonus", wallet, amount, **more)

    def spend(self, wallet: str, amount: int, /, **more: Any) -> Outcome:
        return self._now("spend", wallet, amount, **more)

    def transfer(self, wallet: str, to_wallet: str, amount: int, /, **more: Any) -> Outcome:
        return self._now("transfer", wallet, amount, to_wallet=to_wallet, **more)

    def hold(self, wallet: str, amount: int, /, **more: Any) -> Outcome:
        """For an hour, unless `hold_expires_at` says another end."""
        return self._now("hold", wallet, amount, **({"hold_expires_at": self.in_seconds(3600)} | more))

    def capture(self, hold: "int | Outcome", amount: int | None = None, /, **more: Any) -> Outcome:
        return self._now_about("capture", hold, amount, **more)

    def release(self, hold: "int | Outcome", /, **more: Any) -> Outcome:
        return self._now_about("release", hold, None, **more)

    def exchange(self, wallet: str, amount: int, to_asset: str, to_amount: int, /, **more: Any) -> Outcome:
        return self._now("exchange", wallet, amount, to_asset=to_asset, to_amount=to_amount, **more)

    def reverse(self, command: "int | Outcome", amount: int | None = None, /, **more: Any) -> Outcome:
        return self._now_about("reverse", command, amount, **more)

    def adjust(self, wallet: str, amount: int, /, **more: Any) -> Outcome:
        """`amount` below zero: down."""
        return self._now("adjust", wallet, amount, **({"reason": "counted wrong"} | more))

    def expire_due(self) -> list[int]:
        """Let the ledger expire whatever is past its time; the seqs that the drain gave an outcome."""
        self.enqueue_due()
        return self.drain()

    def enqueue_due(self) -> set[int]:
        """As a look-out does: commands for whatever is past its time, pending, committed; their partitions."""
        with self.drains.transaction():
            return expiry.enqueue_due(self.drains)

    def _now(self, kind: str, wallet: str, amount: int | None, **more: Any) -> Outcome:
        return self._drained(self.new(kind, wallet, amount, **more))

    def _now_about(self, kind: str, about: "int | Outcome", amount: int | None, **more: Any) -> Outcome:
        return self._drained(self.new_about(kind, about, amount, **more))

    def _drained(self, command: NewCommand) -> Outcome:
        (answer,) = self.accept([command])
        self.drain()
        return self.outcome(answer.seq)

    # --- draining ------------------------------------------------------------------------------------------------

    def drain(self, partitions: Sequence[int] = ALL, *, max_rows: int = 500, task_id: UUID | None = None) -> list[int]:
        """One drain, committed; the seqs that it gave an outcome. A batch whose books moved is drained again."""
        while True:
            try:
                with self.drains.transaction():
                    claim = inbox.claim(self.drains, partitions, max_rows=max_rows)
                    return drain.apply(self.drains, claim, task_id=task_id).seqs if _has_work(claim) else []
            except BooksMoved:
                continue

    def another_drain(self) -> "Drain":
        """A second worker's connection, to hold a drain open at any point."""
        drain = Drain(self.url)
        if self.clocked:
            drain.connection.execute(LOOK_AT_THE_TESTS_CLOCK)
            drain.connection.commit()
        return drain

    def set_clock(self, at: datetime) -> None:
        """For this bank's drains and look-outs it is this time until it is set again. Only ever forward."""
        if not self.clocked:
            self.do(TESTS_CLOCK)
            self.drains.execute(LOOK_AT_THE_TESTS_CLOCK)
            self.drains.commit()
            self.clocked = True
        self.do("UPDATE clock.now SET at = %s", at)

    # --- looking -------------------------------------------------------------------------------------------------

    def partition(self, wallet: str) -> int:
        return partition_of(self.tenant, wallet, PARTITIONS)

    def wallets_in(self, partition: int, number: int) -> list[str]:
        """The names of some wallets that belong to this partition."""
        return list(islice((name for name in map("w{}".format, count(1)) if self.partition(name) == partition), number))

    def wallet_in(self, partition: int) -> str:
        return self.wallets_in(partition, 1)[0]

    def outcome(self, seq: int) -> Outcome:
        """Its outcome; fails where it has none, or two."""
        query = "SELECT seq, status, code, detail, accounts, at, task_id, result FROM outcomes WHERE seq = %s"
        (row,) = self.rows(query, seq)
        return Outcome(*row)

    def codes(self, seqs: Iterable[int]) -> list[str]:
        return [self.outcome(seq).code for seq in seqs]

    def pending(self) -> list[int]:
        """The seqs of this tenant's pending commands, those of groups among them, in order."""
        query = """
            SELECT c.seq FROM commands c JOIN pending p ON p.seq = COALESCE(c.group_seq, c.seq)
            WHERE c.tenant_id = %s ORDER BY 1
        """
        return [seq for (seq,) in self.rows(query, self.tenant)]

    def attempts(self, seq: int) -> int:
        """Drains that this pending command broke."""
        return self.one("SELECT attempts FROM pending WHERE seq = %s", seq)

    def account(self, wallet: str, asset: str = GOLD, *, shard: int = 0) -> dict[str, int] | None:
        """posted, held and version of one account; None: it was never opened."""
        query = """
            SELECT a.posted, a.held, a.version FROM accounts a
            JOIN wallets w ON w.id = a.wallet_id JOIN assets s ON s.id = a.asset_id
            WHERE w.tenant_id = %s AND w.code = %s AND s.code = %s AND a.shard = %s
        """
        found = self.rows(query, self.tenant, wallet, asset, shard)
        return dict(zip(("posted", "held", "version"), found[0], strict=True)) if found else None

    def available(self, wallet: str, asset: str = GOLD) -> int:
        found = self.account(wallet, asset)
        return found["posted"] - found["held"] if found else 0

    def system(self, wallet: str, asset: str = GOLD) -> int:
        """A system wallet's balance: the sum of its shards."""
        return sum((self.account(wallet, asset, shard=p) or {"posted": 0})["posted"] for p in ALL)

    def entries(self, wallet: str, asset: str = GOLD, *, shard: int = 0) -> list[Entry]:
        """One account's entries, in order."""
        query = """
            SELECT e.seq, e.amount, e.balance_after, e.version FROM entries e
            JOIN accounts a ON a.id = e.account_id
            JOIN wallets w ON w.id = a.wallet_id JOIN assets s ON s.id = a.asset_id
            WHERE w.tenant_id = %s AND w.code = %s AND s.code = %s AND a.shard = %s ORDER BY e.version
        """
        return [Entry(*row) for row in self.rows(query, self.tenant, wallet, asset, shard)]

    def lots(self, wallet: str, asset: str = GOLD) -> list[Lot]:
        """Those that are not used up, the oldest first."""
        query = """
            SELECT l.seq, l.n, l.source, l.priority, l.expires_at, l.remaining, l.held FROM lots l
            JOIN accounts a ON a.id = l.account_id
            JOIN wallets w ON w.id = a.wallet_id JOIN assets s ON s.id = a.asset_id
            WHERE w.tenant_id = %s AND w.code = %s AND s.code = %s AND l.remaining > 0 ORDER BY 1, 2
        """
        return [Lot(*row) for row in self.rows(query, self.tenant, wallet, asset)]

    def hold_status(self, hold: "int | Outcome") -> tuple[str, int, int]:
        """status, remaining, captured."""
        seq = hold if isinstance(hold, int) else hold.seq
        (row,) = self.rows("SELECT status, remaining, captured FROM holds WHERE seq = %s", seq)
        return row

    def in_seconds(self, seconds: float) -> datetime:
        """A time on the database's clock."""
        return self.one("SELECT clock_timestamp()") + timedelta(seconds=seconds)

    def assert_books_balance(self, *, in_order: bool = True) -> None:
        """The invariants of the ledger hold for this tenant. Written without the audit, to hold the audit to it too."""
        for promise, query in INVARIANTS.items():
            if promise == PAID_IN_ORDER and not in_order:
                continue
            broken = self.rows(query, self.tenant)
            assert not broken, f"broken: {promise}: {broken[:5]}"

    def assert_settled(self) -> None:
        """The books balance and no command waits."""
        assert self.pending() == []
        self.assert_books_balance()


def _has_work(claim: Claim | Nothing) -> TypeGuard[Claim]:
    return isinstance(claim, Claim) and bool(claim.commands)


class Drain:
    """A drain in slow motion, on a connection of its own: claim, apply and commit when the test says so."""

    def __init__(self, url: str) -> None:
        self.connection = db.connect(url, application="test-second-drain")
        self.claimed: Claim | Nothing | None = None

    def __enter__(self) -> "Drain":
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()  # rolls back what was not committed

    def claim(self, partitions: Sequence[int] = ALL, *, max_rows: int = 500) -> list[int]:
        self.claimed = inbox.claim(self.connection, partitions, max_rows=max_rows)
        return [command.seq for command in self.commands] if isinstance(self.claimed, Claim) else []

    @property
    def commands(self) -> list[Command]:
        """What was claimed; fails where nothing was."""
        assert isinstance(self.claimed, Claim)
        return self.claimed.commands

    def apply(self) -> list[int]:
        assert isinstance(self.claimed, Claim)
        return drain.apply(self.connection, self.claimed, task_id=None).seqs

    def commit(self) -> None:
        self.connection.commit()

    def apply_and_commit(self) -> None:
        self.apply()
        self.commit()

    def rollback(self) -> None:
        self.connection.rollback()


@pytest.fixture
def bank(module_database_url: str) -> Generator[Bank]:
    """A tenant of its own in the module's database. What a test leaves pending or due is not the next one's."""
    opened = Bank(module_database_url)
    yield opened
    opened.forget()
    opened.close()


@pytest.fixture
def own_bank(database_url: str) -> Generator[Bank]:
    """A bank in a database of its own, for a test that bends the schema."""
    opened = Bank(database_url)
    yield opened
    opened.close()
