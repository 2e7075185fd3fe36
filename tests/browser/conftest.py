"""A service as processes of their own, and a Chromium that looks at it. One of each for the whole folder."""

from collections.abc import Callable, Generator
from itertools import count

import httpx2
import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from bursar.local.postgres import Postgres
from ledger import db
from ledger.operators import Role, add_operator
from runtime import base64url
from tests.browser import chromium
from tests.contracts.service import Service, running
from tests.receivers import Receiver

PASSWORD = "correct horse battery"
SECRETS_KEY = base64url.encode(b"b" * base64url.KEY_BYTES)
WITHIN_MS = 40_000  # a busy machine; Playwright goes on as soon as it is so
GOLD = "gold"
_numbers = count(1)

SignIn = Callable[..., Page]


@pytest.fixture(scope="package")
def browser() -> Generator[Browser]:
    if chromium.path() is None:
        pytest.skip(chromium.MISSING)
    with chromium.running() as browser:
        yield browser


@pytest.fixture(scope="package")
def service(browser: Browser, postgres: Postgres, template: str) -> Generator[Service]:
    environment = {"BURSAR_SECRETS_KEY": SECRETS_KEY, "BURSAR_WEBHOOK_ALLOWED_HOSTS": "127.0.0.1"}
    with running(postgres, template, **environment) as service:
        service.start_courier()
        engine = db.engine(service.database_url, application="test-operators")
        for role in Role:
            add_operator(engine, name=role, password=PASSWORD, role=role)
        engine.dispose()
        yield service


@pytest.fixture(scope="package")
def game(service: Service) -> Generator[httpx2.Client]:
    """A game server: a client with a key."""
    key = service.new_key("a game")
    with httpx2.Client(base_url=service.url, headers={"Authorization": f"Bearer {key}"}, timeout=30) as client:
        client.post("/v1/assets", json={"code": GOLD, "name": "Gold", "scale": 2})
        yield client


@pytest.fixture(scope="package")
def receiver() -> Generator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def sign_in(browser: Browser, service: Service) -> Generator[SignIn]:
    """Pages of somebody who is signed in; none of them may meet an error or ask anybody else for anything."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def open_page(role: Role = Role.OPERATOR, **how: object) -> Page:
        context = browser.new_context(**how)  # pyright: ignore[reportArgumentType]
        contexts.append(context)
        context.set_default_timeout(WITHIN_MS)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("dialog", lambda dialog: complaints.append(f"a dialog: {dialog.message}"))
        page.on(
            "request", lambda request: None if request.url.startswith(service.url) else complaints.append(request.url)
        )
        page.goto(f"{service.url}/")
        page.get_by_label("Operator").fill(role)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in", exact=True).click()
        page.get_by_role("heading", name="Overview").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def browser_page(browser: Browser) -> Generator[Page]:
    """Nobody's."""
    context = browser.new_context()
    yield context.new_page()
    context.close()


@pytest.fixture
def wallet() -> str:
    """The name of a wallet that was never opened."""
    return f"player-{next(_numbers)}"


Send = Callable[..., str]


@pytest.fixture
def send(game: httpx2.Client) -> Send:
    """Posts a command and waits for its outcome; its id."""

    def post(**command: object) -> str:
        headers = {"Idempotency-Key": f"browser-{next(_numbers)}", "Prefer": "wait=20"}
        answer = game.post("/v1/commands", json={"asset": GOLD, **command}, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()["id"]

    return post
