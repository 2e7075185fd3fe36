"""Every table, as SQLAlchemy Core: what `alembic check` compares and what reads are built from.

Two kinds of table stand here. *Registers* (tenants, clients, assets, wallets, accounts, holds, lots …) hold the present
and change. *Records* (commands, outcomes, transfers, entries, lot_entries, changes, operator_actions) hold what
happened: a trigger refuses UPDATE, DELETE and TRUNCATE. `pending` is neither: it is the queue, a row per accepted
command that has no outcome yet.

Records carry no foreign keys: PostgreSQL checks them row by row, which would cost a drain a fifth more, or half. They
are written from rows that are locked, and `bursar audit` holds them to it (docs/decisions/0006).
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSON, JSONB

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_timestamp = DateTime(timezone=True)

# --- who ---------------------------------------------------------------------------------------------------------

tenants = Table(
    "tenants",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("code", Text, nullable=False, unique=True),
    Column("created_at", _timestamp, nullable=False, server_default=func.now()),
)

clients = Table(
    "clients",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("tenant_id", Integer, ForeignKey("tenants.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("created_at", _timestamp, nullable=False, server_default=func.now()),
    UniqueConstraint("tenant_id", "name"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("client_id", Integer, ForeignKey("clients.id"), nullable=False),
    Column("prefix", Text, nullable=False),  # the first characters, to recognise a key by; not enough to use it
    Column("key_hash", LargeBinary, nullable=False, unique=True),  # SHA-256 of a 256-bit random key
    Column("scopes", ARRAY(Text), nullable=False),
    Column("created_at", _timestamp, nullable=False, server_default=func.now()),
    Column("expires_at", _timestamp),
    Column("revoked_at", _timestamp),
    Column("last_used_at", _timestamp),
    Index(None, "client_id"),
)

# --- what is owned -----------------------------------------------------------------------------------------------

partitions = Table(  # how many rows stand here is the number of partitions: chosen once, at the first migration
    "partitions",
    metadata,
    Column("partition", SmallInteger, primary_key=True, autoincrement=False),
)

assets = Table(
    "assets",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("tenant_id", Integer, ForeignKey("tenants.id"), nullable=False),
    Column("code", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("scale", SmallInteger, nullable=False),
    Column("status", Text, nullable=False, server_default="active"),
    Column("created_at", _timestamp, nullable=False, server_default=func.now()),
    UniqueConstraint("tenant_id", "code"),
    Column("limits", JSON),  # ledger.limits
    CheckConstraint("scale BETWEEN 0 AND 18", name="scale"),
    CheckConstraint("status IN ('active', 'frozen')", name="status"),
)

wallets = Table(
    "wallets",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("tenant_id", Integer, ForeignKey("tenants.id"), nullable=False),
    Column("code", Text, nullable=False),  # the caller's name for it; a leading @ marks a system wallet
    Column("status", Text, nullable=False, server_default="active"),
    Column("name", Text),
    Column("metadata", JSONB, nullable=False, server_default=text("'{}'")),
    Column("created_at", _timestamp, nullable=False, server_default=func.now()),
    UniqueConstraint("tenant_id", "code"),
    CheckConstraint("status IN ('active', 'debits_frozen', 'frozen', 'closed')", name="status"),
    Index(
        "ix_wallets_metadata",
        "metadata",
        postgresql_using="gin",
        postgresql_ops={"metadata": "jsonb_path_ops"},
        postgresql_where=text("metadata <> '{}'"),
    ),
)

accounts = Table(
    "accounts",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("wallet_id", BigInteger, ForeignKey("wallets.id"), nullable=False),
    Column("asset_id", Integer, ForeignKey("assets.id"), nullable=False),
    # A player's account has shard 0. A system wallet has one shard per partition, so that no two drains share a row.
    Column("shard", SmallInteger, nullable=False, server_default=text("0")),
    Column("posted", BigInteger, nullable=False, server_default=text("0")),
    Column("held", BigInteger, nullable=False, server_default=text("0")),
    Column("version", BigInteger, nullable=False, server_default=text("0")),
    Column("allow_negative", Boolean, nullable=False, server_default=text("false")),
    # What available may not fall below: 0, unless a reversal was allowed to take more. Credits raise it again.
    Column("floor", BigInteger, nullable=False, server_default=text("0")),
    Column("lots", SmallInteger, nullable=False, server_default=text("0")),  # how many are not used up
    Column("changed_at", _timestamp, nullable=False, server_default=func.now()),  # `at` of its last entry
    Column("limits", JSON),  # ledger.limits
    UniqueConstraint("wallet_id", "asset_id", "shard"),
    CheckConstraint("held >= 0", name="held"),
    CheckConstraint("floor <= 0", name="floor"),
    CheckConstraint("allow_negative OR posted - held >= floor", name="not_overspent"),
)

supply_shares = Table(  # of assets with a maximum supply: what the drains of one partition may still issue
    "supply_shares",
    metadata,
    Column("asset_id", Integer, ForeignKey("assets.id"), primary_key=True),
    Column("partition", SmallInteger, primary_key=True, autoincrement=False),
    Column("headroom", BigInteger, nullable=False),
)

holds = Table(
    "holds",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),  # the hold command
    Column("account_id", BigInteger, ForeignKey("accounts.id"), nullable=False),
    Column("status", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("remaining", BigInteger, nullable=False),  # still held
    Column("captured", BigInteger, nullable=False, server_default=text("0")),
    Column("expires_at", _timestamp, nullable=False),
    Column("ended_at", _timestamp),
    Column("lots", JSON),  # [[lot seq, lot n, amount still held], …]; NULL: plain credits only
    CheckConstraint("status IN ('open', 'captured', 'released', 'expired')", name="status"),
    CheckConstraint("remaining >= 0 AND (remaining > 0) = (status = 'open')", name="remaining"),
    CheckConstraint("captured >= 0 AND captured + remaining <= amount", name="captured"),
    Index(None, "expires_at", postgresql_where=text("status = 'open'")),
    Index("ix_holds_account_id", "account_id", "seq"),
    Index("ix_holds_open", "account_id", "seq", postgresql_where=text("status = 'open'")),
)

lots = Table(  # guarded by the lock of its account
    "lots",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),  # the command that made it
    Column("n", SmallInteger, primary_key=True, autoincrement=False),  # from 1
    Column("account_id", BigInteger, ForeignKey("accounts.id"), nullable=False),
    Column("source", Text, nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("expires_at", _timestamp),
    Column("created_at", _timestamp, nullable=False),
    Column("remaining", BigInteger, nullable=False),
    Column("held", BigInteger, nullable=False, server_default=text("0")),  # of `remaining`, by open holds
    Column("sweeps", Integer, nullable=False, server_default=text("0")),  # times it expired: a reversal may refill it
    CheckConstraint("source IN ('purchased', 'promotional')", name="source"),
    CheckConstraint("held >= 0 AND remaining >= held", name="held"),
    Index(None, "account_id", postgresql_where=text("remaining > 0")),
    Index(None, "expires_at", postgresql_where=text("remaining > held")),
)

reversals = Table(
    "reversals",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),  # the command that was reversed
    Column("reversed", BigInteger, nullable=False),  # of its amount, so far
    CheckConstraint("reversed > 0", name="reversed"),
)

chain_heads = Table(  # where each partition's hash chain ends; one drain's lock on it keeps the chain from forking
    "chain_heads",
    metadata,
    Column("partition", SmallInteger, primary_key=True, autoincrement=False),
    Column("position", BigInteger, nullable=False, server_default=text("0")),
    Column("hash", LargeBinary, nullable=False, server_default=text("decode(repeat('00', 32), 'hex')")),
    Column("began_at", _timestamp, nullable=False),  # from then on no transfer is without a link
)

# --- what was asked, and what came of it -------------------------------------------------------------------------

commands = Table(
    "commands",
    metadata,
    Column("seq", BigInteger, Identity(always=True), primary_key=True),  # acceptance order
    Column("tenant_id", Integer, nullable=False),
    Column("client_id", Integer, nullable=False),
    Column("partition", SmallInteger, nullable=False),
    Column("type", Text, nullable=False),
    Column("idempotency_key", Text, nullable=False),
    Column("request_hash", LargeBinary, nullable=False),  # of the caller's request, never of our state
    Column("wallet", Text),  # NULL, as asset and amount: a tombstone
    Column("to_wallet", Text),
    Column("asset", Text),
    Column("amount", BigInteger),  # minor units; below zero: an adjustment down; NULL: all that is left
    Column("reference", Text),
    Column("metadata", JSONB),
    Column("accepted_at", _timestamp, nullable=False, server_default=func.now()),
    Column("expires_at", _timestamp),
    Column("options", JSON),  # what only some commands have (ledger.commands.Options)
    Column("ref_seq", BigInteger),  # the hold to capture or release, the command to reverse
    Column("group_seq", BigInteger),  # the first command of its group; NULL: it stands alone
    UniqueConstraint("client_id", "idempotency_key"),
    Index(None, "group_seq", postgresql_where=text("group_seq IS NOT NULL")),
    # Ways in for whoever looks for entries. A command without pays for neither.
    Index(None, "tenant_id", "reference", postgresql_where=text("reference IS NOT NULL")),
    Index(
        None,
        "metadata",
        postgresql_using="gin",
        postgresql_ops={"metadata": "jsonb_path_ops"},
        postgresql_with={"gin_pending_list_limit": 256},
        postgresql_where=text("metadata IS NOT NULL"),
    ),
)

pending = Table(  # deleted from by the drain's claim; a rollback puts the row back
    "pending",
    metadata,
    Column("partition", SmallInteger, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("attempts", SmallInteger, nullable=False, server_default=text("0")),  # drains that this command broke
    Column("size", SmallInteger, nullable=False, server_default=text("1")),  # more: a group, under its first seq
)

outcomes = Table(  # its primary key is the promise: one outcome per command
    "outcomes",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("status", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("detail", Text),
    Column("accounts", JSON),  # the balances this command left behind, as the client sees them
    Column("at", _timestamp, nullable=False),
    Column("task_id", Uuid),  # the Celery task that drained it; NULL: the look-out did, without a task
    Column("result", JSON),  # what else it came to: the hold, the lots it took, what it moved
    # Its place in the feed (ledger.feed): whose, the partition it was drained in or -1, and where in there.
    Column("client_id", Integer),
    Column("stream", SmallInteger),
    Column("position", BigInteger, server_default=text("nextval('outcome_positions'::regclass)")),
    Index("ix_outcomes_feed", "client_id", "stream", "position", postgresql_where=text("position IS NOT NULL")),
    Index("ix_outcomes_failed", "seq", postgresql_where=text("status = 'failed'")),
    CheckConstraint("status IN ('applied', 'rejected', 'cancelled', 'failed')", name="status"),
)

transfers = Table(  # one per applied command, under the command's own seq
    "transfers",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("tenant_id", Integer, nullable=False),
    Column("partition", SmallInteger, nullable=False),
    Column("at", _timestamp, nullable=False),
    Column("position", BigInteger),  # in the hash chain of its partition, gapless from 1; NULL: from before the chain
    Column("hash", LargeBinary),  # ledger.chain
    Index("ix_transfers_position", "partition", "position", unique=True, postgresql_where=text("position IS NOT NULL")),
)

entries = Table(
    "entries",
    metadata,
    Column("account_id", BigInteger, primary_key=True, autoincrement=False),
    Column("version", BigInteger, primary_key=True, autoincrement=False),  # gapless per account, from 1
    Column("seq", BigInteger, nullable=False),  # the transfer
    Column("asset_id", Integer, nullable=False),
    Column("amount", BigInteger, nullable=False),  # minor units, signed: a debit is below zero
    Column("balance_after", BigInteger, nullable=False),
    Column("at", _timestamp, nullable=False),  # never before that of the account's entry before
    Column("held_after", BigInteger, nullable=False, server_default=text("0")),
    Index(None, "seq"),
)

lot_entries = Table(
    "lot_entries",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),  # the transfer
    Column("position", SmallInteger, primary_key=True, autoincrement=False),  # in the order of taking, from 1
    Column("lot_seq", BigInteger, nullable=False),
    Column("lot_n", SmallInteger, nullable=False),
    Column("amount", BigInteger, nullable=False),  # signed change of the lot's `remaining`
    Column("held", BigInteger, nullable=False),  # signed change of its `held`
)

changes = Table(  # made by hand, of a wallet (its limits: in an asset) or, with no wallet, of an asset; or a requeue
    "changes",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("tenant_id", Integer, nullable=False),
    Column("wallet", Text),
    Column("asset", Text),
    Column("member", Text, nullable=False),  # what of it
    Column("before", JSON),
    Column("after", JSON),
    Column("reason", Text),
    Column("client_id", Integer, nullable=False),
    Column("key_id", Integer),
    Column("seq", BigInteger),  # the command that came with it
    Column("at", _timestamp, nullable=False, server_default=func.clock_timestamp()),
    CheckConstraint("member IN ('status', 'limits', 'requeue')", name="member"),
    CheckConstraint("wallet IS NOT NULL OR asset IS NOT NULL", name="of"),
    Index("ix_changes_wallet", "tenant_id", "wallet", "id", postgresql_where=text("wallet IS NOT NULL")),
    Index("ix_changes_asset", "tenant_id", "asset", "id", postgresql_where=text("wallet IS NULL")),
)

# --- who is told ---------------------------------------------------------------------------------------------------

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("tenant_id", Integer, ForeignKey("tenants.id"), nullable=False),
    Column("client_id", Integer, nullable=False),  # who made it
    Column("url", Text, nullable=False),
    Column("description", Text),
    Column("event_types", ARRAY(Text)),  # NULL: all
    Column("wallets", ARRAY(Text)),  # NULL: all
    Column("ordering", Text, nullable=False),
    Column("max_per_second", Integer),
    Column("header_names", ARRAY(Text), nullable=False),
    Column("headers", LargeBinary),  # names and values, sealed (runtime.vault), as are the secrets
    Column("secret", LargeBinary, nullable=False),
    Column("former_secret", LargeBinary),  # signs beside the other one until `former_until`
    Column("former_until", _timestamp),
    Column("status", Text, nullable=False),
    Column("disabled_reason", Text),
    Column("owed_after", BigInteger, nullable=False),  # what outcomes it is owed as it stands: those of later positions
    Column("failing_since", _timestamp),  # nothing but failures since then; NULL: the last attempt went well
    Column("paused_until", _timestamp),  # it asked for a pause
    Column("created_at", _timestamp, nullable=False, server_default=func.now()),
    CheckConstraint("ordering IN ('none', 'per_wallet')", name="ordering"),
    CheckConstraint("status IN ('enabled', 'disabled', 'deleted')", name="status"),
    Index(None, "tenant_id"),
)

events = Table(  # what is told besides outcomes, numbered from the commands' sequence
    "events",
    metadata,
    Column(
        "seq",
        BigInteger,
        primary_key=True,
        autoincrement=False,
        server_default=text("nextval('commands_seq_seq'::regclass)"),
    ),
    Column("tenant_id", Integer, nullable=False),
    Column("type", Text, nullable=False),
    Column("at", _timestamp, nullable=False),
    Column("data", JSON, nullable=False),
    Column("outcome_seq", BigInteger),  # the command whose outcome it comes with; NULL: it comes by itself
)

deliveries = Table(  # an event that an endpoint is owed: an outcome, or one of `events`
    "deliveries",
    metadata,
    Column("endpoint_id", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("lane", BigInteger),  # of an endpoint that wants order: the wallet's; in a lane the lowest seq goes first
    Column("status", Text, nullable=False, server_default=text("'pending'")),
    Column("attempts", SmallInteger, nullable=False, server_default=text("0")),
    Column("due_at", _timestamp),  # NULL: it is over
    Column("at", _timestamp, nullable=False),  # of the event
    CheckConstraint("status IN ('pending', 'delivered', 'exhausted')", name="status"),
    CheckConstraint("(status = 'pending') = (due_at IS NOT NULL)", name="due"),
    Index("ix_deliveries_due", "endpoint_id", "due_at", postgresql_where=text("due_at IS NOT NULL AND lane IS NULL")),
    Index(
        "ix_deliveries_lane",
        "endpoint_id",
        "lane",
        "seq",
        postgresql_where=text("due_at IS NOT NULL AND lane IS NOT NULL"),
    ),
    Index("ix_deliveries_exhausted", "endpoint_id", "seq", postgresql_where=text("status = 'exhausted'")),
)

attempts = Table(
    "attempts",
    metadata,
    Column("endpoint_id", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("n", SmallInteger, primary_key=True, autoincrement=False),
    Column("at", _timestamp, nullable=False),
    Column("status", SmallInteger),  # of the answer; NULL: there was none
    Column("failure", Text),  # NULL: delivered
    Column("detail", Text),
    Column("took_ms", Integer, nullable=False),
    Column("body", Text, nullable=False),  # of the answer, as far as it was read
)

# --- who looks on, and acts by hand --------------------------------------------------------------------------------

operators = Table(
    "operators",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("tenant_id", Integer, ForeignKey("tenants.id"), nullable=False),
    Column("client_id", Integer, ForeignKey("clients.id"), nullable=False),  # an operator's own: commands have one
    Column("name", Text, nullable=False, unique=True),
    Column("password_hash", Text, nullable=False),  # argon2id, with its parameters and salt
    Column("role", Text, nullable=False),
    Column("created_at", _timestamp, nullable=False, server_default=func.now()),
    Column("disabled_at", _timestamp),
    CheckConstraint("role IN ('read_only', 'operator')", name="role"),
)

dashboard_sessions = Table(
    "dashboard_sessions",
    metadata,
    Column("cookie_hash", LargeBinary, primary_key=True),  # SHA-256 of a 256-bit random cookie
    Column("operator_id", Integer, ForeignKey("operators.id")),
    Column("key_id", Integer, ForeignKey("api_keys.id")),
    Column("csrf", Text, nullable=False),
    Column("created_at", _timestamp, nullable=False, server_default=func.now()),
    Column("expires_at", _timestamp, nullable=False),
    CheckConstraint("(operator_id IS NULL) <> (key_id IS NULL)", name="whose"),
    Index(None, "expires_at"),
)

operator_actions = Table(
    "operator_actions",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("tenant_id", Integer, nullable=False),
    Column("client_id", Integer, nullable=False),
    Column("key_id", Integer),  # NULL: with a password
    Column("who", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("target", Text),
    Column("reason", Text),
    Column("at", _timestamp, nullable=False, server_default=func.clock_timestamp()),
    Index(None, "tenant_id", "id"),
)

audits = Table(  # what `bursar audit` found
    "audits",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("at", _timestamp, nullable=False),
    Column("took_ms", BigInteger, nullable=False),
    Column("findings", JSON, nullable=False),  # [{number, name, checked, breaches}]
)

traces = Table(  # where the trace of a command continues; only while tracing is on
    "traces",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("traceparent", Text, nullable=False),
    Column("at", _timestamp, nullable=False, server_default=func.now()),
)

RECORDS = (commands, outcomes, transfers, entries, lot_entries, changes, operator_actions)
