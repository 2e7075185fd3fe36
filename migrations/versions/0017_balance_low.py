"""Events that come with an outcome say with which.

Why: `wallet.balance_low` is owed from the transaction of the outcome that took the balance down. The audit asks whether
it is owed as it asks of outcomes, by the outcome's place, and a purge notes up to where it is owed no longer.
"""

from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.execute("ALTER TABLE events ADD COLUMN IF NOT EXISTS outcome_seq bigint")


def downgrade() -> None:
    op.execute("ALTER TABLE events DROP COLUMN outcome_seq")
