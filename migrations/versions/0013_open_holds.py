"""The open holds of an account.

Why: a player has few open holds and, in time, thousands that ended; a list of the former must not read the latter.
"""

from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.execute("CREATE INDEX ix_holds_open ON holds (account_id, seq) WHERE status = 'open'")


def downgrade() -> None:
    op.execute("DROP INDEX ix_holds_open")
