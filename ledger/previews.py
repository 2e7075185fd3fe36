"""What would come of a command: the drain's own decisions, on books that nobody locks, and nothing written.

`preview`: of a command that was not sent, now, as if nothing were queued. `project`: of a pending one, after all that
is queued before it. Both see one snapshot and promise nothing: the books move on
(docs/decisions/0020-cancelled-keys-and-unlocked-decisions.md).
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, LiteralString

import msgspec
import psycopg

from ledger import books, inbox
from ledger.drain import settle
from ledger.ids import Kind, parse_id
from ledger.inbox import NewCommand

# Rows of the queue that a projection looks through for those of its wallets: 5 ms. More than that before it in its
# partition is a drain's work of a third of a second: its outcome is as near as a projection.
LOOK_MAX = 2_000
DECIDE_MAX = 500  # commands that a projection decides; as many as a drain does, 15 ms of this process
UNSTORED = 2**61  # the seq of the first command that is in no inbox: what it makes is the newest of all

_SNAPSHOT: LiteralString = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
_NOW: LiteralString = "SELECT clock_timestamp()"
_QUEUE: LiteralString = """
SELECT q.seq, q.size, c.tenant_id, c.wallet, c.to_wallet, n.to_wallet
FROM (SELECT seq, size FROM pending WHERE partition = %b::smallint AND seq <= %b::bigint ORDER BY seq DESC LIMIT %b) q
CROSS JOIN LATERAL (
    (SELECT tenant_id, wallet, to_wallet, ref_seq FROM commands WHERE seq = q.seq LIMIT 1)
    UNION ALL
    SELECT tenant_id, wallet, to_wallet, ref_seq FROM commands WHERE q.size > 1 AND group_seq = q.seq
) c
LEFT JOIN LATERAL (SELECT to_wallet FROM commands WHERE seq = c.ref_seq LIMIT 1) n ON true
ORDER BY q.seq DESC
"""

_result = msgspec.json.Decoder(dict[str, Any])
_encode = msgspec.json.Encoder().encode


class Foreseen(msgspec.Struct, frozen=True):
    """An outcome that is none: as ledger.outcomes has it, without time and task."""

    status: str
    code: str
    detail: str | None
    accounts: str  # JSON text
    result: str | None  # JSON text; a lot that would be made has a `lot` of null


class Projection(msgspec.Struct, frozen=True):
    """`queued_ahead`: pending commands before it that touch a wallet of its, however indirectly; None: too many rows
    to look through. The rest is None, too, where those are too many to decide."""

    queued_ahead: int | None
    available: int | None = None  # of its wallet and asset, after it
    status: str | None = None
    code: str | None = None


def preview(connection: psycopg.Connection[Any], commands: Sequence[NewCommand]) -> list[Foreseen]:
    """What would come of one command, or of a group of them, now. `connection` is in no transaction."""
    group_seq = UNSTORED if len(commands) > 1 else None
    asked = [inbox.unstored(command, UNSTORED + n, group_seq) for n, command in enumerate(commands)]
    with _snapshot(connection) as now:
        read = books.read(connection, asked, now)
    return [
        Foreseen(status, code, detail, accounts or "[]", _without_ids(result))
        for _, status, code, detail, accounts, result in settle(read, asked).outcomes
    ]


def project(connection: psycopg.Connection[Any], *, seq: int, partition: int) -> Projection | None:
    """What will come of a pending command if nothing but time comes between. None: it is not pending any more.

    Not of a member of a group. `connection` is in no transaction.
    """
    with _snapshot(connection) as now, connection.cursor(binary=True) as cursor:
        rows = cursor.execute(_QUEUE, (partition, seq, LOOK_MAX + 1)).fetchall()
        if not rows or rows[0][0] != seq:
            return None
        if len({row[0] for row in rows}) > LOOK_MAX:
            return Projection(None)
        queued = _related(rows)
        ahead = sum(queued.values()) - 1
        if ahead >= DECIDE_MAX:
            return Projection(ahead)
        commands = inbox.load(cursor, list(queued.items()))
        read = books.read(connection, commands, now)
    (outcome,) = (outcome for outcome in settle(read, commands).outcomes if outcome[0] == seq)
    (command,) = (command for command in commands if command.seq == seq)
    account = read.accounts.get((command.tenant_id, command.wallet, command.asset, 0))
    return Projection(ahead, account.available(read.now) if account else 0, outcome[1], outcome[2])


@contextmanager
def _snapshot(connection: psycopg.Connection[Any]) -> Generator[datetime]:
    """A read-only transaction in which every statement sees the same moment; its time."""
    with connection.transaction():
        connection.execute(_SNAPSHOT)
        ((now,),) = connection.execute(_NOW).fetchall()
        yield now


def _related(rows: Sequence[tuple[int, int, int, str, str | None, str | None]]) -> dict[int, int]:
    """Of rows of the queue, the newest first, those that bear upon the first: seq → size.

    Walked backwards, each that shares a wallet brings its own other one: what came before may have paid it.
    """
    units: dict[int, set[tuple[int, str]]] = {}
    sizes: dict[int, int] = {}
    for seq, size, tenant_id, *wallets in rows:
        sizes[seq] = size
        units.setdefault(seq, set()).update((tenant_id, wallet) for wallet in wallets if wallet is not None)
    found: dict[int, int] = {}
    known = units[rows[0][0]]
    for seq, wallets in units.items():
        if not known.isdisjoint(wallets):
            known |= wallets
            found[seq] = sizes[seq]
    return found


def _without_ids(result: str | None) -> str | None:
    """Without the ids of lots that are not there."""
    if result is None:
        return None
    shown = _result.decode(result)
    for lot in shown.get("lots", ()):
        transfer = parse_id(Kind.TRANSFER, (lot["lot"] or "").partition(".")[0])
        if transfer is not None and transfer[0] >= UNSTORED:
            lot["lot"] = None
    return _encode(shown).decode()
