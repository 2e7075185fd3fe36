"""PostgreSQL goes and comes back. Posts are refused meanwhile, clients send them again, and nothing needs a restart."""

from collections.abc import Callable

import pytest

from bursar.local.postgres import Postgres
from tests.crash.checks import check
from tests.crash.load import Load
from tests.crash.service import Service

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize("stop", [Postgres.stop_immediately, Postgres.kill])
def test_postgres_crashes_under_load(service: Service, stop: Callable[[Postgres], None]) -> None:
    programs = (service.api, *service.workers)
    before = [program.pid for program in programs]
    with Load(service) as load:
        for crash in range(1, 3):
            load.until(accepted=700)
            stop(service.postgres)
            # Each is a problem with Retry-After (tests.crash.wire), and anything else fails the load.
            load.until_refused("database_unavailable", times=crash * 10)
            service.postgres.start()
        load.until(accepted=1_000)
    check(service, load)
    assert set(load.refused) == {"database_unavailable"}
    for program in programs:
        program.assert_alive()
    assert [program.pid for program in programs] == before
