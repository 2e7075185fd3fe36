"""A run of the bench against an api that already runs: without its database, only the client's side is seen."""

import socket

import pytest

from bursar.bench.main import BenchError, run_bench
from bursar.bench.plan import Work
from bursar.bench.stack import StackError, Target
from bursar.bench.works import Options
from tests.bench.standin import StandIn, serving


def options(*works: Work) -> Options:
    return Options(
        works=works, seconds=0.3, warmup_s=0, connections=4, wallets=20, batch=10, rate=20, drain=1000, soak=1000,
        backlog=10, owing=1000, rounds=1, generator="auto",
    )  # fmt: skip


def target(port: int) -> Target:
    return Target(url=f"http://127.0.0.1:{port}", api_key="bursar_test_key", database_url=None)


def test_a_running_api_is_driven_and_what_cannot_be_seen_is_left_out() -> None:
    server = StandIn()
    with serving(server) as port:
        report = run_bench(options("batch", "offered"), target=target(port))

    batch, offered = report.works
    assert report.valid
    assert report.audit.startswith("not run")
    assert report.floor is None
    assert batch.window is None
    assert batch.cpu is None
    assert batch.load is not None
    assert batch.load.commands == batch.load.posts * 10
    assert offered.load is not None
    assert offered.load.posts == 20  # 20/s over the window, its lead-in and its tail, in whole seconds
    assert len(server.keys) == len(set(server.keys))


def test_an_api_that_refuses_makes_the_run_invalid() -> None:
    with serving(StandIn(refuse_after=3)) as port:  # an asset and two posts that fill the wallets come first
        report = run_bench(options("singles"), target=target(port))

    assert not report.valid
    assert report.works[0].problems


def test_works_that_need_servers_of_our_own_and_a_dead_api_are_said_in_a_sentence() -> None:
    with serving(StandIn()) as port, pytest.raises(BenchError, match="servers of the bench's own"):
        run_bench(options("drain"), target=target(port))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(BenchError, match="refused"):
            run_bench(options("singles"), target=target(unused.getsockname()[1]))
    with pytest.raises(StackError, match="plain http"):
        Target(url="https://example.test", api_key="k", database_url=None)
