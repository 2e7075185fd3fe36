"""How alembic reaches the database: one transaction per migration, and never a long wait for a table's lock.

A migration that cannot get its lock within LOCK_TIMEOUT fails and changes nothing: a queue of statements behind
an ALTER TABLE that waits would be an outage. Run it again at a calmer moment.
"""

import os

from alembic import context
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from ledger.db import sqlalchemy_url
from ledger.tables import metadata

LOCK_TIMEOUT = "4s"  # longer than any drain holds a lock, shorter than a client's patience
STATEMENT_TIMEOUT = "15min"  # building an index on a large table takes minutes; nothing here should take longer
MIGRATION_LOCK = 0x62757273  # one migration at a time, whoever starts them


def run() -> None:
    url = context.config.attributes.get("url") or os.environ.get("BURSAR_DATABASE_URL")
    if not url:
        raise SystemExit("Set BURSAR_DATABASE_URL to the database to migrate.")
    engine = create_engine(sqlalchemy_url(url), poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": MIGRATION_LOCK})
        connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
        connection.execute(text(f"SET statement_timeout = '{STATEMENT_TIMEOUT}'"))
        connection.commit()
        context.configure(
            connection=connection, target_metadata=metadata, transaction_per_migration=True, compare_type=True
        )
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


run()
