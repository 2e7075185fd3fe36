"""What is due: holds and lots past their time become commands of the ledger's own, drained as any other.

Due times are columns. Any worker's look-out may come by, twice or at once with another: the idempotency key of each
expiry lets the first one in.
"""

from typing import Any, LiteralString

import psycopg

from ledger.commands import LEDGER_CLIENT, NO_OPTIONS, Options, write_options
from ledger.inbox import OWN_REQUEST, NewCommand, enqueue
from ledger.partitions import partition_of

DUE_MAX = 500  # of each kind in one statement, as many as a drain takes; what is left over comes with the next look

_DUE_HOLDS: LiteralString = """
SELECT h.seq, c.tenant_id, c.partition, c.wallet, c.asset FROM (
    SELECT seq FROM holds WHERE status = 'open' AND expires_at <= clock_timestamp() ORDER BY expires_at LIMIT %b::int
) h CROSS JOIN LATERAL (SELECT * FROM commands WHERE seq = h.seq LIMIT 1) c
"""
_DUE_LOTS: LiteralString = """
SELECT l.seq, l.n, l.sweeps, w.tenant_id, w.code, s.code, (SELECT count(*) FROM partitions) FROM (
    SELECT seq, n, sweeps, account_id FROM lots
    WHERE remaining > held AND expires_at <= clock_timestamp() ORDER BY expires_at LIMIT %b::int
) l JOIN accounts a ON a.id = l.account_id JOIN wallets w ON w.id = a.wallet_id JOIN assets s ON s.id = a.asset_id
"""


def enqueue_due(connection: psycopg.Connection[Any], *, limit: int = DUE_MAX) -> set[int]:
    """Put what is due into the inbox, in the caller's transaction; the partitions that have work by it."""
    with connection.cursor(binary=True) as cursor:
        due = [
            _own("expire_hold", f"hold:{seq}", seq, tenant, partition, wallet, asset)
            for seq, tenant, partition, wallet, asset in cursor.execute(_DUE_HOLDS, (limit,))
        ]
        for seq, n, sweeps, tenant, wallet, asset, partitions in cursor.execute(_DUE_LOTS, (limit,)):
            partition = partition_of(tenant, wallet, partitions)
            key = f"lot:{seq}.{n}:{sweeps}"  # a reversal may fill a lot that has expired: it expires again
            due.append(_own("expire_credits", key, seq, tenant, partition, wallet, asset, Options(lot_n=n)))
    if due:
        enqueue(connection, due)
    return {command.partition for command in due}


def _own(
    type_: str,
    key: str,
    seq: int,
    tenant_id: int,
    partition: int,
    wallet: str,
    asset: str,
    options: Options = NO_OPTIONS,
) -> NewCommand:
    return NewCommand(
        tenant_id=tenant_id,
        client_id=LEDGER_CLIENT,
        partition=partition,
        type=type_,
        idempotency_key=key,
        request_hash=OWN_REQUEST,
        wallet=wallet,
        to_wallet=None,
        asset=asset,
        amount=None,
        reference=None,
        metadata=None,
        expires_at=None,
        options=write_options(options),
        ref_seq=seq,
    )
