"""What must hold after every fault, once nothing is pending any more."""

from collections import Counter
from collections.abc import Mapping
from itertools import count

from ledger import db
from ledger.audit import audit
from ledger.ids import command_id
from tests.crash.load import Load
from tests.crash.model import ASSET, Command
from tests.crash.service import PARTITIONS, Service, Tenant, wait_for
from tests.crash.wire import Connection
from tests.invariants import INVARIANTS

QUIET_S = 30.0
REPLAY_BATCH = 500

_COMMANDS = """
SELECT c.idempotency_key, c.seq, c.accepted_at, o.code, o.status, o.at - c.accepted_at
FROM commands c LEFT JOIN outcomes o USING (seq) WHERE c.client_id = %s
"""
_BALANCES = """
SELECT w.code, sum(a.posted)::bigint FROM accounts a JOIN wallets w ON w.id = a.wallet_id
WHERE w.tenant_id = %s GROUP BY 1 HAVING sum(a.posted) <> 0
"""
_HELD = """
SELECT w.code, a.held FROM accounts a JOIN wallets w ON w.id = a.wallet_id WHERE w.tenant_id = %s AND a.held <> 0
"""
_LOTS = """
SELECT w.code, array_agg(ARRAY[l.source, l.priority::text, l.remaining::text, l.held::text] ORDER BY l.seq)
FROM lots l JOIN accounts a ON a.id = l.account_id JOIN wallets w ON w.id = a.wallet_id
WHERE w.tenant_id = %s AND l.remaining > 0 GROUP BY 1
"""
_WHO_WAITS = """
SELECT pid, application_name, state, wait_event, pg_blocking_pids(pid), now() - xact_start, left(query, 60)
FROM pg_stat_activity WHERE application_name LIKE 'bursar-%' AND state <> 'idle'
"""
_PENDING = """
SELECT p.partition, count(*), max(p.attempts), max(now() - c.accepted_at) FROM pending p JOIN commands c USING (seq)
GROUP BY 1 ORDER BY 1
"""


def settle(service: Service, tenant: Tenant) -> None:
    """Returns when nothing of this tenant is pending."""

    def stuck() -> str:
        return f"Pending by partition: {service.rows(_PENDING)}; at work: {service.rows(_WHO_WAITS)}"

    wait_for(lambda: service.pending(tenant) == 0, "an outcome for every command", within_s=QUIET_S, tell=stuck)


def check(service: Service, load: Load, *, also: dict[str, str] | None = None) -> float:
    """Each accepted key has one outcome, the one that was to come; the feed told it once, and each retry gets the same;
    the balances are exact; the audit is clean. `also`: keys that did not come over HTTP, with their codes.

    The longest time in seconds from acceptance to the claim that decided a command.
    """
    settle(service, load.tenant)
    expected = load.expected | (also or {})
    stored = {row[0]: row[1:] for row in service.rows(_COMMANDS, load.tenant.client_id)}
    _assert_same("keys that were stored", dict.fromkeys(stored), dict.fromkeys(expected))
    _assert_same("outcomes", {key: row[2] for key, row in stored.items()}, expected)
    ids = {key: command_id(stored[key][0], stored[key][1]) for key in load.ids}
    _assert_same("ids that were answered", load.ids, ids)
    balances = {wallet: amount for wallet, amount in load.balances.items() if amount}
    _assert_same("balances", dict(service.rows(_BALANCES, load.tenant.id)), balances)
    held = {wallet: purse.held for wallet, purse in load.purses.items() if purse.held}
    _assert_same("held amounts", dict(service.rows(_HELD, load.tenant.id)), held)
    _assert_same("lots", dict(service.rows(_LOTS, load.tenant.id)), _lots(load))
    for promise, query in INVARIANTS.items():
        assert not (broken := service.rows(query, load.tenant.id)), f"broken: {promise}: {broken[:5]}"
    told = load.follower.all_told(len(expected))
    doubled = [key for key, times in Counter(key for key, _ in told).items() if times > 1]
    assert not doubled, f"the feed told twice: {doubled[:5]}"
    _assert_same("outcomes that the feed told", dict(told), expected)
    _retry_every_key(service, load)
    assert_audit_clean(service)
    return max(row[4] for row in stored.values()).total_seconds()


def _lots(load: Load) -> dict[str, list[list[str]]]:
    """By wallet, the lots that are not used up, the oldest first."""
    found: dict[str, list[list[str]]] = {}
    for wallet, purse in load.purses.items():
        for lot in (lot for _, lot in sorted(purse.lots.items()) if lot.free + lot.held):
            row = [lot.kind.source, str(lot.kind.priority), str(lot.free + lot.held), str(lot.held)]
            found.setdefault(wallet, []).append(row)
    return found


def assert_audit_clean(service: Service) -> None:
    engine = db.engine(service.database_url, application="crash-test", statement_timeout_ms=0)
    try:
        broken = [finding for finding in audit(engine) if not finding.holds]
    finally:
        engine.dispose()
    assert not broken, "\n".join(f"{finding.name}: {finding.breaches[:5]}" for finding in broken)


def _retry_every_key(service: Service, load: Load) -> None:
    connection = Connection(service.api.port, load.tenant.key)
    singles = [command for command, *others in load.posts if not others]
    batches = [singles[start : start + REPLAY_BATCH] for start in range(0, len(singles), REPLAY_BATCH)]
    groups = [post for post in load.posts if len(post) > 1]
    seen: dict[str, tuple[str, str, bool]] = {}
    for number, batch in enumerate((*batches, *groups)):
        body = {"commands": [each.item() for each in batch], "atomic": number >= len(batches)}
        answer = connection.request("POST", "/v1/commands/batch", body)
        assert answer.status == 200, answer
        for command, result in zip(batch, answer.body["results"], strict=True):
            shown = result["command"]
            replayed = result.get("idempotent_replayed", False)
            seen[command.key] = (shown["id"], (shown["outcome"] or {"code": "pending"})["code"], replayed)
    connection.close()
    expected = {key: (id_, load.expected[key], True) for key, id_ in load.ids.items()}
    _assert_same("answers to a retry", seen, expected)


def _assert_same(what: str, seen: Mapping[str, object], expected: Mapping[str, object]) -> None:
    wrong = {
        key: (seen.get(key, "nothing"), expected.get(key, "nothing"))
        for key in seen.keys() | expected.keys()
        if seen.get(key, "nothing") != expected.get(key, "nothing")
    }
    some = dict(sorted(wrong.items())[:10])
    assert not wrong, f"{len(wrong)} of {len(expected)} {what} are wrong; seen and expected: {some}"


def assert_doorbells_answered(service: Service, *, within_s: float) -> None:
    """Commands of every partition are drained for a doorbell again, and not by the look-out."""
    tenant = service.new_tenant(ASSET)
    connection = Connection(service.api.port, tenant.key)
    wallets = [tenant.wallets_in(partition, 1, prefix="w")[0] for partition in range(PARTITIONS)]
    numbers = count(1)

    def drained_for_doorbell(wallet: str) -> bool:
        command = Command(f"ring-{next(numbers)}", "top_up", wallet, 1)
        headers = {"Idempotency-Key": command.key, "Prefer": "wait=10"}
        answer = connection.request("POST", "/v1/commands", command.body(), **headers)
        assert answer.status == 200, answer
        return answer.body["outcome"]["task"] is not None

    for wallet in wallets:
        wait_for(lambda wallet=wallet: drained_for_doorbell(wallet), "an answered doorbell", within_s=within_s)
    connection.close()


def tasks(service: Service, tenant: Tenant) -> Counter[bool]:
    """How many commands were drained for a doorbell (True), and how many by a look-out (False)."""
    query = "SELECT o.task_id IS NOT NULL FROM outcomes o JOIN commands USING (seq) WHERE tenant_id = %s"
    return Counter(by_doorbell for (by_doorbell,) in service.rows(query, tenant.id))
