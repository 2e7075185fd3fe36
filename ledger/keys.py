"""API keys: `bursar_<env>_<random>_<checksum>`, shown once, stored as SHA-256.

The random part has 256 bits, so a plain hash is enough: there is nothing to guess. The checksum tells a typing error,
or a string that merely looks like a key, without a lookup; scanners for leaked keys use it too.
"""

import hashlib
import re
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from zlib import crc32

from sqlalchemy import ColumnElement, Connection, Engine, bindparam, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from ledger.names import NAME_MAX, NAME_PATTERN
from ledger.tables import api_keys, clients
from ledger.tenants import DEFAULT_TENANT, find_tenant


class Scope(StrEnum):
    """What a key may do. Clients of the api read these: renaming one locks keys out."""

    COMMANDS_WRITE = "commands:write"
    COMMANDS_READ = "commands:read"
    WALLETS_READ = "wallets:read"
    WALLETS_WRITE = "wallets:write"
    ASSETS_READ = "assets:read"
    ASSETS_WRITE = "assets:write"
    WEBHOOKS_MANAGE = "webhooks:manage"
    ADMIN = "admin"


SCOPES: dict[Scope, str] = {
    Scope.COMMANDS_WRITE: "post commands, and read the answer to one's own post",
    Scope.COMMANDS_READ: "read the tenant's commands and outcomes; by idempotency key, one's own",
    Scope.WALLETS_READ: "read wallets, balances, entries and transfers",
    Scope.WALLETS_WRITE: "create, rename, freeze, unfreeze, limit and close wallets",
    Scope.ASSETS_READ: "read assets and their supply",
    Scope.ASSETS_WRITE: "create, freeze, unfreeze and limit assets",
    Scope.WEBHOOKS_MANAGE: "manage webhook endpoints and deliveries",
    Scope.ADMIN: "everything above, corrections of the books, and requeuing what failed",
}

RANDOM_LENGTH = 43  # base-62 digits that hold 256 bits
CHECKSUM_LENGTH = 6  # base-62 digits that hold a CRC-32
PREFIX_LENGTH = 8  # random characters kept to recognise a key by: 48 bits, of no use to an attacker
USE_RECORDED_EVERY = timedelta(minutes=1)  # a row written per key and minute, not per request

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_KEY = re.compile(rf"(bursar_[a-z]{{1,12}}_[0-9A-Za-z]{{{RANDOM_LENGTH}}})_([0-9A-Za-z]{{{CHECKSUM_LENGTH}}})")


def is_well_formed(key: str) -> bool:
    """Whether this can be a key at all: its shape and its checksum. Costs microseconds, asks nobody."""
    match = _KEY.fullmatch(key)
    return match is not None and match[2] == _checksum(match[1])


def key_hash(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def new_key(env: str) -> str:
    body = f"bursar_{env}_{_base62(secrets.randbits(256), RANDOM_LENGTH)}"
    return f"{body}_{_checksum(body)}"


def _checksum(body: str) -> str:
    return _base62(crc32(body.encode()), CHECKSUM_LENGTH)


def _base62(number: int, length: int) -> str:
    digits: list[str] = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))


# --- at the command line -----------------------------------------------------------------------------------------


def create_key(
    engine: Engine,
    *,
    env: str,
    client: str,
    scopes: Collection[Scope],
    tenant: str = DEFAULT_TENANT,
    expires_at: datetime | None = None,
) -> str:
    """The new key, which nobody can show again. The client is created where the tenant has none of that name.

    Raises LookupError (no such tenant) or ValueError (a name or an environment that cannot be).
    """
    if not re.fullmatch(r"[a-z]{1,12}", env):
        raise ValueError(f"{env!r} is no environment: 1 to 12 lower-case letters")
    if len(client) > NAME_MAX or not re.search(NAME_PATTERN, client):
        raise ValueError(f"a client's name has 1 to {NAME_MAX} characters and no control characters")
    if not scopes:
        raise ValueError("a key without scopes opens nothing")
    with engine.begin() as connection:
        tenant_id = find_tenant(connection, tenant)
        connection.execute(insert(clients).values(tenant_id=tenant_id, name=client).on_conflict_do_nothing())
        by_name = select(clients.c.id).where(clients.c.tenant_id == tenant_id, clients.c.name == client)
        return _store(connection, env, connection.scalars(by_name).one(), sorted(scopes), expires_at)


def rotate_key(engine: Engine, key_id: int, *, overlap: timedelta) -> str:
    """A new key with the client, scopes and expiry of another, which goes on working for `overlap` and no longer.

    Raises LookupError where there is no such key, or it is revoked or expired already.
    """
    with engine.begin() as connection:
        found = connection.execute(
            select(api_keys.c.client_id, api_keys.c.scopes, api_keys.c.expires_at, api_keys.c.prefix)
            .where(api_keys.c.id == key_id, _alive())
            .with_for_update()
        ).one_or_none()
        if found is None:
            raise LookupError(f"no key {key_id} that still works")
        ends = func.least(api_keys.c.expires_at, func.now() + overlap)  # LEAST passes over a NULL
        connection.execute(update(api_keys).where(api_keys.c.id == key_id).values(expires_at=ends))
        return _store(connection, found.prefix.split("_")[1], found.client_id, found.scopes, found.expires_at)


def revoke_key(engine: Engine, key_id: int) -> None:
    """The key stops working: at once in the books, within the api's cache time (api.auth) everywhere.

    Raises LookupError where there is no such key. Revoking twice is revoking once.
    """
    with engine.begin() as connection:
        revoked = update(api_keys).where(api_keys.c.id == key_id)
        revoked = revoked.values(revoked_at=func.coalesce(api_keys.c.revoked_at, func.now()))
        if connection.execute(revoked).rowcount == 0:
            raise LookupError(f"no key {key_id}")


@dataclass(slots=True, frozen=True)
class ListedKey:
    """What an operator sees of a key: never the key, of which only the prefix is known."""

    id: int
    tenant: str
    client: str
    prefix: str
    scopes: list[str]
    works: bool
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


_LISTED = """
    SELECT k.id, t.code AS tenant, c.name AS client, k.prefix, k.scopes,
           k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now()) AS works,
           k.created_at, k.expires_at, k.revoked_at, k.last_used_at
    FROM api_keys k JOIN clients c ON c.id = k.client_id JOIN tenants t ON t.id = c.tenant_id
"""
_LIST = text(f"{_LISTED} WHERE t.code = COALESCE(:tenant, t.code) ORDER BY k.id")


def list_keys(engine: Engine, *, tenant: str | None = None) -> list[ListedKey]:
    """Every key, of one tenant or of all, oldest first."""
    with engine.connect() as connection:
        return [ListedKey(**row) for row in connection.execute(_LIST, {"tenant": tenant}).mappings()]


_OF_TENANT = text(f"""{_LISTED} WHERE c.tenant_id = :tenant_id ORDER BY k.id DESC LIMIT :limit""")
KEYS_SHOWN_MAX = 500


async def keys_of_tenant(connection: AsyncConnection, tenant_id: int) -> list[ListedKey]:
    """The tenant's keys, the newest first, KEYS_SHOWN_MAX of them at the most."""
    rows = await connection.execute(_OF_TENANT, {"tenant_id": tenant_id, "limit": KEYS_SHOWN_MAX})
    return [ListedKey(**row) for row in rows.mappings()]


def _store(connection: Connection, env: str, client_id: int, scopes: Sequence[str], expires_at: datetime | None) -> str:
    key = new_key(env)
    prefix = key[: len(f"bursar_{env}_") + PREFIX_LENGTH]
    row = {"client_id": client_id, "prefix": prefix, "key_hash": key_hash(key), "scopes": list(map(str, scopes))}
    connection.execute(insert(api_keys).values(**row, expires_at=expires_at))
    return key


def _alive() -> ColumnElement[bool]:
    return api_keys.c.revoked_at.is_(None) & or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > func.now())


# --- in the api --------------------------------------------------------------------------------------------------


@dataclass(slots=True, frozen=True)
class KnownKey:
    """A key that works, and for how many seconds it will (None: until it is revoked)."""

    key_id: int
    client_id: int
    tenant_id: int
    scopes: frozenset[Scope]
    expires_in_s: float | None


_FIND = (
    select(
        api_keys.c.id,
        api_keys.c.client_id,
        clients.c.tenant_id,
        api_keys.c.scopes,
        func.extract("epoch", api_keys.c.expires_at - func.now()).label("expires_in_s"),
    )
    .join(clients, clients.c.id == api_keys.c.client_id)
    .where(api_keys.c.key_hash == bindparam("key_hash"), _alive())
)


async def find_key(connection: AsyncConnection, hash_: bytes) -> KnownKey | None:
    """The key of this hash; None where there is none, or it is revoked or expired."""
    row = (await connection.execute(_FIND, {"key_hash": hash_})).one_or_none()
    if row is None:
        return None
    # A scope that this version does not know (a newer one granted it) opens nothing here.
    scopes = frozenset(scope for scope in Scope if scope in row.scopes)
    expires_in_s = None if row.expires_in_s is None else float(row.expires_in_s)
    return KnownKey(row.id, row.client_id, row.tenant_id, scopes, expires_in_s)


_RECORD_USE = text("""
    UPDATE api_keys SET last_used_at = now()
    WHERE id = ANY(:ids) AND (last_used_at IS NULL OR last_used_at <= now() - CAST(:every AS interval))
""")


async def record_use(connection: AsyncConnection, key_ids: Collection[int]) -> None:
    """Note that these keys were used just now; a key noted less than a minute ago stays as it is."""
    await connection.execute(_RECORD_USE, {"ids": sorted(key_ids), "every": USE_RECORDED_EVERY})
