"""Commands, the queue of pending ones, and outcomes.

Why: a command is accepted once and decided once, so both are rows that never change. Whether it is pending is the
existence of a row in a table of its own: no update of a large row, no partial index, and a crash has nothing to undo.
"""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE commands (
            seq bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_commands PRIMARY KEY,
            tenant_id integer NOT NULL,
            client_id integer NOT NULL,
            partition smallint NOT NULL,
            type text NOT NULL,
            idempotency_key text NOT NULL,
            request_hash bytea NOT NULL,
            wallet text NOT NULL,
            to_wallet text,
            asset text NOT NULL,
            amount bigint NOT NULL,
            reference text,
            metadata jsonb,
            accepted_at timestamptz NOT NULL DEFAULT now(),
            expires_at timestamptz,
            CONSTRAINT uq_commands_client_id_idempotency_key UNIQUE (client_id, idempotency_key)
        );

        -- A queue: few live rows among many dead ones. Vacuum by count, not by share, so that looks stay short.
        CREATE TABLE pending (
            partition smallint NOT NULL,
            seq bigint NOT NULL,
            attempts smallint NOT NULL DEFAULT 0,
            CONSTRAINT pk_pending PRIMARY KEY (partition, seq)
        ) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
                autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 1000000);

        CREATE TABLE outcomes (
            seq bigint CONSTRAINT pk_outcomes PRIMARY KEY,
            status text NOT NULL CONSTRAINT ck_outcomes_status
                CHECK (status IN ('applied', 'rejected', 'cancelled', 'failed')),
            code text NOT NULL,
            detail text,
            accounts json,
            at timestamptz NOT NULL,
            task_id uuid
        );
    """)


def downgrade() -> None:
    op.execute("DROP TABLE outcomes; DROP TABLE pending; DROP TABLE commands;")
