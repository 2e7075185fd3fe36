"""The load generators, on real sockets against a stand-in that answers as the contract says."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from bursar.bench import wrk
from bursar.bench.drive import LoadError, Running
from bursar.bench.figures import Spread
from bursar.bench.plan import Generator, LoadResult, Plan
from bursar.bench.posts import LOTS
from tests.bench.standin import StandIn


def plan_for(port: int, **changes: object) -> Plan:
    settings: dict[str, object] = {
        "host": "127.0.0.1", "port": port, "api_key": "bursar_test_key", "asset": "gold_coins",
        "wallet_prefix": "w-", "wallets": 20, "nonce": "run-1", "connections": 4, "duration_s": 0.3,
    }  # fmt: skip
    return Plan(**{**settings, **changes})  # pyright: ignore[reportArgumentType]


def drive(server: StandIn, folder: Path, *, generator: Generator = "bundled", **changes: object) -> LoadResult:
    async def run() -> LoadResult:
        async with server:
            running = Running(plan_for(server.port, **changes), folder, generator=generator)
            await asyncio.to_thread(running.wait_ready)
            return await asyncio.to_thread(running.result)

    return asyncio.run(run())


@pytest.mark.parametrize("generator", ["auto", "bundled"])
@pytest.mark.parametrize("batch", [1, 7])
def test_a_full_load_uses_every_key_once_and_a_top_up_pays_for_nine_spends(
    tmp_path: Path, generator: Generator, batch: int
) -> None:
    server = StandIn()

    result = drive(server, tmp_path, generator=generator, batch=batch)

    assert len(server.keys) == len(set(server.keys)) == len(server.posts) * batch
    assert result.errors == {}
    # wrk hangs up at its end with a post on each connection still unanswered
    assert len(server.posts) - 4 <= result.posts <= len(server.posts)
    assert result.commands == result.posts * batch
    assert result.accept_ms is not None
    assert 0 < result.accept_ms.p50 <= result.accept_ms.p99 <= result.accept_ms.max
    assert {command["wallet"] for command in server.commands} == {f"w-{number:06d}" for number in range(20)}
    kinds = Counter((command["type"], command["amount"]) for command in server.commands)
    assert set(kinds) == {("spend", "1"), ("top_up", "9")}
    assert abs(len(server.commands) / 10 - kinds["top_up", "9"]) <= 1


def test_funding_tops_every_wallet_up_once_and_stops(tmp_path: Path) -> None:
    server = StandIn()

    result = drive(server, tmp_path, kind="fund", batch=10, posts_max=2, amount=1000, duration_s=20.0)

    assert sorted(command["wallet"] for command in server.commands) == [f"w-{number:06d}" for number in range(20)]
    assert {(command["type"], command["amount"]) for command in server.commands} == {("top_up", "1000")}
    assert (result.posts, result.commands) == (2, 20)


def test_the_mixed_load_is_of_the_shares_it_says_and_names_each_hold_and_command_once(tmp_path: Path) -> None:
    server = StandIn()

    result = drive(server, tmp_path, kind="mixed", batch=50, duration_s=0.6)

    kinds = Counter(command["type"] for command in server.commands)
    total = len(server.commands)
    assert result.errors == {}
    assert result.generator == "bundled"
    assert total > 1_000
    for kind, share in {"spend": 60, "top_up": 15, "transfer": 10, "hold": 10, "capture": 10, "reverse": 5}.items():
        assert kinds[kind] / total == pytest.approx(share / 110, rel=0.25), kind
    captured = [command["hold"] for command in server.commands if command["type"] == "capture"]
    reversed_ = [command["command"] for command in server.commands if command["type"] == "reverse"]
    assert {server.ids[name] for name in captured} == {"hold"}
    assert {server.ids[name] for name in reversed_} <= {"spend", "top_up", "transfer", "capture"}
    assert len(set(captured)) == len(captured)
    assert len(set(reversed_)) == len(reversed_)


def test_lots_come_to_one_wallet_in_ten_and_never_leave_these(tmp_path: Path) -> None:
    server = StandIn()
    drive(server, tmp_path, kind="fund_lots", batch=16, posts_max=1, duration_s=20.0)
    funded = Counter(command["wallet"] for command in server.commands)

    assert funded == {"w-000000": len(LOTS), "w-000010": len(LOTS)}
    assert len({command["credits_expire_at"] for command in server.commands}) == len(LOTS)

    server = StandIn()
    drive(server, tmp_path, kind="mixed", batch=50)
    for command in server.commands:
        if command["type"] == "transfer":
            assert command["wallet"] != command["to_wallet"]
            assert (command["wallet"] in funded) == (command["to_wallet"] in funded)
        elif command["type"] == "top_up":
            assert (command["wallet"] in funded) == ("credits_expire_at" in command)


def test_spends_alone_are_that(tmp_path: Path) -> None:
    server = StandIn()

    result = drive(server, tmp_path, kind="spends", batch=10)

    assert result.errors == {}
    assert {command["type"] for command in server.commands} == {"spend"}


def test_a_mixed_load_that_finds_no_ids_says_so(tmp_path: Path) -> None:
    result = drive(StandIn(ids=False), tmp_path, kind="mixed", batch=50)

    assert result.errors == {"ids not found in the answers": 1}


def test_an_offered_load_posts_as_many_as_were_due_and_awaits_one_in_five(tmp_path: Path) -> None:
    server = StandIn()

    result = drive(server, tmp_path, rate=50.0, wait_every=5, duration_s=1.0)

    assert result.posts == len(server.posts) == 50
    assert sum("prefer" in headers for _, headers, _ in server.posts) == 10
    assert result.accept_ms is not None
    assert result.outcome_ms is not None
    assert (result.accept_ms.count, result.outcome_ms.count) == (40, 10)
    assert result.outcome_ms.p50 >= 20  # the stand-in takes 20 ms to an outcome


def test_a_late_answer_delays_what_was_due_meanwhile_and_the_latency_says_so(tmp_path: Path) -> None:
    server = StandIn()

    result = drive(server, tmp_path, rate=100.0, wait_every=1, connections=1, duration_s=0.5)

    assert result.late > 0
    assert result.outcome_ms is not None
    assert result.outcome_ms.count == 50
    assert result.outcome_ms.p99 > 250  # one connection at 20 ms a post serves half of 100/s


@pytest.mark.parametrize("generator", ["auto", "bundled"])
def test_refused_posts_are_errors_and_not_speed(tmp_path: Path, generator: Generator) -> None:
    server = StandIn(refuse_after=0)

    result = drive(server, tmp_path, generator=generator)

    assert (result.posts, result.commands) == (0, 0)
    assert sum(result.errors.values()) > 0


def test_a_server_that_hangs_up_ends_the_load_and_is_an_error(tmp_path: Path) -> None:
    result = drive(StandIn(hang_up_after=10), tmp_path, duration_s=20.0)

    assert 0 < result.posts <= 14
    assert result.errors["connection lost"] > 0


def test_no_server_at_all_is_said(tmp_path: Path) -> None:
    running = Running(plan_for(1), tmp_path, generator="bundled")

    with pytest.raises(LoadError, match="did not start"):
        running.wait_ready()


def test_wrk_threads_never_share_a_key_and_its_result_is_read() -> None:
    plan = plan_for(1)
    script = wrk.script(plan)
    output = (
        'noise\nbursar-bench {"requests":12,"connect":0,"read":0,"write":0,"status":2,"timeout":1,'
        '"mean":1.5,"p50":1.0,"p95":2.0,"p99":3.0,"max":4.0}\n'
    )

    assert '"run-1-" .. thread_number .. "-" .. numbered' in script
    assert wrk.read_result(output, plan) == LoadResult(
        generator="wrk", posts=10, commands=10, errors={"status": 2, "timeout": 1}, outcome_ms=None, late=0,
        accept_ms=Spread(count=12, mean=1.5, p50=1.0, p95=2.0, p99=3.0, max=4.0),
    )  # fmt: skip
    with pytest.raises(ValueError, match="without a result"):
        wrk.read_result("unable to connect", plan)
