"""Room for every command: its options, what it refers to, its group; held credits in the journal; more system wallets.

Why: the columns are nullable or have a constant default, so that no table is rewritten; a plain spend stores NULLs.
"""

from alembic import op

from migrations.sql import read_sql

revision = "0008"
down_revision = "0007"

NEW_SYSTEM_WALLETS = ("@adjustment", "@exchange", "@expired")


def upgrade() -> None:
    op.execute("""
        ALTER TABLE commands
            ADD COLUMN options json,
            ADD COLUMN ref_seq bigint,
            ADD COLUMN group_seq bigint,
            ALTER COLUMN wallet DROP NOT NULL,
            ALTER COLUMN asset DROP NOT NULL,
            ALTER COLUMN amount DROP NOT NULL;
        CREATE INDEX ix_commands_group_seq ON commands (group_seq) WHERE group_seq IS NOT NULL;
        ALTER TABLE pending ADD COLUMN size smallint NOT NULL DEFAULT 1;
        ALTER TABLE outcomes ADD COLUMN result json;
        ALTER TABLE entries ADD COLUMN held_after bigint NOT NULL DEFAULT 0, DROP CONSTRAINT ck_entries_amount;
        ALTER TABLE accounts
            ADD COLUMN floor bigint NOT NULL DEFAULT 0,
            ADD COLUMN lots smallint NOT NULL DEFAULT 0,
            ADD COLUMN changed_at timestamptz NOT NULL DEFAULT now(),
            ADD CONSTRAINT ck_accounts_floor CHECK (floor <= 0),
            DROP CONSTRAINT ck_accounts_not_overspent,
            ADD CONSTRAINT ck_accounts_not_overspent CHECK (allow_negative OR posted - held >= floor);
        ALTER TABLE wallets
            DROP CONSTRAINT ck_wallets_status,
            ADD CONSTRAINT ck_wallets_status CHECK (status IN ('active', 'debits_frozen', 'frozen', 'closed'));
    """)
    for wallet in NEW_SYSTEM_WALLETS:
        op.execute(f"""
            INSERT INTO wallets (tenant_id, code) SELECT DISTINCT tenant_id, '{wallet}' FROM assets ORDER BY 1
            ON CONFLICT (tenant_id, code) DO NOTHING;
            INSERT INTO accounts (wallet_id, asset_id, shard, allow_negative)
            SELECT w.id, a.id, p.partition, true
            FROM wallets w JOIN assets a ON a.tenant_id = w.tenant_id CROSS JOIN partitions p
            WHERE w.code = '{wallet}' ORDER BY w.id, a.id, p.partition
        """)
    op.execute("DROP FUNCTION claim_pending(smallint[], integer, integer)")
    op.execute(read_sql("0008_claim.sql"))


def downgrade() -> None:
    op.execute("DROP FUNCTION claim_pending(smallint[], integer, integer)")
    op.execute(read_sql("0007_claim.sql"))
    names = ", ".join(f"'{wallet}'" for wallet in NEW_SYSTEM_WALLETS)
    op.execute(f"""
        DELETE FROM accounts a USING wallets w WHERE w.id = a.wallet_id AND w.code IN ({names});
        DELETE FROM wallets WHERE code IN ({names});
        ALTER TABLE wallets
            DROP CONSTRAINT ck_wallets_status,
            ADD CONSTRAINT ck_wallets_status CHECK (status IN ('active', 'frozen', 'closed'));
        ALTER TABLE accounts
            DROP CONSTRAINT ck_accounts_not_overspent,
            ADD CONSTRAINT ck_accounts_not_overspent CHECK (allow_negative OR posted - held >= 0),
            DROP CONSTRAINT ck_accounts_floor,
            DROP COLUMN changed_at, DROP COLUMN lots, DROP COLUMN floor;
        ALTER TABLE entries DROP COLUMN held_after, ADD CONSTRAINT ck_entries_amount CHECK (amount <> 0);
        ALTER TABLE outcomes DROP COLUMN result;
        ALTER TABLE pending DROP COLUMN size;
        DROP INDEX ix_commands_group_seq;
        ALTER TABLE commands
            ALTER COLUMN amount SET NOT NULL, ALTER COLUMN asset SET NOT NULL, ALTER COLUMN wallet SET NOT NULL,
            DROP COLUMN group_seq, DROP COLUMN ref_seq, DROP COLUMN options;
    """)
