"""Holds and credits end on time, whoever is killed meanwhile."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.crash.checks import assert_audit_clean
from tests.crash.model import ASSET
from tests.crash.service import Service, Tenant, wait_for
from tests.crash.wire import Connection

pytestmark = pytest.mark.timeout(120)

BACK_WITHIN = timedelta(seconds=2)  # as docs/commands.md promises
ENDS_AFTER = timedelta(seconds=12)  # workers start within this, also on a busy machine
PLAYERS = 40

_ENDED = """
SELECT h.ended_at - h.expires_at FROM holds h JOIN commands c USING (seq)
WHERE c.tenant_id = %s AND h.status = 'expired'
"""
_SWEPT = """
SELECT o.at - l.expires_at FROM lots l JOIN commands c ON c.type = 'expire_credits' AND c.ref_seq = l.seq
JOIN outcomes o ON o.seq = c.seq WHERE c.tenant_id = %s AND o.status = 'applied'
"""


def nobody(_: Service) -> None:
    """All is well."""


def workers_start_again(service: Service) -> None:
    """All are killed once the holds are placed, and start before the holds end."""
    service.kill_workers()
    service.restart_dead_workers()
    for worker in service.workers:
        worker.wait_ready()


def redis(service: Service) -> None:
    """For good: the look-outs need PostgreSQL only."""
    service.redis.kill()


def workers_start_again_without_redis(service: Service) -> None:
    service.redis.kill()
    service.kill_workers()
    service.restart_dead_workers()


@pytest.mark.parametrize("kill", [nobody, workers_start_again, redis, workers_start_again_without_redis])
def test_holds_and_credits_end_within_two_seconds_of_their_time(
    service: Service, kill: Callable[[Service], None]
) -> None:
    tenant = service.new_tenant(ASSET)
    connection = Connection(service.api.port, tenant.key)
    ends = (datetime.now(UTC) + ENDS_AFTER).isoformat()
    wallets = [f"p{number}" for number in range(PLAYERS)]
    post(connection, [credit(wallet, ends) for wallet in wallets])
    post(connection, [hold(wallet, ends) for wallet in wallets])
    connection.close()
    wait_for(lambda: service.pending(tenant) == 0, "every hold to be placed", within_s=ENDS_AFTER.total_seconds())
    kill(service)

    def all_ended() -> bool:
        return len(service.rows(_ENDED, tenant.id)) == PLAYERS and len(service.rows(_SWEPT, tenant.id)) >= PLAYERS

    wait_for(all_ended, "the end of every hold and of all credits", tell=lambda: str(balances(service, tenant)))
    assert max(late for (late,) in service.rows(_ENDED, tenant.id)) < BACK_WITHIN
    assert max(late for (late,) in service.rows(_SWEPT, tenant.id)) < BACK_WITHIN
    assert balances(service, tenant) == {(100, 0)}, "plain credits are back, and the others are gone"
    assert_audit_clean(service)


def credit(wallet: str, ends: str) -> list[dict[str, Any]]:
    to_wallet = {"type": "top_up", "wallet": wallet, "asset": ASSET}
    return [to_wallet | {"amount": "100"}, to_wallet | {"amount": "50", "credits_expire_at": ends}]


def hold(wallet: str, ends: str) -> list[dict[str, Any]]:
    """Of the credits that end: what comes back ends too, after the rest of them."""
    more = {"amount": "30", "hold_expires_at": ends}
    return [{"type": "hold", "wallet": wallet, "asset": ASSET} | more]


def post(connection: Connection, orders: list[list[dict[str, Any]]]) -> None:
    items = [order for few in orders for order in few]
    keyed = [{"idempotency_key": f"{item['type']}-{n}"} | item for n, item in enumerate(items)]
    answer = connection.request("POST", "/v1/commands/batch", {"commands": keyed})
    assert {result["status"] for result in answer.body["results"]} == {202}, answer


def balances(service: Service, tenant: Tenant) -> set[tuple[int, int]]:
    """posted and held of every player."""
    query = """
        SELECT DISTINCT a.posted, a.held FROM accounts a JOIN wallets w ON w.id = a.wallet_id
        WHERE w.tenant_id = %s AND w.code NOT LIKE '@%%'
    """
    return {(posted, held) for posted, held in service.rows(query, tenant.id)}
