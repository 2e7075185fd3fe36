"""Webhooks: endpoints, what is owed to each, and every attempt to deliver it.

Why: a delivery has to be written with the outcome that it tells of, or a crash between the two would lose it. `events`
holds what is told besides outcomes; its numbers come from the commands' own sequence, so that a delivery needs one
column for either (docs/decisions/0023-webhook-deliveries.md).
"""

from alembic import op

revision = "0016"
down_revision = "0015"

# Who may insert outcomes goes on doing so where an endpoint wants to hear of them, before the grants are given anew.
_GRANTS = """
DO $$
DECLARE role name;
BEGIN
    FOR role IN
        SELECT DISTINCT grantee FROM information_schema.role_table_grants
        WHERE table_schema = current_schema() AND table_name = 'outcomes' AND privilege_type = 'INSERT'
        AND grantee NOT IN ('PUBLIC', current_user)
    LOOP
        EXECUTE format('GRANT SELECT, INSERT, UPDATE ON webhook_endpoints, deliveries TO %I', role);
        EXECUTE format('GRANT SELECT, INSERT ON attempts, events TO %I', role);
        EXECUTE format('GRANT DELETE ON deliveries, attempts, events TO %I', role);
        EXECUTE format('GRANT USAGE ON SEQUENCE commands_seq_seq TO %I', role);
    END LOOP;
END $$
"""


def upgrade() -> None:
    op.execute("""
        CREATE TABLE webhook_endpoints (
            id integer GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_webhook_endpoints PRIMARY KEY,
            tenant_id integer NOT NULL
                CONSTRAINT fk_webhook_endpoints_tenant_id REFERENCES tenants (id),
            client_id integer NOT NULL,
            url text NOT NULL,
            description text,
            event_types text[],
            wallets text[],
            ordering text NOT NULL CONSTRAINT ck_webhook_endpoints_ordering CHECK (ordering IN ('none', 'per_wallet')),
            max_per_second integer,
            header_names text[] NOT NULL,
            headers bytea,
            secret bytea NOT NULL,
            former_secret bytea,
            former_until timestamptz,
            status text NOT NULL
                CONSTRAINT ck_webhook_endpoints_status CHECK (status IN ('enabled', 'disabled', 'deleted')),
            disabled_reason text,
            owed_after bigint NOT NULL,
            failing_since timestamptz,
            paused_until timestamptz,
            created_at timestamptz NOT NULL DEFAULT now()
        );
        CREATE INDEX ix_webhook_endpoints_tenant_id ON webhook_endpoints (tenant_id);
        CREATE TABLE events (
            seq bigint NOT NULL DEFAULT nextval('commands_seq_seq') CONSTRAINT pk_events PRIMARY KEY,
            tenant_id integer NOT NULL,
            type text NOT NULL,
            at timestamptz NOT NULL,
            data json NOT NULL
        );
        CREATE TABLE deliveries (
            endpoint_id integer NOT NULL,
            seq bigint NOT NULL,
            lane bigint,
            status text NOT NULL DEFAULT 'pending'
                CONSTRAINT ck_deliveries_status CHECK (status IN ('pending', 'delivered', 'exhausted')),
            attempts smallint NOT NULL DEFAULT 0,
            due_at timestamptz,
            at timestamptz NOT NULL,
            CONSTRAINT pk_deliveries PRIMARY KEY (endpoint_id, seq),
            CONSTRAINT ck_deliveries_due CHECK ((status = 'pending') = (due_at IS NOT NULL))
        );
        CREATE INDEX ix_deliveries_due ON deliveries (endpoint_id, due_at) WHERE due_at IS NOT NULL AND lane IS NULL;
        CREATE INDEX ix_deliveries_lane ON deliveries (endpoint_id, lane, seq)
            WHERE due_at IS NOT NULL AND lane IS NOT NULL;
        CREATE INDEX ix_deliveries_exhausted ON deliveries (endpoint_id, seq) WHERE status = 'exhausted';
        CREATE TABLE attempts (
            endpoint_id integer NOT NULL,
            seq bigint NOT NULL,
            n smallint NOT NULL,
            at timestamptz NOT NULL,
            status smallint,
            failure text,
            detail text,
            took_ms integer NOT NULL,
            body text NOT NULL,
            CONSTRAINT pk_attempts PRIMARY KEY (endpoint_id, seq, n)
        );
    """)
    op.execute(_GRANTS)


def downgrade() -> None:
    op.execute("DROP TABLE attempts, deliveries, events, webhook_endpoints")
