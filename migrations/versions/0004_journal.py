"""Transfers and entries.

Why: the double-entry journal. Balances in `accounts` are its running totals.
"""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE transfers (
            seq bigint CONSTRAINT pk_transfers PRIMARY KEY,
            tenant_id integer NOT NULL,
            partition smallint NOT NULL,
            at timestamptz NOT NULL
        );

        CREATE TABLE entries (
            account_id bigint NOT NULL,
            version bigint NOT NULL,
            seq bigint NOT NULL,
            asset_id integer NOT NULL,
            amount bigint NOT NULL CONSTRAINT ck_entries_amount CHECK (amount <> 0),
            balance_after bigint NOT NULL,
            at timestamptz NOT NULL,
            CONSTRAINT pk_entries PRIMARY KEY (account_id, version)
        );
        CREATE INDEX ix_entries_seq ON entries (seq);
    """)


def downgrade() -> None:
    op.execute("DROP TABLE entries; DROP TABLE transfers;")
