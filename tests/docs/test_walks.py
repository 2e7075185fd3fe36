"""Pages that are walked through from top to bottom, against one service: api, worker and courier as processes."""

import json
import re
from collections.abc import Generator
from pathlib import Path

import pytest

from bursar.client import Client
from bursar.local.places import any_free_port
from bursar.local.postgres import Postgres
from bursar.local.processes import wait_until
from ledger.tenants import DEFAULT_TENANT
from runtime import base64url
from runtime.receipts import new_key
from tests.contracts.caller import Caller
from tests.contracts.service import Service, running
from tests.docs.pages import ROOT, fences
from tests.docs.walking import Shell, shown, walk

pytestmark = pytest.mark.timeout(180)  # a page starts several programs, on a machine that may be busy
WALKED = {
    "api.md": DEFAULT_TENANT,
    "game-server.md": DEFAULT_TENANT,
    "production.md": "another-game",
}  # in which tenant
SEEN_WITHIN_S = 20


@pytest.fixture(scope="module")
def service(postgres: Postgres, template: str) -> Generator[Service]:
    """With webhooks, also to this machine, and receipts. There are the assets that `bursar seed` makes."""
    settings = {
        "BURSAR_SECRETS_KEY": base64url.encode(b"k" * base64url.KEY_BYTES),
        "BURSAR_WEBHOOK_ALLOWED_HOSTS": "127.0.0.1",
        "BURSAR_RECEIPT_KEY": new_key()[0],
    }
    with running(postgres, template, **settings) as service:
        caller = Caller(service, service.new_key("the shop"))
        for code in ("gold_coins", "diamonds"):
            assert caller.http.post("/v1/assets", json={"code": code, "name": code, "scale": 0}).status_code == 201
        caller.http.close()
        service.start_courier()
        yield service


@pytest.fixture
def shell(service: Service, tmp_path: Path) -> Generator[Shell]:
    """With an API key that opens everything, of a client of this test's own."""
    shell = Shell(
        tmp_path,
        BURSAR_URL=service.url,
        BURSAR_API_KEY=service.new_key(tmp_path.name),
        BURSAR_DATABASE_URL=service.database_url,
        BURSAR_REDIS_URL=service.redis_url,
        **service.environment,
    )
    yield shell
    shell.stop()


@pytest.mark.parametrize("page", WALKED)
def test_it_does_what_it_says(page: str, service: Service, shell: Shell) -> None:
    shell.environment["BURSAR_API_KEY"] = service.new_key(page, tenant=WALKED[page])
    walk(ROOT / "docs" / page, shell)


def test_reconciling_md_finds_what_was_paid(service: Service, shell: Shell) -> None:
    with Client(service.url, shell.environment["BURSAR_API_KEY"]) as client:
        for reference, amount in (("psp-1", 100), ("psp-2", 50)):
            client.top_up("player-7", "diamonds", amount, reference=reference)
        assert client.spend("player-7", "diamonds", 30, reference="order-99", wait_s=20).applied
    walk(ROOT / "docs/reconciling.md", shell)


def test_the_receiver_of_receiving_webhooks_md_gets_what_it_says(shell: Shell) -> None:
    port = str(any_free_port())
    shell.environment["PORT"] = port
    walk(ROOT / "docs/receiving-webhooks.md", shell, instead={"9000": port})
    refused = shell.run(f"curl -sS -o answer -w '%{{http_code}}' http://127.0.0.1:{port}/ -d '{{}}'")
    assert refused == "400"


def test_outcomes_are_polled_for_and_streamed_as_outcomes_md_says(service: Service, shell: Shell) -> None:
    page = ROOT / "docs/outcomes.md"
    polling, streaming = fences(page, "bash")
    polled, streamed = shell.start(polling), shell.start(streaming)
    service.wait_for_metric("bursar_feed_waiting_requests", 2, within_s=SEEN_WITHIN_S)
    with Client(service.url, shell.environment["BURSAR_API_KEY"]) as client:
        client.top_up("player-42", "gold_coins", 5)
    [polls] = [shown(block) for block in fences(page, "json")]
    [stream] = fences(page, "text")
    assert wait_until(lambda: polled.read_text().endswith("}"), timeout_s=SEEN_WITHIN_S)
    answer = json.loads(polled.read_text())
    assert answer.keys() == polls.keys()
    assert [command["type"] for command in answer["data"]] == ["top_up"]
    assert wait_until(lambda: streamed.read_text().count("\n\n") == 2, timeout_s=SEEN_WITHIN_S)
    lines = zip(streamed.read_text().splitlines(), stream.splitlines(), strict=False)
    for came, said in lines:
        assert came.partition(":")[0] == said.partition(":")[0]
        assert came == said or not said.startswith(("retry", "event"))
    [told] = [json.loads(line[6:]) for line in streamed.read_text().splitlines() if line.startswith("data: ")]
    assert told.keys() >= shown(re.findall(r"data: (.*)", stream)[0]).keys()
