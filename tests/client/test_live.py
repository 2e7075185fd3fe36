"""The clients against the real service: api, worker, database."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta

import pytest

from bursar.client import AsyncClient, Client, Command, KeyReused, NotFound, Order, Problem, Refused
from tests.client.hostile import Hostile, forwards, streams_from
from tests.contracts.caller import GOLD, unique
from tests.contracts.service import Service


@pytest.fixture
def wallet(client: Client) -> str:
    """With 100 gold."""
    wallet = unique("rich")
    assert client.top_up(wallet, GOLD, 100, wait_s=20).applied
    return wallet


def in_an_hour() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


def test_every_type_of_command(client: Client, wallet: str) -> None:
    other = unique("other")
    spent = client.spend(wallet, GOLD, 30, reference="order-1", metadata={"item": "sword"}, wait_s=20)
    assert (spent.status, spent.amount, spent.reference, spent.metadata) == (
        "applied",
        30,
        "order-1",
        {"item": "sword"},
    )
    assert spent.outcome is not None
    assert [(account.posted, account.available) for account in spent.outcome.accounts] == [(70, 70)]
    assert client.bonus(wallet, GOLD, 5, credits_expire_at=in_an_hour(), priority=10, wait_s=20).applied
    assert client.transfer(wallet, other, GOLD, 5, credits_order="oldest_first", wait_s=20).applied
    held = client.hold(wallet, GOLD, 20, in_an_hour(), wait_s=20)
    assert held.outcome is not None
    assert held.outcome.hold is not None
    assert (held.outcome.hold.status, held.outcome.hold.remaining) == ("open", 20)
    assert client.capture(held.id, 5, final=False, wait_s=20).applied
    assert client.release(held.id, wait_s=20).applied
    exchanged = client.exchange(wallet, GOLD, 10, "gold_coins", "2.5", rounding="down", wait_s=20)
    assert exchanged.applied
    assert client.reverse(spent.id, 10, wait_s=20).applied
    assert client.adjust(wallet, GOLD, -1, "counted wrong", wait_s=20).applied
    found = client.wallet(wallet)
    assert (found.available(GOLD), found.available("gold_coins"), found.available("diamonds")) == (64, 25, 0)


def test_a_refusal_is_a_value(client: Client, wallet: str) -> None:
    command = client.spend(wallet, GOLD, 101, wait_s=20)
    assert command.rejected
    assert command.outcome is not None
    assert command.outcome.code == "insufficient_funds"
    with pytest.raises(Refused, match="insufficient_funds") as caught:
        command.raise_for_refusal()
    assert caught.value.code == "insufficient_funds"
    missed = client.spend(wallet, GOLD, 1, precondition={"available_gte": 1000}, wait_s=20)
    assert missed.outcome is not None
    assert missed.outcome.code == "precondition_failed"
    assert client.spend(wallet, GOLD, 1, wait_s=20).raise_for_refusal().applied


def test_a_key_is_one_command_for_ever(client: Client, wallet: str) -> None:
    key = unique("client-key")
    first, again = (client.spend(wallet, GOLD, 1, idempotency_key=key, wait_s=20) for _ in range(2))
    assert (first.id, first.replayed, again.replayed) == (again.id, False, True)
    with pytest.raises(KeyReused):
        client.spend(wallet, GOLD, 2, idempotency_key=key)
    found = client.find(key)
    assert found is not None
    assert found == client.get(first.id, wait_s=1)
    assert client.find(unique("never")) is None
    with pytest.raises(NotFound):
        client.get("01941f29-7c00-7000-8000-000000000001")


def test_an_answer_that_is_lost_costs_nothing(service: Service, key: str, wallet: str, hostile: Hostile) -> None:
    hostile.will(forwards(service.url, and_drops=True), forwards(service.url))
    with Client(hostile.url, key) as client:
        command = client.spend(wallet, GOLD, 30, wait_s=20)
    assert (command.applied, command.replayed) == (True, True)
    with Client(service.url, key) as client:
        assert client.wallet(wallet).available(GOLD) == 70


def test_a_batch_has_a_result_for_each(client: Client, wallet: str) -> None:
    orders = [
        Order.spend(wallet, GOLD, 1),
        Order.spend("no wallet's name\n", GOLD, 1),
        Order.spend(wallet, GOLD, 1000),
    ]
    first, second, third = client.submit_many(orders, wait_s=20)
    assert isinstance(first, Command)
    assert first.applied
    assert isinstance(second, Problem)
    assert (second.status, second.code) == (422, "validation_failed")
    assert isinstance(third, Command)
    assert third.rejected
    again = client.submit_many(orders[:1])[0]
    assert isinstance(again, Command)
    assert again.replayed


def test_an_atomic_batch_is_all_or_nothing(client: Client, wallet: str) -> None:
    orders = [Order.spend(wallet, GOLD, 60), Order.spend(wallet, GOLD, 60)]
    assert [preview.rejected for preview in client.preview_many(orders)] == [True, True]
    results = client.submit_many(orders, atomic=True, wait_s=20)
    assert [isinstance(result, Command) and result.rejected for result in results] == [True, True]
    assert client.wallet(wallet).available(GOLD) == 100


def test_cancelling_says_what_came_of_it(client: Client, wallet: str) -> None:
    key = unique("client-key")
    assert client.cancel_key(key).cancelled
    assert client.spend(wallet, GOLD, 1, idempotency_key=key).cancelled
    spent = client.spend(wallet, GOLD, 1, wait_s=20)
    assert client.cancel(spent.id) == client.get(spent.id)


def test_a_preview_changes_nothing(client: Client, wallet: str) -> None:
    assert client.preview(Order.spend(wallet, GOLD, 100)).applied
    refused = client.preview(Order.spend(wallet, GOLD, 101))
    assert (refused.rejected, refused.outcome.code, refused.outcome.at) == (True, "insufficient_funds", None)
    assert client.wallet(wallet).available(GOLD) == 100


def test_a_read_has_the_command_that_it_is_to_wait_for(client: Client, wallet: str) -> None:
    command = client.spend(wallet, GOLD, 30)
    assert client.wallet(wallet, after=command.id, wait_s=20).available(GOLD) == 70


def test_the_feed_goes_on_when_its_connection_is_lost_and_resumes_from_any_cursor(
    service: Service, client: Client, key: str, wallet: str, hostile: Hostile
) -> None:
    """The second outcome is lost on the wire, with the connection."""
    cut = threading.Event()
    hostile.will(streams_from(service.url, cut))
    keys = [unique("client-key") for _ in range(3)]
    with Client(hostile.url, key) as following, following.outcomes(client.newest_cursor(), wallet=wallet) as feed:
        client.spend(wallet, GOLD, 1, idempotency_key=keys[0])
        told = [next(feed)]
        cut.set()
        for each in keys[1:]:
            client.spend(wallet, GOLD, 1, idempotency_key=each, wait_s=20)
        told += [next(feed), next(feed)]
    assert len(hostile.heard) == 2
    assert [command.idempotency_key for command in told] == keys
    assert all(command.applied for command in told)
    with client.outcomes(told[0].cursor, wallet=wallet) as resumed:
        assert [next(resumed).idempotency_key for _ in keys[1:]] == keys[1:]


def test_the_async_client_does_the_same(service: Service, key: str, wallet: str) -> None:
    async def story() -> None:
        async with AsyncClient(service.url, key) as client:
            cursor = await client.newest_cursor()
            spends = [client.spend(wallet, GOLD, 10, wait_s=20) for _ in range(11)]
            commands = await asyncio.gather(*spends)
            assert sorted(command.status for command in commands) == ["applied"] * 10 + ["rejected"]
            assert (await client.wallet(wallet)).available(GOLD) == 0
            async with client.outcomes(cursor, wallet=wallet) as feed:
                told = [(await anext(feed)).id for _ in commands]
            assert sorted(told) == sorted(command.id for command in commands)
            assert [preview.rejected for preview in await client.preview_many([Order.spend(wallet, GOLD, 1)])] == [True]

    asyncio.run(story())


def test_what_is_fired_arrives_once_in_order(service: Service, key: str, wallet: str, hostile: Hostile) -> None:
    """Every other answer is lost on the way."""
    hostile.will(*[forwards(service.url, and_drops=each % 2 == 0) for each in range(200)])
    with Client(hostile.url, key) as client:
        keys = [client.fire(Order.spend(wallet, GOLD, 1)) for _ in range(90)]
        assert client.flush(20)
        assert (client.fired.accepted, client.fired.refused, client.fired.waiting) == (90, 0, 0)
    with Client(service.url, key) as client:
        last = client.find(keys[-1], wait_s=20)
        assert last is not None
        assert client.wallet(wallet, after=last.id).available(GOLD) == 10
        commands = [client.find(key) for key in (keys[0], keys[45], keys[-1])]
        times = [command.accepted_at for command in commands if command]
        assert times == sorted(times)


def test_a_thousand_and_more_are_split(client: Client) -> None:
    wallet = unique("rich")
    results = client.submit_many([Order.top_up(wallet, GOLD, 1) for _ in range(1001)])
    assert len({result.id for result in results if isinstance(result, Command)}) == 1001
