"""Outcomes get a place in the feed of the client that sent the command.

Why: a client that asks "what is new?" needs an order in which nothing appears behind a place that it has passed.
Sequence numbers do not commit in order, so no single number gives that; within a partition they do, because a drain
holds the partition's lock until its commit (docs/decisions/0021-the-feed-has-a-place-in-every-partition.md).
Outcomes from before have no place and are in no feed. The index is built beside the writers, outside of a transaction.
"""

from alembic import op

revision = "0015"
down_revision = "0014"

# Who may insert outcomes goes on doing so, before the grants are given anew.
_GRANTS = """
DO $$
DECLARE role name;
BEGIN
    FOR role IN
        SELECT DISTINCT grantee FROM information_schema.role_table_grants
        WHERE table_schema = current_schema() AND table_name = 'outcomes' AND privilege_type = 'INSERT'
        AND grantee NOT IN ('PUBLIC', current_user)
    LOOP
        EXECUTE format('GRANT USAGE, SELECT ON SEQUENCE outcome_positions TO %I', role);
    END LOOP;
END $$
"""


def upgrade() -> None:
    op.execute("""
        CREATE SEQUENCE IF NOT EXISTS outcome_positions;
        ALTER TABLE outcomes ADD COLUMN IF NOT EXISTS client_id integer;
        ALTER TABLE outcomes ADD COLUMN IF NOT EXISTS stream smallint;
        ALTER TABLE outcomes ADD COLUMN IF NOT EXISTS position bigint;
        ALTER TABLE outcomes ALTER COLUMN position SET DEFAULT nextval('outcome_positions');
        ALTER SEQUENCE outcome_positions OWNED BY outcomes.position;
    """)
    op.execute(_GRANTS)
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_outcomes_feed")
        op.execute("""
            CREATE INDEX CONCURRENTLY ix_outcomes_feed ON outcomes (client_id, stream, position)
            WHERE position IS NOT NULL
        """)


def downgrade() -> None:
    op.execute("""
        DROP INDEX ix_outcomes_feed;
        ALTER TABLE outcomes DROP COLUMN position, DROP COLUMN stream, DROP COLUMN client_id;
    """)
