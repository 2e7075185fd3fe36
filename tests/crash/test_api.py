"""The api is killed. The client sends its post again with the same key, and that is all it needs to do."""

import threading

import pytest

from bursar.local import processes
from tests.crash.checks import check, settle
from tests.crash.load import Load
from tests.crash.model import ASSET, Command
from tests.crash.obstacles import LOCKS_COMMANDS, obstacle
from tests.crash.service import Service
from tests.crash.wire import Answer, Connection

pytestmark = pytest.mark.timeout(120)

WAIT_S = 10
CATCHES_MAX = 5  # tries to catch a statement that is being run


def test_api_killed_while_posting(service: Service) -> None:
    with Load(service) as load:
        for _ in range(3):
            load.until(accepted=400)
            service.api.kill()
            service.api.start()
        load.until(accepted=1_000)
    check(service, load)
    assert set(load.refused) == {"unanswered"}


def test_api_killed_between_commit_and_answer(service: Service) -> None:
    """It stands still while PostgreSQL commits, so it can neither answer nor ring, and then it is killed."""
    with Load(service) as load:
        load.until(accepted=1_000)
        answered = 0
        for _ in range(CATCHES_MAX):
            with obstacle(service, LOCKS_COMMANDS) as ahead:
                ahead.caught_intake()
                service.api.freeze()
                answered = told = load.accepted
            if processes.wait_until(lambda told=told: service.commands(load.tenant) > told, timeout_s=3):
                break
            service.api.thaw()  # caught at a statement that it sent for the first time: not to be run, but to be parsed
        service.api.kill()
        unanswered = service.commands(load.tenant) - answered
        settle(service, load.tenant)  # the look-out finds them
        service.api.start()
        load.until(accepted=1_000)
    check(service, load)
    assert unanswered > 0


def test_api_killed_between_answer_and_doorbell(service: Service) -> None:
    """Redis stands still, so no doorbell of these commands has left when the api is killed."""
    with Load(service) as load:
        load.until(accepted=500)
        service.redis.freeze()
        load.until(accepted=1_000)
        service.api.kill()
        settle(service, load.tenant)
        service.redis.thaw()
        service.api.start()
        load.until(accepted=1_000)
    check(service, load)


def test_a_hundred_identical_posts_at_once(service: Service) -> None:
    """Over a hundred connections to two api processes, half of them waiting for the outcome."""
    second = service.add_api()
    second.start()
    tenant = service.new_tenant(ASSET)
    command = Command("only-once", "top_up", "alice", 30)
    together = threading.Barrier(100)
    answers: list[Answer] = []

    def post(number: int) -> None:
        connection = Connection((service.api, second)[number % 2].port, tenant.key)
        headers = {"Idempotency-Key": command.key} | ({"Prefer": f"wait={WAIT_S}"} if number % 4 < 2 else {})
        together.wait(10)
        answers.append(connection.request("POST", "/v1/commands", command.body(), **headers))
        connection.close()

    posts = [threading.Thread(target=post, args=(number,), daemon=True) for number in range(100)]
    for thread in posts:
        thread.start()
    for thread in posts:
        thread.join(30)
    service.dismiss(second)

    assert len(answers) == 100
    assert {answer.status for answer in answers} <= {200, 202}
    assert max(answer.took_s for answer in answers) < WAIT_S  # whoever waits is told, also where many wait for the same
    assert len({answer.body["id"] for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    settle(service, tenant)
    assert service.commands(tenant) == 1
    balance = "SELECT posted FROM accounts a JOIN wallets w ON w.id = a.wallet_id WHERE w.tenant_id = %s AND code = %s"
    assert service.rows(balance, tenant.id, "alice") == [(30,)]
