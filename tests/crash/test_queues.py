"""Too many doorbells, a command that cannot be decided, and more commands than anybody works off."""

import pytest

from tests.crash.checks import check
from tests.crash.load import Load
from tests.crash.service import Service, Tenant, wait_for

pytestmark = pytest.mark.timeout(120)

MAX_BACKLOG = 1_500


def test_the_same_doorbell_rung_a_hundred_times(service: Service) -> None:
    with Load(service, wallets=lambda tenant, lane: tenant.wallets_in(5, 8, prefix=f"p{lane}")) as load:
        load.until(accepted=500)
        service.ring(5, times=100)
        load.until(accepted=1_500)
    check(service, load)
    wait_for(lambda: service.redis.waiting_doorbells(5) == 0, "every doorbell to be answered")


def test_poison_in_a_full_partition(service: Service) -> None:
    """Commands that no client can have sent break every drain that holds them. Only they fail."""
    service.kill_workers()
    poison: dict[str, str] = {}
    with Load(service, wallets=lambda tenant, lane: tenant.wallets_in(2, 8, prefix=f"p{lane}")) as load:
        for number in range(3):
            load.until(accepted=500)
            poison[conjure(service, load.tenant, f"poison-{number}")] = "internal_error"
        load.until(accepted=500)
        service.restart_dead_workers()
        load.until(accepted=200)
    check(service, load, also=poison)
    statuses = "SELECT status FROM outcomes JOIN commands c USING (seq) WHERE c.client_id = %s AND type = 'conjure'"
    assert service.rows(statuses, load.tenant.client_id) == [("failed",)] * 3


def conjure(service: Service, tenant: Tenant, key: str) -> str:
    """A command of a type that does not exist, in partition 2; its key."""
    service.rows(
        """
        WITH accepted AS (
            INSERT INTO commands (tenant_id, client_id, partition, type, idempotency_key, request_hash, wallet, asset,
                                  amount)
            VALUES (%s, %s, 2, 'conjure', %s, '', %s, 'gold', 1) RETURNING partition, seq
        )
        INSERT INTO pending (partition, seq) SELECT * FROM accepted RETURNING seq
        """,
        tenant.id,
        tenant.client_id,
        key,
        tenant.wallets_in(2, 1, prefix="p0")[0],
    )
    return key


def test_every_worker_down_until_the_backlog_is_full(service: Service) -> None:
    service.kill_workers()
    bounded = service.add_api(BURSAR_MAX_BACKLOG=str(MAX_BACKLOG))
    bounded.start()
    with Load(service, ports=[bounded.port]) as load:
        load.until_refused("backlogged", times=20)  # each with 429 and Retry-After (tests.crash.wire)
        assert service.pending(load.tenant) > MAX_BACKLOG
        service.restart_dead_workers()
        load.until(accepted=1_000)
    check(service, load)
    assert set(load.refused) == {"backlogged"}
    service.dismiss(bounded)
