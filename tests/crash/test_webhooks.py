"""Couriers are killed, frozen, told to end, and left without Redis or PostgreSQL, and get ten thousand at once. What is
owed arrives, under the same id."""

import subprocess
from collections import Counter
from collections.abc import Generator
from datetime import UTC, datetime

import psutil
import pytest

from ledger.ids import event_id
from tests.crash.checks import settle
from tests.crash.load import Load
from tests.crash.model import ASSET
from tests.crash.service import Courier, Service, Tenant, wait_for
from tests.crash.wire import Persistent
from tests.receivers import Door, Receiver, hang, reply
from worker.courier import LOOK_EVERY_S, SESSION_IDLE_MAX_MS, WINDOW_FIRST, WINDOW_MAX

pytestmark = pytest.mark.timeout(120)

OWED = 40  # of a test that counts each: more than a courier sends at once
# A second for the drains' look-out, which has the outcome at half of one at the latest, and one for the courier's. The
# rest is for a machine that does other things too.
ARRIVAL_MAX_S = 4.0
DELIVERED_S = 40.0
FROZEN_S = SESSION_IDLE_MAX_MS / 1_000 + LOOK_EVERY_S
WALLETS = 7
ENDPOINTS, CROWD = 10, 1_000
OTHER_SOCKETS = 20  # to PostgreSQL, to Redis, and connections that are closing
GROWTH_MAX_BYTES = 32 * 2**20  # ten thousand in memory would be several times that
OUTCOMES = "SELECT c.seq, o.at FROM commands c JOIN outcomes o USING (seq) WHERE c.tenant_id = %s ORDER BY c.seq"
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


@pytest.mark.parametrize("how", ["it crashes", "it is restarted"])
def test_postgres_goes_and_comes_between_post_and_settle(
    service: Service, courier: Courier, tenant: Tenant, receiver: Receiver, how: str
) -> None:
    pid = courier.pid
    receiver.answers(hang())
    top_up(service, tenant)
    in_the_air = receiver.wait_for(WINDOW_FIRST)
    service.postgres.stop_immediately() if how == "it crashes" else service.postgres.stop()
    receiver.answers(reply(200))
    service.postgres.start()
    arrived = Counter(all_delivered(service, tenant, receiver))
    assert {id_ for id_, times in arrived.items() if times > 1} == {each.headers["webhook-id"] for each in in_the_air}
    courier.assert_alive()
    assert courier.pid == pid


def test_one_that_is_frozen_loses_its_endpoint_and_thawed_it_breaks_no_order(
    service: Service, courier: Courier, receiver: Receiver
) -> None:
    """Its session holds the endpoint's lock until PostgreSQL ends it for saying nothing."""
    tenant = service.new_tenant(ASSET)
    listen(service, tenant, receiver, ordering="per_wallet")
    receiver.answers(hang())
    top_up(service, tenant)
    in_the_air = {each.headers["webhook-id"] for each in receiver.wait_for(WINDOW_FIRST)}
    courier.freeze()
    receiver.answers(reply(200))
    other = service.add_courier()
    other.start()
    arrived = Counter(all_delivered(service, tenant, receiver, within_s=FROZEN_S + DELIVERED_S))
    assert {id_ for id_, times in arrived.items() if times > 1} == in_the_air
    courier.thaw()
    top_up(service, tenant, prefix="later")
    wait_for(lambda: "courier.fault" in courier.log.read_text(), "it to notice that it lost its session")
    all_delivered(service, tenant, receiver)
    courier.assert_alive()
    service.dismiss(other)
    in_order = [event_id(seq, at) for seq, at in service.rows(OUTCOMES, tenant.id)]
    place = {id_: n for n, id_ in enumerate(in_order)}
    for n in range(WALLETS):
        of_wallet = [each for each in receiver.requests if f'"wallet":"w{n}"'.encode() in each.body]
        first_arrivals = list(dict.fromkeys(each.headers["webhook-id"] for each in of_wallet))
        assert first_arrivals == sorted(first_arrivals, key=place.__getitem__)


def test_ten_thousand_that_are_due_at_once_arrive_and_cost_what_few_cost(service: Service, courier: Courier) -> None:
    """After their receiver was down: ten endpoints, a thousand outcomes."""
    tenant = service.new_tenant(ASSET)
    with Receiver() as down:
        pass
    for n in range(ENDPOINTS):
        post(service, tenant, "/v1/webhook_endpoints", {"url": f"{down.url}{n}"})
    top_up(service, tenant, CROWD)
    settle(service, tenant)
    failures = "SELECT count(*) FROM webhook_endpoints WHERE tenant_id = %s AND failing_since IS NOT NULL"
    wait_for(lambda: service.rows(failures, tenant.id) == [(ENDPOINTS,)], "every endpoint to fail")
    process = psutil.Process(courier.pid)
    before, most_sockets = process.memory_info().rss, 0
    undelivered = """
        SELECT count(*) FROM deliveries d JOIN webhook_endpoints e ON e.id = d.endpoint_id
        WHERE e.tenant_id = %s AND d.status <> 'delivered'
    """

    def left() -> int:
        nonlocal most_sockets
        most_sockets = max(most_sockets, len(process.net_connections("tcp4")))
        return service.rows(undelivered, tenant.id)[0][0]

    with Receiver(port=down.port) as receiver:
        service.rows(
            "UPDATE deliveries d SET due_at = now() FROM webhook_endpoints e WHERE e.id = d.endpoint_id"
            " AND e.tenant_id = %s AND d.status = 'pending' RETURNING 1",
            tenant.id,
        )
        wait_for(lambda: left() == 0, "all to be delivered", within_s=DELIVERED_S, tell=lambda: f"left: {left()}")
        requests = list(receiver.requests)
    wanted = {id_ for id_, _ in owed(service, tenant)}
    assert len(wanted) == CROWD
    for n in range(ENDPOINTS):
        arrived = [each.headers["webhook-id"] for each in requests if each.target == f"/{n}"]
        assert len(arrived) == len(set(arrived))
        assert set(arrived) == wanted
    assert most_sockets <= ENDPOINTS * WINDOW_MAX + OTHER_SOCKETS
    assert process.memory_info().rss - before < GROWTH_MAX_BYTES


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


def listen(service: Service, tenant: Tenant, receiver: Receiver, **chosen: str) -> None:
    post(service, tenant, "/v1/webhook_endpoints", {"url": receiver.url} | chosen)


def top_up(service: Service, tenant: Tenant, number: int = OWED, *, prefix: str = "top-up") -> None:
    items = [
        {
            "idempotency_key": f"{prefix}-{n}",
            "type": "top_up",
            "wallet": f"w{n % WALLETS}",
            "asset": ASSET,
            "amount": "1",
        }
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
    return [(event_id(seq, at), at) for seq, at in service.rows(OUTCOMES, tenant.id)]


def all_delivered(service: Service, tenant: Tenant, receiver: Receiver, *, within_s: float = DELIVERED_S) -> list[str]:
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

    wait_for(lambda: left() == 0, "everything to be delivered", within_s=within_s, tell=lambda: f"left: {left()}")
    arrived = [request.headers["webhook-id"] for request in receiver.requests]
    assert set(arrived) == {id_ for id_, _ in owed(service, tenant)}
    return arrived
