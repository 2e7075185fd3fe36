"""Where the trace of a command continues, for those that are traced.

Why: a drain and a delivery happen in other processes, later; so the caller's trace is kept beside the command
(docs/decisions/0029-traces-in-a-side-table.md). A table of its own: while tracing is off, no command has a row or a
column of it. Rows leave after some days.
"""

from alembic import op

revision = "0021"
down_revision = "0020"

# Who may insert outcomes serves the traces, too, before the grants are given anew.
_GRANTS = """
DO $$
DECLARE role name;
BEGIN
    FOR role IN
        SELECT DISTINCT grantee FROM information_schema.role_table_grants
        WHERE table_schema = current_schema() AND table_name = 'outcomes' AND privilege_type = 'INSERT'
        AND grantee NOT IN ('PUBLIC', current_user)
    LOOP
        EXECUTE format('GRANT SELECT, INSERT, DELETE ON traces TO %I', role);
    END LOOP;
END $$
"""


def upgrade() -> None:
    op.execute("""
        CREATE TABLE traces (
            seq bigint CONSTRAINT pk_traces PRIMARY KEY,
            traceparent text NOT NULL,
            at timestamptz NOT NULL DEFAULT now()
        );
    """)
    op.execute(_GRANTS)


def downgrade() -> None:
    op.execute("DROP TABLE traces")
