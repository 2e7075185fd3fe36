"""The only writer of money: transfers, entries, balances and outcomes, in set-based statements.

`Journal.record` takes one decision at a time, in order, and keeps running balances in memory; `Journal.write` puts the
whole batch into the database. Nothing else in Bursar writes these tables.
"""

from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

import psycopg

from ledger.books import open_accounts
from ledger.commands import Command
from ledger.decide import Account, Applied, Books, Decision, Refused
from ledger.errors import BrokenInvariant, Code

_TRANSFERS: LiteralString = """
INSERT INTO transfers (seq, tenant_id, partition, at)
SELECT seq, tenant_id, partition, %b
FROM unnest(%b::bigint[], %b::int[], %b::smallint[]) AS t (seq, tenant_id, partition)
"""
_ENTRIES: LiteralString = """
INSERT INTO entries (account_id, version, seq, asset_id, amount, balance_after, at)
SELECT account_id, version, seq, asset_id, amount, balance_after, %b
FROM unnest(%b::bigint[], %b::bigint[], %b::bigint[], %b::int[], %b::bigint[], %b::bigint[])
AS e (account_id, version, seq, asset_id, amount, balance_after)
"""
_BALANCES: LiteralString = """
UPDATE accounts a SET posted = n.posted, version = n.version
FROM unnest(%b::bigint[], %b::bigint[], %b::bigint[]) AS n (id, posted, version) WHERE a.id = n.id
"""
_OUTCOMES: LiteralString = """
INSERT INTO outcomes (seq, status, code, detail, accounts, at, task_id)
SELECT seq, status, code, detail, accounts::json, %b, %b
FROM unnest(%b::bigint[], %b::text[], %b::text[], %b::text[], %b::text[]) AS o (seq, status, code, detail, accounts)
"""


class Journal:
    """What one drain has decided and not yet written."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._transfers: list[tuple[int, int, int]] = []  # seq, tenant_id, partition
        self._entries: list[tuple[Account, int, int, int, int]] = []  # account, version, seq, amount, balance_after
        self._outcomes: list[tuple[int, str, str, str | None, str | None]] = []  # as the table's columns
        self._changed: dict[int, Account] = {}  # by identity: an account that is being opened has no id yet

    def record(self, command: Command, decision: Decision) -> None:
        """Post a decision to the running balances, so that the next one sees it."""
        match decision:
            case Applied(source, target, amount):
                self._transfers.append((command.seq, command.tenant_id, command.partition))
                self._post(command.seq, source, -amount)
                self._post(command.seq, target, amount)
                left = [_balance(account) for account in (source, target) if not account.key[1].startswith("@")]
                self._outcomes.append((command.seq, "applied", Code.APPLIED, None, f"[{','.join(left)}]"))
            case Refused(code, detail):
                account = self._books.accounts.get((command.tenant_id, command.wallet, command.asset, 0))
                left = f"[{_balance(account)}]" if account else "[]"
                self._outcomes.append((command.seq, "rejected", code, detail, left))

    def _post(self, seq: int, account: Account, amount: int) -> None:
        account.posted += amount
        account.version += 1
        self._entries.append((account, account.version, seq, amount, account.posted))
        if id(account) not in self._changed:
            self._changed[id(account)] = account
            self._books.accounts[account.key] = account
            self._books.wallets.setdefault(account.key[:2], "active")

    def write(self, connection: psycopg.Connection[Any], *, task_id: UUID | None) -> list[int]:
        """Write it all in the caller's transaction; the seqs that now have their outcome.

        Raises BooksMoved (drain again), or BrokenInvariant or a psycopg error where the books refuse.
        """
        at: datetime = self._books.now
        open_accounts(connection, (account for account in self._changed.values() if account.id == 0))
        with connection.pipeline(), connection.cursor() as balances:
            if self._transfers:
                connection.execute(_TRANSFERS, (at, *_columns(self._transfers)))
                entries = [
                    (account.id, version, seq, account.asset_id, amount, balance_after)
                    for account, version, seq, amount, balance_after in self._entries
                ]
                connection.execute(_ENTRIES, (at, *_columns(entries)))
                changed = [(account.id, account.posted, account.version) for account in self._changed.values()]
                balances.execute(_BALANCES, _columns(changed))
            connection.execute(_OUTCOMES, (at, task_id, *_columns(self._outcomes)))
        if balances.rowcount != len(self._changed) and self._changed:
            raise BrokenInvariant(f"{len(self._changed)} balances changed, {balances.rowcount} were written")
        return [outcome[0] for outcome in self._outcomes]


def quarantine(connection: psycopg.Connection[Any], command: Command, at: datetime, *, task_id: UUID | None) -> None:
    """Give a command that breaks every drain its outcome, `failed`, so that those behind it move on."""
    outcome = (command.seq, "failed", Code.INTERNAL_ERROR, "could not be decided; an operator has been told", None)
    connection.execute(_OUTCOMES, (at, task_id, *_columns([outcome])))


def _balance(account: Account) -> str:
    """JSON by hand, the hottest line of a drain: the alphabet of wallet and asset names needs no escaping."""
    _, wallet, asset, _ = account.key
    return (
        f'{{"wallet":"{wallet}","asset":"{asset}","posted":"{account.posted}","held":"{account.held}",'
        f'"available":"{account.posted - account.held}","version":{account.version}}}'
    )


def _columns(rows: list[Any]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
