"""The registers that operators and callers change by hand: assets, wallets, their status and their limits.

A change of status or of an asset's limits is *sharp*: once it is answered, no drain applies a command against it.
Drains read both under their partition's lock (ledger.inbox), so they change under the locks of all partitions: a
change waits for the drains under way, a second at most, and those that come meanwhile turn away. Ring every doorbell
after the commit. A wallet's own limits stand on its account's row and change under that row's lock. Each change is
noted in the same transaction (ledger.changes).
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from ledger import changes
from ledger.changes import By
from ledger.commands import SYSTEM_WALLETS
from ledger.inbox import PARTITION_LOCKS
from ledger.limits import Limits, combine, read_limits, write_limits

SCALE_MAX = 18  # decimal places: as many digits as the largest amount has

AssetStatus = Literal["active", "frozen"]
WalletStatus = Literal["active", "debits_frozen", "frozen"]


@dataclass(slots=True, frozen=True)
class Asset:
    code: str
    name: str
    scale: int
    status: str
    created_at: datetime
    limits: Limits | None = None


class AssetExists(Exception):
    """The tenant has another asset under this code."""


class WalletClosed(Exception):
    """A closed wallet stays as it is."""


ASSET_COLUMNS = "code, name, scale, status, created_at, limits::text"
_FIND_ASSET = text(f"SELECT {ASSET_COLUMNS} FROM assets WHERE tenant_id = :tenant_id AND code = :code")
_NEW_ASSET = text(f"""
    INSERT INTO assets (tenant_id, code, name, scale) VALUES (:tenant_id, :code, :name, :scale)
    ON CONFLICT (tenant_id, code) DO NOTHING RETURNING {ASSET_COLUMNS}
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
    created = (await connection.execute(_NEW_ASSET, wanted)).one_or_none()
    if created is None:
        found = asset_of(*(await connection.execute(_FIND_ASSET, {"tenant_id": tenant_id, "code": code})).one())
        if (found.name, found.scale) != (name, scale):
            raise AssetExists
        return found, False
    codes = list(SYSTEM_WALLETS)
    await connection.execute(_NEW_SYSTEM_WALLETS, {"tenant_id": tenant_id, "codes": codes})
    await connection.execute(_NEW_SHARDS, {"tenant_id": tenant_id, "codes": codes, "code": code})
    return asset_of(*created), True


_SET_ASSET_STATUS = text(f"""
    UPDATE assets SET status = :status WHERE tenant_id = :tenant_id AND code = :code RETURNING {ASSET_COLUMNS}
""")


async def set_asset_status(
    connection: AsyncConnection, tenant_id: int, code: str, status: AssetStatus, *, by: By
) -> Asset | None:
    """Freeze or unfreeze; sharp. None: no such asset. An asset that has the status already is left alone."""
    key = {"tenant_id": tenant_id, "code": code}
    found = (await connection.execute(_FIND_ASSET, key)).one_or_none()
    if found is None or found.status == status:
        return asset_of(*found) if found else None
    await _stop_drains(connection)
    before = (await connection.execute(_FIND_ASSET, key)).one().status
    changed = (await connection.execute(_SET_ASSET_STATUS, {**key, "status": status})).one()
    if before != status:
        told = changes.json_status(before), changes.json_status(status)
        await changes.note(connection, changes.row(by, tenant_id, "status", *told, asset=code))
    return asset_of(*changed)


def asset_of(code: str, name: str, scale: int, status: str, created_at: datetime, limits: str | None) -> Asset:
    """From a row of ASSET_COLUMNS."""
    return Asset(code, name, scale, status, created_at, read_limits(limits) if limits else None)


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
_SET_WALLET_STATUS = text("UPDATE wallets SET status = :status WHERE tenant_id = :tenant_id AND code = :code")


async def set_wallet_status(
    connection: AsyncConnection, tenant_id: int, code: str, status: WalletStatus, *, by: By
) -> bool:
    """Freeze, freeze the debits alone, or unfreeze; sharp. False: no such wallet. Raises WalletClosed.

    A wallet that has the status already is left alone.
    """
    key = {"tenant_id": tenant_id, "code": code}
    found = (await connection.execute(_FIND_WALLET, key)).scalar_one_or_none()
    if found is None or found == status:
        return found is not None
    await _stop_drains(connection)
    before = (await connection.execute(_FIND_WALLET, key)).scalar_one()  # nobody changes it but under these locks
    if before == "closed":
        raise WalletClosed
    if before != status:
        await connection.execute(_SET_WALLET_STATUS, {**key, "status": status})
        told = changes.json_status(before), changes.json_status(status)
        await changes.note(connection, changes.row(by, tenant_id, "status", *told, wallet=code))
    return True


# --- limits --------------------------------------------------------------------------------------------------------

_SET_ASSET_LIMITS = text(f"""
    UPDATE assets SET limits = CAST(:limits AS json) WHERE tenant_id = :tenant_id AND code = :code
    RETURNING id, {ASSET_COLUMNS}
""")
_CLEAR_SHARES = text("DELETE FROM supply_shares WHERE asset_id = :asset_id")
# Evenly, what is left over on the first ones; all together may be below zero (PostgreSQL's % has the dividend's sign).
_SHARE_OUT = text("""
    WITH total AS (
        SELECT CAST(:max_supply AS bigint) + (
            SELECT COALESCE(sum(a.posted), 0)::bigint FROM accounts a JOIN wallets w ON w.id = a.wallet_id
            WHERE a.asset_id = :asset_id AND w.tenant_id = :tenant_id AND w.code = ANY(:ours)
        ) AS headroom, (SELECT count(*) FROM partitions) AS n
    ), each AS (
        SELECT headroom, n, (headroom % n + n) % n AS over FROM total
    )
    INSERT INTO supply_shares (asset_id, partition, headroom)
    SELECT :asset_id, p.partition,
           (each.headroom - each.over) / each.n
           + CASE WHEN row_number() OVER (ORDER BY p.partition) <= each.over THEN 1 ELSE 0 END
    FROM partitions p CROSS JOIN each
""")


async def set_asset_limits(
    connection: AsyncConnection, tenant_id: int, code: str, limits: Limits | None, *, by: By
) -> Asset | None:
    """Replace the asset's limits; None: it has none from now on. Sharp. None is answered where there is no such asset.

    A maximum supply below what circulates is taken: nothing is issued until it has fallen.
    """
    key = {"tenant_id": tenant_id, "code": code}
    wanted = write_limits(limits) if limits else None
    found = (await connection.execute(_FIND_ASSET, key)).one_or_none()
    if found is None or found.limits == wanted:
        return asset_of(*found) if found else None
    await _stop_drains(connection)
    before = (await connection.execute(_FIND_ASSET, key)).one().limits
    asset_id, *changed = (await connection.execute(_SET_ASSET_LIMITS, {**key, "limits": wanted})).one()
    await connection.execute(_CLEAR_SHARES, {"asset_id": asset_id})
    if limits and limits.max_supply is not None:
        share = {"tenant_id": tenant_id, "asset_id": asset_id, "max_supply": limits.max_supply}
        await connection.execute(_SHARE_OUT, {**share, "ours": list(SYSTEM_WALLETS)})
    if before != wanted:
        await changes.note(connection, changes.row(by, tenant_id, "limits", before, wanted, asset=code))
    return asset_of(*changed)


@dataclass(slots=True, frozen=True)
class WalletLimits:
    """A wallet's limits in one asset: its own, and what holds with the asset's."""

    own: Limits | None
    in_force: Limits


_FIND_BOTH = text("""
    SELECT w.id AS wallet_id, w.status, s.id AS asset_id, s.limits::text AS of_asset, a.limits::text AS own
    FROM wallets w LEFT JOIN assets s ON s.tenant_id = w.tenant_id AND s.code = :asset
    LEFT JOIN accounts a ON a.wallet_id = w.id AND a.asset_id = s.id
    WHERE w.tenant_id = :tenant_id AND w.code = :wallet
""")
_OPEN_ACCOUNT = text("""
    INSERT INTO accounts (wallet_id, asset_id) VALUES (:wallet_id, :asset_id)
    ON CONFLICT (wallet_id, asset_id, shard) DO NOTHING
""")
_LOCK_ACCOUNT = text("""
    SELECT id, limits::text FROM accounts WHERE wallet_id = :wallet_id AND asset_id = :asset_id FOR UPDATE
""")
_SET_LIMITS = text("UPDATE accounts SET limits = CAST(:limits AS json) WHERE id = :id")


class NoSuch(Exception):
    """The tenant has none of that name; the argument says of what: `wallet` or `asset`."""


async def wallet_limits(connection: AsyncConnection, tenant_id: int, wallet: str, asset: str) -> WalletLimits:
    """Raises NoSuch."""
    return _wallet_limits(await _find_both(connection, tenant_id, wallet, asset))


async def set_wallet_limits(
    connection: AsyncConnection, tenant_id: int, wallet: str, asset: str, limits: Limits | None, *, by: By
) -> WalletLimits:
    """Replace the wallet's own limits in this asset; None: the asset's alone hold from now on. Sharp: it waits for the
    drain that has the account, if one has. A wallet without an account in the asset gets one, at zero.

    Raises NoSuch or WalletClosed.
    """
    found = await _find_both(connection, tenant_id, wallet, asset)
    if found["status"] == "closed":
        raise WalletClosed
    wanted = write_limits(limits) if limits else None
    if found["own"] != wanted:
        account = {"wallet_id": found["wallet_id"], "asset_id": found["asset_id"]}
        await connection.execute(_OPEN_ACCOUNT, account)
        before = (await connection.execute(_LOCK_ACCOUNT, account)).one()
        await connection.execute(_SET_LIMITS, {"id": before.id, "limits": wanted})
        if before.limits != wanted:
            row = changes.row(by, tenant_id, "limits", before.limits, wanted, wallet=wallet, asset=asset)
            await changes.note(connection, row)
    return _wallet_limits({**found, "own": wanted})


async def _find_both(connection: AsyncConnection, tenant_id: int, wallet: str, asset: str) -> dict[str, Any]:
    which = {"tenant_id": tenant_id, "wallet": wallet, "asset": asset}
    found = (await connection.execute(_FIND_BOTH, which)).mappings().one_or_none()
    if found is None:
        raise NoSuch("wallet")
    if found["asset_id"] is None:
        raise NoSuch("asset")
    return dict(found)


def _wallet_limits(found: dict[str, Any]) -> WalletLimits:
    own = read_limits(found["own"]) if found["own"] else None
    of_asset = read_limits(found["of_asset"]) if found["of_asset"] else None
    return WalletLimits(own, combine(of_asset, own))


_STOP_DRAINS = text("""
    SELECT count(pg_advisory_xact_lock(:space, partition))
    FROM (SELECT partition::integer FROM partitions ORDER BY partition) AS in_order
""")


async def _stop_drains(connection: AsyncConnection) -> None:
    """Every partition's lock, in one order, until the transaction ends. Waits for the drains that are under way."""
    await connection.execute(_STOP_DRAINS, {"space": PARTITION_LOCKS})
