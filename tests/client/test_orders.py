"""What is sent, and what is not sent at all; what each client's methods give, as type checkers see it."""

import json
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any, assert_type

import msgspec
import pytest

from api.requests import CommandItem
from bursar.client import AsyncClient, Client, Command, Order, Preview, Result, Retries, Wallet
from bursar.client.core import Answer, Core, Send, Sleep
from ledger.commands import TYPES

ENDS = datetime(2026, 11, 25, 14, tzinfo=timezone(timedelta(hours=2)))
ID = "01941f29-7c00-7000-8000-000000000001"
ALL: dict[str, Order] = {
    "top_up": Order.top_up("alice", "gold", 10, credits_expire_at=ENDS, priority=3, source="purchased"),
    "bonus": Order.bonus("alice", "gold", 10, credits_expire_at=ENDS, priority=3, source="promotional"),
    "spend": Order.spend("alice", "gold", 10, credits_order="oldest_first", reference="r", metadata={"a": [1]}),
    "transfer": Order.transfer("alice", "bob", "gold", 10, precondition={"version": 1, "available_gte": 5}),
    "hold": Order.hold("alice", "gold", 10, ENDS, expires_at=ENDS),
    "capture": Order.capture(ID, 5, to_wallet="bob", final=False),
    "release": Order.release(ID),
    "exchange": Order.exchange("alice", "gold", 10, "gems", Decimal("1E-7"), rounding="half_even"),
    "reverse": Order.reverse(ID, allow_negative=True),
    "adjust": Order.adjust("alice", "gold", -10, "counted wrong"),
}


def test_every_type_that_the_service_takes_can_be_asked_for() -> None:
    assert set(ALL) == set(TYPES)
    assert all(callable(getattr(each, kind)) for kind in TYPES for each in (Order, Client, AsyncClient))


@pytest.mark.parametrize("kind", ALL)
def test_an_order_is_what_the_service_decodes(kind: str) -> None:
    order = ALL[kind]
    decoded: Any = msgspec.json.decode(order.item, type=CommandItem)
    assert (decoded.__struct_config__.tag, decoded.idempotency_key) == (kind, order.idempotency_key)
    told = json.loads(order.encoded)
    assert {name for name in told if name != "type"} == {
        name for name in decoded.__struct_fields__ if getattr(decoded, name) is not None
    } - {"idempotency_key"}


def test_amounts_are_digits_times_have_their_offset_and_rates_no_exponent() -> None:
    assert ALL["transfer"].body["precondition"] == {"version": 1, "available_gte": "5"}
    assert ALL["adjust"].body["amount"] == "-10"
    assert ALL["hold"].body["hold_expires_at"] == "2026-11-25T14:00:00+02:00"
    assert ALL["exchange"].body["rate"] == "0.0000001"


def test_a_time_without_a_zone_is_no_time() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        Order.spend("alice", "gold", 1, expires_at=ENDS.replace(tzinfo=None))


def test_each_order_has_a_key_of_its_own() -> None:
    assert Order.spend("alice", "gold", 1) != Order.spend("alice", "gold", 1)
    assert Order.spend("alice", "gold", 1, idempotency_key="k") == Order.spend("alice", "gold", 1, idempotency_key="k")


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        ("3", 3, 3),
        ("100000", 60, 60),
        ("Tue, 24 Nov 2076 14:21:08 GMT", 60, 60),
        ("Tue, 24 Nov 1998 14:21:08 GMT", 0, 0),
        ("soon", 0, 0),
        ("-5", 0, 0),
    ],
)
def test_a_retry_after_is_seconds_or_a_date_and_has_a_bound(value: str, least: float, most: float) -> None:
    core = Core(timeout_s=1, retries=Retries(within_s=1000, retry_after_max_s=60), jitter=lambda: 0.0)
    flow = core.get(ID, None)
    assert isinstance(next(flow), Send)
    pause = flow.send(Answer(503, {"retry-after": value}, b""))
    assert isinstance(pause, Sleep)
    assert least <= pause.seconds <= most


@pytest.mark.parametrize("url", ["", "bursar.example", "ftp://bursar.example", "http://", "http://x/?key=1"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="no address of a service"):
        Client(url, "key")


if TYPE_CHECKING:

    async def types(one: Client, other: AsyncClient) -> None:
        assert_type(one.spend("alice", "gold", 1), Command)
        assert_type(one.find("k"), Command | None)
        assert_type(one.submit_many([]), list[Result])
        assert_type(await other.spend("alice", "gold", 1), Command)
        assert_type(await other.find("k"), Command | None)
        assert_type(await other.submit_many([]), list[Result])
        assert_type(await other.preview(ALL["spend"]), Preview)
        assert_type(await other.wallet("alice"), Wallet)
        assert_type([command async for command in other.outcomes()], list[Command])
        assert_type([command for command in one.outcomes()], list[Command])  # noqa: C416
        one.spend("alice", "gold", 1, colour="red")  # pyright: ignore[reportCallIssue]
        one.spend("alice", "gold", 1.5)  # pyright: ignore[reportArgumentType]
