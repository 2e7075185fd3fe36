"""Couriers are killed, told to end, and left without Redis or PostgreSQL. What is owed arrives, under the same id."""

import subprocess
from collections import Counter
from collections.abc import Generator
from datetime import UTC, datetime

import pytest

from ledger.ids import event_id
from tests.crash.load import Load
from tests.crash.model import ASSET
from tests.crash.service import Courier, Service, Tenant, wait_for
from tests.crash.wire import Persistent
from tests.receivers import Door, Receiver, hang, reply
from worker.courier import WINDOW_FIRST

pytestmark = pytest.mark.timeout(120)

OWED = 40  # of a test that counts each: more than a courier sends at once
# A second for the drains' look-out, which has the outcome at half of one at the latest, and one for the courier's. The
# rest is for a machine that does other things too.
ARRIVAL_MAX_S = 4.0
DELIVERED_S = 40.0
STAYS_S = 3.0  # one that waited for nothing would be gone by then
END_MAX_S = 20.0  # as `bursar worker --webhooks` promises


@pytest.fixture
def receiver() -> Generator[Receiver]:
    with Receiver() as made:
        yield made


@pytest.fixture
def courier(service: Service) -> Generator[Courier]:
    made = service.add_courier()
    made.start()
    yield made
    service.dismiss(made)


@pytest.fixture
def tenant(service: Service, receiver: Receiver) -> Tenant:
    """One whose outcomes all go to the receiver."""
    made = service.new_tenant(ASSET)
    listen(service, made, receiver)
    return made


def test_killed_between_post_and_settle(service: Service, courier: Courier, tenant: Tenant, receiver: Receiver) -> None:
    receiver.answers(hang())
    top_up(service, tenant)
    in_the_air = receiver.wait_for(WINDOW_FIRST)
    courier.kill()
    receiver.answers(reply(200))
    courier.spawn()
    arrived = Counter(all_delivered(service, tenant, receiver))
    assert {id_ for id_, times in arrived.items() if times > 1} == {each.headers["webhook-id"] for each in in_the_air}
    assert max(arrived.values()) == 2


def test_killed_under_load_while_another_goes_on(service: Service, courier: Courier, receiver: Receiver) -> None:
    """They take turns at being killed; the one that is not takes over, or finds what both left."""
    other = service.add_courier()
    other.spawn()
    load = Load(service, lanes=1)
    listen(service, load.tenant, receiver)
    with load:
        for victim in (courier, other):
            load.until(accepted=30)
            receiver.wait_for(len(receiver.requests) + 20, within_s=DELIVERED_S)
            victim.kill()
            if victim is courier:
                victim.spawn()
        other.spawn()
    all_delivered(service, load.tenant, receiver)
    service.dismiss(other)


def test_redis_gone(service: Service, courier: Courier, tenant: Tenant, receiver: Receiver) -> None:
    service.redis.kill()
    top_up(service, tenant)
    arrived = all_delivered(service, tenant, receiver)
    assert max(Counter(arrived).values()) == 1
    decided_at = dict(owed(service, tenant))
    for request in receiver.requests:
        waited = datetime.fromtimestamp(request.at, UTC) - decided_at[request.headers["webhook-id"]]
        assert waited.total_seconds() < ARRIVAL_MAX_S
    courier.process.terminate()
    assert courier.process.wait(END_MAX_S) == 0


def test_postgres_crashes_between_post_and_settle(
    service: Service, courier: Courier, tenant: Tenant, receiver: Receiver
) -> None:
    pid = courier.pid
    receiver.answers(hang())
    top_up(service, tenant)
    in_the_air = receiver.wait_for(WINDOW_FIRST)
    service.postgres.stop_immediately()
    receiver.answers(reply(200))
    service.postgres.start()
    arrived = Counter(all_delivered(service, tenant, receiver))
    assert {id_ for id_, times in arrived.items() if times > 1} == {each.headers["webhook-id"] for each in in_the_air}
    courier.assert_alive()
    assert courier.pid == pid


def test_what_is_in_the_air_comes_down_before_it_ends(
    service: Service, courier: Courier, tenant: Tenant, receiver: Receiver
) -> None:
    door = Door()
    receiver.answers(door.answer)
    top_up(service, tenant)
    receiver.wait_for(WINDOW_FIRST)
    courier.process.terminate()
    wait_for(lambda: "shutdown" in courier.log.read_text().lower(), "it to notice")
    with pytest.raises(subprocess.TimeoutExpired):
        courier.process.wait(STAYS_S)
    door.open()
    assert courier.process.wait(END_MAX_S) == 0
    [(settled,)] = service.rows(
        "SELECT count(*) FROM attempts a JOIN webhook_endpoints e ON e.id = a.endpoint_id WHERE e.tenant_id = %s",
        tenant.id,
    )
    assert settled == len(receiver.requests)
    courier.spawn()
    arrived = all_delivered(service, tenant, receiver)
    assert max(Counter(arrived).values()) == 1


def listen(service: Service, tenant: Tenant, receiver: Receiver) -> None:
    post(service, tenant, "/v1/webhook_endpoints", {"url": receiver.url})


def top_up(service: Service, tenant: Tenant, number: int = OWED) -> None:
    items = [
        {"idempotency_key": f"top-up-{n}", "type": "top_up", "wallet": f"w{n % 7}", "asset": ASSET, "amount": "1"}
        for n in range(number)
    ]
    post(service, tenant, "/v1/commands/batch", {"commands": items})


def post(service: Service, tenant: Tenant, path: str, body: object) -> None:
    client = Persistent(service.api.port, tenant.key)
    try:
        client.post(path, body)
    finally:
        client.close()


def owed(service: Service, tenant: Tenant) -> list[tuple[str, datetime]]:
    """The webhook-ids of what this tenant's commands have come to, and when."""
    rows = service.rows(
        "SELECT c.seq, o.at FROM commands c JOIN outcomes o USING (seq) WHERE c.tenant_id = %s", tenant.id
    )
    return [(event_id(seq, at), at) for seq, at in rows]


def all_delivered(service: Service, tenant: Tenant, receiver: Receiver) -> list[str]:
    """Waits until all commands have their outcomes and these are delivered; the ids that arrived, in order."""

    def left() -> int:
        [(undelivered,)] = service.rows(
            """
            SELECT count(*) FROM commands c
            WHERE c.tenant_id = %s AND NOT EXISTS (
                SELECT FROM deliveries d WHERE d.seq = c.seq AND d.status = 'delivered')
            """,
            tenant.id,
        )
        return undelivered

    wait_for(lambda: left() == 0, "everything to be delivered", within_s=DELIVERED_S, tell=lambda: f"left: {left()}")
    arrived = [request.headers["webhook-id"] for request in receiver.requests]
    assert set(arrived) == {id_ for id_, _ in owed(service, tenant)}
    return arrived
