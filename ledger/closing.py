"""Closing a wallet: a command, accepted, decided and written in one transaction by whoever closes.

A wallet closes with nothing left in it. What it has goes to another wallet, by a `close` command that the ledger gives
itself in the name of the client that asked; the status changes in the same transaction, under the locks of all
partitions, as every status does (ledger.registers). Where nothing is left to move, the status changes alone
(docs/decisions/0019-a-wallet-is-closed-by-a-command.md).
"""

from typing import Any, LiteralString
from uuid import uuid4

import psycopg

from ledger import books, changes, drain, inbox
from ledger.changes import By
from ledger.commands import Options, write_options
from ledger.errors import BooksMoved, BrokenInvariant, Code
from ledger.inbox import OWN_REQUEST, NewCommand
from ledger.partitions import partition_of
from ledger.registers import NoSuch

_WALLET: LiteralString = "SELECT id, status FROM wallets WHERE tenant_id = %b::int AND code = %b::text"
_ASSETS: LiteralString = """
SELECT s.code FROM accounts a JOIN assets s ON s.id = a.asset_id WHERE a.wallet_id = %b::bigint ORDER BY s.code
"""
_PARTITIONS: LiteralString = "SELECT count(*) FROM partitions"
_CLOSE: LiteralString = "UPDATE wallets SET status = 'closed' WHERE id = %b::bigint"


class Refusal(Exception):
    """The books say no: nothing was changed, and nothing is kept of it."""

    def __init__(self, code: Code, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


def close(connection: psycopg.Connection[Any], tenant_id: int, wallet: str, *, sweep_to: str | None, by: By) -> bool:
    """Close the wallet, whatever its status; all it has goes to `sweep_to`. False: it was closed already.

    `connection` is in no transaction. Sharp, as every change of status: it stops the drains for its own length, and
    what is queued for the wallet is refused. Raises NoSuch, Refusal, or psycopg.errors.LockNotAvailable where a drain
    hangs.
    """
    while True:
        try:
            with connection.transaction():
                return _close(connection, tenant_id, wallet, sweep_to, by)
        except BooksMoved:  # a limit has just opened an account of the other wallet
            continue


def _close(connection: psycopg.Connection[Any], tenant_id: int, wallet: str, sweep_to: str | None, by: By) -> bool:
    if _find(connection, tenant_id, wallet)[1] == "closed":
        return False
    inbox.lock_all_partitions(connection)
    wallet_id, before = _find(connection, tenant_id, wallet)
    if before == "closed":
        return False
    assets = tuple(code for (code,) in connection.execute(_ASSETS, (wallet_id,)))
    seq = _sweep(connection, tenant_id, wallet, assets, sweep_to, by) if assets else None
    connection.execute(_CLOSE, (wallet_id,))
    told = changes.json_status(before), changes.json_status("closed")
    changes.note_sync(connection, changes.row(by, tenant_id, "status", *told, wallet=wallet, seq=seq))
    return True


def _find(connection: psycopg.Connection[Any], tenant_id: int, wallet: str) -> tuple[int, str]:
    found = connection.execute(_WALLET, (tenant_id, wallet)).fetchone()
    if found is None:
        raise NoSuch("wallet")
    return found


def _sweep(
    connection: psycopg.Connection[Any],
    tenant_id: int,
    wallet: str,
    assets: tuple[str, ...],
    sweep_to: str | None,
    by: By,
) -> int | None:
    """Empty the wallet by a command; its seq, or None where there was nothing to move. Raises Refusal."""
    ((partitions,),) = connection.execute(_PARTITIONS).fetchall()
    command = NewCommand(
        tenant_id=tenant_id,
        client_id=by.client_id,
        partition=partition_of(tenant_id, wallet, partitions),
        type="close",
        idempotency_key=f"close:{wallet}:{uuid4()}",
        request_hash=OWN_REQUEST,
        wallet=wallet,
        to_wallet=sweep_to,
        asset=assets[0],
        amount=None,
        reference=None,
        metadata=None,
        expires_at=None,
        options=write_options(Options(reason=by.reason, assets=assets)),
    )
    with connection.transaction() as trial:
        (seq,) = inbox.enqueue(connection, [command])
        claim = inbox.reclaim(connection, [inbox.unstored(command, seq, None)])
        if claim is None:
            raise BrokenInvariant(f"command {seq} was queued and is not there")
        journal = drain.settle(books.lock(connection, claim.commands, claim.now), claim.commands)
        ((_, status, code, detail, _, result),) = journal.outcomes
        if status != "applied":
            raise Refusal(Code(code), detail or "")
        if result is None:  # nothing moves, so there is no transfer to keep, nor a command
            raise psycopg.Rollback(trial)
        journal.write(connection, task_id=None)
        return seq
    return None
