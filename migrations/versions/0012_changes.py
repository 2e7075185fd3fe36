"""Who changed the status or the limits of a wallet or an asset, when and why. Wallets found by their metadata.

Why: a freeze, a limit or a close that nobody can account for later is worth little. The index makes
`GET /v1/wallets?metadata=` a lookup. It is built beside the writers, outside of a transaction; a build that was cut
short leaves an invalid index behind, which the next attempt drops.
"""

from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_wallets_metadata")
        op.execute("""
            CREATE INDEX CONCURRENTLY ix_wallets_metadata ON wallets USING gin (metadata jsonb_path_ops)
            WHERE metadata <> '{}'
        """)
    op.execute("""
        CREATE TABLE changes (
            id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_changes PRIMARY KEY,
            tenant_id integer NOT NULL,
            wallet text,
            asset text,
            member text NOT NULL CONSTRAINT ck_changes_member CHECK (member IN ('status', 'limits')),
            before json,
            after json,
            reason text,
            client_id integer NOT NULL,
            key_id integer,
            seq bigint,
            at timestamptz NOT NULL DEFAULT clock_timestamp(),
            CONSTRAINT ck_changes_of CHECK (wallet IS NOT NULL OR asset IS NOT NULL)
        );
        CREATE INDEX ix_changes_wallet ON changes (tenant_id, wallet, id) WHERE wallet IS NOT NULL;
        CREATE INDEX ix_changes_asset ON changes (tenant_id, asset, id) WHERE wallet IS NULL;
        CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON changes
            FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
    """)


def downgrade() -> None:
    op.execute("DROP INDEX ix_wallets_metadata; DROP TABLE changes;")
