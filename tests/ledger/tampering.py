"""Hands at psql: books broken behind the service's back, and what the audit makes of them."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from ledger import audit, db
from tests.books import Bank


@pytest.fixture
def engine(own_bank: Bank) -> Iterator[Engine]:
    engine = db.engine(own_bank.url, application="test-audit", statement_timeout_ms=0)
    yield engine
    engine.dispose()


def broken(engine: Engine) -> dict[int, list[str]]:
    """Which invariants the audit finds broken, and how it puts it. Without the hash chain: it sees every such hand."""
    return {
        finding.number: [str(breach.get("what", breach)) for breach in finding.breaches]
        for finding in audit.audit(engine, [invariant for invariant in audit.INVARIANTS if invariant.number != 8])
        if not finding.holds
    }


def by_hand(bank: Bank) -> None:
    """From here on this connection's statements pass the triggers by, as a restored dump or a superuser could."""
    bank.do("SET session_replication_role = replica")


def account_id(bank: Bank, wallet: str, shard: int = 0) -> int:
    return bank.one(
        "SELECT a.id FROM accounts a JOIN wallets w ON w.id = a.wallet_id"
        " WHERE w.tenant_id = %s AND w.code = %s AND a.shard = %s",
        bank.tenant,
        wallet,
        shard,
    )


def write_entry(bank: Bank, account: int, seq: int, amount: int) -> None:
    """One more entry, and the account's balance and version with it."""
    bank.do(
        """
        WITH moved AS (
            UPDATE accounts SET posted = posted + %s, version = version + 1 WHERE id = %s
            RETURNING id, asset_id, posted, version
        )
        INSERT INTO entries SELECT id, version, %s, asset_id, %s, posted, now() FROM moved
        """,
        amount,
        account,
        seq,
        amount,
    )


def write_transfer(bank: Bank, wallet: str, amount: int, *, accepted_s_ago: int = 0) -> int:
    """An applied command of `wallet`, with `amount` to or from its partition's revenue shard; its seq."""
    kind = "spend" if amount < 0 else "top_up"
    seq = bank.order(kind, wallet, abs(amount))
    bank.do("DELETE FROM pending WHERE seq = %s", seq)
    bank.do("UPDATE commands SET accepted_at = now() - make_interval(secs => %s) WHERE seq = %s", accepted_s_ago, seq)
    bank.do("INSERT INTO outcomes (seq, status, code, at) VALUES (%s, 'applied', 'applied', now())", seq)
    bank.do(
        "INSERT INTO transfers SELECT seq, tenant_id, partition, now() FROM commands WHERE seq = %s",
        seq,
    )
    return seq


def move(bank: Bank, wallet: str, seq: int, amount: int) -> None:
    write_entry(bank, account_id(bank, wallet), seq, amount)
    write_entry(bank, account_id(bank, "@revenue", bank.partition(wallet)), seq, -amount)
