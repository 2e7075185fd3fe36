"""The registers that operators and callers change by hand: assets, wallets and their status.

A change of status is *sharp*: once it is answered, no drain applies a command against it. Drains read a status under
their partition's lock (ledger.inbox), so a status changes under the locks of all partitions: it waits for the drains
under way, a second at most, and those that come meanwhile turn away. Ring every doorbell after the commit.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from ledger.commands import SYSTEM_WALLETS
from ledger.inbox import PARTITION_LOCKS

SCALE_MAX = 18  # decimal places: as many digits as the largest amount has

Status = Literal["active", "frozen"]


@dataclass(slots=True, frozen=True)
class Asset:
    code: str
    name: str
    scale: int
    status: str
    created_at: datetime


class AssetExists(Exception):
    """The tenant has another asset under this code."""


class WalletClosed(Exception):
    """A closed wallet stays as it is."""


_ASSET_COLUMNS = "code, name, scale, status, created_at"
_FIND_ASSET = text(f"SELECT {_ASSET_COLUMNS} FROM assets WHERE tenant_id = :tenant_id AND code = :code")
_NEW_ASSET = text(f"""
    INSERT INTO assets (tenant_id, code, name, scale) VALUES (:tenant_id, :code, :name, :scale)
    ON CONFLICT (tenant_id, code) DO NOTHING RETURNING {_ASSET_COLUMNS}
""")
_NEW_SYSTEM_WALLETS = text("""
    INSERT INTO wallets (tenant_id, code) SELECT :tenant_id, code FROM unnest(CAST(:codes AS text[])) AS code
    ORDER BY code ON CONFLICT (tenant_id, code) DO NOTHING
""")
_NEW_SHARDS = text("""
    INSERT INTO accounts (wallet_id, asset_id, shard, allow_negative)
    SELECT w.id, a.id, p.partition, true
    FROM wallets w JOIN assets a ON a.tenant_id = w.tenant_id CROSS JOIN partitions p
    WHERE w.tenant_id = :tenant_id AND w.code = ANY(:codes) AND a.code = :code
    ORDER BY w.code, p.partition
""")


async def create_asset(
    connection: AsyncConnection, tenant_id: int, *, code: str, name: str, scale: int
) -> tuple[Asset, bool]:
    """The asset and whether it is new, with an account in every system wallet: a shard per partition.

    Asking again for the same asset finds it. Raises AssetExists where its name or scale is another.
    """
    wanted = {"tenant_id": tenant_id, "code": code, "name": name, "scale": scale}
    created = (await connection.execute(_NEW_ASSET, wanted)).mappings().one_or_none()
    if created is None:
        found = (await connection.execute(_FIND_ASSET, {"tenant_id": tenant_id, "code": code})).mappings().one()
        if (found["name"], found["scale"]) != (name, scale):
            raise AssetExists
        return _asset(found), False
    codes = list(SYSTEM_WALLETS)
    await connection.execute(_NEW_SYSTEM_WALLETS, {"tenant_id": tenant_id, "codes": codes})
    await connection.execute(_NEW_SHARDS, {"tenant_id": tenant_id, "codes": codes, "code": code})
    return _asset(created), True


_SET_ASSET_STATUS = text(f"""
    UPDATE assets SET status = :status WHERE tenant_id = :tenant_id AND code = :code RETURNING {_ASSET_COLUMNS}
""")


async def set_asset_status(connection: AsyncConnection, tenant_id: int, code: str, status: Status) -> Asset | None:
    """Freeze or unfreeze; sharp. None: no such asset. An asset that has the status already is left alone."""
    key = {"tenant_id": tenant_id, "code": code}
    found = (await connection.execute(_FIND_ASSET, key)).mappings().one_or_none()
    if found is None or found["status"] == status:
        return _asset(found) if found else None
    await _stop_drains(connection)
    return _asset((await connection.execute(_SET_ASSET_STATUS, {**key, "status": status})).mappings().one())


def _asset(row: RowMapping) -> Asset:
    return Asset(**row)


_PUT_WALLET = text("""
    INSERT INTO wallets (tenant_id, code, name, metadata) VALUES (:tenant_id, :code, :name, CAST(:metadata AS jsonb))
    ON CONFLICT (tenant_id, code) DO UPDATE SET name = EXCLUDED.name, metadata = EXCLUDED.metadata
    RETURNING xmax = 0  -- a row that was there carries the mark of its update
""")


async def put_wallet(
    connection: AsyncConnection, tenant_id: int, code: str, *, name: str | None, metadata: str
) -> bool:
    """Create the wallet, or replace its name and metadata (JSON text); whether it is new. Its status stays."""
    values = {"tenant_id": tenant_id, "code": code, "name": name, "metadata": metadata}
    return (await connection.execute(_PUT_WALLET, values)).scalar_one()


_FIND_WALLET = text("SELECT status FROM wallets WHERE tenant_id = :tenant_id AND code = :code")
_SET_WALLET_STATUS = text("""
    UPDATE wallets SET status = :status
    WHERE tenant_id = :tenant_id AND code = :code AND status <> 'closed' RETURNING status
""")


async def set_wallet_status(connection: AsyncConnection, tenant_id: int, code: str, status: Status) -> bool:
    """Freeze or unfreeze; sharp. False: no such wallet. Raises WalletClosed.

    A wallet that has the status already is left alone.
    """
    key = {"tenant_id": tenant_id, "code": code}
    found = (await connection.execute(_FIND_WALLET, key)).scalar_one_or_none()
    if found is None or found == status:
        return found is not None
    await _stop_drains(connection)
    changed = await connection.execute(_SET_WALLET_STATUS, {**key, "status": status})
    if changed.scalar_one_or_none() is None:
        raise WalletClosed
    return True


_STOP_DRAINS = text("""
    SELECT count(pg_advisory_xact_lock(:space, partition))
    FROM (SELECT partition::integer FROM partitions ORDER BY partition) AS in_order
""")


async def _stop_drains(connection: AsyncConnection) -> None:
    """Every partition's lock, in one order, until the transaction ends. Waits for the drains that are under way."""
    await connection.execute(_STOP_DRAINS, {"space": PARTITION_LOCKS})
