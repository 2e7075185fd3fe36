"""The courier against receivers on real sockets, with a real PostgreSQL; its clock is the test's."""

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import LiteralString

import msgspec
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from ledger import db, deliveries
from ledger.events import ENDPOINT_DISABLED, TEST, lane_of
from runtime import webhooks
from runtime.vault import Vault
from tests.books import Bank
from tests.receivers import Answering, Door, Peer, Receiver, Request, hang, reply
from tests.worker.conftest import eventually
from tests.worker.post_office import RETENTION, Attempt, PostOffice, Running, id_of, ids
from tests.worker.post_office import office as office
from worker import courier
from worker.courier import JITTER, RETRIES_S, RETRY_AFTER_MAX_S
from worker.sending import Failure

END_COURIERS: LiteralString = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE application_name = 'bursar-courier' AND datname = current_database()
"""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as made:
        yield made


@pytest.fixture
def other() -> Iterator[Receiver]:
    with Receiver() as made:
        yield made


# What arrives


def test_an_outcome_is_delivered_once_and_settled(bank: Bank, office: PostOffice, receiver: Receiver) -> None:
    receiver.answers(reply(200, b"thanks"))
    endpoint = office.endpoint(receiver)
    outcome = bank.top_up("alice", 100)
    office.round()
    office.round()
    [request] = receiver.requests
    assert request.method == "POST"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"] == webhooks.USER_AGENT
    assert request.headers["webhook-id"] == id_of(outcome)
    body = msgspec.json.decode(request.body)
    assert body["type"] == "command.applied"
    assert body["data"]["wallet"] == "alice"
    assert body["data"]["outcome"]["code"] == "applied"
    [delivery] = office.deliveries(endpoint)
    assert (delivery.seq, delivery.status, delivery.attempts, delivery.due_at) == (outcome.seq, "delivered", 1, None)
    [attempt] = office.attempts(endpoint)
    assert attempt == Attempt(outcome.seq, 1, office.clock.now, 200, None, None, "thanks")


def test_who_holds_the_secret_can_verify_it_and_nobody_else(bank: Bank, office: PostOffice, receiver: Receiver) -> None:
    office.clock.set(datetime.now(UTC) + timedelta(minutes=1))  # the package wants times near its own
    secret = webhooks.new_secret()
    office.endpoint(receiver, secret=secret)
    bank.top_up("alice", 100)
    office.round()
    [request] = receiver.requests
    Webhook(secret).verify(request.body, request.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(webhooks.new_secret()).verify(request.body, request.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(request.body.replace(b"alice", b"mallo"), request.headers)


def test_while_a_secret_is_rotated_both_sign_and_then_the_new_one(
    bank: Bank, office: PostOffice, receiver: Receiver
) -> None:
    office.clock.set(datetime.now(UTC) + timedelta(minutes=1))
    former, secret = webhooks.new_secret(), webhooks.new_secret()
    endpoint = office.endpoint(receiver, secret=former)
    office.rotate(endpoint, secret, overlap=timedelta(minutes=2))
    bank.top_up("alice", 100)
    office.round()
    office.clock.advance(timedelta(minutes=2))
    bank.top_up("alice", 100)
    office.round()
    during, after = receiver.requests
    for known in (former, secret):
        Webhook(known).verify(during.body, during.headers)
    Webhook(secret).verify(after.body, after.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(former).verify(after.body, after.headers)


def test_an_endpoints_own_headers_go_with_it_and_replace_none_of_ours(
    bank: Bank, office: PostOffice, receiver: Receiver
) -> None:
    office.endpoint(receiver, headers={"Authorization": "Bearer token", "X-Game": "chess", "User-Agent": "mine"})
    bank.top_up("alice", 100)
    office.round()
    [request] = receiver.requests
    assert request.headers["authorization"] == "Bearer token"
    assert request.headers["x-game"] == "chess"
    assert request.headers["user-agent"] == webhooks.USER_AGENT


@pytest.mark.parametrize("ordering", ["none", "per_wallet"])
def test_what_is_no_outcome_arrives_whatever_the_ordering(
    office: PostOffice, receiver: Receiver, ordering: str
) -> None:
    endpoint = office.endpoint(receiver, ordering=ordering)
    office.send_test(endpoint)
    office.round()
    [request] = receiver.requests
    assert msgspec.json.decode(request.body)["type"] == TEST
    assert office.delivered(endpoint)


# Failures and retries


def test_after_a_failure_it_is_sent_again_when_its_time_has_come(
    bank: Bank, office: PostOffice, receiver: Receiver
) -> None:
    receiver.answers(reply(500, b"not now"), reply(200))
    endpoint = office.endpoint(receiver)
    outcome = bank.top_up("alice", 100)
    office.round()
    [delivery] = office.deliveries(endpoint)
    assert (delivery.status, delivery.attempts) == ("pending", 1)
    assert delivery.due_at is not None
    office.clock.set(delivery.due_at - timedelta(microseconds=1))
    office.round()
    assert len(receiver.requests) == 1
    office.clock.set(delivery.due_at)
    office.round()
    assert ids(receiver) == [id_of(outcome)] * 2
    assert office.delivered(endpoint)
    first, second = office.attempts(endpoint)
    assert (first.n, first.status, first.failure, first.body) == (1, 500, Failure.STATUS, "not now")
    assert (second.n, second.status, second.failure, second.at) == (2, 200, None, delivery.due_at)


def test_the_schedule_of_retries_to_its_end(bank: Bank, office: PostOffice, receiver: Receiver) -> None:
    receiver.answers(reply(500))
    endpoint = office.endpoint(receiver)
    outcome = bank.top_up("alice", 100)
    times: list[datetime] = []
    for pause_s in RETRIES_S:
        office.round()
        times.append(office.clock.now)
        [delivery] = office.deliveries(endpoint)
        assert delivery.due_at is not None
        waited_s = (delivery.due_at - office.clock.now).total_seconds()
        assert pause_s * (1 - JITTER) <= waited_s <= pause_s * (1 + JITTER)
        office.clock.set(delivery.due_at)
    office.round()
    times.append(office.clock.now)
    [delivery] = office.deliveries(endpoint)
    assert (delivery.status, delivery.attempts, delivery.due_at) == ("exhausted", len(RETRIES_S) + 1, None)
    office.clock.advance(timedelta(days=3))
    office.round()
    assert ids(receiver) == [id_of(outcome)] * len(times)
    assert [request.headers["webhook-timestamp"] for request in receiver.requests] == [
        str(int(time.timestamp())) for time in times
    ]
    assert [attempt.n for attempt in office.attempts(endpoint)] == list(range(1, len(times) + 1))


def test_what_failed_together_does_not_come_back_together(bank: Bank, office: PostOffice, receiver: Receiver) -> None:
    receiver.answers(reply(500))
    endpoint = office.endpoint(receiver)
    for _ in range(10):
        bank.top_up("alice", 1)
    office.round()
    due = [delivery.due_at for delivery in office.deliveries(endpoint)]
    assert len(set(due)) > 5


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_a_failure_and_not_followed(
    bank: Bank, office: PostOffice, receiver: Receiver, other: Receiver, status: int
) -> None:
    receiver.answers(reply(status, headers={"Location": other.url}))
    endpoint = office.endpoint(receiver)
    bank.top_up("alice", 100)
    office.round()
    [attempt] = office.attempts(endpoint)
    assert (attempt.status, attempt.failure) == (status, Failure.REDIRECT)
    assert office.deliveries(endpoint)[0].status == "pending"
    assert other.connections == 0


def test_a_receiver_that_was_down_for_an_hour_gets_all_of_it(bank: Bank, office: PostOffice) -> None:
    with Receiver() as down:
        pass
    endpoint = office.endpoint(down)
    outcomes = [bank.top_up("alice", n) for n in range(1, 4)]
    up_at = office.clock.now + timedelta(hours=1)
    while office.clock.now < up_at:
        office.round()
        soonest = min(delivery.due_at for delivery in office.deliveries(endpoint) if delivery.due_at)
        office.clock.set(min(soonest, up_at))
    assert {attempt.failure for attempt in office.attempts(endpoint)} == {Failure.CONNECT}
    assert len(office.attempts(endpoint)) >= 2 * len(outcomes)
    with Receiver(port=down.port) as up:
        office.clock.advance(timedelta(seconds=RETRIES_S[3] * 2))
        office.round()
    assert sorted(ids(up)) == sorted(map(id_of, outcomes))
    assert office.delivered(endpoint)


# A receiver that asks for mercy


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_pauses_the_endpoint(bank: Bank, office: PostOffice, receiver: Receiver, status: int) -> None:
    receiver.answers(reply(status, headers={"Retry-After": "600"}), reply(200))
    endpoint = office.endpoint(receiver)
    bank.top_up("alice", 100)
    office.round()
    pause_ends = office.clock.now + timedelta(seconds=600)
    assert office.state(endpoint).paused_until == pause_ends
    assert office.deliveries(endpoint)[0].due_at == pause_ends  # longer than the five seconds of the schedule
    later = bank.top_up("alice", 100)
    office.clock.set(pause_ends - timedelta(microseconds=1))
    office.round()
    assert len(receiver.requests) == 1
    office.clock.set(pause_ends)
    office.round()
    assert len(receiver.requests) == 3
    assert id_of(later) in ids(receiver)
    assert office.delivered(endpoint)


def test_what_is_in_memory_already_waits_for_the_end_of_the_pause_too(
    bank: Bank, office: PostOffice, receiver: Receiver
) -> None:
    receiver.answers(reply(429, headers={"Retry-After": "600"}))
    endpoint = office.endpoint(receiver)
    for _ in range(courier.FETCH_AHEAD):
        bank.top_up("alice", 1)
    with office.running():
        eventually(lambda: office.state(endpoint).paused_until is not None)
        office.pass_by()
    assert len(receiver.requests) <= courier.WINDOW_FIRST


def test_a_short_retry_after_does_not_hurry_the_schedule(bank: Bank, office: PostOffice, receiver: Receiver) -> None:
    receiver.answers(reply(429, headers={"Retry-After": "1"}))
    endpoint = office.endpoint(receiver)
    bank.top_up("alice", 100)
    office.round()
    [delivery] = office.deliveries(endpoint)
    assert delivery.due_at is not None
    assert delivery.due_at >= office.clock.now + timedelta(seconds=RETRIES_S[0] * (1 - JITTER))


def test_a_retry_after_of_days_is_one_of_an_hour(bank: Bank, office: PostOffice, receiver: Receiver) -> None:
    receiver.answers(reply(503, headers={"Retry-After": "1000000"}))
    endpoint = office.endpoint(receiver)
    bank.top_up("alice", 100)
    office.round()
    assert office.state(endpoint).paused_until == office.clock.now + timedelta(seconds=RETRY_AFTER_MAX_S)


def test_a_retry_after_of_another_status_means_nothing(bank: Bank, office: PostOffice, receiver: Receiver) -> None:
    receiver.answers(reply(500, headers={"Retry-After": "600"}))
    endpoint = office.endpoint(receiver)
    bank.top_up("alice", 100)
    office.round()
    assert office.state(endpoint).paused_until is None


# An endpoint that is no use any more


def test_410_disables_at_once_and_the_others_are_told(
    bank: Bank, office: PostOffice, receiver: Receiver, other: Receiver
) -> None:
    receiver.answers(reply(410))
    endpoint = office.endpoint(receiver)
    listening = office.endpoint(other, event_types=[ENDPOINT_DISABLED])
    deaf = office.endpoint(other, event_types=["command.failed"])
    for _ in range(40):
        bank.top_up("alice", 1)
    office.round()
    state = office.state(endpoint)
    assert (state.status, state.disabled_reason) == ("disabled", courier.DISABLED_GONE)
    assert len(receiver.requests) <= courier.WINDOW_FIRST
    [request] = other.requests
    told = msgspec.json.decode(request.body)
    assert told["type"] == ENDPOINT_DISABLED
    assert (told["data"]["url"], told["data"]["reason"]) == (receiver.url, courier.DISABLED_GONE)
    assert office.delivered(listening)
    assert office.deliveries(deaf) == []


def test_five_days_of_nothing_but_failures_disable(bank: Bank, office: PostOffice, receiver: Receiver) -> None:
    receiver.answers(reply(500))
    endpoint = office.endpoint(receiver)
    since = office.clock.now
    bank.top_up("alice", 100)
    office.round()
    assert office.state(endpoint).failing_since == since
    office.clock.advance(courier.FAILING_MAX - timedelta(microseconds=1))
    office.round()
    assert office.state(endpoint).status == "enabled"
    office.clock.advance(timedelta(days=1))  # the next retry is due in minutes
    office.round()
    state = office.state(endpoint)
    assert (state.status, state.disabled_reason) == ("disabled", courier.DISABLED_FAILING)
    assert len(receiver.requests) == 3


def test_a_success_within_the_five_days_begins_them_anew(bank: Bank, office: PostOffice, receiver: Receiver) -> None:
    receiver.answers(reply(500), reply(200), reply(500))
    endpoint = office.endpoint(receiver)
    bank.top_up("alice", 100)
    office.round()
    office.clock.advance(timedelta(days=4))
    office.round()
    assert office.state(endpoint).failing_since is None
    bank.top_up("alice", 100)
    office.round()
    assert office.state(endpoint).failing_since == office.clock.now
    office.clock.advance(timedelta(days=4))
    office.round()
    assert len(receiver.requests) == 4
    assert office.state(endpoint).status == "enabled"


def test_a_disabled_endpoint_gets_nothing_and_goes_on_when_it_is_enabled(
    bank: Bank, office: PostOffice, receiver: Receiver
) -> None:
    endpoint = office.endpoint(receiver)
    outcome = bank.top_up("alice", 100)
    office.change(endpoint, receiver, status="disabled")
    office.round()
    assert receiver.connections == 0
    office.change(endpoint, receiver, status="enabled")
    office.round()
    assert ids(receiver) == [id_of(outcome)]


def test_an_endpoint_that_is_disabled_in_mid_stream_gets_nothing_more(
    bank: Bank, office: PostOffice, receiver: Receiver
) -> None:
    """Though something is in the air to it when the courier looks."""
    door = Door()
    receiver.answers(door.answer)
    endpoint = office.endpoint(receiver)
    for _ in range(courier.FETCH_AHEAD * 2):
        bank.top_up("alice", 1)
    with office.running():
        receiver.wait_for(courier.WINDOW_FIRST)
        office.change(endpoint, receiver, status="disabled")
        office.pass_by()  # a look later
        door.open()
        eventually(lambda: len(office.attempts(endpoint)) == courier.WINDOW_FIRST)
        office.pass_by()
    assert len(receiver.requests) == courier.WINDOW_FIRST
    assert [d.status for d in office.deliveries(endpoint)].count("delivered") == courier.WINDOW_FIRST


# Order, and pace


def test_of_one_wallet_nothing_passes_a_failing_head_and_other_wallets_go_on(
    bank: Bank, office: PostOffice, receiver: Receiver
) -> None:
    receiver.answers(by_wallet(receiver, failing={"alice"}))
    endpoint = office.endpoint(receiver, ordering="per_wallet")
    outcomes = {wallet: [bank.top_up(wallet, n) for n in range(1, 6)] for wallet in ("alice", "bob")}
    office.round()
    assert of_wallet(receiver, "bob") == list(map(id_of, outcomes["bob"]))
    assert of_wallet(receiver, "alice") == [id_of(outcomes["alice"][0])]
    office.round()  # another courier, and it is not due yet
    assert len(of_wallet(receiver, "alice")) == 1
    receiver.answers(reply(200))
    head = office.delivery(endpoint, outcomes["alice"][0].seq)
    assert head.due_at is not None
    office.clock.set(head.due_at)
    office.round()
    assert of_wallet(receiver, "alice")[1:] == list(map(id_of, outcomes["alice"]))
    assert office.delivered(endpoint)


def test_the_order_holds_among_couriers_that_come_and_are_killed(
    bank: Bank, office: PostOffice, receiver: Receiver
) -> None:
    """One request in three fails, and is due again at once."""
    receiver.answers(*[reply(200), reply(200), reply(500)] * 60, reply(200))
    office.retries_s = (0.0,) * 50
    endpoint = office.endpoint(receiver, ordering="per_wallet")
    outcomes = {f"w{n}": [bank.top_up(f"w{n}", 1) for _ in range(8)] for n in range(6)}
    with office.running() as first, office.running():
        receiver.wait_for(15)
        first.kill()
        with office.running() as third:
            receiver.wait_for(30)
            third.kill()
        eventually(lambda: office.delivered(endpoint), within_s=10)
    for wallet, wanted in outcomes.items():
        assert [id_ for id_, _ in groupby(of_wallet(receiver, wallet))] == list(map(id_of, wanted))


def test_a_lane_goes_on_behind_a_head_that_was_given_up(bank: Bank, office: PostOffice, receiver: Receiver) -> None:
    receiver.answers(reply(500), reply(200))
    office.retries_s = ()
    endpoint = office.endpoint(receiver, ordering="per_wallet")
    bank.top_up("alice", 1)
    bank.top_up("alice", 2)
    office.round()
    assert [delivery.status for delivery in office.deliveries(endpoint)] == ["exhausted", "delivered"]


def test_many_lanes_that_wait_do_not_hide_one_that_does_not(
    bank: Bank, office: PostOffice, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    *failing, sound = sorted([f"w{n}" for n in range(6)], key=lane_of)
    receiver.answers(by_wallet(receiver, failing=set(failing)))
    endpoint = office.endpoint(receiver, ordering="per_wallet")
    for wallet in failing:
        bank.top_up(wallet, 1)
    office.round()
    bank.top_up(sound, 1)
    monkeypatch.setattr(courier, "LANES_MAX", 2)
    monkeypatch.setattr(courier, "LOOK_EVERY_S", 3_600.0)
    with office.running():
        receiver.wait_for(6)
    assert [delivery.status for delivery in office.deliveries(endpoint)] == ["pending"] * 5 + ["delivered"]


def test_an_endpoint_that_no_longer_wants_order_still_gets_what_it_was_owed_in_order(
    bank: Bank, office: PostOffice, receiver: Receiver
) -> None:
    endpoint = office.endpoint(receiver, ordering="per_wallet")
    in_order = [bank.top_up("alice", 1) for _ in range(3)]
    office.change(endpoint, receiver, ordering="none")
    at_will = bank.top_up("alice", 1)
    office.round()
    arrived = ids(receiver)
    assert sorted(arrived) == sorted(map(id_of, [*in_order, at_will]))
    assert [id_ for id_ in arrived if id_ != id_of(at_will)] == list(map(id_of, in_order))


def test_an_endpoint_that_wants_order_from_now_on_gets_what_it_was_owed_before(
    bank: Bank, office: PostOffice, receiver: Receiver
) -> None:
    endpoint = office.endpoint(receiver)
    outcomes = [bank.top_up("alice", 1) for _ in range(3)]
    office.change(endpoint, receiver, ordering="per_wallet")
    outcomes.append(bank.top_up("alice", 1))
    office.round()
    assert sorted(ids(receiver)) == sorted(map(id_of, outcomes))


def test_an_endpoint_gets_no_more_a_second_than_it_wants(bank: Bank, office: PostOffice, receiver: Receiver) -> None:
    rate, number = 20, 14
    endpoint = office.endpoint(receiver, max_per_second=rate)
    for _ in range(number):
        bank.top_up("alice", 1)
    with office.running(clock=courier.utc_now):
        receiver.wait_for(number)
    times = [attempt.at for attempt in office.attempts(endpoint)]
    # One may follow the first at once. The rest of the tolerance is the event loop's.
    assert (max(times) - min(times)).total_seconds() >= (number - 2) / rate - 0.05
    assert len(receiver.requests) == number


# Many


def test_neither_a_hanging_nor_a_dead_endpoint_delays_the_others(
    bank: Bank, office: PostOffice, receiver: Receiver, other: Receiver
) -> None:
    """A hundred: each healthy one has all of it while the one still hangs and the other has failed."""
    with Receiver() as closed:
        pass
    other.answers(hang())
    dead, hanging = office.endpoint(closed), office.endpoint(other)
    hung = office.endpoint(other, ordering="per_wallet")
    healthy = {f"/{n}": office.endpoint(f"{receiver.url}{n}") for n in range(97)}
    outcomes = [bank.top_up(f"w{n % 5}", 1) for n in range(10)]
    with office.running() as running:
        receiver.wait_for(len(healthy) * len(outcomes), within_s=10)
        assert other.requests
        assert (office.attempts(hanging), office.attempts(hung)) == ([], [])
        eventually(lambda: bool(office.attempts(dead)))
        eventually(lambda: all(map(office.delivered, healthy.values())))
        running.kill()
    wanted = Counter((target, id_of(outcome)) for target in healthy for outcome in outcomes)
    assert Counter((request.target, request.headers["webhook-id"]) for request in receiver.requests) == wanted


def test_an_endpoint_that_fails_already_holds_one_connection(
    bank: Bank, office: PostOffice, receiver: Receiver
) -> None:
    receiver.answers(hang())
    endpoint = office.endpoint(receiver)
    bank.do("UPDATE webhook_endpoints SET failing_since = now() WHERE id = %s", endpoint)
    for _ in range(10):
        bank.top_up("alice", 1)
    with office.running() as running:
        receiver.wait_for(1)
        office.pass_by()
        running.kill()
    assert len(receiver.requests) == 1


def test_with_fewer_places_than_endpoints_they_take_turns(
    bank: Bank, office: PostOffice, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "IN_THE_AIR_MAX", 1)
    for name in "abc":
        office.endpoint(f"{receiver.url}{name}")
    for _ in range(5):
        bank.top_up("alice", 1)
    office.round()
    targets = [request.target for request in receiver.requests]
    assert [sorted(targets[n : n + 3]) for n in range(0, 15, 3)] == [["/a", "/b", "/c"]] * 5


def test_a_crowd_that_is_due_at_once_arrives_once_each(bank: Bank, office: PostOffice, receiver: Receiver) -> None:
    """Fifteen hundred: more takes the receiver, which shares this process, too long."""
    endpoint = office.endpoint(receiver)
    number = 1_500
    bank.accept([bank.new("top_up", f"w{n % 50}", 1) for n in range(number)])
    while bank.drain():
        pass
    office.round()
    assert len(ids(receiver)) == len(set(ids(receiver))) == number
    assert office.delivered(endpoint)
    assert len(office.deliveries(endpoint)) == len(office.attempts(endpoint)) == number


def test_two_couriers_at_once_deliver_each_event_once(bank: Bank, office: PostOffice) -> None:
    with ExitStack() as open_:
        receivers = [open_.enter_context(Receiver()) for _ in range(4)]
        endpoints = [office.endpoint(each) for each in receivers]
        outcomes = [bank.top_up("alice", 1) for _ in range(40)]
        with office.running(), office.running():
            eventually(lambda: all(map(office.delivered, endpoints)))
        for each in receivers:
            assert sorted(ids(each)) == sorted(map(id_of, outcomes))


def test_what_one_courier_has_in_the_air_another_does_not_touch(
    bank: Bank, office: PostOffice, receiver: Receiver
) -> None:
    door = Door()
    receiver.answers(door.answer)
    endpoint = office.endpoint(receiver)
    outcomes = [bank.top_up("alice", 1) for _ in range(20)]
    with office.running():
        receiver.wait_for(courier.WINDOW_FIRST)
        with office.running():
            office.pass_by()
        assert len(receiver.requests) == courier.WINDOW_FIRST
        door.open()
        eventually(lambda: office.delivered(endpoint))
    assert sorted(ids(receiver)) == sorted(map(id_of, outcomes))


def test_a_courier_that_has_all_it_can_take_leaves_the_rest_to_another(
    bank: Bank, office: PostOffice, receiver: Receiver, other: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "ENDPOINTS_MAX", 1)
    receiver.answers(hang())
    office.endpoint(receiver)
    endpoint = office.endpoint(other)
    for _ in range(courier.WINDOW_FIRST + 1):  # one more than are sent at once: something is due to it all the time
        bank.top_up("alice", 1)
    with office.running() as first:
        receiver.wait_for(courier.WINDOW_FIRST)
        with office.running():
            eventually(lambda: office.delivered(endpoint))
        first.kill()


def test_what_rings_while_it_looks_after_its_endpoints_is_not_missed(
    bank: Bank, office: PostOffice, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "LOOK_EVERY_S", 3_600.0)
    office.endpoint(receiver)
    share = deliveries.share
    running = office.running(clock=courier.utc_now)

    async def share_and_ring(connection: deliveries.Connection) -> int | None:
        await asyncio.to_thread(bank.top_up, "alice", 1)
        running.courier.wake()
        return await share(connection)

    monkeypatch.setattr(deliveries, "share", share_and_ring)
    with running:
        receiver.wait_for(1)


def test_couriers_share_endpoints_that_always_have_something_due(
    bank: Bank, office: PostOffice, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoints = [office.endpoint(f"{receiver.url}{name}", max_per_second=10) for name in "abcd"]
    for _ in range(100):
        bank.top_up("alice", 1)

    def had() -> list[int]:
        """The number of endpoints that each courier has."""
        held = "SELECT count(*) FROM pg_locks WHERE classid = %s AND objid = ANY(%s) GROUP BY pid"
        return [number for (number,) in bank.rows(held, deliveries.ENDPOINT_LOCKS, endpoints)]

    with office.running(clock=courier.utc_now) as first:
        eventually(lambda: had() == [4])
        with office.running(clock=courier.utc_now) as second:
            eventually(lambda: had() == [2, 2])
            second.kill()
        eventually(lambda: had() == [4])
        first.kill()


def test_many_that_succeed_slowly_leave_places_to_others(
    bank: Bank, office: PostOffice, receiver: Receiver, other: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "IN_THE_AIR_MAX", 16)
    door = Door()
    receiver.answers(door.answer)
    slow = [office.endpoint(f"{receiver.url}{name}") for name in "abcd"]  # of four places each, in the beginning
    for _ in range(8):
        bank.top_up("alice", 1)
    with office.running():
        receiver.wait_for(2 * len(slow))
        healthy = office.endpoint(other)
        for _ in range(8):
            bank.top_up("bob", 1)
        eventually(lambda: office.delivered(healthy))
        assert len(office.deliveries(healthy)) == 8
        assert not any(map(office.attempts, slow))
        door.open()
        eventually(lambda: all(map(office.delivered, slow)))


def test_a_doorbell_makes_it_look_at_once(
    bank: Bank, office: PostOffice, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "LOOK_EVERY_S", 3_600.0)
    endpoint = office.endpoint(receiver)
    bank.top_up("alice", 1)
    with office.running() as running:
        eventually(lambda: office.delivered(endpoint))
        bank.top_up("alice", 1)
        running.courier.wake()
        receiver.wait_for(2)


# Faults around it


def test_killed_between_post_and_settle_it_is_delivered_again_under_the_same_id(
    bank: Bank, office: PostOffice, receiver: Receiver
) -> None:
    receiver.answers(hang())
    endpoint = office.endpoint(receiver)
    outcome = bank.top_up("alice", 100)
    with office.running() as running:
        receiver.wait_for(1)
        running.kill()
    assert (office.deliveries(endpoint)[0].attempts, office.attempts(endpoint)) == (0, [])
    receiver.answers(reply(200))
    office.round()
    assert ids(receiver) == [id_of(outcome)] * 2
    assert office.delivered(endpoint)


def test_a_session_that_is_ended_gives_its_endpoints_to_another_courier(
    bank: Bank, office: PostOffice, receiver: Receiver
) -> None:
    receiver.answers(hang(), reply(200))
    endpoint = office.endpoint(receiver)
    outcome = bank.top_up("alice", 100)
    with office.running() as first:
        receiver.wait_for(1)
        assert bank.rows(END_COURIERS) == [(True,)]
        with office.running():
            receiver.wait_for(2)
            eventually(lambda: office.delivered(endpoint))
        first.kill()  # what it has in the air hangs
    assert ids(receiver) == [id_of(outcome)] * 2


def test_a_courier_goes_on_by_itself_after_its_session_was_ended(
    bank: Bank, office: PostOffice, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "PAUSE_AFTER_FAULT_S", 0.01)
    receiver.answers(hang(), reply(200))
    endpoint = office.endpoint(receiver)
    bank.top_up("alice", 100)
    with office.running():
        receiver.wait_for(1)
        assert bank.rows(END_COURIERS) == [(True,)]
        receiver.wait_for(2)
        eventually(lambda: office.delivered(endpoint))


def test_a_frozen_courier_loses_its_endpoints(
    bank: Bank, office: PostOffice, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands still where it next asks for the time, as it would after a SIGSTOP."""
    receiver.answers(hang(), reply(200))
    endpoint = office.endpoint(receiver)
    outcome = bank.top_up("alice", 100)
    thawed, frozen = threading.Event(), threading.Event()
    thawed.set()

    def clock() -> datetime:
        if not thawed.is_set():
            frozen.set()
        thawed.wait()
        return office.clock()

    monkeypatch.setattr(courier, "SESSION_IDLE_MAX_MS", 500)
    with office.running(clock=clock):
        receiver.wait_for(1)
        thawed.clear()
        assert frozen.wait(5)
        monkeypatch.setattr(courier, "SESSION_IDLE_MAX_MS", 30_000)
        try:
            with office.running():
                receiver.wait_for(2)
                eventually(lambda: office.delivered(endpoint))
        finally:
            thawed.set()
    assert ids(receiver) == [id_of(outcome)] * 2


def test_a_session_that_does_not_take_what_it_asked_for_ends(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of a courier that is frozen while PostgreSQL answers: it is not idle, and it holds its locks."""
    monkeypatch.setattr(courier, "SESSION_IDLE_MAX_MS", 500)

    async def frozen() -> None:
        connection = await db.connect_async(bank.url, application="test-frozen")
        await courier.limit_session(connection)
        pid = connection.info.backend_pid
        connection.pgconn.send_query(b"SELECT repeat('x', 1000) FROM generate_series(1, 1000000)")
        writes = "SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event = 'ClientWrite'"
        eventually(lambda: bool(bank.rows(writes, pid)))
        eventually(lambda: not bank.rows("SELECT FROM pg_stat_activity WHERE pid = %s", pid), within_s=10)
        await connection.close()

    asyncio.run(frozen())


def test_after_a_defect_it_begins_again_in_another_loop(
    bank: Bank, office: PostOffice, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = office.endpoint(receiver)
    bank.top_up("alice", 1)
    broken = office.courier()

    def run_it() -> None:
        with Running(broken) as running, monkeypatch.context() as patch:
            eventually(lambda: office.delivered(endpoint))
            patch.setattr(courier.deliveries, "take", lambda *_, **__: 1 / 0)
            running.join()

    with pytest.raises(ZeroDivisionError):
        run_it()
    with Running(broken):
        for number in range(2, 4):
            bank.top_up("alice", 1)
            receiver.wait_for(number)


@pytest.mark.parametrize("spoil", ["event", "headers", "key"])
def test_what_cannot_be_made_fails_clearly_and_alone(
    bank: Bank, office: PostOffice, receiver: Receiver, other: Receiver, spoil: str
) -> None:
    """A defect of ours or of the settings: no receiver is blamed for it, and nobody else waits."""
    endpoint, healthy = office.endpoint(receiver), office.endpoint(other)
    office.retries_s = (1.0, 1.0)
    if spoil == "event":
        seq = office.send_test(endpoint)
        bank.do("DELETE FROM events WHERE seq = %s", seq)
    else:
        of = "somebody else" if spoil == "key" else webhooks.OF_HEADERS.format(bank.tenant)
        bank.do("UPDATE webhook_endpoints SET headers = %s WHERE id = %s", office.vault.seal(b"[]", of=of), endpoint)
        bank.top_up("alice", 1)
    sound = bank.top_up("alice", 1)
    for tries in range(1, 4):
        office.round()
        delivery = office.deliveries(endpoint)[0]
        assert (delivery.attempts, delivery.status) == (tries, "exhausted" if tries == 3 else "pending")
        office.clock.advance(timedelta(seconds=2))
    spoilt = office.deliveries(endpoint)[0].seq
    attempts = [attempt for attempt in office.attempts(endpoint) if attempt.seq == spoilt]
    assert {attempt.failure for attempt in attempts} == {Failure.FAULT}
    assert all(attempt.detail for attempt in attempts)
    assert office.state(endpoint).failing_since is None
    assert office.delivered(healthy)
    assert id_of(sound) in ids(other)
    if spoil == "event":
        assert ids(receiver) == [id_of(sound)]
    else:
        assert receiver.connections == 0


def test_secrets_that_no_key_opens_fail_clearly_and_go_out_under_the_right_key(
    bank: Bank, office: PostOffice, receiver: Receiver
) -> None:
    endpoint = office.endpoint(receiver)
    bank.top_up("alice", 100)
    with office.running(vault=Vault(b"x" * 32)):
        eventually(lambda: bool(office.attempts(endpoint)))
    assert receiver.connections == 0
    [attempt] = office.attempts(endpoint)
    assert (attempt.status, attempt.failure) == (None, Failure.FAULT)
    assert "No key" in (attempt.detail or "")
    office.clock.advance(timedelta(seconds=10))
    with office.running(vault=Vault(b"y" * 32, former=[b"k" * 32])):
        receiver.wait_for(1)
    assert office.delivered(endpoint)


# Old deliveries


def test_what_has_been_over_for_long_is_deleted_and_nothing_else(
    bank: Bank, office: PostOffice, receiver: Receiver, other: Receiver
) -> None:
    endpoint, off = office.endpoint(receiver), office.endpoint(other)
    old = [bank.top_up("alice", 1).seq for _ in range(3)]
    young = bank.top_up("alice", 1).seq
    told = office.send_test(endpoint)
    office.change(off, other, status="disabled")
    office.round()
    at = office.clock.now - RETENTION - timedelta(seconds=1)
    bank.do("UPDATE deliveries SET at = %s WHERE seq = ANY(%s)", at, [*old, told])
    bank.do("UPDATE deliveries SET at = %s WHERE seq = %s", at + timedelta(seconds=2), young)
    bank.do("UPDATE events SET at = %s WHERE seq = %s", at, told)
    office.round()
    assert [delivery.seq for delivery in office.deliveries(endpoint)] == [young]
    assert [attempt.seq for attempt in office.attempts(endpoint)] == [young]
    assert [delivery.seq for delivery in office.deliveries(off)] == [*old, young]  # they are owed still
    assert bank.rows("SELECT FROM events WHERE seq = %s", told) == []


def test_what_is_owed_for_long_does_not_hide_what_is_over(
    bank: Bank, office: PostOffice, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of it than one look sees, of outcomes and of news."""
    monkeypatch.setattr(courier, "PURGE_MAX", 2)
    monkeypatch.setattr(courier, "PURGE_EVERY_S", 0.1)
    off = office.endpoint(receiver)
    owed = [bank.top_up("alice", 1).seq for _ in range(5)] + [office.send_test(off) for _ in range(5)]
    over = [bank.top_up("alice", 1).seq, office.send_test(off)]
    bank.do("UPDATE deliveries SET status = 'exhausted', due_at = NULL WHERE seq = ANY(%s)", over)
    office.change(off, receiver, status="disabled")
    old = office.clock.now - RETENTION - timedelta(seconds=1)
    bank.do("UPDATE deliveries SET at = %s WHERE endpoint_id = %s", old, off)
    bank.do("UPDATE events SET at = %s", old)
    bank.top_up("alice", 1)
    with office.running():
        eventually(lambda: [delivery.seq for delivery in office.deliveries(off)] == owed)
        eventually(lambda: not bank.rows("SELECT FROM events WHERE seq = ANY(%s)", over))


def by_wallet(receiver: Receiver, *, failing: set[str]) -> Answering:
    async def answer(peer: Peer) -> None:
        wallet = wallet_of(receiver.requests[-1])  # nothing came in between: the answer begins with the request
        await reply(500 if wallet in failing else 200)(peer)

    return answer


def wallet_of(request: Request) -> str:
    return msgspec.json.decode(request.body)["data"]["wallet"]


def of_wallet(receiver: Receiver, wallet: str) -> list[str]:
    """The webhook-ids that came of this wallet, in order."""
    return [request.headers["webhook-id"] for request in receiver.requests if wallet_of(request) == wallet]
