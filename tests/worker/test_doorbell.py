"""Doorbell and announcements: hints. They cost nothing, they coalesce, and Redis may do what it likes."""

import contextlib
import os
import signal
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from kombu.connection import Connection

from bursar.local.valkey import Valkey
from runtime.announce import CHANNEL, Announcer, pack, unpack
from runtime.celery_app import DELIVER_TASK, DRAIN_TASK, WEBHOOKS_QUEUE
from runtime.doorbell import COURIERS, FLAG_TTL_MS, QUIET_AFTER_FAILURE_S, REDIS_TIMEOUT_S
from tests.books import ALL
from tests.worker.conftest import Hall, eventually

RING_MAX_S = 0.05  # a ring takes microseconds; a busy machine may take our turn away for a while
BOUNDED_S = 2 * REDIS_TIMEOUT_S + 0.25  # at most: connect, ask; and a busy machine


@pytest.fixture
def own_hall(own_valkey: Valkey) -> Generator[Hall]:
    made = Hall(own_valkey.url)
    yield made
    made.close()


@contextmanager
def stalled(valkey: Valkey) -> Generator[None]:
    """Redis that holds its connections and answers nothing."""
    assert valkey.process is not None
    os.kill(valkey.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(valkey.process.pid, signal.SIGCONT)


def slowest(call: object, times: int) -> float:
    taken: list[float] = []
    for _ in range(times):
        started = time.perf_counter()
        call()  # type: ignore[operator]
        taken.append(time.perf_counter() - started)
    return max(taken)


def test_a_ring_brings_a_message_to_the_partitions_queue(hall: Hall) -> None:
    hall.doorbell().ring(3)
    eventually(lambda: hall.messages(3) == 1)
    assert hall.all_messages() == 1
    message = hall.celery.connection_for_read().default_channel._get("wallet.3")
    assert message["headers"]["task"] == DRAIN_TASK
    assert message["headers"]["argsrepr"] == "(3,)"


def test_a_ring_for_the_couriers_is_heard_by_each_of_them(hall: Hall) -> None:
    """The one that has the endpoint is among them."""
    heard: list[tuple[int, str]] = []
    with contextlib.ExitStack() as open_:
        connections: list[Connection] = []
        for number in (1, 2):

            def hear(_: object, message: Any, number: int = number) -> None:
                heard.append((number, message.headers["task"]))

            celery = hall.another_celery()
            open_.callback(celery.close)
            connections.append(connection := open_.enter_context(celery.connection_for_read()))
            queue = celery.amqp.queues[WEBHOOKS_QUEUE]
            open_.enter_context(connection.Consumer([queue], callbacks=[hear], accept=["json"]))
            with contextlib.suppress(TimeoutError):
                connection.drain_events(timeout=0.1)  # by then it listens
        hall.doorbell().ring(COURIERS)
        for connection in connections:
            connection.drain_events(timeout=5)
    assert heard == [(1, DELIVER_TASK), (2, DELIVER_TASK)]


def test_a_hundred_rings_are_one_message(hall: Hall) -> None:
    doorbell = hall.doorbell()
    for _ in range(100):
        doorbell.ring(3)
        time.sleep(0.001)
    eventually(lambda: hall.messages(3) == 1)
    time.sleep(0.1)
    assert hall.all_messages() == 1


def test_rings_of_many_processes_are_one_message(hall: Hall) -> None:
    for doorbell in [hall.doorbell() for _ in range(5)]:
        doorbell.ring(3)
    eventually(lambda: hall.messages(3) == 1)
    time.sleep(0.1)
    assert hall.all_messages() == 1


def test_every_partition_is_rung_for_where_nobody_answers(hall: Hall) -> None:
    hall.doorbell().ring_all(ALL)
    eventually(lambda: all(hall.messages(partition) == 1 for partition in ALL))


def test_a_cleared_doorbell_rings_again(hall: Hall) -> None:
    doorbell = hall.doorbell()
    doorbell.ring(3)
    eventually(lambda: hall.messages(3) == 1)
    doorbell.clear([3])
    doorbell.ring(3)
    eventually(lambda: hall.messages(3) == 2)


def test_a_silenced_doorbell_does_not_ring_until_it_is_cleared(hall: Hall) -> None:
    doorbell = hall.doorbell()
    doorbell.silence([3, 4])
    doorbell.ring(3)
    time.sleep(0.1)
    assert hall.all_messages() == 0
    doorbell.clear([3])
    doorbell.ring(3)
    eventually(lambda: hall.messages(3) == 1)
    assert hall.flags() == {3, 4}


def test_a_ring_that_nobody_answered_is_forgotten_in_time(hall: Hall) -> None:
    doorbell = hall.doorbell()
    doorbell.ring(3)
    eventually(lambda: hall.flags() == {3})
    left_ms = hall.redis.pttl("bursar:doorbell:3")
    assert isinstance(left_ms, int)
    assert 0 < left_ms <= FLAG_TTL_MS


def test_ringing_never_blocks_while_redis_is_stalled_and_works_again_after(own_valkey: Valkey, own_hall: Hall) -> None:
    doorbell = own_hall.doorbell()
    doorbell.ring(1)
    eventually(lambda: own_hall.messages(1) == 1)
    with stalled(own_valkey):
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            assert slowest(lambda: doorbell.ring_all(ALL), 50) < RING_MAX_S
            time.sleep(0.02)

    def rings_again() -> bool:
        doorbell.ring(2)
        return own_hall.messages(2) > 0

    eventually(rings_again, within_s=10)


def test_ringing_never_blocks_while_redis_is_gone_and_works_again_after(own_valkey: Valkey, own_hall: Hall) -> None:
    own_valkey.kill()
    doorbell = own_hall.doorbell()
    assert slowest(lambda: doorbell.ring_all(ALL), 100) < RING_MAX_S
    time.sleep(0.1)
    assert slowest(lambda: doorbell.ring_all(ALL), 100) < RING_MAX_S
    own_valkey.start()

    def rings_again() -> bool:
        doorbell.ring(2)
        return own_hall.messages(2) > 0

    eventually(rings_again, within_s=10)


def test_a_flushed_redis_rings_at_once(hall: Hall) -> None:
    doorbell = hall.doorbell()
    doorbell.ring(3)
    eventually(lambda: hall.messages(3) == 1)
    hall.redis.flushall()
    doorbell.ring(3)
    eventually(lambda: hall.messages(3) == 1)


@pytest.mark.parametrize("call", ["silence", "clear"])
def test_what_a_drain_asks_of_a_stalled_redis_is_bounded_and_then_free(
    own_valkey: Valkey, own_hall: Hall, call: str
) -> None:
    doorbell = own_hall.doorbell()
    with stalled(own_valkey):
        assert slowest(lambda: getattr(doorbell, call)(ALL), 1) < BOUNDED_S
        assert slowest(lambda: getattr(doorbell, call)(ALL), 20) < RING_MAX_S, "left alone for a while"


# --- announcements -----------------------------------------------------------------------------------------------


def test_an_announcement_is_heard_by_all_who_listen(hall: Hall) -> None:
    listeners = [redis.Redis.from_url(hall.url).pubsub(ignore_subscribe_messages=True) for _ in range(2)]
    for listener in listeners:
        listener.subscribe(CHANNEL)
        listener.get_message(timeout=2)
    Announcer(hall.url).announce([7, 2**62, 1])
    for listener in listeners:
        message = listener.get_message(timeout=2)
        assert message is not None
        assert isinstance(message["data"], bytes)
        assert list(unpack(message["data"])) == [7, 2**62, 1]
        listener.close()


def test_seqs_are_packed_and_unpacked_without_loss() -> None:
    for seqs in ([], [1], [2**63 - 1, 0, 5]):
        assert list(unpack(pack(seqs))) == seqs


def test_announcing_to_a_stalled_redis_is_bounded_then_free_and_works_again_after(
    own_valkey: Valkey, own_hall: Hall
) -> None:
    announcer = Announcer(own_hall.url)
    announcer.announce([1])
    listener = own_hall.redis.pubsub(ignore_subscribe_messages=True)
    listener.subscribe(CHANNEL)
    listener.get_message(timeout=2)
    with stalled(own_valkey):
        assert slowest(lambda: announcer.announce([2]), 1) < BOUNDED_S
        assert slowest(lambda: announcer.announce([3]), 20) < RING_MAX_S
    time.sleep(QUIET_AFTER_FAILURE_S)

    def heard() -> bool:
        announcer.announce([4])
        message = listener.get_message(timeout=0.1)
        return message is not None and isinstance(message["data"], bytes) and list(unpack(message["data"])) == [4]

    eventually(heard)
    listener.close()
