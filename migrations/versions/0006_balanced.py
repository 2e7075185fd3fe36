"""A transfer's entries sum to zero per asset, by trigger.

Why: the first invariant of double entry must hold against every writer, not only ours.
"""

from alembic import op

from migrations.sql import read_sql

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.execute(read_sql("0006_balanced.sql"))


def downgrade() -> None:
    op.execute("DROP TRIGGER balanced ON entries")
    op.execute("DROP FUNCTION refuse_unbalanced()")
