"""What a reviewer once found broken, each seen failing before it was mended."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from api.feed import Feed
from api.waiting import Waiting
from ledger.outcomes import CommandState
from tests.contracts.caller import Caller, order, unique
from tests.contracts.service import Service

JSON = ("Content-Type", "application/json")
NOW = datetime.now(UTC)
APPLIED = CommandState(
    1, 1, 1, "spend", "w", None, "gold", 1, None, None, "k", NOW, None, "applied", "applied", None, "[]", NOW, None, 0,
    None, None, None, None, None,
)  # fmt: skip


def test_a_waiter_is_never_forgotten_for_one_that_came_before_it() -> None:
    """Letting go of a waiter must not remove the next one that stands under the same seq."""

    async def story() -> None:
        waiting = Waiting("", "", feed=Feed("", partitions=1, retention=timedelta(days=1)))
        first = asyncio.create_task(waiting.outcomes([1], 5))
        await asyncio.sleep(0)
        waiting._deliver(1, APPLIED, None)  # the first one's outcome comes …
        second = asyncio.create_task(waiting.outcomes([1], 5))  # … and a replay of the same key begins to wait
        await first
        assert waiting.waiting == 1  # the replay's waiter: the next look must find it
        second.cancel()

    asyncio.run(story())


def test_a_hundred_who_wait_for_one_outcome_are_told_at_once(game: Caller, rich: str) -> None:
    """All of them are told at once; none waits out its 5 s."""
    import time

    for _ in range(5):
        key = unique("key")
        with ThreadPoolExecutor(32) as pool:
            started = time.monotonic()
            list(pool.map(lambda _: game.post(order("spend", rich, "1"), key=key, prefer="wait=5"), range(100)))  # noqa: B023
            assert time.monotonic() - started < 4


def test_a_stopping_api_answers_those_who_wait(game: Caller, service: Service, rich: str) -> None:
    """With where the command stands; not with an error, and without a traceback in the log."""
    with ThreadPoolExecutor(1) as pool, service.drains_held():
        try:
            waits = pool.submit(
                httpx2.post,
                f"{service.url}/v1/commands",
                json=order("spend", rich, "1"),
                headers={
                    "Authorization": f"Bearer {game.api_key}",
                    "Idempotency-Key": unique("key"),
                    "Prefer": "wait=30",
                },
                timeout=40,
            )
            service.wait_for_metric("bursar_waiting_commands", 1, within_s=5)
            service.stop_api()
            answer = waits.result()
        finally:
            service.start_api()
        assert answer.status_code == 202, answer.text
    assert "Traceback" not in service.log("api")


def test_one_bad_item_stops_no_other(game: Caller, rich: str) -> None:
    """Also where what is wrong with it only a second reading finds."""
    good = f'{{"idempotency_key":"{unique("key")}","type":"spend","wallet":"{rich}","asset":"gold","amount":1}}'
    for bad in (r',"reference":"\u0000"}', ',"amount":1}'):
        other = good.replace("key-", "other-")
        content = f'{{"commands":[{good[:-1]}{bad},{other}]}}'
        answer = game.http.post("/v1/commands/batch", content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 200, answer.text


def test_a_quoted_key_in_a_batch_is_the_bare_key(game: Caller, wallet: str) -> None:
    """As in the header: a replay as a single post is the same command."""
    key = unique("key")
    body = order("top_up", wallet, "1")
    item = {"idempotency_key": f'"{key}"', **body}
    stored = game.batch([item], prefer="wait=20").json()["results"][0]["command"]
    assert game.find(f'"{key}"').json() == stored
    assert game.post(body, key=f'"{key}"').json() == stored


def test_prefer_in_two_lines_is_one_list(game: Caller, rich: str) -> None:
    """RFC 7240, 2: several Prefer fields are one list."""
    headers = [JSON, ("Idempotency-Key", unique("key")), ("Prefer", "respond-async"), ("Prefer", "wait=20")]
    body = f'{{"type":"spend","wallet":"{rich}","asset":"gold","amount":1}}'.encode()
    assert game.raw("POST", "/v1/commands", headers, body).headers.get("preference-applied") == "wait=20"


@pytest.mark.parametrize("after", [" ", "\t", " \t "])
def test_spaces_after_a_key_are_no_part_of_it(game: Caller, wallet: str, after: str) -> None:
    """RFC 9110, 5.5: white space around a field's value is no part of it."""
    key = unique("key")
    body = f'{{"type":"top_up","wallet":"{wallet}","asset":"gold","amount":1}}'.encode()
    answer = game.raw("POST", "/v1/commands", [JSON, ("Idempotency-Key", key + after)], body)
    assert answer.headers.get("idempotency-key") == key


def test_a_mismatch_in_a_batch_points_into_the_item(game: Caller, rich: str) -> None:
    """Not to a header that the request does not have."""
    key = game.do("spend", rich, "1")["idempotency_key"]
    (result,) = game.batch([{"idempotency_key": key, **order("spend", rich, "2")}]).json()["results"]
    assert result["problem"]["errors"][0]["pointer"] == "/idempotency_key"


def test_metadata_comes_back_in_the_size_it_was_sent(game: Caller, wallet: str) -> None:
    """jsonb spells 1e300 with 300 zeros: such numbers are refused."""
    metadata: dict[str, Any] = {"a": [1e300] * 600}
    answer = game.post(order("top_up", wallet, "1", metadata=metadata), prefer="wait=20")
    assert len(answer.content) < 10_000


def test_the_document_says_that_a_limit_is_one_or_more(service: Service) -> None:
    """`"ge": 1` is no keyword of JSON Schema; pydantic writes it where BeforeValidator stands before Field."""
    (limit,) = (
        p for p in service.contract.document["paths"]["/v1/assets"]["get"]["parameters"] if p["name"] == "limit"
    )
    assert limit["schema"]["minimum"] == 1


def test_an_id_is_ascii(game: Caller, rich: str) -> None:
    """UUID() takes any script's digits, braces, and urn:uuid: in front."""
    command = game.do("spend", rich, "1")["id"]
    assert game.get("".join(chr(0x660 + int(c)) if c.isdigit() else c for c in command)).status_code == 404
