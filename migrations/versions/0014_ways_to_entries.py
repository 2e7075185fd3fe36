"""Commands found by their reference and by their metadata, for the filters of a wallet's entries.

Why: a walk over a long history finds what is rare late. Both indexes are partial, so a command without a reference or
metadata pays nothing; the pending list of the second is kept short, because every search reads it. They are built
beside the writers, outside of a transaction; a build that was cut short leaves an invalid index behind, which the next
attempt drops (docs/decisions/0018-a-time-is-a-version.md).
"""

from alembic import op

from migrations.sql import read_sql

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_commands_tenant_id_reference")
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_commands_metadata")
        op.execute("""
            CREATE INDEX CONCURRENTLY ix_commands_tenant_id_reference ON commands (tenant_id, reference)
            WHERE reference IS NOT NULL
        """)
        op.execute("""
            CREATE INDEX CONCURRENTLY ix_commands_metadata ON commands USING gin (metadata jsonb_path_ops)
            WITH (gin_pending_list_limit = 256) WHERE metadata IS NOT NULL
        """)
    op.execute(read_sql("0014_commands_of.sql"))


def downgrade() -> None:
    op.execute("""
        DROP FUNCTION commands_of_metadata(integer, jsonb, integer);
        DROP FUNCTION commands_of_reference(integer, text, integer);
        DROP INDEX ix_commands_metadata;
        DROP INDEX ix_commands_tenant_id_reference;
    """)
