"""Tenants, clients and their API keys; the tenant `default`.

Why: every later table names a tenant, and no later migration could add one cheaply.
"""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE tenants (
            id integer GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_tenants PRIMARY KEY,
            code text NOT NULL CONSTRAINT uq_tenants_code UNIQUE,
            created_at timestamptz NOT NULL DEFAULT now()
        );
        INSERT INTO tenants (code) VALUES ('default');

        CREATE TABLE clients (
            id integer GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_clients PRIMARY KEY,
            tenant_id integer NOT NULL CONSTRAINT fk_clients_tenant_id REFERENCES tenants,
            name text NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT uq_clients_tenant_id_name UNIQUE (tenant_id, name)
        );

        CREATE TABLE api_keys (
            id integer GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_api_keys PRIMARY KEY,
            client_id integer NOT NULL CONSTRAINT fk_api_keys_client_id REFERENCES clients,
            prefix text NOT NULL,
            key_hash bytea NOT NULL CONSTRAINT uq_api_keys_key_hash UNIQUE,
            scopes text[] NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now(),
            expires_at timestamptz,
            revoked_at timestamptz,
            last_used_at timestamptz
        );
        CREATE INDEX ix_api_keys_client_id ON api_keys (client_id);
    """)


def downgrade() -> None:
    op.execute("DROP TABLE api_keys; DROP TABLE clients; DROP TABLE tenants;")
