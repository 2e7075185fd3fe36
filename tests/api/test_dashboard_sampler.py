"""The sampler of the dashboard: what it holds is bounded, and a server that is down is a figure, too."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from api.dashboard import sampler
from api.dashboard.pages import render
from api.dashboard.sampler import Sample, Sampler, TooManyTenants, Watch
from ledger import db
from ledger.operators import SCOPES_OF, Role, Session
from ledger.sampling import Queue

NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"
SESSION = Session(1, "default", 1, None, "ada", Role.OPERATOR, SCOPES_OF[Role.OPERATOR], "token")


def run(work: Callable[[Sampler], Awaitable[None]]) -> None:
    async def ran() -> None:
        engine = db.async_engine(NOWHERE, application="test")
        looking = Sampler(NOWHERE, "redis://127.0.0.1:1/0", engine)
        await work(looking)
        await looking.stop()
        await engine.dispose()

    asyncio.run(ran())


def shown(watch: Watch) -> str:
    values = {"state": watch.state, "sample": watch.samples[-1], "history_min": 60, "most_pending": 9}
    return render("parts/overview.html", {**values, "session": SESSION})


def test_servers_that_do_not_answer_are_told() -> None:
    async def look(looking: Sampler) -> None:
        watch = looking.watch(1)
        await looking._sample(watch)
        assert (watch.state.database_ms, watch.state.redis_ms) == (None, None)
        assert watch.samples[-1].accepted is None
        assert shown(watch).count("no answer") == 2
        assert "none</span>" in shown(watch), "no worker"

    run(look)


def test_a_defect_ends_one_sample_and_not_the_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    async def defect(*_: object, **__: object) -> Sample:
        raise KeyError("a defect")

    async def look(looking: Sampler) -> None:
        monkeypatch.setattr(looking, "_ask_database", defect)
        watch = looking.watch(1)
        await looking._sample(watch)
        assert watch.samples[-1].accepted is None

    run(look)


def test_work_that_waits_while_nothing_is_begun_is_told() -> None:
    async def look(looking: Sampler) -> None:
        watch = looking.watch(1)
        watch.state.queues = [Queue(0, 9, 60.0)]
        watch.add(Sample(1.0, oldest_s=60.0, pending=9))
        assert watch.state.stuck
        assert "tile alarm" in shown(watch)

    run(look)


def test_an_hour_is_kept_of_a_tenant_and_a_bounded_number_of_tenants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "SAMPLES_MAX", 3)

    async def look(looking: Sampler) -> None:
        watch = looking.watch(1)
        for at in range(5):
            watch.add(Sample(float(at), codes={"insufficient_funds": 1, f"only_{at}": 1}))
        assert [sample.at for sample in watch.samples] == [2, 3, 4]
        assert watch.state.refused == {"insufficient_funds": 3, "only_2": 1, "only_3": 1, "only_4": 1}
        for tenant_id in range(2, sampler.TENANTS_MAX + 2):
            looking.watch(1)  # one that is looked at stays
            looking.watch(tenant_id)
        assert len(looking._watches) == sampler.TENANTS_MAX
        assert looking.watch(1) is watch
        for each in looking._watches.values():
            each.viewers = 1
        with pytest.raises(TooManyTenants):
            looking.watch(99)
        watch.viewers = 0
        looking.watch(99)
        assert len(looking._watches) == sampler.TENANTS_MAX

    run(look)


def test_whoever_looks_on_is_let_go_when_the_api_stops() -> None:
    async def look(looking: Sampler) -> None:
        watch = looking.watch(1)
        waiting = asyncio.create_task(watch.next())
        await asyncio.sleep(0)
        looking.release()
        await asyncio.wait_for(waiting, 5)

    run(look)


def test_a_tenant_that_nobody_looked_at_for_an_hour_is_sampled_no_more() -> None:
    async def look(looking: Sampler) -> None:
        seen, forgotten, open_ = looking.watch(1), looking.watch(2), looking.watch(3)
        for watch in (forgotten, open_):
            watch.seen_at -= sampler.HISTORY_S + 1
        open_.viewers = 1
        looking._forget()
        assert list(looking._watches.values()) == [seen, open_]

    run(look)
