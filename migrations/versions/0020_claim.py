"""A drain's claim looks at partitions by turns, one after the other, and no further than its batch needs.

Why: what was drained lately lies dead in front of what is pending, until it is vacuumed, and each look passes over it.
Whoever served the longest wait first looked at every partition for every batch. A worker of before still finds the
function by its name and arguments; it serves the first partitions first.
"""

from alembic import op

from migrations.sql import read_sql

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    op.execute("DROP FUNCTION claim_pending(smallint[], integer, integer)")
    op.execute(read_sql("0020_claim.sql"))


def downgrade() -> None:
    op.execute("DROP FUNCTION claim_pending(smallint[], integer, integer)")
    op.execute(read_sql("0008_claim.sql"))
