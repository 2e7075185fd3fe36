"""Partitions, assets, wallets and accounts.

Why: what is owned. The number of partitions is chosen here, once (BURSAR_PARTITIONS, 8 unless set): a wallet's
partition is a hash modulo that number, so it cannot change while commands are pending.
"""

import os

from alembic import op

revision = "0002"
down_revision = "0001"

# One drain applies more than 10,000 commands/s: eight of them ask more of PostgreSQL than one server gives.
PARTITIONS_DEFAULT = 8
PARTITIONS_MAX = 256  # each asset opens a shard per partition and system wallet; past this that is only waste


def upgrade() -> None:
    count = int(os.environ.get("BURSAR_PARTITIONS") or PARTITIONS_DEFAULT)
    if not 1 <= count <= PARTITIONS_MAX:
        raise SystemExit(f"BURSAR_PARTITIONS is {count}; choose 1 to {PARTITIONS_MAX}.")
    op.execute(f"""
        CREATE TABLE partitions (partition smallint CONSTRAINT pk_partitions PRIMARY KEY);
        INSERT INTO partitions SELECT generate_series(0, {count - 1});

        CREATE TABLE assets (
            id integer GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_assets PRIMARY KEY,
            tenant_id integer NOT NULL CONSTRAINT fk_assets_tenant_id REFERENCES tenants,
            code text NOT NULL,
            name text NOT NULL,
            scale smallint NOT NULL CONSTRAINT ck_assets_scale CHECK (scale BETWEEN 0 AND 18),
            status text NOT NULL DEFAULT 'active' CONSTRAINT ck_assets_status CHECK (status IN ('active', 'frozen')),
            created_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT uq_assets_tenant_id_code UNIQUE (tenant_id, code)
        );

        CREATE TABLE wallets (
            id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_wallets PRIMARY KEY,
            tenant_id integer NOT NULL CONSTRAINT fk_wallets_tenant_id REFERENCES tenants,
            code text NOT NULL,
            status text NOT NULL DEFAULT 'active'
                CONSTRAINT ck_wallets_status CHECK (status IN ('active', 'frozen', 'closed')),
            name text,
            metadata jsonb NOT NULL DEFAULT '{{}}',
            created_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT uq_wallets_tenant_id_code UNIQUE (tenant_id, code)
        );

        -- fillfactor: balances change in place (HOT); the free space takes the next versions of a row on its own page.
        CREATE TABLE accounts (
            id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_accounts PRIMARY KEY,
            wallet_id bigint NOT NULL CONSTRAINT fk_accounts_wallet_id REFERENCES wallets,
            asset_id integer NOT NULL CONSTRAINT fk_accounts_asset_id REFERENCES assets,
            shard smallint NOT NULL DEFAULT 0,
            posted bigint NOT NULL DEFAULT 0,
            held bigint NOT NULL DEFAULT 0 CONSTRAINT ck_accounts_held CHECK (held >= 0),
            version bigint NOT NULL DEFAULT 0,
            allow_negative boolean NOT NULL DEFAULT false,
            CONSTRAINT uq_accounts_wallet_id_asset_id_shard UNIQUE (wallet_id, asset_id, shard),
            CONSTRAINT ck_accounts_not_overspent CHECK (allow_negative OR posted - held >= 0)
        ) WITH (fillfactor = 60);
    """)


def downgrade() -> None:
    op.execute("DROP TABLE accounts; DROP TABLE wallets; DROP TABLE assets; DROP TABLE partitions;")
