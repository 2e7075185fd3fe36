"""Who did what by hand, when and why: statuses and limits of wallets and assets, commands that were requeued. A record:
it only grows."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, LiteralString

import msgspec
import psycopg
from msgspec import Struct
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

REASON_MAX = 500  # characters: a sentence or two, and a link to the case

Member = Literal["status", "limits", "requeue"]

# `at` is of the change itself: its transaction may be seconds older, having waited for the drains.
_COLUMNS: LiteralString = "tenant_id, wallet, asset, member, before, after, reason, client_id, key_id, seq"
_NOTE = text(f"""
    INSERT INTO changes ({_COLUMNS})
    VALUES (:tenant_id, :wallet, :asset, :member, CAST(:before AS json), CAST(:after AS json), :reason, :client_id,
            :key_id, :seq)
""")
_NOTE_SYNC: LiteralString = f"""
INSERT INTO changes ({_COLUMNS})
VALUES (%(tenant_id)s, %(wallet)s, %(asset)s, %(member)s, %(before)s::json, %(after)s::json, %(reason)s, %(client_id)s,
        %(key_id)s, %(seq)s)
"""


@dataclass(slots=True, frozen=True)
class By:
    """Who changes something, and why. `key_id` None: not through an API key. `client_id` LEDGER_CLIENT: an operator at
    the command line."""

    client_id: int
    key_id: int | None = None
    reason: str | None = None


def row(
    by: By,
    tenant_id: int,
    member: Member,
    before: str | None,
    after: str | None,
    *,
    wallet: str | None = None,
    asset: str | None = None,
    seq: int | None = None,
) -> dict[str, Any]:
    """A change to note. `before` and `after` are JSON text; `seq`: the command that came with it. Of a requeue
    `before` is the id of the failed command."""
    return {
        "tenant_id": tenant_id,
        "wallet": wallet,
        "asset": asset,
        "member": member,
        "before": before,
        "after": after,
        "reason": by.reason,
        "client_id": by.client_id,
        "key_id": by.key_id,
        "seq": seq,
    }


async def note(connection: AsyncConnection, row: dict[str, Any]) -> None:
    """In the transaction that makes the change."""
    await connection.execute(_NOTE, row)


def note_sync(connection: psycopg.Connection[Any], row: dict[str, Any]) -> None:
    """The same on a drain's connection."""
    connection.execute(_NOTE_SYNC, row)


def json_status(status: str) -> str:
    return msgspec.json.encode(status).decode()


# --- reading them --------------------------------------------------------------------------------------------------


class Change(Struct, frozen=True):
    """`before` and `after` are JSON text: a status, or limits as `ledger.limits` writes them (None: none)."""

    id: int
    wallet: str | None
    asset: str | None
    member: Member
    before: str | None
    after: str | None
    reason: str | None
    client: str
    key_id: int | None
    seq: int | None
    accepted_at: datetime | None  # of the command `seq`
    at: datetime


_CHANGES = """
    SELECT h.id, h.wallet, h.asset, h.member, h.before::text, h.after::text, h.reason,
           COALESCE(c.name, 'command line') AS client, h.key_id,
           h.seq, m.accepted_at, h.at
    FROM (
        SELECT * FROM changes WHERE tenant_id = :tenant_id AND {which} AND id < :before
        ORDER BY id DESC LIMIT :limit
    ) h LEFT JOIN clients c ON c.id = h.client_id LEFT JOIN commands m ON m.seq = h.seq
    ORDER BY h.id DESC
"""
_OF_WALLET = text(_CHANGES.format(which="wallet = :code"))
_OF_ASSET = text(_CHANGES.format(which="wallet IS NULL AND asset = :code"))
_NEWEST = 2**63 - 1


async def of_wallet(
    connection: AsyncConnection, tenant_id: int, code: str, *, before: int | None, limit: int
) -> list[Change]:
    """Changes of the wallet's status and limits, newest first. `before`: the id of the last one seen."""
    which = {"tenant_id": tenant_id, "code": code, "before": before or _NEWEST, "limit": limit}
    return [Change(**found) for found in (await connection.execute(_OF_WALLET, which)).mappings()]


async def of_asset(
    connection: AsyncConnection, tenant_id: int, code: str, *, before: int | None, limit: int
) -> list[Change]:
    """Changes of the asset's own status and limits, newest first."""
    which = {"tenant_id": tenant_id, "code": code, "before": before or _NEWEST, "limit": limit}
    return [Change(**found) for found in (await connection.execute(_OF_ASSET, which)).mappings()]
