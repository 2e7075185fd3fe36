"""Tenants: a game, a title, an environment. Made by an operator at the command line, never over HTTP."""

import re

from sqlalchemy import Connection, Engine
from sqlalchemy.dialects.postgresql import insert

from ledger.names import TENANT_PATTERN
from ledger.tables import tenants

DEFAULT_TENANT = "default"  # in every database from its first migration


def create_tenant(engine: Engine, code: str) -> int:
    """The tenant's id; one that exists stays as it is. Its system wallets come with its first asset.

    Raises ValueError where `code` is not lower-case letters, digits and hyphens.
    """
    if not re.search(TENANT_PATTERN, code):
        raise ValueError(f"{code!r} is no tenant code: 1 to 63 lower-case letters, digits and hyphens, a letter first")
    with engine.begin() as connection:
        connection.execute(insert(tenants).values(code=code).on_conflict_do_nothing())
        return find_tenant(connection, code)


def find_tenant(connection: Connection, code: str) -> int:
    """The tenant's id. Raises LookupError where there is none."""
    found = connection.scalar(tenants.select().with_only_columns(tenants.c.id).where(tenants.c.code == code))
    if found is None:
        raise LookupError(f"no tenant {code!r}")
    return found
