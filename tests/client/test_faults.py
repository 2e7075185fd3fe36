"""What the clients do when the network and the service do their worst. Every story is told of both clients."""

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from api import requests
from api.edge import BODY_MAX_BYTES
from api.routes.outcomes import KEEP_ALIVE_S
from bursar.client import (
    AsyncClient,
    BursarError,
    Client,
    Command,
    Conflict,
    CursorExpired,
    Forbidden,
    Invalid,
    KeyReused,
    NotFound,
    Order,
    Problem,
    Retries,
    ServerFault,
    TooMany,
    Unauthorized,
    Unknown,
    Unreachable,
)
from bursar.client.core import BATCH_MAX, Answer, Core, Lost, Open, Read, Send, Sleep, Told, batches
from bursar.local.places import any_free_port
from tests.client.hostile import Heard, Hostile, accepts, answers, cut, drop, hang, problem, shown, streams

KEY = "bursar_test_hush"
FAST = Retries(attempts=4, within_s=20, first_s=0.001, cap_s=0.002)
Ask = Callable[[Any], Any]
Speak = Callable[..., Any]


def sync(url: str, ask: Ask, *, retries: Retries = FAST, timeout_s: float = 5) -> Any:
    with Client(url, KEY, retries=retries, timeout_s=timeout_s) as client:
        return ask(client)


def aio(url: str, ask: Ask, *, retries: Retries = FAST, timeout_s: float = 5) -> Any:
    async def asked() -> Any:
        async with AsyncClient(url, KEY, retries=retries, timeout_s=timeout_s) as client:
            return await ask(client)

    return asyncio.run(asked())


both = pytest.mark.parametrize("speak", [sync, aio])


def spend(client: Any) -> Any:
    return client.spend("alice", "gold", 30)


@both
@pytest.mark.parametrize(
    "fault",
    [
        drop,
        cut,
        answers(202, b"<html>not JSON</html>"),
        answers(202, {"id": "1"}),
        problem(500, "internal_error", retryable=True),
        problem(503, "database_unavailable", retryable=True, Retry_After="0"),
        answers(502, b"<html>", content_type="text/html"),
        answers(408, b""),
        problem(429, "backlogged", retryable=True, Retry_After="0"),
        problem(409, "command_pending", retryable=True),
    ],
    ids=["drop", "cut", "no-json", "no-command", "500", "503", "502", "408", "429", "409-in-flight"],
)
def test_a_fault_is_met_with_the_same_key_again(hostile: Hostile, speak: Speak, fault: Any) -> None:
    hostile.will(fault, fault, accepts)
    command = speak(hostile.url, spend)
    assert (command.status, command.amount) == ("pending", 30)
    assert len(hostile.heard) == 3
    assert set(hostile.keys) == {command.idempotency_key}
    assert len({heard.body for heard in hostile.heard}) == 1


@both
def test_a_service_that_hangs_is_asked_again(hostile: Hostile, speak: Speak) -> None:
    hostile.will(hang, accepts)
    command = speak(hostile.url, spend, timeout_s=0.5)
    assert len(hostile.keys) >= 2
    assert set(hostile.keys) == {command.idempotency_key}


@both
def test_what_ends_unknown_says_under_which_key(hostile: Hostile, speak: Speak) -> None:
    hostile.will(drop)
    with pytest.raises(Unknown) as caught:
        speak(hostile.url, spend)
    assert hostile.keys == [caught.value.idempotency_key] * FAST.attempts
    assert isinstance(caught.value.__cause__, Unreachable)


@both
def test_a_key_that_is_revoked_after_an_answer_was_lost_leaves_it_unknown(hostile: Hostile, speak: Speak) -> None:
    hostile.will(drop, problem(401, "unauthorized"))
    with pytest.raises(Unknown) as caught:
        speak(hostile.url, spend)
    assert isinstance(caught.value.__cause__, Unauthorized)


@both
def test_what_never_left_is_not_unknown(speak: Speak) -> None:
    with pytest.raises(Unreachable):
        speak(f"http://127.0.0.1:{any_free_port()}", spend)


@both
def test_a_batch_that_ends_unknown_names_all_its_keys(hostile: Hostile, speak: Speak) -> None:
    hostile.will(drop)
    orders = [Order.spend("alice", "gold", 1), Order.spend("bob", "gold", 2)]
    with pytest.raises(Unknown) as caught:
        speak(hostile.url, lambda client: client.submit_many(orders))
    assert caught.value.idempotency_keys == tuple(order.idempotency_key for order in orders)


@both
@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "unauthorized", Unauthorized),
        (403, "insufficient_scope", Forbidden),
        (404, "command_not_found", NotFound),
        (409, "wallet_closed", Conflict),
        (410, "cursor_expired", CursorExpired),
        (413, "body_too_large", Problem),
        (422, "validation_failed", Invalid),
        (422, "idempotency_key_reused", KeyReused),
    ],
)
def test_a_problem_is_an_exception_of_its_own_and_not_repeated(
    hostile: Hostile, speak: Speak, status: int, code: str, kind: type[Problem]
) -> None:
    hostile.will(problem(status, code))
    with pytest.raises(Problem) as caught:
        speak(hostile.url, spend)
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.code, caught.value.request_id) == (status, code, "r-1")
    assert len(hostile.heard) == 1


@both
def test_a_redirect_is_not_followed(hostile: Hostile, speak: Speak) -> None:
    hostile.will(answers(302, b"", Location="http://169.254.169.254/"))
    with pytest.raises(Problem) as caught:
        speak(hostile.url, spend)
    assert caught.value.code == "http_302"


@both
def test_a_retry_after_beyond_the_time_there_is_ends_the_attempts(hostile: Hostile, speak: Speak) -> None:
    hostile.will(problem(429, "backlogged", retryable=True, Retry_After="50"))
    with pytest.raises(TooMany) as caught:
        speak(hostile.url, spend)
    assert caught.value.retry_after_s == 50
    assert len(hostile.heard) == 1


@both
def test_a_503_with_a_retry_after_is_waited_for(hostile: Hostile, speak: Speak) -> None:
    hostile.will(problem(503, "overloaded", retryable=True, Retry_After="1"), accepts)
    impatient = Retries(attempts=4, within_s=0.9, first_s=0.001)  # would come again at once, were it not asked to wait
    with pytest.raises(Unknown) as caught:
        speak(hostile.url, spend, retries=impatient)
    assert isinstance(caught.value.__cause__, ServerFault)


@both
def test_the_api_key_stands_nowhere(hostile: Hostile, speak: Speak, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    hostile.will(drop, problem(401, "unauthorized"))
    told: list[str] = []
    with pytest.raises(BursarError) as caught:
        speak(hostile.url, lambda client: told.append(repr(client) + str(client)) or spend(client))
    told += [repr(caught.value), str(caught.value.__cause__), caplog.text]
    assert told[0].startswith(("Client(", "AsyncClient("))
    assert "hush" not in "".join(told)
    assert hostile.heard[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("key", ["", "two words", "line\nend", "schl\N{LATIN SMALL LETTER U WITH DIAERESIS}ssel"])
def test_a_key_that_can_be_none_is_refused_and_not_told(key: str) -> None:
    with pytest.raises(ValueError, match="the API key") as caught:
        Client("http://127.0.0.1", key)
    assert not key or key not in str(caught.value)


# --- the feed --------------------------------------------------------------------------------------------------


def event(number: int) -> str:
    command = shown({"type": "spend", "wallet": "alice", "asset": "gold", "amount": "1"}, f"k-{number}", "applied")
    return f"id: c{number}\nevent: command.applied\ndata: {_line(command)}\n\n"


def _line(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def first(number: int) -> Ask:
    """The first outcomes of the feed from the cursor c0."""

    def ask(client: Any) -> Any:
        feed = client.outcomes("c0")
        if isinstance(client, Client):
            with feed:
                return [next(feed) for _ in range(number)]

        async def asked() -> list[Command]:
            async with feed:
                return [await anext(feed) for _ in range(number)]

        return asked()

    return ask


@both
def test_the_feed_resumes_behind_the_last_outcome_whatever_breaks(hostile: Hostile, speak: Speak) -> None:
    broken = event(3)[:60]
    hostile.will(
        streams("retry: 1000\nid: c0\n\n", event(1), event(2), broken),
        drop,
        problem(503, "overloaded", retryable=True, Retry_After="0"),
        streams(event(3), ": nothing new\n\n", "id: c5\n\n"),
        streams('event: problem\ndata: {"code": "database_unavailable", "status": 503, "detail": "away"}\n\n'),
        streams(event(6)),
    )
    told = speak(hostile.url, first(4))
    assert [command.cursor for command in told] == ["c1", "c2", "c3", "c6"]
    asked = [heard.path.partition("after=")[2] for heard in hostile.heard]
    assert asked == ["c0", "c2", "c2", "c2", "c5", "c5"]


@both
def test_a_line_of_the_feed_ends_with_a_line_feed_alone(hostile: Hostile, speak: Speak) -> None:
    odd = "a\N{LINE SEPARATOR}b\N{NEXT LINE}c"
    command = shown({"type": "spend", "wallet": odd, "asset": "gold", "amount": "1"}, "k-1", "applied")
    hostile.will(streams(f"id: c1\r\nevent: command.applied\r\ndata: {_line(command)}\r\n\r\n"))
    [told] = speak(hostile.url, first(1))
    assert told.wallet == odd


@both
@pytest.mark.parametrize("in_stream", [False, True])
def test_a_cursor_that_is_too_old_is_told(hostile: Hostile, speak: Speak, in_stream: bool) -> None:
    told = 'event: problem\ndata: {"code": "cursor_expired", "status": 410, "detail": "too old"}\n\n'
    hostile.will(streams(told) if in_stream else problem(410, "cursor_expired"))
    with pytest.raises(CursorExpired):
        speak(hostile.url, first(1))
    assert len(hostile.heard) == 1


def test_the_feed_outlasts_the_silence_between_two_signs_of_life() -> None:
    opening = next(Core(timeout_s=1, retries=FAST).follow("c0", {}, None))
    assert isinstance(opening, Open)
    assert opening.quiet_s > 2 * KEEP_ALIVE_S


def test_pauses_grow_to_a_bound_and_never_come_before_a_retry_after() -> None:
    """With a clock and a jitter of the test's own."""
    now = [0.0]
    core = Core(timeout_s=1, retries=Retries(attempts=7, first_s=1, cap_s=8), clock=lambda: now[0], jitter=lambda: 0.5)
    flow = core.submit(Order.spend("alice", "gold", 1), None)
    pauses: list[float] = []
    came: object = None
    faults = [Lost("reset", sent=True)] * 5 + [Answer(503, {"retry-after": "3"}, b"")]
    for fault in faults:
        assert isinstance(flow.send(came), Send)
        pause = flow.send(fault)
        assert isinstance(pause, Sleep)
        pauses.append(pause.seconds)
        now[0] += pause.seconds
        came = None
    assert pauses == [0.5, 1, 2, 4, 4, 7]
    flow.send(None)
    with pytest.raises(Unknown):
        flow.send(Lost("reset", sent=True))


@pytest.mark.parametrize(
    ("count", "size", "batches_of"),
    [(0, 10, []), (1000, 10, [1000]), (2500, 10, [1000, 1000, 500]), (5, 400_000, [2, 2, 1])],
)
def test_batches_keep_the_services_limits(count: int, size: int, batches_of: list[int]) -> None:
    assert BATCH_MAX == requests.BATCH_MAX
    orders = [Order.spend("alice", "gold", 1, metadata={"text": "x" * size}) for _ in range(count)]
    made = list(batches(orders))
    assert [len(batch) for batch in made] == batches_of
    assert [order for batch in made for order in batch] == orders
    assert all(sum(len(order.item) + 1 for order in batch) + 40 < BODY_MAX_BYTES for batch in made)


@both
def test_the_environment_names_no_proxy(hostile: Hostile, speak: Speak, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{any_free_port()}")
    hostile.will(accepts)
    assert speak(hostile.url, spend).pending


@both
def test_a_request_that_no_attempt_could_have_stored_is_not_unknown(hostile: Hostile, speak: Speak) -> None:
    hostile.will(drop, problem(422, "validation_failed"))
    with pytest.raises(Invalid):
        speak(hostile.url, spend)


@pytest.mark.parametrize("got", [Answer(202, {}, b"garbage"), Answer(408, {}, b""), Answer(500, {}, b"")], ids=repr)
def test_any_sign_that_it_may_have_arrived_leaves_it_unknown(got: Answer) -> None:
    flow = Core(timeout_s=1, retries=Retries(attempts=1)).submit(Order.spend("alice", "gold", 1), None)
    next(flow)
    with pytest.raises(Unknown):
        flow.send(got)


def test_a_batch_with_too_few_results_is_no_answer() -> None:
    orders = [Order.spend("alice", "gold", 1)] * 2
    flow = Core(timeout_s=1, retries=Retries(attempts=1)).submit_many(orders, atomic=False, wait_s=None)
    next(flow)
    result = {"status": 202, "command": shown(orders[0].body, "k")}
    with pytest.raises(Unknown):
        flow.send(Answer(200, {}, json.dumps({"results": [result]}).encode()))


@both
def test_only_what_the_service_says_of_the_command_is_an_answer(hostile: Hostile, speak: Speak) -> None:
    hostile.will(problem(404, "not_found"), problem(409, "key_cancelled"))
    with pytest.raises(NotFound):
        speak(hostile.url, lambda client: client.find("k-1"))
    with pytest.raises(Conflict):
        speak(hostile.url, lambda client: client.cancel("some-id"))


@both
def test_a_feed_that_is_silent_for_longer_than_an_answer_may_take_is_not_lost(hostile: Hostile, speak: Speak) -> None:
    def silent_at_first(connection: Any, heard: Heard) -> None:
        streams("id: c0\n\n")(connection, heard)
        threading.Event().wait(0.4)
        connection.sendall(event(1).encode())

    hostile.will(silent_at_first)
    assert [command.cursor for command in speak(hostile.url, first(1), timeout_s=0.2)] == ["c1"]
    assert len(hostile.heard) == 1


def test_a_feed_that_works_again_starts_anew_with_short_pauses() -> None:
    now = [0.0]
    retries = Retries(first_s=1, cap_s=8)
    flow = Core(timeout_s=1, retries=retries, clock=lambda: now[0], jitter=lambda: 1.0).follow("c0", {}, None)
    stream, gone = Answer(200, {}, b""), Lost("reset", sent=True)

    def pause(*came: object) -> float:
        """Of the Sleep that comes after all these."""
        assert isinstance(flow.send(None), Open)
        step = [flow.send(each) for each in came][-1]
        assert isinstance(step, Sleep)
        return step.seconds

    assert [pause(gone), pause(gone), pause(stream, gone)] == [1, 2, 4]
    assert pause(stream, event(1).encode(), None, gone) == 1  # an outcome came
    assert pause(gone) == 2
    assert isinstance(flow.send(None), Open)
    flow.send(stream)
    now[0] += retries.cap_s  # it held
    step = flow.send(b"")
    assert isinstance(step, Sleep)
    assert step.seconds == 1


def test_a_feed_ends_when_nothing_came_for_so_long() -> None:
    now = [0.0]
    flow = Core(timeout_s=1, retries=FAST, clock=lambda: now[0]).follow("c0", {}, 5.0)
    assert isinstance(flow.send(None), Open)
    assert isinstance(flow.send(Answer(200, {}, b"")), Read)
    now[0] = 4
    assert isinstance(flow.send(event(1).encode()), Told)
    assert isinstance(flow.send(None), Read)
    now[0] = 8
    assert isinstance(flow.send(b": nothing new\n\n"), Read)
    now[0] = 9
    with pytest.raises(StopIteration):
        flow.send(b": nothing new\n\n")


@both
def test_iterating_ends_with_the_feed(hostile: Hostile, speak: Speak) -> None:
    async def of(feed: Any) -> list[Command]:
        return [command async for command in feed]

    def ask(client: Any) -> Any:
        feed = client.outcomes("c0", idle_s=0.0)
        return list(feed) if isinstance(client, Client) else of(feed)

    hostile.will(streams(event(1), event(2)))
    assert len(speak(hostile.url, ask)) <= 2
    hostile.will(drop)
    assert speak(hostile.url, ask) == []
