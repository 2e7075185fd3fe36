"""Redis fails in every way it can. It carries hints only: acceptance does not notice, outcomes come a second later."""

from collections.abc import Generator
from time import sleep

import pytest

from tests.crash.checks import assert_doorbells_answered, check, settle, tasks
from tests.crash.load import Load
from tests.crash.obstacles import LOCKS_OUTCOMES, obstacle
from tests.crash.service import Service, wait_for

pytestmark = pytest.mark.timeout(120)

# A command that no doorbell announced waits a second for the look-out, and half a one for its next look. The rest is
# for a machine that does other things too.
OUTCOME_MAX_S = 5.0
ACCEPT_MAX_S = 2.0  # an answer that waited for Redis would take longer than the api's socket timeouts to it
# Celery tries to reconnect after 2, 4, 6 … seconds.
RECONNECT_S = 40.0
HEARTBEATS_S = 6.0  # a worker sends one every 2 seconds, and learns by the second that Redis does not take it
# Of a shutdown that asks Redis for this and that: a handful of calls, each up to the socket timeouts.
END_MAX_S = 30.0


@pytest.fixture
def service(service: Service) -> Generator[Service]:
    yield service
    service.redis.thaw()


def test_nothing_fails(service: Service) -> None:
    """The ground that the others stand on: the same checks, and no answer but 202 and 200."""
    with Load(service) as load:
        load.until(accepted=3_000)
    check(service, load)
    assert not load.refused
    groups = [{load.expected[command.key] for command in post} for post in load.posts if len(post) > 1]
    assert {"applied"} in groups
    assert any("group_refused" in codes for codes in groups)
    assert tasks(service, load.tenant)[True] > 0
    assert service.run("audit") == 0


def test_redis_stands_still_while_a_doorbell_is_acknowledged(service: Service) -> None:
    """The worker counts the doorbell as answered all the same, and comes for the next one."""
    service.kill_workers()
    worker = service.workers[0]
    worker.spawn()
    worker.wait_ready()
    with Load(service) as load:
        with obstacle(service, LOCKS_OUTCOMES) as ahead:
            load.until(accepted=50)
            assert ahead.caught()
            service.redis.freeze()
        wait_for(lambda: "Couldn't ack" in worker.log.read_text(), "an acknowledgement given up", within_s=RECONNECT_S)
    service.redis.thaw()
    assert_doorbells_answered(service, within_s=RECONNECT_S)
    check(service, load)


def test_a_worker_ends_when_told_to_though_redis_stands_still(service: Service) -> None:
    """Long enough for its heartbeats, which Celery would send again until Redis took them."""
    with Load(service) as load:
        load.until(accepted=200)
        service.redis.freeze()
        load.until(accepted=2_000)
    settle(service, load.tenant)
    sleep(HEARTBEATS_S)
    worker = service.workers[0].process
    worker.terminate()
    worker.wait(END_MAX_S)
    service.redis.thaw()
    check(service, load)


def test_redis_gone_for_the_whole_load(service: Service) -> None:
    service.redis.kill()
    with Load(service) as load:
        load.until(accepted=3_000)
    assert check(service, load) < OUTCOME_MAX_S
    assert not load.refused
    assert tasks(service, load.tenant)[True] == 0

    service.redis.start()
    assert_doorbells_answered(service, within_s=RECONNECT_S)


def test_redis_flushed_again_and_again(service: Service) -> None:
    with Load(service) as load:
        for _ in range(20):
            load.until(accepted=150)
            service.redis.flush()
    check(service, load)
    assert not load.refused
    assert_doorbells_answered(service, within_s=RECONNECT_S)


def test_redis_stands_still_while_posting(service: Service) -> None:
    with Load(service) as load:
        load.until(accepted=500)
        service.redis.freeze()
        load.until(accepted=2_500)
    # All of that was accepted and comes to its outcomes while Redis still stands still.
    assert load.slowest_s < ACCEPT_MAX_S
    settle(service, load.tenant)
    service.redis.thaw()
    check(service, load)
    assert not load.refused
    assert_doorbells_answered(service, within_s=RECONNECT_S)
