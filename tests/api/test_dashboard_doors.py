"""Who gets in to the dashboard, how long, and what he may do there."""

from collections.abc import Callable, Iterator
from html import unescape

import httpx2
import pytest
from argon2 import PasswordHasher
from sqlalchemy import Engine
from typer.testing import CliRunner

from api.dashboard import doors, pages
from api.dashboard.doors import Throttle
from bursar.cli import app
from ledger import operators
from ledger.keys import Scope
from ledger.operators import Role
from runtime.settings import settings
from tests.api.browsing import Browser
from tests.api.conftest import NewKey
from tests.api.serving import Served
from tests.books import GOLD, Bank

PASSWORD = "correct horse battery"
SignedIn = Callable[..., Browser]


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "_hasher", PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))


@pytest.fixture
def browser(api: Served) -> Iterator[Browser]:
    api.app.state.throttle = Throttle()  # all tests come from one address
    browser = Browser(api)
    yield browser
    browser.close()


@pytest.fixture
def other(api: Served) -> Iterator[Browser]:
    browser = Browser(api)
    yield browser
    browser.close()


@pytest.fixture
def operator(engine: Engine, bank: Bank) -> str:
    """The name of one who may act."""
    return add(engine, bank, Role.OPERATOR)


def tenant_of(bank: Bank) -> str:
    return bank.one("SELECT code FROM tenants WHERE id = %s", bank.tenant)


def add(engine: Engine, bank: Bank, role: Role) -> str:
    name = f"ada-{role}-{bank.tenant}"
    operators.add_operator(engine, name=name, password=PASSWORD, role=role, tenant=tenant_of(bank))
    return name


def assert_strict(answer: httpx2.Response) -> None:
    assert answer.headers["content-security-policy"] == pages.CONTENT_SECURITY_POLICY
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"


# --- getting in ------------------------------------------------------------------------------------------------------


def test_nobody_gets_in_without_signing_in(browser: Browser) -> None:
    for path in ("/", "/live", "/search?q=alice", "/wallets", "/wallets/alice", "/commands/x", "/webhooks", "/log"):
        answer = browser.get(path)
        assert (answer.status_code, answer.headers["location"][:8]) == (303, "/sign-in"), path
        assert_strict(answer)


def test_a_password_lets_in_and_leads_to_the_page_that_was_asked_for(
    browser: Browser, operator: str, bank: Bank
) -> None:
    bank.top_up("alice", 5)
    asked = browser.get("/wallets/alice").headers["location"]
    token = browser.token(asked)
    answer = browser.client.post(
        "/sign-in", data={"csrf": token, "name": operator, "password": PASSWORD, "next": "/wallets/alice"}
    )
    assert (answer.status_code, answer.headers["location"]) == (303, "/wallets/alice")
    page = browser.get("/wallets/alice")
    assert page.status_code == 200
    assert operator in page.text
    assert_strict(page)


def test_the_cookie_is_out_of_reach(browser: Browser, operator: str) -> None:
    [cookie] = [
        c for c in browser.sign_in(name=operator, password=PASSWORD).headers.get_list("set-cookie") if doors.COOKIE in c
    ]
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    assert "Secure" not in cookie


def test_the_cookie_is_for_tls_alone_where_that_is_spoken(api: Served, operator: str) -> None:
    with httpx2.Client(base_url=api.url, headers={"X-Forwarded-Proto": "https"}) as client:
        page = client.get("/sign-in")
        assert "Secure" in page.headers["set-cookie"].split("; ")


@pytest.mark.parametrize(("name", "password"), [("{}", "wrong password"), ("nobody", PASSWORD), ("{}", "")])
def test_a_wrong_password_and_an_unknown_name_are_refused_alike(
    browser: Browser, operator: str, name: str, password: str
) -> None:
    answer = browser.sign_in(name=name.format(operator), password=password)
    assert answer.status_code == 401
    assert "Name or password is wrong." in answer.text
    assert doors.COOKIE not in answer.cookies
    assert browser.get("/").status_code == 303


def test_a_key_lets_in_by_its_scopes(browser: Browser, other: Browser, new_key: NewKey) -> None:
    assert browser.sign_in(key=new_key(Scope.ADMIN)).status_code == 303
    assert "read-only" not in browser.get("/").text
    assert other.sign_in(key=new_key(Scope.WALLETS_READ)).status_code == 303
    assert "read-only" in other.get("/").text


def test_a_key_that_opens_no_wallets_or_is_none_stays_outside(browser: Browser, new_key: NewKey) -> None:
    for key in (new_key(Scope.COMMANDS_WRITE), "nonsense", new_key()[:-1] + "0", "bursar_\x00", "ü" * 40):
        assert browser.sign_in(key=key).status_code == 401


def test_a_key_opens_no_more_than_its_scopes(browser: Browser, new_key: NewKey, bank: Bank) -> None:
    bank.top_up("alice", 5)
    browser.sign_in(key=new_key(Scope.WALLETS_READ))
    assert browser.get("/wallets/alice").status_code == 200
    command = browser.get("/commands/019aaaaa-0000-8c0d-8000-000000000001")
    assert command.status_code == 403
    assert "commands:read" in command.text


def test_many_attempts_are_turned_away_even_with_the_right_password(browser: Browser, operator: str) -> None:
    for _ in range(doors.BY_NAME_MAX):
        assert browser.sign_in(name=operator, password="wrong password").status_code == 401
    turned_away = browser.sign_in(name=operator.upper(), password=PASSWORD)
    assert turned_away.status_code == 429
    assert "five minutes" in turned_away.text
    assert browser.sign_in(name="another", password="wrong password").status_code == 401


def test_the_throttle_forgets_in_time_and_remembers_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(doors.time, "monotonic", lambda: clock[0])
    throttle = Throttle()
    assert [throttle.admit("a", "ada") for _ in range(doors.BY_NAME_MAX + 1)] == [True] * doors.BY_NAME_MAX + [False]
    assert throttle.admit("b", "ada")
    clock[0] += doors.THROTTLE_S + 1
    assert throttle.admit("a", "ada")
    for number in range(doors.BY_ADDRESS_MAX - 1):
        assert throttle.admit("a", f"name {number}")
    assert not throttle.admit("a", "one more")
    for number in range(3 * doors.REMEMBERED_MAX):
        throttle.admit(str(number), "x")
    assert len(throttle._attempts) <= doors.REMEMBERED_MAX


@pytest.mark.parametrize(
    "to", ["//evil.example", "https://evil.example", "/\\evil.example", "/\nx", "javascript:1", ""]
)
def test_signing_in_leads_nowhere_else(browser: Browser, operator: str, to: str) -> None:
    answer = browser.sign_in(name=operator, password=PASSWORD, next=to)
    assert answer.headers["location"] == "/"


# --- staying and leaving ---------------------------------------------------------------------------------------------


def test_signing_out_ends_it_for_good(browser: Browser, operator: str) -> None:
    browser.sign_in(name=operator, password=PASSWORD)
    cookie = browser.client.cookies[doors.COOKIE]
    assert browser.post("/sign-out").status_code == 303
    browser.client.cookies.set(doors.COOKIE, cookie)
    assert browser.get("/").status_code == 303


def test_it_is_over_in_time(browser: Browser, operator: str, bank: Bank) -> None:
    browser.sign_in(name=operator, password=PASSWORD)
    assert browser.get("/").status_code == 200
    bank.do("UPDATE dashboard_sessions SET expires_at = now() - interval '1 second'")
    assert browser.get("/").status_code == 303
    browser.sign_in(name=operator, password=PASSWORD)
    assert bank.one("SELECT count(*) FROM dashboard_sessions WHERE expires_at < now()") == 0


def test_a_disabled_operator_and_a_revoked_key_are_out_at_once(
    browser: Browser, other: Browser, operator: str, new_key: NewKey, engine: Engine, bank: Bank
) -> None:
    browser.sign_in(name=operator, password=PASSWORD)
    other.sign_in(key=new_key())
    assert (browser.get("/").status_code, other.get("/").status_code) == (200, 200)
    operators.disable_operator(engine, operator)
    bank.do("UPDATE api_keys SET revoked_at = now()")
    assert (browser.get("/").status_code, other.get("/").status_code) == (303, 303)
    assert browser.sign_in(name=operator, password=PASSWORD).status_code == 401


def test_cookies_that_nobody_gave_are_nobody(browser: Browser) -> None:
    for cookie in ("x", "A" * 43, "a" * 5000, "%00"):
        browser.client.cookies.set(doors.COOKIE, cookie)
        assert browser.get("/").status_code == 303


# --- forms -----------------------------------------------------------------------------------------------------------


def posts(api: Served) -> list[str]:
    found = [r.path for r in doors.actions(api.app.routes)]
    assert len(found) > 5
    return found


def concrete(path: str) -> str:
    return path.replace("{id}", "alice").replace("{code}", GOLD).replace("{delivery}", "x")


def test_every_form_wants_the_token_of_its_session(
    api: Served, browser: Browser, other: Browser, operator: str, new_key: NewKey, bank: Bank
) -> None:
    bank.top_up("alice", 5)
    browser.sign_in(name=operator, password=PASSWORD)
    other.sign_in(key=new_key())
    for path in [*posts(api), "/sign-out"]:
        for token in ("", "wrong", other.token()):
            answer = browser.post(concrete(path), csrf=token)
            assert answer.status_code == 403, path
            assert "Forged form" in answer.text
        crossed = browser.post_with({"Sec-Fetch-Site": "cross-site"}, concrete(path))
        assert crossed.status_code == 403
    assert bank.one("SELECT count(*) FROM operator_actions WHERE tenant_id = %s", bank.tenant) == 0
    assert browser.get("/").status_code == 200


def test_the_form_to_sign_in_wants_its_token_too(browser: Browser, other: Browser, operator: str) -> None:
    good = {"name": operator, "password": PASSWORD}
    assert browser.client.post("/sign-in", data=good).status_code == 403
    for token in ("", "wrong", other.token("/sign-in")):
        assert browser.sign_in(**good, csrf=token).status_code == 403
    assert browser.sign_in(**good).status_code == 303


def test_no_role_that_only_looks_may_act(api: Served, browser: Browser, engine: Engine, bank: Bank) -> None:
    bank.top_up("alice", 5)
    browser.sign_in(name=add(engine, bank, Role.READ_ONLY), password=PASSWORD)
    page = browser.get("/wallets/alice").text
    assert "Freeze" not in page
    assert "Send a command" not in page
    for path in posts(api):
        answer = browser.post(concrete(path), type="top_up", asset=GOLD, amount="5")
        assert answer.status_code == 403, path
        assert "read-only" in answer.text
    assert bank.one("SELECT count(*) FROM operator_actions WHERE tenant_id = %s", bank.tenant) == 0
    assert bank.one("SELECT status FROM wallets WHERE tenant_id = %s AND code = 'alice'", bank.tenant) == "active"


def test_no_action_without_a_reason(api: Served, browser: Browser, operator: str, bank: Bank) -> None:
    bank.top_up("alice", 5)
    browser.sign_in(name=operator, password=PASSWORD)
    for path in posts(api):
        for reason in ("", "  ", "x" * 501):
            answer = browser.post(concrete(path), reason=reason)
            assert answer.status_code == 422, path
            assert "say why" in answer.text


HOSTILE = (
    "\0",
    "'; DROP TABLE wallets; --",
    "<script>alert(1)</script>",
    "../../etc",
    "é" * 300,
    "\ud7ff\u202e",
    "9" * 400,
    "-1",
    "%",
    "{{7*7}}",
)


NASTIEST = ("\0", "<script>alert(1)</script>", "9" * 400, "\ud7ff\u202e")


@pytest.mark.parametrize("field", ["name", "password", "key", "next", "csrf"])
def test_hostile_sign_ins_are_refused_clearly(api: Served, browser: Browser, field: str) -> None:
    for value in HOSTILE:
        api.app.state.throttle = Throttle()
        answer = browser.sign_in(**({"name": "x", "password": "y"} | {field: value}))
        assert answer.status_code in (401, 403), value
        assert "<script>alert" not in answer.text


def test_hostile_forms_are_refused_clearly(api: Served, browser: Browser, operator: str, bank: Bank) -> None:
    bank.top_up("alice", 5)
    browser.sign_in(name=operator, password=PASSWORD)
    token = browser.token()
    fields = ("asset", "amount", "to_wallet", "reference", "idempotency_key", "type", "scope", "sweep_to", "reason")
    good = {"csrf": token, "type": "transfer", "asset": GOLD, "amount": "1", "to_wallet": "bob", "reason": "a test"}
    one = [("/wallets/alice/commands", (field,), value) for field in fields for value in NASTIEST]
    every = [(concrete(path), fields, value) for path in posts(api) for value in NASTIEST[:2]]
    for path, hostile, value in one + every:
        form = good | {"idempotency_key": "k"} | dict.fromkeys(hostile, value)
        answer = browser.client.post(path, data=form)
        assert answer.status_code < 500, (path, hostile, value)
        assert "<script>alert" not in answer.text
        assert_strict(answer)


@pytest.mark.parametrize(
    ("body", "kind", "expected"),
    [
        (b"\xff\xfe=1", "application/x-www-form-urlencoded", 400),
        (b"a=%FF", "application/x-www-form-urlencoded", 400),
        (b"csrf=1&csrf=2", "application/x-www-form-urlencoded", 400),
        (b"&".join(b"f%d=1" % n for n in range(100)), "application/x-www-form-urlencoded", 400),
        (b"a=" + b"x" * 70_000, "application/x-www-form-urlencoded", 413),
        (b"{}", "application/json", 415),
        (b"", "", 415),
    ],
)
def test_what_is_no_form_is_refused(browser: Browser, operator: str, body: bytes, kind: str, expected: int) -> None:
    browser.sign_in(name=operator, password=PASSWORD)
    for path in ("/sign-in", "/wallets/alice/freeze", "/sign-out"):
        answer = browser.client.post(path, content=body, headers={"Content-Type": kind})
        assert answer.status_code == expected, path


def test_what_was_done_stands_there_with_who_and_why(browser: Browser, operator: str, bank: Bank) -> None:
    bank.top_up("alice", 5)
    browser.sign_in(name=operator, password=PASSWORD)
    assert browser.post("/wallets/alice/freeze", reason="chargeback 77").status_code == 303
    [(who, role, action, target, reason)] = bank.rows(
        "SELECT who, role, action, target, reason FROM operator_actions WHERE tenant_id = %s", bank.tenant
    )
    assert (who, role, action, target, reason) == (
        operator, "operator", "freeze a wallet", "wallet alice", "chargeback 77"
    )  # fmt: skip
    page = unescape(browser.get("/wallets/alice").text)
    assert f"operator: {operator}: chargeback 77" in page


# --- the command line ------------------------------------------------------------------------------------------------


@pytest.fixture
def bursar(module_database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[int, str, str]]]:
    monkeypatch.setenv("BURSAR_DATABASE_URL", module_database_url)
    monkeypatch.setenv("BURSAR_REDIS_URL", "redis://127.0.0.1:1/0")
    settings.cache_clear()

    def run(*arguments: str, typed: str = "") -> tuple[int, str, str]:
        result = CliRunner().invoke(app, ["operators", *arguments], input=typed)
        return result.exit_code, result.stdout, result.stderr

    yield run
    settings.cache_clear()


def test_operators_are_made_listed_and_disabled_at_the_command_line(
    bursar: Callable[..., tuple[int, str, str]], browser: Browser, bank: Bank
) -> None:
    name, tenant = f"grace-{bank.tenant}", tenant_of(bank)
    made = ("add", name, "--role", "operator", "--tenant", tenant)
    assert bursar(*made, typed=f"{PASSWORD}\n")[0] == 0
    assert browser.sign_in(name=name, password=PASSWORD).status_code == 303
    assert bursar(*made, typed=f"{PASSWORD}\n")[2] == f"Error: there is an operator '{name}' already.\n"
    assert bursar(*made, "--renew", typed="another password\n")[0] == 0
    assert browser.get("/").status_code == 303
    assert browser.sign_in(name=name, password="another password").status_code == 303
    assert "works" in bursar("list", "--tenant", tenant)[1]
    assert bursar("disable", name)[0] == 0
    assert browser.get("/").status_code == 303
    assert "disabled" in bursar("list", "--tenant", tenant)[1]


def test_operators_that_cannot_be_are_refused_in_a_sentence(bursar: Callable[..., tuple[int, str, str]]) -> None:
    assert "10 to 256 characters" in bursar("add", "x", typed="short\n")[2]
    assert "no tenant" in bursar("add", "x", "--tenant", "nowhere", typed=f"{PASSWORD}\n")[2]
    assert "control characters" in bursar("add", "a\tb", typed=f"{PASSWORD}\n")[2]
    assert "no operator" in bursar("disable", "nobody")[2]


def test_what_operators_did_cannot_be_changed(bank: Bank) -> None:
    for change in (
        "UPDATE operator_actions SET who = 'x'",
        "DELETE FROM operator_actions",
        "TRUNCATE operator_actions",
    ):
        with pytest.raises(Exception, match="append-only"):
            bank.do(change)
