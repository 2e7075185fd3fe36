"""Operators: people who look on and act by hand. Who may sign in, who is signed in, and what each of them did.

One signs in with a password of one's own or with an API key. Either way there is a client behind it, whose commands
are sent: an operator with a password has one of his own, `operator: <name>` (docs/decisions/0026-the-dashboard.md).
"""

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cache
from typing import Any

import msgspec
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import Connection, Engine, RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from ledger.keys import Scope
from ledger.names import NAME_PATTERN
from ledger.tenants import DEFAULT_TENANT, find_tenant

OPERATOR_NAME_MAX = 64  # it stands in a menu, and in the name of a client
PASSWORD_MIN = 10  # characters; argon2 and the throttle of sign-ins do the rest
PASSWORD_MAX = 256  # a longer one is no stronger, only dearer to read
SESSION_LASTS_H = 12  # a shift
ACTIONS_MAX = 200  # of one page

# argon2id with the parameters of RFC 9106's second choice: 64 MiB, some 50 ms. Sign-ins are few, and one at a time.
_hasher = PasswordHasher()


@cache
def _nobodys_hash() -> str:
    return _hasher.hash(secrets.token_urlsafe())


class Role(StrEnum):
    """Stored. `operator` may act; `read_only` may look."""

    READ_ONLY = "read_only"
    OPERATOR = "operator"


# What a role opens, in the words of API keys: the dashboard asks the api's own routes.
SCOPES_OF: dict[Role, frozenset[Scope]] = {
    Role.READ_ONLY: frozenset((Scope.COMMANDS_READ, Scope.WALLETS_READ, Scope.ASSETS_READ)),
    Role.OPERATOR: frozenset(Scope),
}


# --- passwords -----------------------------------------------------------------------------------------------------


def hash_password(password: str) -> str:
    """Raises ValueError where it is too short or too long."""
    if not PASSWORD_MIN <= len(password) <= PASSWORD_MAX:
        raise ValueError(f"a password has {PASSWORD_MIN} to {PASSWORD_MAX} characters")
    return _hasher.hash(password)


def verify_password(password_hash: str | None, password: str) -> bool:
    """Takes 50 ms, whether there is such an operator (None: there is not) or not."""
    try:
        return _hasher.verify(password_hash or _nobodys_hash(), password) and password_hash is not None
    except (VerificationError, InvalidHashError):
        return False


# --- at the command line -------------------------------------------------------------------------------------------

_CLIENT = text("""
    WITH made AS (INSERT INTO clients (tenant_id, name) VALUES (:tenant_id, :name) ON CONFLICT DO NOTHING RETURNING id)
    SELECT id FROM made UNION ALL SELECT id FROM clients WHERE tenant_id = :tenant_id AND name = :name LIMIT 1
""")
_ADD = text("""
    INSERT INTO operators (tenant_id, client_id, name, password_hash, role)
    VALUES (:tenant_id, :client_id, :name, :password_hash, :role) ON CONFLICT (name) DO NOTHING RETURNING id
""")
_RENEW = text("""
    UPDATE operators SET password_hash = :password_hash, role = :role, disabled_at = NULL
    WHERE name = :name AND tenant_id = :tenant_id RETURNING id
""")
_DISABLE = text("UPDATE operators SET disabled_at = COALESCE(disabled_at, now()) WHERE name = :name RETURNING id")
_END_SESSIONS = text("DELETE FROM dashboard_sessions WHERE operator_id = :id")
_LIST = text("""
    SELECT o.name, t.code AS tenant, o.role, o.created_at, o.disabled_at
    FROM operators o JOIN tenants t ON t.id = o.tenant_id
    WHERE t.code = COALESCE(:tenant, t.code) ORDER BY t.code, o.name
""")


@dataclass(slots=True, frozen=True)
class ListedOperator:
    name: str
    tenant: str
    role: str
    created_at: datetime
    disabled_at: datetime | None


def add_operator(
    engine: Engine, *, name: str, password: str, role: Role, tenant: str = DEFAULT_TENANT, renew: bool = False
) -> None:
    """`renew`: one of that name and tenant gets the new password and role, and works again; its sessions end.

    Raises LookupError (no such tenant) or ValueError (a name or a password that cannot be, a name that is taken).
    """
    if len(name) > OPERATOR_NAME_MAX or not re.search(NAME_PATTERN, name) or name != name.strip():
        raise ValueError(f"an operator's name has 1 to {OPERATOR_NAME_MAX} characters and no control characters")
    values: dict[str, Any] = {"name": name, "password_hash": hash_password(password), "role": role.value}
    with engine.begin() as connection:
        values["tenant_id"] = tenant_id = find_tenant(connection, tenant)
        if renew and (id_ := connection.scalar(_RENEW, values)) is not None:
            connection.execute(_END_SESSIONS, {"id": id_})
            return
        values["client_id"] = _client(connection, tenant_id, name)
        if connection.scalar(_ADD, values) is None:
            raise ValueError(f"there is an operator {name!r} already")


def _client(connection: Connection, tenant_id: int, name: str) -> int:
    return connection.execute(_CLIENT, {"tenant_id": tenant_id, "name": f"operator: {name}"}).scalar_one()


def disable_operator(engine: Engine, name: str) -> None:
    """Signed out at once, and in no more. Raises LookupError where there is no such operator."""
    with engine.begin() as connection:
        id_ = connection.scalar(_DISABLE, {"name": name})
        if id_ is None:
            raise LookupError(f"no operator {name!r}")
        connection.execute(_END_SESSIONS, {"id": id_})


def list_operators(engine: Engine, *, tenant: str | None = None) -> list[ListedOperator]:
    """Every operator, of one tenant or of all."""
    with engine.connect() as connection:
        return [ListedOperator(**row) for row in connection.execute(_LIST, {"tenant": tenant}).mappings()]


_OF_TENANT = text("""
    SELECT o.name, t.code AS tenant, o.role, o.created_at, o.disabled_at
    FROM operators o JOIN tenants t ON t.id = o.tenant_id WHERE o.tenant_id = :tenant_id ORDER BY o.name LIMIT 500
""")


async def operators_of_tenant(connection: AsyncConnection, tenant_id: int) -> list[ListedOperator]:
    rows = await connection.execute(_OF_TENANT, {"tenant_id": tenant_id})
    return [ListedOperator(**row) for row in rows.mappings()]


# --- signing in ----------------------------------------------------------------------------------------------------

_PASSWORD = text("SELECT id, password_hash FROM operators WHERE name = :name AND disabled_at IS NULL")
_OPEN = text("""
    INSERT INTO dashboard_sessions (cookie_hash, operator_id, key_id, csrf, expires_at)
    VALUES (:cookie_hash, :operator_id, :key_id, :csrf, now() + :lasts)
""")
_PURGE = text("DELETE FROM dashboard_sessions WHERE expires_at < now()")
_CLOSE = text("DELETE FROM dashboard_sessions WHERE cookie_hash = :cookie_hash")
# An operator who was disabled and a key that was revoked are signed out with the next request.
_SESSION = text("""
    SELECT s.csrf, t.id AS tenant_id, t.code AS tenant, c.id AS client_id, k.id AS key_id, k.scopes, o.role,
           COALESCE(o.name, c.name || ' (' || k.prefix || '…)') AS who
    FROM dashboard_sessions s
    LEFT JOIN operators o ON o.id = s.operator_id AND o.disabled_at IS NULL
    LEFT JOIN api_keys k ON k.id = s.key_id AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
    JOIN clients c ON c.id = COALESCE(o.client_id, k.client_id) JOIN tenants t ON t.id = c.tenant_id
    WHERE s.cookie_hash = :cookie_hash AND s.expires_at > now()
""")


@dataclass(slots=True, frozen=True)
class Session:
    """Who looks at the dashboard, and what is open to him. `csrf`: what each of his forms must carry."""

    tenant_id: int
    tenant: str
    client_id: int
    key_id: int | None
    who: str
    role: Role
    scopes: frozenset[Scope]
    csrf: str

    @property
    def acts(self) -> bool:
        return self.role is Role.OPERATOR

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes or Scope.ADMIN in self.scopes


async def password_of(connection: AsyncConnection, name: str) -> tuple[int, str] | None:
    """(id, hash of the password) of the operator of this name, unless disabled."""
    row = (await connection.execute(_PASSWORD, {"name": name})).one_or_none()
    return (row.id, row.password_hash) if row else None


async def open_session(
    connection: AsyncConnection, *, operator_id: int | None = None, key_id: int | None = None
) -> str:
    """The cookie of a new session. Sessions that are over are deleted on the way."""
    cookie = secrets.token_urlsafe(32)
    values = {
        "operator_id": operator_id,
        "key_id": key_id,
        "csrf": secrets.token_urlsafe(32),
        "lasts": timedelta(hours=SESSION_LASTS_H),
    }
    await connection.execute(_PURGE)
    await connection.execute(_OPEN, {"cookie_hash": _hash(cookie), **values})
    return cookie


async def close_session(connection: AsyncConnection, cookie: str) -> None:
    await connection.execute(_CLOSE, {"cookie_hash": _hash(cookie)})


async def session_of(connection: AsyncConnection, cookie: str) -> Session | None:
    """Whose session this cookie is; None: nobody's, or no longer."""
    row = (await connection.execute(_SESSION, {"cookie_hash": _hash(cookie)})).mappings().one_or_none()
    return _session(row) if row else None


def _session(row: RowMapping) -> Session | None:
    if row["role"] is not None:
        role = Role(row["role"])
        scopes = SCOPES_OF[role]
    else:
        held = frozenset(scope for scope in Scope if scope in row["scopes"])
        found = role_of(held)
        if found is None:
            return None
        role = found
        scopes = held if role is Role.OPERATOR else held & SCOPES_OF[role]
    return Session(
        tenant_id=row["tenant_id"],
        tenant=row["tenant"],
        client_id=row["client_id"],
        key_id=row["key_id"],
        who=row["who"],
        role=role,
        scopes=scopes,
        csrf=row["csrf"],
    )


def role_of(scopes: frozenset[Scope]) -> Role | None:
    """What a key's scopes make of its holder; None: nothing, he cannot sign in."""
    if Scope.ADMIN in scopes:
        return Role.OPERATOR
    return Role.READ_ONLY if Scope.WALLETS_READ in scopes else None


def _hash(cookie: str) -> bytes:
    return hashlib.sha256(cookie.encode()).digest()


# --- what they did -------------------------------------------------------------------------------------------------

_NOTE = text("""
    INSERT INTO operator_actions (tenant_id, client_id, key_id, who, role, action, target, reason)
    VALUES (:tenant_id, :client_id, :key_id, :who, :role, :action, :target, :reason)
""")
_ACTIONS = text("""
    SELECT id, who, role, action, target, reason, at FROM operator_actions
    WHERE tenant_id = :tenant_id AND id < :before ORDER BY id DESC LIMIT :limit
""")


class Action(msgspec.Struct, frozen=True):
    id: int
    who: str
    role: str
    action: str
    target: str | None
    reason: str | None
    at: datetime


async def note_action(
    connection: AsyncConnection, session: Session, action: str, *, target: str | None, reason: str | None
) -> None:
    """Before it is done: what is not noted is not done."""
    who = {"tenant_id": session.tenant_id, "client_id": session.client_id, "key_id": session.key_id}
    what = {"who": session.who, "role": session.role.value, "action": action, "target": target, "reason": reason}
    await connection.execute(_NOTE, {**who, **what})


async def actions(
    connection: AsyncConnection, tenant_id: int, *, before: int | None = None, limit: int = ACTIONS_MAX
) -> list[Action]:
    """What the tenant's operators did, newest first. `before`: the id of the last one seen."""
    which = {"tenant_id": tenant_id, "before": before or 2**63 - 1, "limit": limit}
    return [Action(**row) for row in (await connection.execute(_ACTIONS, which)).mappings()]


# --- what the last audit found ---------------------------------------------------------------------------------------

_KEEP = text("INSERT INTO audits (at, took_ms, findings) VALUES (:at, :took_ms, CAST(:findings AS json))")
_LAST_AUDIT = text("SELECT at, took_ms, findings::text FROM audits ORDER BY id DESC LIMIT 1")


class AuditFinding(msgspec.Struct, frozen=True):
    number: int
    name: str
    checked: int
    breaches: int


class Audit(msgspec.Struct, frozen=True):
    at: datetime
    took_ms: int
    findings: list[AuditFinding]

    @property
    def holds(self) -> bool:
        return all(finding.breaches == 0 for finding in self.findings)


def keep_audit(engine: Engine, audit: Audit) -> None:
    findings = msgspec.json.encode(audit.findings).decode()
    with engine.begin() as connection:
        connection.execute(_KEEP, {"at": audit.at, "took_ms": audit.took_ms, "findings": findings})


async def last_audit(connection: AsyncConnection) -> Audit | None:
    row = (await connection.execute(_LAST_AUDIT)).one_or_none()
    if row is None:
        return None
    return Audit(row.at, row.took_ms, msgspec.json.decode(row.findings, type=list[AuditFinding]))
