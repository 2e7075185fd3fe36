"""Limits of assets and of accounts, each partition's share of an asset's maximum supply, the version at a time.

Why: a limit is read under the lock that guards what it bounds. The supply has no such row, and must not get one: every
partition holds a share of what may still be issued (docs/decisions/0014-shares-of-the-supply.md).
"""

from alembic import op

from migrations.sql import read_sql

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.execute("""
        ALTER TABLE assets ADD COLUMN limits json;
        ALTER TABLE accounts ADD COLUMN limits json;
        CREATE TABLE supply_shares (
            asset_id integer NOT NULL CONSTRAINT fk_supply_shares_asset_id REFERENCES assets,
            partition smallint NOT NULL,
            headroom bigint NOT NULL,
            CONSTRAINT pk_supply_shares PRIMARY KEY (asset_id, partition)
        ) WITH (fillfactor = 50);
    """)
    op.execute(read_sql("0010_version_at.sql"))


def downgrade() -> None:
    op.execute("""
        DROP FUNCTION version_at(bigint, timestamptz);
        DROP TABLE supply_shares;
        ALTER TABLE accounts DROP COLUMN limits;
        ALTER TABLE assets DROP COLUMN limits;
    """)
