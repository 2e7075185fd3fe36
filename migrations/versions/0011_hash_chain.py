"""A hash chain over the transfers of each partition: their place in it, their hash, and where it ends.

Why: whoever changes what happened must be found out (docs/decisions/0017-a-hash-chain.md). Transfers from before this
migration stay without a link. The index is built while drains wait, a second for ten million transfers.
"""

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.execute("""
        ALTER TABLE transfers ADD COLUMN position bigint, ADD COLUMN hash bytea;
        CREATE UNIQUE INDEX ix_transfers_position ON transfers (partition, position) WHERE position IS NOT NULL;
        CREATE TABLE chain_heads (
            partition smallint CONSTRAINT pk_chain_heads PRIMARY KEY,
            position bigint NOT NULL DEFAULT 0,
            hash bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex'),
            began_at timestamptz NOT NULL
        ) WITH (fillfactor = 50);
        -- Where workers from before may be at work, they have an hour to leave: they write no links.
        INSERT INTO chain_heads (partition, began_at) SELECT partition,
            CASE WHEN EXISTS (SELECT FROM transfers) THEN clock_timestamp() + interval '1 hour' ELSE '-infinity' END
        FROM partitions;
    """)


def downgrade() -> None:
    op.execute("""
        DROP TABLE chain_heads;
        DROP INDEX ix_transfers_position;
        ALTER TABLE transfers DROP COLUMN hash, DROP COLUMN position;
    """)
