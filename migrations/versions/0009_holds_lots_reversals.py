"""Holds, lots and how much of a command was reversed; what moved in and out of each lot.

Why: registers of the present, each guarded by the row lock of its account, and one more record, `lot_entries`, from
which `bursar audit` proves what the lots hold.
"""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE holds (
            seq bigint CONSTRAINT pk_holds PRIMARY KEY,
            account_id bigint NOT NULL CONSTRAINT fk_holds_account_id REFERENCES accounts,
            status text NOT NULL
                CONSTRAINT ck_holds_status CHECK (status IN ('open', 'captured', 'released', 'expired')),
            amount bigint NOT NULL,
            remaining bigint NOT NULL,
            captured bigint NOT NULL DEFAULT 0,
            expires_at timestamptz NOT NULL,
            ended_at timestamptz,
            lots json,
            CONSTRAINT ck_holds_remaining CHECK (remaining >= 0 AND (remaining > 0) = (status = 'open')),
            CONSTRAINT ck_holds_captured CHECK (captured >= 0 AND captured + remaining <= amount)
        ) WITH (fillfactor = 80);
        CREATE INDEX ix_holds_expires_at ON holds (expires_at) WHERE status = 'open';
        CREATE INDEX ix_holds_account_id ON holds (account_id, seq);

        CREATE TABLE lots (
            seq bigint NOT NULL,
            n smallint NOT NULL,
            account_id bigint NOT NULL CONSTRAINT fk_lots_account_id REFERENCES accounts,
            source text NOT NULL CONSTRAINT ck_lots_source CHECK (source IN ('purchased', 'promotional')),
            priority smallint NOT NULL,
            expires_at timestamptz,
            created_at timestamptz NOT NULL,
            remaining bigint NOT NULL,
            held bigint NOT NULL DEFAULT 0,
            sweeps integer NOT NULL DEFAULT 0,
            CONSTRAINT pk_lots PRIMARY KEY (seq, n),
            CONSTRAINT ck_lots_held CHECK (held >= 0 AND remaining >= held)
        ) WITH (fillfactor = 80);
        CREATE INDEX ix_lots_account_id ON lots (account_id) WHERE remaining > 0;
        CREATE INDEX ix_lots_expires_at ON lots (expires_at) WHERE remaining > held;

        CREATE TABLE lot_entries (
            seq bigint NOT NULL,
            position smallint NOT NULL,
            lot_seq bigint NOT NULL,
            lot_n smallint NOT NULL,
            amount bigint NOT NULL,
            held bigint NOT NULL,
            CONSTRAINT pk_lot_entries PRIMARY KEY (seq, position)
        );
        CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON lot_entries
            FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

        CREATE TABLE reversals (
            seq bigint CONSTRAINT pk_reversals PRIMARY KEY,
            reversed bigint NOT NULL CONSTRAINT ck_reversals_reversed CHECK (reversed > 0)
        );
    """)


def downgrade() -> None:
    op.execute("DROP TABLE reversals; DROP TABLE lot_entries; DROP TABLE lots; DROP TABLE holds;")
