"""Workers are killed in every way. Their batch rolls back and another worker drains it: nothing lost, nothing twice."""

from collections.abc import Callable
from random import Random
from typing import LiteralString

import pytest

from tests.crash.checks import check
from tests.crash.load import Load
from tests.crash.obstacles import LOCKS_OUTCOMES, LOCKS_REVENUE, StuckDrain, obstacle
from tests.crash.service import Service, lives, wait_for

pytestmark = pytest.mark.timeout(120)

# A child that was killed is replaced, and one whose parent was killed ends, within the few seconds of Celery's rounds.
POOL_S = 20.0

Kill = Callable[[Service, StuckDrain], None]


def the_parent(_: Service, drain: StuckDrain) -> None:
    """Celery's main process; the child that drains has nobody left to report to."""
    if drain.worker.alive:
        drain.worker.kill()


def the_child(_: Service, drain: StuckDrain) -> None:
    """The process that is inside the transaction; its parent must notice and have another."""
    drain.child.kill()


def the_backend(service: Service, drain: StuckDrain) -> None:
    """PostgreSQL's end of it, as an administrator or a fail-over does."""
    service.rows("SELECT pg_terminate_backend(%s)", drain.backend_pid)


@pytest.mark.parametrize("kill", [the_parent, the_child, the_backend])
@pytest.mark.parametrize("lock", [LOCKS_REVENUE, LOCKS_OUTCOMES], ids=["deciding", "writing"])
def test_killed_in_mid_drain(service: Service, kill: Kill, lock: LiteralString) -> None:
    with Load(service) as load:
        load.until(accepted=500)
        with obstacle(service, lock, *([load.tenant.id] if lock is LOCKS_REVENUE else [])) as ahead:
            drains = ahead.caught()
            for drain in drains:
                kill(service, drain)
            load.until(accepted=300)
        load.until(accepted=1_000)
        service.restart_dead_workers()
    check(service, load)
    if kill is the_child:
        wait_for(lambda: all(drain.worker.children() for drain in drains), "another child", within_s=POOL_S)
    if kill is the_parent:
        wait_for(lambda: not any(lives(drain.child) for drain in drains), "its child to end too", within_s=POOL_S)


def test_killed_at_random_moments(service: Service) -> None:
    """Children, and workers whole. Whatever has ended is started again at once, as a supervisor would."""
    dice = Random(20)
    with Load(service) as load:
        for _ in range(8):
            load.until(accepted=dice.randint(1, 500))
            service.restart_dead_workers()  # a worker gives up when its child is killed as it is born
            worker = dice.choice(service.workers)
            children = worker.children()
            if children and dice.random() < 0.5:
                children[0].kill()
            else:
                worker.kill()
                worker.spawn()
        service.restart_dead_workers()
    check(service, load)


def test_every_worker_killed_and_started_again(service: Service) -> None:
    with Load(service) as load:
        load.until(accepted=1_000)
        service.kill_workers()
        load.until(accepted=1_500)
        assert service.pending(load.tenant) >= 1_000
        service.restart_dead_workers()
        load.until(accepted=1_000)
    check(service, load)


def test_two_workers_forced_on_the_same_partition(service: Service) -> None:
    service.kill_workers()
    rivals = [service.add_worker("3"), service.add_worker("3")]
    for rival in rivals:
        rival.spawn()
    for rival in rivals:
        rival.wait_ready()
    with Load(service, wallets=lambda tenant, lane: tenant.wallets_in(3, 8, prefix=f"p{lane}")) as load:
        for _ in range(10):
            load.until(accepted=250)
            service.ring(3, times=4)
    check(service, load)
    for rival in rivals:
        service.dismiss(rival)
