"""The dashboard: who signs in with a password, who is signed in, what each of them did, and what the last audits found.

Why: an action by hand needs an author whom somebody can ask. Actions are a record, as changes are.
"""

from alembic import op

revision = "0019"
down_revision = "0018"

# Who may insert outcomes serves the dashboard, too, before the grants are given anew. So does whoever reads all.
_GRANTS = """
DO $$
DECLARE role name;
BEGIN
    FOR role IN
        SELECT DISTINCT grantee FROM information_schema.role_table_grants
        WHERE table_schema = current_schema() AND table_name = 'outcomes' AND privilege_type = 'INSERT'
        AND grantee NOT IN ('PUBLIC', current_user)
    LOOP
        EXECUTE format('GRANT SELECT ON operators, audits TO %I', role);
        EXECUTE format('GRANT SELECT, INSERT ON operator_actions, audits TO %I', role);
        EXECUTE format('GRANT SELECT, INSERT, DELETE ON dashboard_sessions TO %I', role);
    END LOOP;
END $$
"""


def upgrade() -> None:
    op.execute("""
        CREATE TABLE operators (
            id integer GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_operators PRIMARY KEY,
            tenant_id integer NOT NULL CONSTRAINT fk_operators_tenant_id REFERENCES tenants (id),
            client_id integer NOT NULL CONSTRAINT fk_operators_client_id REFERENCES clients (id),
            name text NOT NULL CONSTRAINT uq_operators_name UNIQUE,
            password_hash text NOT NULL,
            role text NOT NULL CONSTRAINT ck_operators_role CHECK (role IN ('read_only', 'operator')),
            created_at timestamptz NOT NULL DEFAULT now(),
            disabled_at timestamptz
        );
        CREATE TABLE dashboard_sessions (
            cookie_hash bytea CONSTRAINT pk_dashboard_sessions PRIMARY KEY,
            operator_id integer CONSTRAINT fk_dashboard_sessions_operator_id REFERENCES operators (id),
            key_id integer CONSTRAINT fk_dashboard_sessions_key_id REFERENCES api_keys (id),
            csrf text NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now(),
            expires_at timestamptz NOT NULL,
            CONSTRAINT ck_dashboard_sessions_whose CHECK ((operator_id IS NULL) <> (key_id IS NULL))
        );
        CREATE INDEX ix_dashboard_sessions_expires_at ON dashboard_sessions (expires_at);
        CREATE TABLE operator_actions (
            id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_operator_actions PRIMARY KEY,
            tenant_id integer NOT NULL,
            client_id integer NOT NULL,
            key_id integer,
            who text NOT NULL,
            role text NOT NULL,
            action text NOT NULL,
            target text,
            reason text,
            at timestamptz NOT NULL DEFAULT clock_timestamp()
        );
        CREATE INDEX ix_operator_actions_tenant_id_id ON operator_actions (tenant_id, id);
        CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON operator_actions
            FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
        CREATE TABLE audits (
            id integer GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_audits PRIMARY KEY,
            at timestamptz NOT NULL,
            took_ms bigint NOT NULL,
            findings json NOT NULL
        );
    """)
    op.execute(_GRANTS)


def downgrade() -> None:
    op.execute("DROP TABLE audits, operator_actions, dashboard_sessions, operators")
