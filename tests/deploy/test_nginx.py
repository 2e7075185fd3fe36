"""deploy/nginx, run by a real nginx before a real api."""

import http.client
import re
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from api import edge, serve
from api.problems import KINDS
from api.routes import commands, outcomes
from bursar import Client
from bursar.local.places import any_free_port
from tests import servers
from tests.crash.service import Service, Tenant, wait_for
from tests.deploy.proxy import FOLDER, Nginx, ask

ASSET = "gold"
# A request a minute and one more at once, for each key.
SLOW = {"limits.conf": [(r"rate=2000r/s", "rate=1r/m"), (r"burst=2000", "burst=1")]}
HASTY = {"timeouts.conf": [(r"proxy_read_timeout \d+s", "proxy_read_timeout 1s")]}
UNITS = {"k": 1024, "m": 1024**2, "s": 1}


@pytest.fixture(scope="module")
def tenant(service: Service) -> Tenant:
    return service.new_tenant(ASSET)


@pytest.fixture(scope="module")
def nginx(service: Service) -> Iterator[Nginx]:
    with servers.temporary_folder() as folder:
        nginx = Nginx(folder, [service.api.port])
        nginx.start()
        yield nginx
        nginx.stop()


def headers(tenant: Tenant) -> dict[str, str]:
    return {"Authorization": f"Bearer {tenant.key}", "Content_Type": "application/json"}


def top_up(wallet: str) -> dict[str, str]:
    return {"type": "top_up", "wallet": wallet, "asset": ASSET, "amount": "5"}


def setting(file: str, name: str) -> int:
    """In bytes or seconds."""
    found = re.search(rf"(?m)^\s*{name} (?:\d+ )?(\d+)([kms]);", (FOLDER / file).read_text())
    assert found, f"{name} is not in {file}"
    return int(found[1]) * UNITS[found[2]]


def test_its_figures_are_those_of_the_api() -> None:
    assert setting("nginx.conf", "client_max_body_size") == edge.BODY_MAX_BYTES
    assert setting("nginx.conf", "client_body_buffer_size") == edge.BODY_MAX_BYTES
    assert setting("nginx.conf", "large_client_header_buffers") == edge.HEADERS_MAX_BYTES
    longest_s = max(commands.WAIT_MAX_S, outcomes.WAIT_MAX_S, outcomes.KEEP_ALIVE_S)
    assert setting("timeouts.conf", "proxy_read_timeout") > longest_s + 12  # a PostgreSQL that hangs: feed.READ_MAX_S
    assert setting("nginx.conf", "worker_shutdown_timeout") > longest_s
    for upstream in ("upstream.conf", "upstream-compose.conf"):
        assert setting(upstream, "keepalive_timeout") < serve.KEEP_ALIVE_S


def test_nginx_has_nothing_to_say_about_its_configuration(nginx: Nginx) -> None:
    said = [line for line in nginx.log.read_text().splitlines() if "open file resource limit" not in line]
    assert said == [], "but for how many files this machine allows"


def test_its_own_answers_have_the_shape_and_the_codes_of_the_api() -> None:
    found = re.findall(r"return (\d+) '(\{.*\})';", (FOLDER / "problems.conf").read_text())
    assert len(found) == 6
    for status, text in found:
        fields = dict(re.findall(r'"(\w+)": ("[^"]*"|\w+|\[\])', text))
        code = fields["code"].strip('"')
        assert fields["status"] == status
        if code in KINDS:
            kind = KINDS[code]
            assert (kind.status, f'"{kind.title}"', kind.retryable) == (
                int(status), fields["title"], fields["retryable"] == "true"
            )  # fmt: skip
            assert fields["type"] == f'"/problems/{code}"'
        else:
            assert fields["type"] == '"about:blank"', "the api has no page for it"


def test_a_command_goes_through_it_by_the_client_of_game_servers(nginx: Nginx, tenant: Tenant) -> None:
    with Client(f"https://127.0.0.1:{nginx.port}", tenant.key, verify=nginx.context) as client:
        done = client.top_up("alice", ASSET, 5, wait_s=10)
    assert done.outcome is not None
    assert done.outcome.code == "applied"


def test_only_tls_of_this_decade(nginx: Nginx) -> None:
    assert "ssl_protocols TLSv1.2 TLSv1.3;" in (FOLDER / "listen.conf").read_text().splitlines()
    connection = nginx.connect()
    connection.connect()
    assert isinstance(connection.sock, ssl.SSLSocket)
    assert connection.sock.version() == "TLSv1.3"
    connection.close()


def test_who_speaks_http_to_it_is_told_so(nginx: Nginx) -> None:
    plain = http.client.HTTPConnection("127.0.0.1", nginx.port, timeout=10)
    answer = ask(plain, "GET", "/v1/assets")
    plain.close()
    assert (answer.status, answer.body["code"]) == (400, "bad_request")


def test_what_operators_use_stays_inside(nginx: Nginx, tenant: Tenant) -> None:
    connection = nginx.connect()
    for path in ("/", "/livez", "/readyz", "/metrics", "/docs", "/openapi.json", "/v1/../metrics", "//metrics"):
        answer = ask(connection, "GET", path, **headers(tenant))
        assert (path, answer.status, answer.headers["content-type"]) == (path, 404, "application/problem+json")
    assert ask(connection, "GET", "/problems/backlogged").body["code"] == "backlogged"
    connection.close()


def test_the_request_id_is_one_for_both(nginx: Nginx, tenant: Tenant) -> None:
    connection = nginx.connect()
    own = ask(connection, "GET", "/v1/assets", Request_Id="my-own-1", **headers(tenant))
    made = ask(connection, "GET", "/v1/assets", Request_Id='"evil"', **headers(tenant))
    refused = ask(connection, "GET", "/nothing", Request_Id="my-own-2")
    connection.close()
    assert own.headers["request-id"] == "my-own-1"
    assert re.fullmatch("[0-9a-f]{32}", made.headers["request-id"])
    assert refused.headers["request-id"] == refused.body["request_id"] == "my-own-2"
    wait_for(lambda: len(nginx.lines()) >= 3, "three lines of the access log")
    logged = [line["request_id"] for line in nginx.lines()]
    assert {"my-own-1", "my-own-2", made.headers["request-id"]} <= set(logged)
    assert tenant.key not in (nginx.folder / "access.log").read_text()


def test_the_api_believes_no_forwarded_header(nginx: Nginx, tenant: Tenant) -> None:
    """It has no use for them: nothing that it answers names a host or a scheme."""
    forged = {"X_Forwarded_Proto": "ftp", "X_Forwarded_For": "6.6.6.6", "X_Forwarded_Host": "evil.example"}
    connection = nginx.connect()
    answers = [
        ask(connection, "POST", "/v1/commands", top_up("alice"), Idempotency_Key="fwd-1", **forged, **headers(tenant)),
        ask(connection, "GET", "/v1/nothing", **forged, **headers(tenant)),
    ]
    connection.close()
    assert [answer.status for answer in answers] == [202, 404]
    for answer in answers:
        told = f"{answer.headers} {answer.body}"
        assert not re.search(r"evil|ftp|6\.6\.6\.6|127\.0\.0\.1|https?://", told)


def test_operators_have_a_door_of_their_own(service: Service, folder: Path) -> None:
    inside = any_free_port()
    door = {
        "nginx.conf": [
            (r"access_log /dev/stdout", f"access_log {folder}/access.log"),
            (r"# (include operators)", r"\1"),
        ],
        "operators.conf": [(r"listen 8443", f"listen 127.0.0.1:{inside}")],
    }
    nginx = Nginx(folder, [service.api.port], changed=door)
    nginx.start()
    try:
        connection = http.client.HTTPSConnection("127.0.0.1", inside, timeout=10, context=nginx.context)
        form = {"Content-Type": "application/x-www-form-urlencoded", "X-Forwarded-Proto": "http"}
        connection.request("GET", "/sign-in", headers=form)
        page = connection.getresponse()
        text = page.read().decode()
        connection.close()
    finally:
        nginx.stop()
    assert (page.status, "<form" in text) == (200, True)
    assert "secure" in str(page.headers["Set-Cookie"]).lower(), "the api heard of TLS from nginx, not from the client"


def test_too_large_a_body_is_refused_before_the_api_sees_it(nginx: Nginx, tenant: Tenant) -> None:
    limit = edge.BODY_MAX_BYTES
    asked_before = len(nginx.lines())
    for body in (b" " * (limit + 1), b" " * limit):
        connection = nginx.connect()
        answer = ask(connection, "POST", "/v1/commands", body, Idempotency_Key="large-1", **headers(tenant))
        connection.close()
        expected = (413, "body_too_large") if len(body) > limit else (400, "malformed_json")
        assert (answer.status, answer.body["code"]) == expected
        assert answer.headers["content-type"] == "application/problem+json"
    wait_for(lambda: len(nginx.lines()) >= asked_before + 2, "two lines of the access log")
    assert [line["api"] != "" for line in nginx.lines()[asked_before:]] == [False, True]


def test_an_event_goes_on_as_it_comes(nginx: Nginx, tenant: Tenant) -> None:
    stream, poster = nginx.connect(), nginx.connect()
    stream.request("GET", "/v1/outcomes", headers={"Authorization": f"Bearer {tenant.key}", "Accept": outcomes.STREAM})
    events = stream.getresponse()
    assert stream.sock is not None
    stream.sock.settimeout(outcomes.KEEP_ALIVE_S - 5)  # what is held back comes with the next sign of life
    assert events.readline() == b"retry: 1000\n"
    answer = ask(poster, "POST", "/v1/commands", top_up("bob"), Idempotency_Key="event-1", **headers(tenant))
    assert any(answer.body["id"].encode() in line for line in iter(events.readline, b""))
    stream.close()
    poster.close()


def test_who_waits_is_not_cut_short(nginx: Nginx, service: Service, tenant: Tenant, folder: Path) -> None:
    """With its timeout below the wait it would be, and told to come again in a way that clients understand."""
    hasty = Nginx(folder, [service.api.port], changed=HASTY)
    hasty.start()
    try:
        answers = []
        for proxy in (nginx, hasty):
            connection = proxy.connect()
            end = ask(connection, "GET", "/v1/outcomes", **headers(tenant)).body["next_cursor"]
            answers.append(ask(connection, "GET", f"/v1/outcomes?wait=2&after={end}", **headers(tenant)))
            connection.close()
    finally:
        hasty.stop()
    whole, cut = answers
    assert (whole.status, whole.body["data"]) == (200, [])
    assert (cut.status, cut.body["code"], cut.headers["retry-after"]) == (503, "unavailable", "1")


def test_too_many_requests_are_told_when_to_come_again(service: Service, tenant: Tenant, folder: Path) -> None:
    strict = Nginx(folder, [service.api.port], changed=SLOW)
    strict.start()
    try:
        connection = strict.connect()
        answers = [ask(connection, "GET", "/v1/assets", **headers(tenant)) for _ in range(3)]
        strangers = ask(connection, "GET", "/v1/assets", Authorization="Bearer another")
        connection.close()
    finally:
        strict.stop()
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert answers[-1].headers["retry-after"] == "1"
    assert answers[-1].body["code"] == "rate_limited"
    assert strangers.status == 401, "another key has a limit of its own"


def test_without_any_api_it_says_so_and_when_to_come_again(folder: Path) -> None:
    alone = Nginx(folder, [1])
    alone.start()
    try:
        connection = alone.connect()
        answer = ask(connection, "POST", "/v1/commands", {}, Idempotency_Key="k")
        connection.close()
    finally:
        alone.stop()
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert answer.body["retryable"] is True
