"""Failed commands are found at once, and a change may be that one of them was requeued.

Why: whoever mends a defect wants the list of what it broke, and to have it asked again, with a name and a reason beside
it (docs/decisions/0024-a-failed-command-is-requeued-as-a-new-one.md). The index holds failed outcomes alone: none, one
hopes. It is built beside the writers, outside of a transaction.
"""

from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_outcomes_failed")
        op.execute("CREATE INDEX CONCURRENTLY ix_outcomes_failed ON outcomes (seq) WHERE status = 'failed'")
    op.execute("""
        ALTER TABLE changes DROP CONSTRAINT ck_changes_member,
            ADD CONSTRAINT ck_changes_member CHECK (member IN ('status', 'limits', 'requeue'))
    """)


def downgrade() -> None:
    # A record stays: where there are requeues the constraint is for what comes.
    op.execute("""
        DROP INDEX ix_outcomes_failed;
        ALTER TABLE changes DROP CONSTRAINT ck_changes_member,
            ADD CONSTRAINT ck_changes_member CHECK (member IN ('status', 'limits')) NOT VALID;
        DO $$ BEGIN
            IF NOT EXISTS (SELECT FROM changes WHERE member = 'requeue') THEN
                ALTER TABLE changes VALIDATE CONSTRAINT ck_changes_member;
            END IF;
        END $$
    """)
