"""Records are append-only, by trigger.

Why: a bug or a hand at psql must not rewrite history; the books are corrected by new entries.
"""

from alembic import op

from migrations.sql import read_sql

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.execute(read_sql("0005_append_only.sql"))


def downgrade() -> None:
    for table in ("commands", "outcomes", "transfers", "entries"):
        op.execute(f"DROP TRIGGER append_only ON {table}")
    op.execute("DROP FUNCTION refuse_change()")
