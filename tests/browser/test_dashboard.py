"""The dashboard in a real browser: what only scripts, styles and a person's hands can show to work."""

import httpx2
import pytest
from playwright.sync_api import Page, expect

from ledger.operators import Role
from tests.browser.conftest import GOLD, WITHIN_MS, Send, SignIn
from tests.contracts.service import Service
from tests.receivers import Receiver, reply

XSS = "<img src=x onerror=alert(1)><script>alert(2)</script>"
PHONE = {"width": 390, "height": 844}

expect.set_options(timeout=WITHIN_MS)
pytestmark = pytest.mark.timeout(180)  # starting the service and a browser on a busy machine


def do(page: Page, verb: str, reason: str = "a test") -> None:
    """Opens the menu of this name and does what it offers."""
    page.locator("summary", has_text=verb).click()
    menu = page.locator("details[open]")
    menu.get_by_label("Reason").fill(reason)
    menu.get_by_role("button").first.click()


def test_signing_in_finding_a_refused_spend_and_its_reason(
    sign_in: SignIn, service: Service, send: Send, wallet: str
) -> None:
    send(type="top_up", wallet=wallet, amount="500")
    send(type="spend", wallet=wallet, amount="9900", reference=f"order-of-{wallet}")
    page = sign_in()
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type(f"order-of-{wallet}")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Spend 99.00 gold rejected")
    expect(page.locator(".why")).to_contain_text("Insufficient funds")
    page.get_by_role("link", name=wallet).first.click()
    expect(page).to_have_url(f"{service.url}/wallets/{wallet}")


def test_a_wrong_password_is_told(browser_page: Page, service: Service) -> None:
    browser_page.goto(service.url)
    browser_page.get_by_label("Operator").fill("operator")
    browser_page.get_by_label("Password").fill("something else")
    browser_page.get_by_role("button", name="Sign in", exact=True).click()
    expect(browser_page.get_by_role("alert")).to_have_text("Name or password is wrong.")


def test_a_top_up_and_a_spend_whose_outcomes_arrive(sign_in: SignIn, service: Service, send: Send, wallet: str) -> None:
    send(type="top_up", wallet=wallet, amount="1000")
    page = sign_in()
    page.goto(f"{service.url}/wallets/{wallet}")
    form, outcome = page.locator("#send"), page.locator("#outcome")
    for type_, amount, told in (
        ("top up", "12.50", f"{wallet} has 22.50 gold available"),
        ("spend", "20", f"{wallet} has 2.50 gold available"),
        ("spend", "20", "Insufficient funds"),
    ):
        form.get_by_label("Type").select_option(label=type_)
        form.get_by_label("Amount").fill(amount)
        form.get_by_label("Reason").fill("a test")
        form.get_by_role("button").click()
        expect(outcome).to_contain_text(told)
    form.get_by_label("Amount").fill("nothing")
    form.get_by_role("button").click()
    expect(outcome.get_by_role("alert")).to_contain_text("amount")
    assert not form.get_by_label("To wallet").is_visible()
    form.get_by_label("Type").select_option(label="transfer")
    assert form.get_by_label("To wallet").is_visible()
    page.reload()
    expect(page.locator("tr", has_text="spend")).to_have_count(1)
    expect(page.locator("canvas")).to_have_count(1)


def test_the_live_figures_move(sign_in: SignIn, send: Send, wallet: str) -> None:
    page = sign_in()
    expect(page.locator("[data-live-state]")).to_have_text("live")
    accepted = page.locator("[data-figure=accepted]")
    for _ in range(6):
        send(type="top_up", wallet=wallet, amount="100")
    expect(accepted).not_to_have_text("0.0")
    expect(accepted).not_to_have_text("—")
    send(type="spend", wallet=wallet, amount="777700")
    expect(page.locator("[data-part=refusals]")).to_contain_text("insufficient funds")
    expect(page.locator("canvas")).to_have_count(2)


def test_a_wallet_is_frozen_and_the_log_says_why(sign_in: SignIn, service: Service, send: Send, wallet: str) -> None:
    send(type="top_up", wallet=wallet, amount="1000")
    page = sign_in()
    page.goto(f"{service.url}/wallets/{wallet}")
    do(page, "Freeze", reason=f"chargeback of {wallet}")
    expect(page.get_by_role("heading", level=1)).to_contain_text("frozen")
    page.get_by_role("link", name="Audit log").click()
    expect(page.locator("tr", has_text=f"chargeback of {wallet}")).to_contain_text("freeze a wallet")


def test_a_webhook_is_sent_again(
    sign_in: SignIn, service: Service, game: httpx2.Client, receiver: Receiver, send: Send, wallet: str
) -> None:
    receiver.answers(reply(200))
    made = game.post("/v1/webhook_endpoints", json={"url": f"{receiver.url}/hook", "wallets": [wallet]}).json()
    send(type="top_up", wallet=wallet, amount="1000")
    receiver.wait_for(1, within_s=20)
    page = sign_in()
    page.goto(f"{service.url}/webhooks/{made['id']}")
    expect(page.locator("tbody tr").first).to_contain_text("command.applied")
    do(page, "Resend")
    expect(page.get_by_role("status")).to_have_text("1 to be sent at once.")
    first, second = receiver.wait_for(2, within_s=20)
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    page.get_by_role("button", name="attempts").first.click()
    expect(page.locator("td.attempts tr").first).to_contain_text("delivered")
    game.delete(f"/v1/webhook_endpoints/{made['id']}")


def test_an_attack_in_metadata_is_shown_as_text(
    sign_in: SignIn, service: Service, game: httpx2.Client, send: Send, wallet: str
) -> None:
    game.put(f"/v1/wallets/{wallet}", json={"name": XSS, "metadata": {XSS: XSS}})
    command = send(type="top_up", wallet=wallet, amount="1000", reference=XSS, metadata={"note": XSS})
    page = sign_in()
    for path in (f"/commands/{command}", f"/wallets/{wallet}", "/wallets", "/search?q=player"):
        page.goto(service.url + path)
    page.goto(f"{service.url}/commands/{command}")
    expect(page.locator("pre").first).to_contain_text(XSS.replace('"', '\\"'))
    expect(page.get_by_text(XSS, exact=True)).to_have_count(1)
    page.goto(f"{service.url}/wallets/{wallet}")
    expect(page.get_by_text(XSS, exact=True)).to_have_count(2)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_fits_a_phone_in_light_and_dark(
    sign_in: SignIn, service: Service, send: Send, wallet: str, scheme: str
) -> None:
    command = send(type="top_up", wallet=wallet, amount="1000", reference="a reference of some length for a phone")
    page = sign_in(viewport=PHONE, color_scheme=scheme)
    paths = ("/", "/wallets", f"/wallets/{wallet}", f"/commands/{command}", "/webhooks", "/assets", f"/assets/{GOLD}")
    for path in (*paths, "/keys", "/log", "/search?q=player"):
        page.goto(service.url + path)
        wide, most = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide <= most, f"{path} is {wide} wide"
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness = sum(int(part) for part in ground.removeprefix("rgb(").removesuffix(")").split(","))
        assert (brightness < 200) == (scheme == "dark"), ground


def test_it_is_used_by_keyboard_alone(sign_in: SignIn, service: Service, send: Send, wallet: str) -> None:
    send(type="top_up", wallet=wallet, amount="1000")
    page = sign_in()
    page.goto(f"{service.url}/wallets/{wallet}")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.locator("summary", has_text="Freeze")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_label("What stops")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("summary", has_text="Freeze")).to_be_focused()


def test_who_only_looks_is_offered_nothing_to_do(sign_in: SignIn, service: Service, send: Send, wallet: str) -> None:
    command = send(type="top_up", wallet=wallet, amount="1000")
    page = sign_in(Role.READ_ONLY)
    expect(page.get_by_text("read-only")).to_be_visible()
    for path in (f"/wallets/{wallet}", f"/commands/{command}", "/webhooks", f"/assets/{GOLD}", "/log"):
        page.goto(service.url + path)
        expect(page.locator("main form")).to_have_count(0)
