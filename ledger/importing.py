"""Carrying out the lines of an export (ledger.exporting), in another tenant or another installation.

Credits and holds become commands, under keys that are derived from the export, and are accepted, decided and written in
one transaction for a batch of them, as a drain would: the journal is written by the ledger alone, and a key that is
there is not carried out again. So an import that was cut short is simply begun again. Registers are put as they are.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, LiteralString

import msgspec
import psycopg
from sqlalchemy.ext.asyncio import AsyncConnection

from ledger import closing, drain, inbox, registers
from ledger.changes import By
from ledger.commands import Options, Source, write_options
from ledger.errors import BooksMoved, BrokenInvariant
from ledger.exporting import VERSION
from ledger.ids import command_id
from ledger.inbox import OWN_REQUEST, NewCommand
from ledger.limits import Limits
from ledger.partitions import partition_of

BATCH = 500  # commands of one transaction, as many as a drain takes


class Head(msgspec.Struct, tag="export", tag_field="object"):
    version: int
    id: str
    tenant: str
    at: datetime


class Asset(msgspec.Struct, tag="asset", tag_field="object"):
    code: str
    name: str
    scale: int


class Wallet(msgspec.Struct, tag="wallet", tag_field="object"):
    id: str
    name: str | None
    metadata: dict[str, Any]


class Credit(msgspec.Struct, tag="credit", tag_field="object"):
    """`lot` None: the plain rest; below zero it is a debt."""

    wallet: str
    asset: str
    amount: str
    lot: str | None = None
    source: Source | None = None
    priority: int | None = None
    expires_at: datetime | None = None


class Hold(msgspec.Struct, tag="hold", tag_field="object"):
    id: str
    wallet: str
    asset: str
    amount: str
    expires_at: datetime
    reference: str | None = None
    metadata: dict[str, Any] | None = None


class LimitsOf(msgspec.Struct, tag="limits", tag_field="object"):
    wallet: str | None
    asset: str
    limits: Limits


class StatusOf(msgspec.Struct, tag="status", tag_field="object"):
    wallet: str | None
    asset: str | None
    status: str


class End(msgspec.Struct, tag="end", tag_field="object"):
    lines: int
    totals: dict[str, str]


Line = Head | Asset | Wallet | Credit | Hold | LimitsOf | StatusOf | End
_decoder = msgspec.json.Decoder(Line)


class Carried(msgspec.Struct, frozen=True):
    """What became of one command. `of`: the hold's id in the export, or the credit's wallet and asset."""

    of: str
    kind: str
    id: str
    new: bool
    status: str
    code: str
    detail: str | None


class Into(msgspec.Struct, frozen=True):
    """Where it goes: a tenant, and the client whose commands they are."""

    export: str
    tenant_id: int
    client_id: int
    partitions: int

    @property
    def by(self) -> By:
        return By(self.client_id, None, f"import of {self.export}")

    @property
    def prefix(self) -> str:
        """Of every key. The spaces keep clients out."""
        return f"import of {self.export} into {self.tenant_id}: "


def read(line: bytes | str) -> Line:
    """Raises ValueError where it is no line of an export that this version knows."""
    try:
        found = _decoder.decode(line)
    except msgspec.MsgspecError as error:
        raise ValueError(f"is no line of an export: {error}") from None
    if isinstance(found, Head) and found.version != VERSION:
        raise ValueError(f"is an export of version {found.version}; this one reads version {VERSION}")
    return found


_FIRST: LiteralString = """
SELECT c.idempotency_key FROM wallets w JOIN accounts a ON a.wallet_id = w.id
JOIN entries e ON e.account_id = a.id AND e.version = 1 JOIN commands c ON c.seq = e.seq
WHERE w.tenant_id = %b::int AND w.code NOT LIKE '@%%' ORDER BY a.id LIMIT 1
"""


def begin(connection: psycopg.Connection[Any], into: Into) -> None:
    """Raises ValueError where the tenant has a history that is not this import's: its balances would be doubled."""
    first = connection.execute(_FIRST, (into.tenant_id,)).fetchone()
    if first is not None and not first[0].startswith(into.prefix):
        raise ValueError("the tenant has balances that are not of this export; import into a new one")


def command(into: Into, line: Credit | Hold) -> NewCommand:
    """A plain credit is an adjustment; one in a lot is a top-up or a bonus, which make lots."""
    amount = int(line.amount)
    reference = metadata = None
    match line:
        case Hold():
            kind, name = "hold", line.id
            options = Options(hold_expires_at=line.expires_at)
            reference = line.reference
            metadata = msgspec.json.encode(line.metadata).decode() if line.metadata else None
        case Credit(lot=None):
            kind, name = "adjust", f"{line.wallet} {line.asset}"
            options = Options(reason=f"import of {into.export}")
        case Credit():
            kind, name = "top_up" if line.source == "purchased" else "bonus", str(line.lot)
            options = Options(credits_expire_at=line.expires_at, priority=line.priority, source=line.source)
    return NewCommand(
        tenant_id=into.tenant_id,
        client_id=into.client_id,
        partition=partition_of(into.tenant_id, line.wallet, into.partitions),
        type=kind,
        idempotency_key=into.prefix + name,
        request_hash=OWN_REQUEST,
        wallet=line.wallet,
        to_wallet=None,
        asset=line.asset,
        amount=amount,
        reference=reference,
        metadata=metadata,
        expires_at=None,
        options=write_options(options),
    )


_OUTCOMES: LiteralString = """
SELECT c.seq, c.accepted_at, c.idempotency_key, c.type, c.wallet, c.asset, o.status, o.code, o.detail
FROM unnest(%b::text[]) WITH ORDINALITY AS k (idempotency_key, n)
JOIN commands c ON c.client_id = %b::int AND c.idempotency_key = k.idempotency_key
JOIN outcomes o USING (seq) ORDER BY k.n
"""


def carry_out(connection: psycopg.Connection[Any], into: Into, batch: Sequence[NewCommand]) -> list[Carried]:
    """Accept, decide and write those that are new, in one transaction; what became of each, in order.

    `connection` is in no transaction. Waits for the drains of the partitions. Raises psycopg.errors.LockNotAvailable.
    """
    while True:
        try:
            with connection.transaction():
                seqs = inbox.enqueue(connection, batch)
                if seqs:
                    with connection.cursor(binary=True) as cursor:
                        commands = inbox.load(cursor, [(seq, 1) for seq in seqs])
                    claim = inbox.reclaim(connection, commands)
                    if claim is None or len(claim.commands) != len(seqs):
                        raise BrokenInvariant(f"{len(seqs)} commands were queued and are not there")
                    drain.apply(connection, claim, task_id=None)
                rows = connection.execute(_OUTCOMES, ([each.idempotency_key for each in batch], into.client_id))
                new = set(seqs)
                return [_carried(into, new, *row) for row in rows]
        except BooksMoved:  # another drain has just opened an account of these wallets
            continue


def _carried(
    into: Into,
    new: set[int],
    seq: int,
    accepted_at: datetime,
    key: str,
    kind: str,
    wallet: str,
    asset: str,
    status: str,
    code: str,
    detail: str | None,
) -> Carried:
    of = key.removeprefix(into.prefix) if kind == "hold" else f"{wallet} {asset}"
    return Carried(of, kind, command_id(seq, accepted_at), seq in new, status, code, detail)


async def register(connection: AsyncConnection, into: Into, line: Asset | Wallet | LimitsOf | StatusOf) -> None:
    """Put a register as the line says, in the caller's transaction. Raises ValueError where it cannot be so."""
    try:
        match line:
            case Asset():
                await registers.create_asset(
                    connection, into.tenant_id, code=line.code, name=line.name, scale=line.scale
                )
            case Wallet():
                metadata = msgspec.json.encode(line.metadata).decode()
                await registers.put_wallet(connection, into.tenant_id, line.id, name=line.name, metadata=metadata)
            case LimitsOf(wallet=None):
                await registers.set_asset_limits(connection, into.tenant_id, line.asset, line.limits, by=into.by)
            case LimitsOf():
                assert line.wallet is not None
                await registers.set_wallet_limits(
                    connection, into.tenant_id, line.wallet, line.asset, line.limits, by=into.by
                )
            case StatusOf(wallet=None):
                assert line.asset is not None
                if line.status == "frozen":
                    await registers.set_asset_status(connection, into.tenant_id, line.asset, "frozen", by=into.by)
            case StatusOf(status="frozen" | "debits_frozen"):
                assert line.wallet is not None
                status: registers.WalletStatus = "frozen" if line.status == "frozen" else "debits_frozen"
                await registers.set_wallet_status(connection, into.tenant_id, line.wallet, status, by=into.by)
            case _:
                raise ValueError(f"status {line.status!r} is unknown here")
    except registers.AssetExists:
        raise ValueError(f"the tenant has another asset {getattr(line, 'code', '')!r}") from None
    except registers.WalletClosed:
        return  # by an import before


def close(connection: psycopg.Connection[Any], into: Into, wallet: str) -> None:
    """Raises ValueError where something is left in it."""
    try:
        closing.close(connection, into.tenant_id, wallet, sweep_to=None, by=into.by)
    except closing.Refusal as refusal:
        raise ValueError(f"wallet {wallet} cannot be closed: {refusal}") from None
