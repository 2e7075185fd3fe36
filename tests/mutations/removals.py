"""The removals, from `removals.txt` beside this file, and which tests should notice them."""

from pathlib import Path
from typing import NamedTuple


class Removal(NamedTuple):
    """`old` occurs once in `file` and becomes `new`. `why`: why nothing can notice; empty: a test must."""

    file: str
    what: str
    old: str
    new: str
    why: str


def read(text: str) -> list[Removal]:
    """The format is told by the head of `removals.txt`, which ends with its first empty line but one."""
    removals: list[Removal] = []
    for of_file in text.split("\n\n== ")[2:]:
        file, *pieces = of_file.rstrip("\n").split("\n\n# ")
        for piece in pieces:
            what, *lines = piece.split("\n")
            told = {mark: [line[2:] for line in lines if line[:1] == mark] for mark in "?-+"}
            removals.append(Removal(file, what, "\n".join(told["-"]), "\n".join(told["+"]), " ".join(told["?"])))
    return removals


REMOVALS = read((Path(__file__).parent / "removals.txt").read_text())

TESTS: dict[str, tuple[str, ...]] = {
    "ledger/inbox.py": (
        "tests/ledger/test_claim.py", "tests/ledger/test_lock_order.py", "tests/ledger/test_accept.py",
        "tests/worker/test_poison.py", "tests/api/test_backlog.py", "tests/ledger/test_claim_snapshot.py",
        "tests/ledger/test_cancelling.py", "tests/ledger/test_holds.py", "tests/worker/test_lookout.py",
        "tests/ledger/test_requeuing.py",
    ),
    "migrations/sql/0020_claim.sql": (
        "tests/ledger/test_claim.py", "tests/ledger/test_claim_snapshot.py", "tests/ledger/test_holds.py",
        "tests/ledger/test_cancelling.py", "tests/ledger/test_concurrent_drains.py", "tests/worker/test_runs.py",
    ),
    "migrations/sql/0005_append_only.sql": (
        "tests/ledger/test_records.py",
    ),
    "migrations/sql/0006_balanced.sql": (
        "tests/ledger/test_records.py",
    ),
    "migrations/sql/0010_version_at.sql": (
        "tests/ledger/test_limits.py", "tests/api/test_time.py", "tests/api/test_entries.py",
        "tests/ledger/test_history_plans.py",
    ),
    "migrations/sql/0014_commands_of.sql": (
        "tests/api/test_entries.py", "tests/ledger/test_history_plans.py",
    ),
    "ledger/books.py": (
        "tests/ledger/test_known_accounts.py", "tests/ledger/test_lock_order.py",
        "tests/ledger/test_concurrent_drains.py", "tests/ledger/test_freezing.py", "tests/ledger/test_journal.py",
        "tests/ledger/test_reversals.py",
        "tests/ledger/test_limits.py", "tests/ledger/test_holds.py", "tests/ledger/test_previews.py",
        "tests/ledger/test_closing.py", "tests/ledger/test_records.py", "tests/api/test_limits.py",
        "tests/properties/test_interleavings.py", "tests/properties/test_reference.py",
    ),
    "ledger/journal.py": (
        "tests/ledger/test_reversals.py", "tests/ledger/test_feed.py",
        "tests/ledger/test_records.py", "tests/ledger/test_lock_order.py", "tests/ledger/test_audit_chain.py",
        "tests/ledger/test_journal.py", "tests/ledger/test_holds.py", "tests/ledger/test_limits.py",
        "tests/ledger/test_concurrent_drains.py", "tests/ledger/test_freezing.py", "tests/ledger/test_closing.py",
        "tests/ledger/test_expiry.py", "tests/worker/test_poison.py", "tests/api/test_time.py",
        "tests/properties/test_interleavings.py", "tests/properties/test_reference.py",
    ),
    "ledger/drain.py": (
        "tests/ledger/test_concurrent_drains.py", "tests/ledger/test_holds.py", "tests/ledger/test_previews.py",
        "tests/ledger/test_journal.py", "tests/properties/test_reference.py", "tests/contracts/test_atomic.py",
    ),
    "ledger/references.py": (
        "tests/ledger/test_lots.py", "tests/ledger/test_holds.py", "tests/ledger/test_closing.py",
        "tests/ledger/test_queued.py", "tests/api/test_holdings.py", "tests/properties/test_reference.py",
        "tests/properties/test_interleavings.py",
        "tests/contracts/test_command_set.py", "tests/contracts/test_credits.py",
    ),
    "ledger/supply.py": (
        "tests/ledger/test_register_scope.py",
        "tests/ledger/test_lock_order.py", "tests/ledger/test_limits.py", "tests/ledger/test_previews.py",
        "tests/ledger/test_audit_registers.py", "tests/api/test_limits.py", "tests/properties/test_reference.py",
        "tests/properties/test_interleavings.py",
    ),
    "ledger/expiry.py": (
        "tests/ledger/test_expiry.py", "tests/ledger/test_holds.py", "tests/ledger/test_closing.py",
        "tests/worker/test_lookout.py", "tests/properties/test_reference.py", "tests/contracts/test_credits.py",
    ),
    "ledger/cancelling.py": (
        "tests/ledger/test_cancelling.py", "tests/api/test_cancelling.py", "tests/ledger/test_feed.py",
    ),
    "ledger/feed.py": (
        "tests/ledger/test_feed.py", "tests/api/test_outcomes.py",
    ),
    "ledger/closing.py": (
        "tests/ledger/test_register_races.py", "tests/ledger/test_lock_order.py", "tests/ledger/test_closing.py",
        "tests/api/test_wallet_life.py", "tests/api/test_tenancy.py",
    ),
    "ledger/changes.py": (
        "tests/api/test_wallet_life.py", "tests/api/test_limits.py", "tests/api/test_tenancy.py",
    ),
    "ledger/registers.py": (
        "tests/ledger/test_register_scope.py",
        "tests/ledger/test_register_races.py", "tests/ledger/test_lock_order.py", "tests/ledger/test_freezing.py",
        "tests/ledger/test_limits.py", "tests/api/test_limits.py", "tests/api/test_freezing.py",
        "tests/api/test_wallet_life.py", "tests/api/test_assets.py", "tests/api/test_wallets.py",
        "tests/api/test_tenancy.py", "tests/worker/test_freeze_ring.py",
    ),
    "ledger/keys.py": (
        "tests/api/test_keys.py", "tests/ledger/test_register_races.py", "tests/api/test_tenancy.py",
    ),
    "ledger/tenants.py": (
        "tests/api/test_keys.py", "tests/api/test_tenancy.py",
    ),
    "ledger/previews.py": (
        "tests/ledger/test_previews.py", "tests/api/test_previews.py", "tests/properties/test_previews.py",
    ),
    "ledger/history.py": (
        "tests/api/test_entries.py", "tests/api/test_time.py", "tests/api/test_tenancy.py",
        "tests/ledger/test_history_plans.py", "tests/contracts/test_finding.py",
    ),
    "ledger/reads.py": (
        "tests/ledger/test_queued.py", "tests/api/test_holdings.py", "tests/api/test_wallets.py",
        "tests/api/test_operation.py", "tests/api/test_assets.py", "tests/api/test_limits.py",
        "tests/api/test_tenancy.py", "tests/api/test_backlog.py", "tests/contracts/test_finding.py",
    ),
    "ledger/receipts.py": (
        "tests/ledger/test_audit_chain.py", "tests/api/test_receipts.py", "tests/api/test_tenancy.py",
    ),
    "ledger/outcomes.py": (
        "tests/api/test_tenancy.py", "tests/contracts/test_finding.py",
    ),
    "ledger/holdings.py": (
        "tests/api/test_holdings.py", "tests/api/test_tenancy.py",
    ),
    "ledger/audit/__init__.py": (
        "tests/ledger/test_audit.py::test_every_check_has_one_snapshot_no_time_limit_and_settings_of_its_own",
        "tests/ledger/test_audit.py::test_breaches_without_end_are_cut_short", "tests/ledger/test_audit.py",
    ),
    "ledger/audit/chain.py": ("tests/ledger/test_audit_chain.py", "tests/ledger/test_audit.py"),
    **dict.fromkeys(
        ("ledger/audit/commands.py", "ledger/audit/journal.py"),
        ("tests/ledger/test_audit.py", "tests/ledger/test_audit_registers.py", "tests/ledger/test_audit_chain.py"),
    ),
    "ledger/audit/registers.py": ("tests/ledger/test_audit_registers.py", "tests/ledger/test_audit.py"),
}  # fmt: skip

WIDE = ("tests/ledger", "tests/worker", "tests/api")
