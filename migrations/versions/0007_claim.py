"""The function by which a drain claims its batch.

Why: locking a partition and reading it must be two statements (the second must not use the first's snapshot), for as
many partitions as fill the batch: one round trip here, up to two per partition from outside.
"""

from alembic import op

from migrations.sql import read_sql

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.execute(read_sql("0007_claim.sql"))


def downgrade() -> None:
    op.execute("DROP FUNCTION claim_pending(smallint[], integer, integer)")
