"""What the dashboard shows and does, without a browser: each page, its tenant alone, and text that stays text."""

import json
import re
from collections.abc import Iterator
from html import unescape

import httpx2
import pytest
from sqlalchemy import Engine

from api.dashboard.doors import Throttle
from ledger import operators
from ledger.ids import command_id, transfer_id
from ledger.keys import Scope
from ledger.operators import Audit, AuditFinding
from tests.api.browsing import Browser
from tests.api.conftest import NewKey
from tests.api.serving import Served
from tests.books import GOLD, Bank

XSS = "<img src=x onerror=alert(1)>"


@pytest.fixture
def browser(api: Served, new_key: NewKey) -> Iterator[Browser]:
    """Signed in with a key of the bank's tenant that opens everything."""
    api.app.state.throttle = Throttle()
    browser = Browser(api)
    assert browser.sign_in(key=new_key()).status_code == 303
    yield browser
    browser.close()


@pytest.fixture
def outsider(api: Served, bank: Bank, new_key: NewKey) -> Iterator[Browser]:
    """Signed in to another tenant."""
    there = Bank(bank.url)
    browser = Browser(api)
    assert browser.sign_in(key=new_key(of=there)).status_code == 303
    yield browser
    browser.close()
    there.close()


def id_of(bank: Bank, seq: int) -> str:
    return command_id(seq, bank.one("SELECT accepted_at FROM commands WHERE seq = %s", seq))


def words(answer: httpx2.Response) -> str:
    """What a person reads."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", answer.text)))


def events(browser: Browser, *, until: str) -> dict[str, object]:
    """What the live stream tells, by name, the last of each, up to the first of that name."""
    found: dict[str, object] = {}
    name = ""
    with browser.client.stream("GET", "/live") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                found[name] = json.loads(line.removeprefix("data: "))
                if name == until:
                    return found
    raise AssertionError("the stream ended")


# --- the overview ----------------------------------------------------------------------------------------------------


def test_the_overview_is_live(browser: Browser, bank: Bank) -> None:
    bank.top_up("alice", 1250)
    bank.order("spend", "alice", 1)
    told = events(browser, until="state")
    assert isinstance(told["history"], list)
    assert isinstance(told["sample"], list)
    state = str(told["state"])
    assert "1,250" in state, "the supply"
    assert "PostgreSQL" in state
    page = words(browser.get("/"))
    assert "1 pending" in page
    bank.forget()


def test_the_overview_tells_what_the_last_audit_found(browser: Browser, engine: Engine, bank: Bank) -> None:
    at = bank.one("SELECT now()")
    good = [AuditFinding(1, "every transfer sums to zero", 77, 0), AuditFinding(2, "every balance", 5, 0)]
    operators.keep_audit(engine, Audit(at, 12, good))
    told = events(browser, until="state")
    for _ in range(6):  # it is looked at now and then
        if "The books balance." in str(told["state"]):
            break
        told = events(browser, until="state")
    assert "The books balance." in str(told["state"])
    assert "debits = credits</span> 77 transfers" in str(told["state"])


# --- search ----------------------------------------------------------------------------------------------------------


def test_everything_is_found_by_its_name(browser: Browser, bank: Bank) -> None:
    seq = bank.top_up("alice", 5).seq
    spent = bank.spend("alice", 3, reference="order-9", idempotency_key="the-key").seq
    place = f"/commands/{id_of(bank, spent)}"
    transferred = transfer_id(spent, bank.one("SELECT at FROM transfers WHERE seq = %s", spent))
    for asked, found in (
        (id_of(bank, spent), place),
        ("the-key", place),
        ("order-9", place),
        (transferred, place),
        ("alice", "/wallets/alice"),
        (f"  {id_of(bank, seq)} ", f"/commands/{id_of(bank, seq)}"),
    ):
        answer = browser.client.get("/search", params={"q": asked})
        assert (answer.status_code, answer.headers.get("location")) == (303, found), asked


def test_what_is_found_more_than_once_is_listed(browser: Browser, bank: Bank) -> None:
    for wallet in ("player-1", "player-2"):
        bank.top_up(wallet, 5, reference="campaign")
    assert "player-1 player-2" in words(browser.get("/search?q=player"))
    assert words(browser.get("/search?q=campaign")).count("top up") == 2


@pytest.mark.parametrize("asked", ["", "nothing-like-it", XSS, "%", "_", "a" * 300, "\0", "'", "@treasury", "\u202e"])
def test_what_is_not_there_is_not_found(browser: Browser, bank: Bank, asked: str) -> None:
    bank.top_up("alice", 5)
    answer = browser.client.get("/search", params={"q": asked})
    assert answer.status_code == 200
    assert "alice" not in words(answer).replace("wallet's id", "")
    assert "<img" not in answer.text.replace('<img src="/static', "")


# --- a command -------------------------------------------------------------------------------------------------------


def test_a_command_has_its_timeline(browser: Browser, bank: Bank) -> None:
    bank.top_up("alice", 5)
    shown = words(browser.get(f"/commands/{id_of(bank, bank.spend('alice', 3).seq)}"))
    for part in (
        "Spend 3 gold applied",
        "Accepted",
        "Applied",
        "Entries",
        "alice gold \N{MINUS SIGN}3 2",
        "@revenue gold +3",
    ):
        assert part in shown, part


def test_a_refusal_says_why(browser: Browser, bank: Bank) -> None:
    bank.top_up("alice", 5)
    shown = words(browser.get(f"/commands/{id_of(bank, bank.spend('alice', 30).seq)}"))
    assert "rejected" in shown
    assert "Insufficient funds" in shown


def test_a_pending_command_is_asked_about_until_it_has_its_outcome(browser: Browser, bank: Bank) -> None:
    bank.top_up("alice", 5)
    seq = bank.order("spend", "alice", 3)
    place = f"/commands/{id_of(bank, seq)}"
    assert f'hx-get="{place}/outcome' in browser.get(place).text
    bank.drain()
    told = words(browser.get(f"{place}/outcome"))
    assert "applied" in told
    assert "alice has 2 gold available" in told


def test_a_pending_command_is_cancelled_and_a_decided_one_is_not(browser: Browser, bank: Bank) -> None:
    bank.top_up("alice", 5)
    seq = bank.order("spend", "alice", 3)
    place = f"/commands/{id_of(bank, seq)}"
    assert browser.post(f"{place}/cancel").status_code == 303
    assert bank.outcome(seq).status == "cancelled"
    assert bank.available("alice") == 5
    done = browser.post(f"/commands/{id_of(bank, bank.spend('alice', 1).seq)}/cancel")
    assert done.status_code == 409
    assert "the command was applied before; that is final" in words(done)


def test_a_command_is_reversed_in_parts_by_the_operators_client(browser: Browser, bank: Bank) -> None:
    bank.top_up("alice", 5)
    place = f"/commands/{id_of(bank, bank.spend('alice', 3).seq)}"
    reversed_ = browser.post(f"{place}/reverse", amount="1", idempotency_key="r-1")
    assert reversed_.status_code == 303
    bank.drain()
    assert bank.available("alice") == 3
    assert "Reverse 1 gold applied" in words(browser.get(reversed_.headers["location"]))
    wrong = browser.post(f"{place}/reverse", amount="a lot", idempotency_key="r-2")
    assert wrong.status_code == 422
    assert "amount" in words(wrong)


# --- a wallet --------------------------------------------------------------------------------------------------------


def test_a_wallet_shows_what_is_in_it_and_how_it_came_there(browser: Browser, bank: Bank) -> None:
    bank.top_up("alice", 1500)
    bank.spend("alice", 20)
    bank.hold("alice", 100, hold_expires_at=bank.in_seconds(60))
    bank.order("spend", "alice", 30)
    shown = words(browser.get("/wallets/alice"))
    assert "gold 1,350 1,480 100 30 3" in shown, "available, posted, held, queued, entries"
    assert "spend gold \N{MINUS SIGN}20 1,480" in shown
    assert "Open holds 100 gold" in shown
    assert "Reference" in shown
    bank.forget()


def test_entries_go_on_past_the_first_page(browser: Browser, bank: Bank) -> None:
    bank.top_up("alice", 500)
    for _ in range(55):
        bank.spend("alice", 1)
    page = browser.get("/wallets/alice").text
    found = re.search(r'hx-get="(/wallets/alice/entries\?cursor=[^"]+)"', page)
    assert found
    rest = words(browser.get(unescape(found[1])))
    assert "top up gold +500 500" in rest
    assert "Older entries" not in rest


def test_a_wallet_is_frozen_unfrozen_and_closed(browser: Browser, bank: Bank) -> None:
    bank.top_up("alice", 5)
    assert browser.post("/wallets/alice/freeze", scope="debits").status_code == 303
    assert "debits frozen" in words(browser.get("/wallets/alice"))
    assert browser.post("/wallets/alice/unfreeze").status_code == 303
    full = browser.post("/wallets/alice/close")
    assert full.status_code == 409
    assert "Close this wallet" in full.text
    assert browser.post("/wallets/alice/close", sweep_to="bob").status_code == 422
    bank.top_up("bob", 1)
    assert browser.post("/wallets/alice/close", sweep_to="bob").status_code == 303
    assert "closed" in words(browser.get("/wallets/alice"))
    assert bank.available("bob") == 6
    assert browser.post("/wallets/nobody/freeze").status_code == 404


def test_a_command_is_sent_once_however_often_its_form_is(browser: Browser, bank: Bank) -> None:
    bank.top_up("alice", 5)
    form = {"type": "top_up", "asset": GOLD, "amount": "1,000", "idempotency_key": "form-1", "reference": "gift"}
    places = {browser.post("/wallets/alice/commands", **form).headers["location"] for _ in range(3)}
    assert len(places) == 1
    bank.drain()
    assert bank.available("alice") == 1005
    assert "gift" in words(browser.get(places.pop()))


def test_a_script_sends_the_form_and_gets_the_outcome_to_wait_for(browser: Browser, bank: Bank) -> None:
    bank.top_up("alice", 5)
    sent = browser.post_with(
        {"HX-Request": "true"}, "/wallets/alice/commands", type="spend", asset=GOLD, amount="9", idempotency_key="f-1"
    )
    assert sent.status_code == 200
    found = re.search(r'hx-get="([^"]+)"', sent.text)
    assert found
    bank.drain()
    assert "Insufficient funds" in words(browser.get(found[1]))
    wrong = browser.post_with(
        {"HX-Request": "true"}, "/wallets/alice/commands", type="spend", asset=GOLD, amount="", idempotency_key="f-2"
    )
    assert (wrong.status_code, wrong.headers["bursar-status"]) == (200, "422")
    assert 'role="alert"' in wrong.text


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("amount", "", "amount"),
        ("amount", "1.5", "amount"),
        ("amount", "-3", "amount"),
        ("amount", "9" * 30, "amount"),
        ("asset", "no such thing", "asset"),
        ("type", "adjust", "type"),
        ("idempotency_key", "", "visible ASCII"),
        ("to_wallet", "@treasury", "to_wallet"),
        ("to_wallet", "alice", "another wallet"),
        ("reference", "x" * 201, "reference"),
    ],
)
def test_a_form_that_cannot_be_meant_says_what_is_wrong(
    browser: Browser, bank: Bank, field: str, value: str, says: str
) -> None:
    bank.top_up("alice", 5)
    form = {"type": "transfer", "asset": GOLD, "amount": "1", "to_wallet": "bob", "idempotency_key": "k"}
    answer = browser.post("/wallets/alice/commands", **{**form, field: value})
    assert answer.status_code in (400, 422)
    assert says in words(answer)


def test_amounts_are_of_the_assets_own_unit(browser: Browser, bank: Bank) -> None:
    bank.do("INSERT INTO assets (tenant_id, code, name, scale) VALUES (%s, 'euro', 'Euro', 2)", bank.tenant)
    bank.top_up("alice", 5)
    sent = browser.post("/wallets/alice/commands", type="top_up", asset="euro", amount="12.5", idempotency_key="k")
    assert "12.50 euro" in words(browser.get(sent.headers["location"]))
    finer = browser.post("/wallets/alice/commands", type="top_up", asset="euro", amount="0.001", idempotency_key="l")
    assert finer.status_code == 422


def test_text_of_others_stays_text(browser: Browser, bank: Bank) -> None:
    seq = bank.top_up("alice", 5, metadata=json.dumps({XSS: XSS}), reference=XSS).seq
    bank.do("UPDATE wallets SET name = %s WHERE tenant_id = %s AND code = 'alice'", XSS, bank.tenant)
    for path in ("/wallets", "/wallets/alice", f"/commands/{id_of(bank, seq)}", f"/search?q={XSS}"):
        page = browser.get(path)
        assert page.status_code == 200 or page.headers["location"], path
        assert "<img src=x" not in page.text
    assert XSS in words(browser.get("/wallets/alice")).replace("< img", "<img")


def test_pages_hold_no_script_and_no_style(browser: Browser, bank: Bank) -> None:
    bank.top_up("alice", 5)
    for path in ("/", "/wallets", "/wallets/alice", f"/commands/{id_of(bank, bank.spend('alice', 1).seq)}", "/sign-in",
                 "/webhooks", "/assets", f"/assets/{GOLD}", "/keys", "/log"):  # fmt: skip
        page = browser.client.get(path, follow_redirects=True).text
        assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son[a-z]+=|javascript:", page), path
        for loaded in re.findall(r'<(?:script|link|img)[^>]* (?:src|href)="([^"]*)"', page):
            assert re.match(r"/static/", loaded), loaded
            assert browser.get(loaded).status_code == 200, loaded


# --- webhooks, assets, records ---------------------------------------------------------------------------------------


def endpoint_of(browser: Browser) -> str:
    made = browser.post("/webhooks", url="https://receiver.example.com/", description=XSS)
    assert made.status_code == 201
    assert "whsec_" in made.text
    assert "<img src=x" not in made.text
    found = re.search(r'href="(/webhooks/[0-9a-f-]{36})', browser.get("/webhooks").text)
    assert found
    assert "whsec_" not in browser.get(found[1]).text
    return found[1]


def test_an_endpoint_is_made_disabled_and_tested(browser: Browser, bank: Bank) -> None:
    place = endpoint_of(browser)
    assert browser.post(f"{place}/test").headers["location"] == f"{place}?sent=1"
    assert "webhook.test" in words(browser.get(place)) or "test" in words(browser.get(place))
    assert browser.post(f"{place}/disable").status_code == 303
    assert "disabled" in words(browser.get(place))
    assert browser.post(f"{place}/test").status_code == 303
    assert browser.post(f"{place}/enable").status_code == 303
    assert browser.post("/webhooks", url="http://127.0.0.1/").status_code == 422


def test_what_was_given_up_is_sent_again(browser: Browser, bank: Bank) -> None:
    place = endpoint_of(browser)
    seq = bank.top_up("alice", 5).seq
    bank.do("UPDATE deliveries SET status = 'exhausted', due_at = NULL, attempts = 1 WHERE seq = %s", seq)
    bank.do(
        """INSERT INTO attempts (endpoint_id, seq, n, at, status, failure, took_ms, body)
           SELECT endpoint_id, seq, 1, now(), 500, 'status', 12, %s FROM deliveries WHERE seq = %s""",
        XSS, seq,
    )  # fmt: skip
    page = browser.get(f"{place}?status=exhausted")
    found = re.search(r'hx-get="([^"]+)"', page.text)
    assert found
    attempts = browser.get(found[1])
    assert "500" in words(attempts)
    assert "<img src=x" not in attempts.text
    assert "Webhook exhausted" in words(browser.get(f"/commands/{id_of(bank, seq)}"))
    state = "SELECT status FROM deliveries WHERE seq = %s"
    assert browser.post(f"{found[1]}/resend").headers["location"] == f"{place}?sent=1"
    assert bank.one(state, seq) == "pending"
    bank.do("UPDATE deliveries SET status = 'exhausted', due_at = NULL WHERE seq = %s", seq)
    assert browser.post(f"{place}/recover", since="2020-01-01T00:00").headers["location"] == f"{place}?sent=1"
    assert bank.one(state, seq) == "pending"
    assert browser.post(f"{place}/replay", since="2020-01-01T00:00").headers["location"] == f"{place}?sent=0"
    wrong = browser.post(f"{place}/recover", since="last week")
    assert (wrong.status_code, "RFC 3339" in wrong.text) == (422, True)


def test_an_asset_is_made_and_frozen(browser: Browser, bank: Bank) -> None:
    assert browser.post("/assets", code="gems", name=XSS, scale="2").status_code == 303
    assert "gems" in words(browser.get("/assets"))
    assert browser.post("/assets/gems/freeze", reason="a fault").status_code == 303
    shown = words(browser.get("/assets/gems"))
    assert "frozen" in shown
    assert "a fault" in shown
    assert browser.post("/assets/gems/unfreeze").status_code == 303
    for wrong in ({"code": "No"}, {"scale": "many"}, {"scale": "19"}, {"name": ""}):
        form = {"code": "pearls", "name": "Pearls", "scale": "0"} | wrong
        assert browser.post("/assets", **form).status_code == 422, wrong
    assert browser.get("/assets/nothing").status_code == 404


def test_keys_people_and_actions_are_listed(browser: Browser, bank: Bank) -> None:
    bank.top_up("alice", 5)
    browser.post("/wallets/alice/freeze", reason=XSS)
    keys = browser.get("/keys")
    assert "a game" in words(keys)
    assert "admin" in words(keys)
    log = browser.get("/log")
    assert "freeze a wallet" in words(log)
    assert "<img src=x" not in log.text
    assert browser.get("/log?before=nonsense").status_code == 400
    assert "Nobody has done anything" in words(browser.get("/log?before=1"))


def test_a_failed_command_is_requeued(browser: Browser, bank: Bank) -> None:
    bank.top_up("alice", 5)
    seq = bank.order("spend", "alice", 2)
    bank.do("DELETE FROM pending WHERE seq = %s", seq)
    bank.do(
        """INSERT INTO outcomes (seq, status, code, at, client_id, stream)
           SELECT seq, 'failed', 'internal_error', now(), client_id, partition FROM commands WHERE seq = %s""",
        seq,
    )
    place = f"/commands/{id_of(bank, seq)}"
    assert "Requeue this command" in browser.get(place).text
    again = browser.post(f"{place}/requeue")
    assert again.status_code == 303
    bank.drain()
    assert "applied" in words(browser.get(again.headers["location"]))
    assert bank.available("alice") == 3
    refused = browser.post(f"{again.headers['location']}/requeue")
    assert (refused.status_code, "only a failed one" in refused.text) == (409, True)


def test_a_key_that_only_looks_learns_of_nobody(api: Served, bank: Bank, new_key: NewKey) -> None:
    browser = Browser(api)
    assert browser.sign_in(key=new_key(Scope.WALLETS_READ)).status_code == 303
    for path in ("/keys", "/log", "/webhooks"):
        assert browser.get(path).status_code == 403, path
    browser.close()


# --- other tenants ---------------------------------------------------------------------------------------------------


def test_an_operator_of_another_tenant_finds_nothing(browser: Browser, outsider: Browser, bank: Bank) -> None:
    bank.top_up("alice", 5, reference="order-9", idempotency_key="the-key")
    pending = bank.order("spend", "alice", 3)
    ids = [id_of(bank, seq) for seq in (pending, pending - 1)]
    for path in ("/wallets/alice", "/wallets/alice/entries", *(f"/commands/{id}" for id in ids)):
        assert outsider.get(path).status_code == 404, path
        assert browser.get(path).status_code == 200, path
    for asked in ("alice", "order-9", "the-key", *ids):
        assert "Nothing of this tenant" in words(outsider.client.get("/search", params={"q": asked})), asked
    assert "alice" not in outsider.get("/wallets").text
    place = endpoint_of(browser)
    assert outsider.get(place).status_code == 404
    assert place not in outsider.get("/webhooks").text
    for verb in ("enable", "disable", "test", "recover", "replay", "deliveries/x/resend"):
        assert outsider.post(f"{place}/{verb}", since="2020-01-01T00:00").status_code == 404
    bank.do("INSERT INTO assets (tenant_id, code, name, scale) VALUES (%s, 'pearls', 'Pearls', 0)", bank.tenant)
    assert outsider.get("/assets/pearls").status_code == 404
    assert outsider.post("/assets/pearls/freeze").status_code == 404
    browser.post("/wallets/alice/freeze", reason="for nobody else to read")
    browser.post("/wallets/alice/unfreeze")
    assert "for nobody else" in browser.get("/log").text
    assert "for nobody else" not in outsider.get("/log").text
    for verb in ("freeze", "unfreeze", "close"):
        assert outsider.post(f"/wallets/alice/{verb}").status_code == 404
    for verb in ("cancel", "reverse"):
        assert outsider.post(f"/commands/{ids[0]}/{verb}", idempotency_key="k").status_code == 404
    assert bank.one("SELECT status FROM wallets WHERE tenant_id = %s AND code = 'alice'", bank.tenant) == "active"
    told = str(events(outsider, until="state")["state"])
    assert "No endpoint" in told
    bank.forget()


def test_what_is_not_there_is_said_so(browser: Browser) -> None:
    for path in ("/wallets/nobody", "/wallets/..%2f..%2fassets", "/wallets/%00", "/commands/x", "/commands/x/outcome"):
        assert browser.get(path).status_code == 404, path
    assert browser.get("/wallets?cursor=nonsense").status_code == 400
    assert browser.get("/wallets/alice/entries?cursor=nonsense").status_code in (400, 404)
