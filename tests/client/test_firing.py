"""Fire and forget: the buffer's bound and policies, what is told of orders that do not arrive, the process's end."""

import asyncio
import pickle
import subprocess
import sys
import threading
from typing import Any

import pytest

from bursar.client import (
    AsyncClient,
    BufferFull,
    BursarError,
    Client,
    Closed,
    Fired,
    Firing,
    Invalid,
    Order,
    Problem,
    Retries,
    Unauthorized,
    Unknown,
)
from bursar.client.buffer import Buffer
from tests.client.hostile import Behaviour, Heard, Hostile, accepts, answers, drop, hang, problem
from tests.servers import ROOT

KEY = "bursar_test_hush"
FAST = Retries(attempts=1, within_s=5, first_s=0.001, cap_s=0.002)
Told = list[tuple[Order, BursarError]]


def order(number: int = 1) -> Order:
    return Order.spend("alice", "gold", number)


def amounts(hostile: Hostile) -> list[int]:
    """Of the commands of all batches, as they came."""
    return [int(item["amount"]) for heard in hostile.heard for item in heard.json["commands"]]


def gated(gate: threading.Event) -> Behaviour:
    """Takes the commands when the gate opens."""

    def behave(connection: Any, heard: Heard) -> None:
        assert gate.wait(10)
        accepts(connection, heard)

    return behave


def firing_client(hostile: Hostile, **firing: Any) -> Client:
    return Client(hostile.url, KEY, retries=FAST, firing=Firing(**firing))


def fire_until_one_is_under_way(client: Client, hostile: Hostile) -> None:
    """The first order is on the wire and stands in the buffer until it is answered."""
    client.fire(order(1))
    assert hostile.came.wait(10)


def test_what_gathers_goes_out_together_in_order(hostile: Hostile) -> None:
    gate = threading.Event()
    hostile.will(gated(gate))
    with firing_client(hostile) as client:
        fire_until_one_is_under_way(client, hostile)
        for number in range(2, 50):
            client.fire(order(number))
        gate.set()
    assert amounts(hostile) == list(range(1, 50))
    assert len(hostile.heard) == 2
    assert client.fired.accepted == 49


def test_a_full_buffer_raises(hostile: Hostile) -> None:
    gate = threading.Event()
    hostile.will(gated(gate))
    with firing_client(hostile, buffer=2, when_full="raise") as client:
        fire_until_one_is_under_way(client, hostile)
        client.fire(order(2))
        with pytest.raises(BufferFull):
            client.fire(order(3))
        gate.set()
    assert amounts(hostile) == [1, 2]


def test_a_full_buffer_drops_the_newest_and_says_so(hostile: Hostile) -> None:
    gate, told = threading.Event(), Told()
    hostile.will(gated(gate))
    policy: dict[str, Any] = {"when_full": "drop_newest", "on_dropped": lambda order, why: told.append((order, why))}
    with firing_client(hostile, buffer=2, **policy) as client:
        fire_until_one_is_under_way(client, hostile)
        client.fire(order(2))
        key = client.fire(order(3))
        gate.set()
    assert amounts(hostile) == [1, 2]
    assert (client.fired.accepted, client.fired.dropped) == (2, 1)
    [(dropped, why)] = told
    assert dropped.idempotency_key == key
    assert isinstance(why, BufferFull)


def test_a_full_buffer_blocks(hostile: Hostile) -> None:
    gate = threading.Event()
    hostile.will(gated(gate))
    with firing_client(hostile, buffer=1, when_full="block") as client:
        fire_until_one_is_under_way(client, hostile)
        blocked = threading.Thread(target=client.fire, args=(order(2),))
        blocked.start()
        assert client.fired.waiting == 1
        gate.set()
        blocked.join(10)
        assert not blocked.is_alive()
    assert amounts(hostile) == [1, 2]


def test_a_service_that_is_away_for_long_is_waited_for(hostile: Hostile) -> None:
    """Longer than any single call would: the attempts of `retries` are no bound here."""
    hostile.will(drop, problem(503, "overloaded", retryable=True), answers(502, b""), drop, drop, accepts)
    with firing_client(hostile) as client:
        key = client.fire(order())
        assert client.flush(10)
    assert [item["idempotency_key"] for heard in hostile.heard for item in heard.json["commands"]] == [key] * 6
    assert client.fired.accepted == 1


def test_an_order_that_is_not_taken_is_told_and_stops_no_other(hostile: Hostile) -> None:
    def behave(connection: Any, heard: Heard) -> None:
        results: list[Any] = [{"status": 422, "problem": {"status": 422, "code": "validation_failed"}}]
        answers(200, {"results": results})(connection, heard)

    told = Told()

    def listen(order: Order, why: BursarError) -> None:
        told.append((order, why))
        raise RuntimeError("a listener of its own mind")

    hostile.will(behave, problem(401, "unauthorized"), accepts)
    with firing_client(hostile, on_refused=listen) as client:
        for number in range(3):
            client.fire(order(number + 1))
            assert client.flush(10)
    assert [type(why) for _, why in told] == [Invalid, Unauthorized]
    assert (client.fired.accepted, client.fired.refused) == (1, 2)


def test_what_is_left_at_the_end_is_given_up_aloud(hostile: Hostile) -> None:
    told = Told()
    hostile.will(drop)
    client = firing_client(hostile, exit_s=0.05, on_dropped=lambda order, why: told.append((order, why)))
    keys = [client.fire(order(1)), client.fire(order(2))]
    client.close()
    assert [order.idempotency_key for order, _ in told] == keys
    assert all(isinstance(why, Unknown) for _, why in told)
    assert client.fired.dropped == 2
    with pytest.raises(Closed):
        client.fire(order(3))
    client.close()


def test_an_order_is_what_it_was_when_it_was_made(hostile: Hostile) -> None:
    hostile.will(accepts)
    metadata = {"item": "sword"}
    with firing_client(hostile) as client:
        made = Order.spend("alice", "gold", 1, metadata=metadata)
        metadata["item"] = "shield"
        client.fire(made)
    assert hostile.heard[0].json["commands"][0]["metadata"] == {"item": "sword"}


def test_what_cannot_be_sent_is_no_order() -> None:
    with pytest.raises(TypeError):
        Order.spend("alice", "gold", 1, metadata={"item": object()})
    for amount in (1.5, True, "30", None):
        with pytest.raises(TypeError):
            Order.spend("alice", "gold", amount)  # pyright: ignore[reportArgumentType]
    for key in ("", "two words", "k" * 256, "k\n"):
        with pytest.raises(ValueError, match="idempotency key"):
            Order.spend("alice", "gold", 1, idempotency_key=key)


def test_the_same_for_asyncio(hostile: Hostile) -> None:
    async def story() -> None:
        firing = Firing(buffer=2, when_full="block")
        async with AsyncClient(hostile.url, KEY, retries=FAST, firing=firing) as client:
            for number in range(1, 21):
                await client.fire(order(number))
            assert await client.flush(10)
            assert client.fired.accepted == 20
            await client.fire(order(21))
        assert client.fired.accepted == 21
        with pytest.raises(Closed):
            await client.fire(order(22))

    hostile.will(drop, accepts)
    asyncio.run(story())
    assert list(dict.fromkeys(amounts(hostile))) == list(range(1, 22))


def test_asyncio_gives_up_aloud_too(hostile: Hostile) -> None:
    told = Told()

    async def story() -> None:
        firing = Firing(exit_s=0.05, on_dropped=lambda order, why: told.append((order, why)))
        async with AsyncClient(hostile.url, KEY, firing=firing) as client:
            await client.fire(order())
            assert not await client.flush(0.01)

    hostile.will(hang)
    asyncio.run(story())
    assert [type(why) for _, why in told] == [Unknown]


AT_EXIT = {
    "sync": """
from bursar import Client, Order
client = Client({url!r}, "bursar_test_hush")
for number in range(1, 4):
    client.fire(Order.spend("alice", "gold", number))
""",
    "asyncio": """
import asyncio
from bursar import AsyncClient, Order
async def main():
    client = AsyncClient({url!r}, "bursar_test_hush")
    for number in range(1, 4):
        await client.fire(Order.spend("alice", "gold", number))
asyncio.run(main())
""",
}


@pytest.mark.parametrize("kind", AT_EXIT)
def test_the_end_of_the_process_sends_what_was_fired(hostile: Hostile, kind: str) -> None:
    """Nobody closed the client. (What asyncio.run cancels may leave warnings of libraries behind.)"""
    hostile.will(accepts)
    script = [sys.executable, "-W", "ignore", "-c", AT_EXIT[kind].format(url=hostile.url)]
    ended = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert list(dict.fromkeys(amounts(hostile))) == [1, 2, 3]


@pytest.mark.parametrize("error", [Unknown(["k-1", "k-2"]), Problem(404, {"code": "c"}, retry_after_s=2)], ids=repr)
def test_an_exception_travels_between_processes(error: BursarError) -> None:
    other = pickle.loads(pickle.dumps(error))
    assert (type(other), str(other), vars(other)) == (type(error), str(error), vars(error))


def test_a_client_that_was_closed_leaves_no_thread_behind(hostile: Hostile) -> None:
    """Not even one that was told to come again much later."""
    hostile.will(problem(503, "overloaded", retryable=True, Retry_After="50"))
    client = firing_client(hostile, exit_s=0.1)
    client.fire(order())
    assert hostile.came.wait(10)
    client.close()
    for thread in threading.enumerate():
        if thread.name == "bursar-client":
            thread.join(10)
            assert not thread.is_alive()


def test_an_answer_that_comes_after_all_was_given_up_counts_for_nothing() -> None:
    buffer = Buffer(Firing())
    buffer.put(order())
    orders = buffer.oldest(10)
    buffer.give_up()
    buffer.settle(orders, [BursarError()])
    assert buffer.fired == Fired(waiting=0, accepted=0, refused=0, dropped=1)
