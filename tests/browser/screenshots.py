"""Pictures of the dashboard for the README: `python -m tests.browser.screenshots`. It runs a service of its own, with
players who buy, win and spend for a while, and a receiver of webhooks that is down now and then.
"""

import contextlib
import math
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path

import httpx2
from playwright.sync_api import Browser, Page

from bursar.local.places import any_free_port
from ledger import db
from ledger.operators import Role, add_operator
from runtime import base64url
from tests import servers
from tests.browser import chromium
from tests.contracts.service import Service, running
from tests.receivers import Receiver, reply

FOLDER = servers.ROOT / "docs/pictures/dashboard"
PLAYS_S = 90.0
NAME, PASSWORD = "ada", "correct horse battery"
DESK = {"width": 1360, "height": 880}
PHONE = {"width": 390, "height": 844}
ASSETS = (("gold_coins", "Gold coins", 0), ("gems", "Gems", 0), ("loyalty_points", "Loyalty points", 2))
PLAYERS = [f"player-{number}" for number in range(1, 61)]
ITEMS = ("sword", "shield", "potion", "map", "season pass")
SECRETS_KEY = base64url.encode(b"s" * base64url.KEY_BYTES)


def main(plays_s: float) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    environment = {
        "BURSAR_SECRETS_KEY": SECRETS_KEY,
        "BURSAR_WEBHOOK_ALLOWED_HOSTS": "127.0.0.1",
        "BURSAR_FLOWER_URL": f"http://127.0.0.1:{any_free_port()}",
    }
    with (
        servers.running_postgres() as postgres,
        running(postgres, servers.make_template(postgres), **environment) as service,
        Receiver() as receiver,
        chromium.running() as browser,
    ):
        service.start_courier()
        key = service.new_key("game-servers")
        game = httpx2.Client(base_url=service.url, headers={"Authorization": f"Bearer {key}"}, timeout=30)
        prepare(service, game, receiver)
        audit(service)
        with signed_in(browser, service) as page:
            page.goto(service.url)
            with playing(game):
                page.wait_for_timeout(plays_s * 1_000)
                audit(service)
                page.wait_for_timeout(12_000)
                shoot(browser, service, game, page)
        game.close()
        service.settle()


def prepare(service: Service, game: httpx2.Client, receiver: Receiver) -> None:
    engine = db.engine(service.database_url, application="test-operators")
    add_operator(engine, name=NAME, password=PASSWORD, role=Role.OPERATOR)
    engine.dispose()
    for code, name, scale in ASSETS:
        game.post("/v1/assets", json={"code": code, "name": name, "scale": scale})
    receiver.answers(reply(503), reply(200))
    url = f"http://127.0.0.1:{receiver.port}/outcomes"
    game.post(
        "/v1/webhook_endpoints", json={"url": url, "description": "Match servers, Frankfurt", "wallets": PLAYERS[:4]}
    )
    for player in PLAYERS:
        game.put(f"/v1/wallets/{player}", json={"name": player.replace("-", " ").capitalize()})
        for code, *_ in ASSETS:
            send(game, type="top_up", wallet=player, asset=code, amount="400", reference="welcome")


def send(game: httpx2.Client, **command: object) -> str:
    key = f"{command['type']}-{random.getrandbits(48):x}"
    return game.post("/v1/commands", json=command, headers={"Idempotency-Key": key}).json()["id"]


@contextlib.contextmanager
def playing(game: httpx2.Client) -> Generator[None]:
    """Players spend more at some moments than at others, and now and then more than they have."""
    over = threading.Event()

    def play() -> None:
        dice = random.Random(7)
        began = time.monotonic()
        while not over.is_set():
            wave = 1.3 + math.sin((time.monotonic() - began) / 11)
            commands = [at_play(dice) for _ in range(int(4 + 18 * wave * (0.8 + 0.4 * dice.random())))]
            game.post("/v1/commands/batch", json={"commands": commands})
            over.wait(0.1)

    thread = threading.Thread(target=play, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def at_play(dice: random.Random) -> dict[str, object]:
    """What a player does next."""
    player, roll = dice.choice(PLAYERS[:20]), dice.random()
    about: dict[str, object] = {
        "wallet": player,
        "asset": dice.choice(ASSETS)[0],
        "idempotency_key": f"match-{dice.getrandbits(48):x}",
        "reference": f"match-{dice.randrange(9_000)}",
    }
    if roll < 0.55:
        metadata = {"item": dice.choice(ITEMS), "server": "eu-3"}
        return {**about, "type": "spend", "amount": str(dice.randrange(5, 90)), "metadata": metadata}
    if roll < 0.8:
        return {**about, "type": "top_up", "amount": str(dice.randrange(50, 170))}
    if roll < 0.88:
        return {**about, "type": "bonus", "amount": str(dice.randrange(10, 60))}
    if roll < 0.97:
        to = dice.choice(PLAYERS[20:])
        return {**about, "type": "transfer", "amount": str(dice.randrange(5, 60)), "to_wallet": to}
    return {**about, "type": "spend", "asset": "amber", "amount": "5"}  # of an asset that is not there


def audit(service: Service) -> None:
    environment = {"BURSAR_DATABASE_URL": service.database_url, "BURSAR_REDIS_URL": service.redis_url}
    argv = [sys.executable, "-m", "bursar", "audit", "--json"]
    subprocess.run(argv, env={**os.environ, **environment}, check=True, capture_output=True, timeout=120)


@contextlib.contextmanager
def signed_in(browser: Browser, service: Service, *, dark: bool = False, phone: bool = False) -> Generator[Page]:
    context = browser.new_context(
        viewport=PHONE if phone else DESK,  # pyright: ignore[reportArgumentType]  # a mapping is one of its shapes
        color_scheme="dark" if dark else "light",
        device_scale_factor=2 if phone else 1,
        reduced_motion="reduce",
    )
    context.set_default_timeout(120_000)  # a busy machine
    page = context.new_page()
    page.goto(f"{service.url}/sign-in")
    page.get_by_label("Operator").fill(NAME)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.get_by_role("heading", name="Overview").wait_for()
    yield page
    context.close()


def shoot(browser: Browser, service: Service, game: httpx2.Client, page: Page) -> None:
    page.screenshot(path=FOLDER / "overview.png")
    wallet = "player-3"
    game.post(f"/v1/wallets/{wallet}/freeze", json={"scope": "debits", "reason": "chargeback 4711"})
    game.post(f"/v1/wallets/{wallet}/unfreeze", json={"reason": "settled with the bank"})
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3_600))
    send(game, type="hold", wallet=wallet, asset="gold_coins", amount="25", hold_expires_at=soon)
    service.settle()
    with signed_in(browser, service, dark=True) as dark:
        dark.wait_for_timeout(5_000)
        dark.screenshot(path=FOLDER / "overview-dark.png")
        dark.goto(f"{service.url}/wallets/{wallet}")
        dark.wait_for_timeout(500)
        dark.screenshot(path=FOLDER / "wallet-dark.png")
    with signed_in(browser, service, phone=True) as phone:
        phone.wait_for_timeout(5_000)
        phone.screenshot(path=FOLDER / "overview-phone.png")
    applied = game.get(f"/v1/wallets/{wallet}/entries", params={"type": "spend", "limit": 20}).json()["data"][-1]
    page.goto(f"{service.url}/commands/{applied['command']}")
    page.screenshot(path=FOLDER / "command.png")
    page.goto(f"{service.url}/webhooks")
    page.locator("td a.id").first.click()
    page.wait_for_timeout(300)
    page.screenshot(path=FOLDER / "webhook.png")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else PLAYS_S)
    for picture in sorted(Path(FOLDER).glob("*.png")):
        print(picture.relative_to(servers.ROOT))
