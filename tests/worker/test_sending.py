"""The sender of webhooks against receivers on real sockets: good ones, slow ones, broken ones and hostile ones.

To a test, 127.0.0.2 stands for the public internet, because the operator allows it; 127.0.0.1 does not.
"""

import asyncio
import contextlib
import gzip
import socket
import ssl
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from runtime.egress import AllowedHosts
from tests.receivers import Authority, Receiver, flood, hang, raw, reply, reset, trickle
from worker import sending
from worker.sending import BODY_MAX_BYTES, READ_MAX_BYTES, Answer, Failure, Sender

PUBLIC, PRIVATE = "127.0.0.2", "127.0.0.1"
ALLOWED = AllowedHosts.parse(f"{PUBLIC}, trusted.internal")
HEADERS = {"Content-Type": "application/json", "webhook-id": "evt_1"}
BODY = b'{"type": "command.applied"}'
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody; the system's takes long to load
SOON_S = 0.3  # the deadline of those that must run into it
LATER_S = 1.5  # of those that must run into it when they have come half the way
NEVER_S = 20.0  # of those that must not


def send(
    *urls: str,
    allowed: AllowedHosts = ALLOWED,
    deadline_s: float = NEVER_S,
    ssl_context: ssl.SSLContext | None = NO_TLS,
    headers: Mapping[str, str] = HEADERS,
) -> list[Answer]:
    """One after the other, from one sender."""

    async def run() -> list[Answer]:
        sender = Sender(allowed, deadline_s=deadline_s, connections_max=10, ssl_context=ssl_context)
        try:
            return [await sender.post(url, headers, BODY) for url in urls]
        finally:
            await sender.close()

    return asyncio.run(run())


def names(monkeypatch: pytest.MonkeyPatch, addresses: Callable[[str], list[str]]) -> list[str]:
    """Look names up here from now on; the list fills with those that were asked for."""
    asked: list[str] = []

    def look_up(host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        asked.append(host)
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in addresses(host)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver(PUBLIC) as made:
        yield made


# What is sent, and good answers


def test_a_webhook_arrives_as_it_was_given(receiver: Receiver) -> None:
    receiver.answers(reply(200, b"thanks"))
    [answer] = send(f"{receiver.url}hooks/%7Ealice?a=%2F&b")
    assert (answer.status, answer.failure, answer.detail, answer.body) == (200, None, "", "thanks")
    assert 0 < answer.took_s < NEVER_S
    [request] = receiver.requests
    assert (request.method, request.target, request.body) == ("POST", "/hooks/%7Ealice?a=%2F&b", BODY)
    assert request.headers == {
        "host": f"{PUBLIC}:{receiver.port}",
        "user-agent": "Bursar",
        "accept": "*/*",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "content-length": str(len(BODY)),
        "webhook-id": "evt_1",
    }


@pytest.mark.parametrize(
    ("said", "body"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", ""),
        (b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok", "ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "ok"),
        (b"HTTP/1.0 200 OK\r\n\r\nto the end", "to the end"),
        (
            b"HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 103 Hint\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbroken off", "broken off"),
    ],
    ids=["204", "202", "chunked", "no length", "1xx first", "broken off"],
)
def test_a_2xx_is_a_success_whatever_its_shape(receiver: Receiver, said: bytes, body: str) -> None:
    receiver.answers(raw(said))
    [answer] = send(receiver.url)
    assert (answer.failure, answer.detail, answer.body) == (None, "", body)


def test_a_connection_is_used_again(receiver: Receiver) -> None:
    receiver.answers(reply(200, b"x" * 5_000), reply(500), reply(204))
    assert [answer.status for answer in send(*[receiver.url] * 4)] == [200, 500, 204, 204]
    assert receiver.connections == 1


def test_a_kept_connection_that_the_receiver_has_closed_meanwhile_is_no_failure(receiver: Receiver) -> None:
    """The second request finds a connection that ends as it is sent, which says nothing of the receiver."""
    receiver.answers(reply(200), reset(), reply(200))
    assert [answer.failure for answer in send(receiver.url, receiver.url)] == [None, None]
    assert [request.connection for request in receiver.requests] == [0, 0, 1]


def test_cookies_are_not_kept(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a name: from addresses aiohttp keeps none anyway."""
    names(monkeypatch, lambda _: [PUBLIC])
    receiver.answers(reply(200, headers={"Set-Cookie": "who=alice"}))
    url = f"http://trusted.internal:{receiver.port}/"
    send(url, url)
    assert all("cookie" not in request.headers for request in receiver.wait_for(2))


def test_proxies_and_netrc_of_the_environment_are_ignored(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / "netrc").write_text(f"machine {PUBLIC} login alice password hush\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with Receiver(PUBLIC) as proxy:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        [answer] = send(receiver.url)
        assert (answer.failure, proxy.connections) == (None, 0)
    assert "authorization" not in receiver.requests[0].headers


# Answers that are failures


@pytest.mark.parametrize("status", [400, 404, 410, 429, 500, 503])
def test_another_status_is_a_failure_and_told(receiver: Receiver, status: int) -> None:
    receiver.answers(reply(status, b"no, because"))
    [answer] = send(receiver.url)
    assert (answer.status, answer.failure, answer.body) == (status, Failure.STATUS, "no, because")
    assert answer.detail == f"Answered {status}."


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
def test_a_redirect_is_never_followed(status: int) -> None:
    with Receiver(PUBLIC) as receiver, Receiver(PUBLIC) as elsewhere:
        receiver.answers(reply(status, headers={"Location": f"{elsewhere.url}latest/meta-data/"}))
        [answer] = send(receiver.url)
        assert (answer.status, answer.failure) == (status, Failure.REDIRECT)
        assert (receiver.connections, elsewhere.connections) == (1, 0)


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [
        ("120", 120, 120),
        ("0", 0, 0),
        ("999999999999", 999_999_999_999, 999_999_999_999),
        ("in an hour", 3_500, 3_600),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 0, 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 10**9, 10**12),
    ],
)
def test_retry_after_is_seconds_or_a_date(receiver: Receiver, said: str, least: float, most: float) -> None:
    if said == "in an hour":  # as a date, of now
        said = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    receiver.answers(reply(429, headers={"Retry-After": said}))
    [answer] = send(receiver.url)
    assert answer.retry_after_s is not None
    assert least <= answer.retry_after_s <= most


@pytest.mark.parametrize(
    "said", ["", "-1", "1.5", "1e9", "soon", "9" * 5_000, "\u00b2", "Fri, 31 Feb 2026 23:59:59 GMT"]
)
def test_retry_after_that_says_nothing_is_none(receiver: Receiver, said: str) -> None:
    receiver.answers(reply(503, headers={"Retry-After": said}))
    [answer] = send(receiver.url)
    assert (answer.status, answer.retry_after_s) == (503, None)


@pytest.mark.parametrize(
    "said",
    [
        b"ok\r\n\r\n",
        b"<html>HTTP/0.9</html>\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"\x00\xff\xfe" * 100,
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: shell\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 999 No\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 000 No\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 " + b"2" * 20_000,
        b"HTTP/1.1 200 " + b"x" * 20_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 2_000 + b"\r\n",
    ],
    ids=[
        "junk",
        "HTTP 0.9",
        "ssh",
        "bytes",
        "two lengths",
        "101",
        "999",
        "000",
        "status",
        "reason",
        "header",
        "headers",
    ],
)
def test_what_is_no_http_is_an_invalid_response(receiver: Receiver, said: bytes) -> None:
    receiver.answers(raw(said))
    [answer] = send(receiver.url)
    assert (answer.status, answer.failure) == (None, Failure.INVALID_RESPONSE), answer
    assert answer.detail.isprintable()
    assert len(answer.detail) < 300


def test_interim_answers_without_end_are_cut_off(receiver: Receiver) -> None:
    receiver.answers(flood(b"", b"HTTP/1.1 102 Processing\r\n\r\n" * 1_000))
    [answer] = send(receiver.url)
    assert (answer.status, answer.failure) == (None, Failure.INVALID_RESPONSE)
    assert answer.detail == "The answer has more than 1048576 bytes."


def test_headers_without_end_are_cut_off(receiver: Receiver) -> None:
    receiver.answers(flood(b"HTTP/1.1 200 OK\r\n", b"X-Header: y\r\n" * 1_000))
    [answer] = send(receiver.url)
    assert (answer.status, answer.failure) == (None, Failure.INVALID_RESPONSE)


@pytest.mark.parametrize(
    "answering", [reset(), raw(b""), raw(b"HTTP/1.1 200 OK\r\nContent-")], ids=["reset", "closed", "in the headers"]
)
def test_a_connection_that_ends_before_the_answer(receiver: Receiver, answering: Any) -> None:
    receiver.answers(answering)
    [answer] = send(receiver.url)
    assert (answer.status, answer.failure) == (None, Failure.RESET)
    assert len(receiver.requests) == 1  # a new connection that ends is the receiver's, and nothing is sent again


def test_nobody_listens() -> None:
    with Receiver(PUBLIC) as receiver:
        url = receiver.url
    [answer] = send(url)
    assert (answer.failure, answer.detail) == (Failure.CONNECT, "No connection: Connection refused.")


# The deadline


@pytest.mark.parametrize(
    "answering",
    [
        hang(),
        hang(b"HTTP/1.1 200 OK\r\n"),
        trickle(b"HTTP/1.1 200 OK\r\nX: ", b"y"),
        trickle(b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
    ],
    ids=["nothing", "within headers", "trickled headers", "1xx for ever"],
)
def test_a_receiver_that_does_not_come_to_an_answer(receiver: Receiver, answering: Any) -> None:
    receiver.answers(answering)
    [answer] = send(receiver.url, deadline_s=SOON_S)
    assert (answer.status, answer.failure) == (None, Failure.TIMEOUT)
    assert answer.detail == "Not done within 0.3 s: waiting for the answer."
    assert SOON_S <= answer.took_s < SOON_S + 5


def test_a_receiver_that_takes_no_handshake() -> None:
    with socket.create_server((PUBLIC, 0)) as silent:
        [answer] = send(f"https://{PUBLIC}:{silent.getsockname()[1]}/", deadline_s=SOON_S)
    assert (answer.failure, answer.detail) == (Failure.TIMEOUT, "Not done within 0.3 s: connecting.")


@pytest.mark.parametrize(("status", "body_s"), [(200, NEVER_S), (200, 0.1), (500, 0.1)])
def test_the_status_has_decided_before_a_trickled_body(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, status: int, body_s: float
) -> None:
    """It ends with the time for bodies, or with the deadline, whichever comes first."""
    monkeypatch.setattr(sending, "BODY_S", body_s)
    receiver.answers(trickle(f"HTTP/1.1 {status} Said\r\nContent-Length: 1000\r\n\r\nslow".encode()))
    [answer] = send(receiver.url, deadline_s=LATER_S if body_s == NEVER_S else NEVER_S)
    assert (answer.status, answer.failure) == (status, None if status == 200 else Failure.STATUS)
    assert answer.body.startswith("slow")
    assert answer.took_s < NEVER_S


def test_a_name_server_that_does_not_answer_delays_nobody_else(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lookup waits in a thread; the loop, and other names, go on."""
    done = threading.Event()

    def addresses(host: str) -> list[str]:
        if host == "slow.example.com":
            done.wait(30)
        return [PUBLIC]

    names(monkeypatch, addresses)

    async def run() -> tuple[Answer, Answer]:
        sender = Sender(ALLOWED, deadline_s=LATER_S, connections_max=10, ssl_context=NO_TLS)
        slow = asyncio.create_task(sender.post("https://slow.example.com/", HEADERS, BODY))
        other = await sender.post(f"http://trusted.internal:{receiver.port}/", HEADERS, BODY)
        assert not slow.done()
        return await slow, other

    try:
        slow, other = asyncio.run(run())
    finally:
        done.set()
    assert other.failure is None
    assert (slow.failure, slow.detail) == (Failure.TIMEOUT, "Not done within 1.5 s: looking up the host's name.")


# Where it does not go


@pytest.fixture
def inside() -> Iterator[Receiver]:
    """A service that no webhook may reach."""
    with Receiver(PRIVATE) as made:
        yield made
        assert made.connections == 0


@pytest.mark.parametrize("host", [PRIVATE, "localhost", "2130706433", "127.1", "0x7f.1", "[::ffff:127.0.0.1]", "[::1]"])
def test_an_address_that_is_not_public_is_refused_in_the_url(inside: Receiver, host: str) -> None:
    [answer] = send(f"https://{host}:{inside.port}/")
    assert (answer.status, answer.failure) == (None, Failure.REFUSED_URL)


@pytest.mark.parametrize("host", [PRIVATE, "localhost", "[::ffff:127.0.0.1]"])
def test_an_address_that_is_not_public_is_refused_at_the_socket(
    inside: Receiver, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiohttp looks addresses up with no resolver. So the guard holds even where the URL was never looked at."""
    monkeypatch.setattr(sending, "url_fault", lambda *_: None)
    [answer] = send(f"http://{host}:{inside.port}/")
    assert (answer.status, answer.failure) == (None, Failure.REFUSED_ADDRESS)


def test_a_name_that_leads_inside(inside: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, lambda _: [PRIVATE])
    [answer] = send(f"https://evil.example.com:{inside.port}/")
    assert (answer.status, answer.failure) == (None, Failure.REFUSED_ADDRESS)
    assert PRIVATE not in answer.detail  # where our names lead is none of their business


@pytest.mark.parametrize(
    "inner", [PRIVATE, "169.254.169.254", "10.0.0.1", "64:ff9b::a00:1", "::ffff:10.0.0.1", "fe80::1%2"]
)
@pytest.mark.parametrize("last", [True, False])
def test_a_name_with_one_address_inside_is_refused_whole(
    inside: Receiver, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, inner: str, last: bool
) -> None:
    names(monkeypatch, lambda _: [PUBLIC, inner] if last else [inner, PUBLIC])
    [answer] = send(f"https://evil.example.com:{receiver.port}/")
    assert (answer.status, answer.failure) == (None, Failure.REFUSED_ADDRESS)
    assert receiver.connections == 0


def rebinding(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A name that is public when it is looked at, and leads inside whenever it is looked at again."""
    answers = iter([PUBLIC])
    return names(monkeypatch, lambda _: [next(answers, PRIVATE)])


def test_a_name_that_leads_inside_the_second_time(
    receiver: Receiver, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "NAMES_KEPT_S", 0)
    asked = rebinding(monkeypatch)
    tls = authority.serving("evil.example.com")
    with Receiver(PUBLIC, tls=tls) as outside, Receiver(PRIVATE, port=outside.port, tls=tls) as inside:
        outside.answers(reply(200, headers={"Connection": "close"}))
        url = f"https://evil.example.com:{outside.port}/"
        first, second = send(url, url, ssl_context=authority.trusting())
        assert (first.failure, second.failure) == (None, Failure.REFUSED_ADDRESS)
        assert (len(asked), outside.connections, inside.connections) == (2, 1, 0)


def test_one_attempt_looks_a_name_up_once(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was checked is what it connects to: between the two nobody asks again."""
    monkeypatch.setattr(sending, "NAMES_KEPT_S", 0)
    asked = rebinding(monkeypatch)
    with Receiver(PUBLIC, tls=authority.serving("evil.example.com")) as outside:
        [answer] = send(f"https://evil.example.com:{outside.port}/", ssl_context=authority.trusting())
        assert (answer.failure, asked) == (None, ["evil.example.com"])


def test_a_name_on_the_list_may_lead_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, lambda _: [PRIVATE])
    with Receiver(PRIVATE) as inside:
        [listed, other] = send(f"http://trusted.internal:{inside.port}/", f"https://other.example.com:{inside.port}/")
        assert (listed.failure, other.failure) == (None, Failure.REFUSED_ADDRESS)
        assert inside.connections == 1


def test_a_network_on_the_list_serves_any_name(monkeypatch: pytest.MonkeyPatch, authority: Authority) -> None:
    names(monkeypatch, lambda _: ["127.9.0.1"])
    with Receiver("127.9.0.1", tls=authority.serving("shop.example.com")) as inside:
        url = f"https://shop.example.com:{inside.port}/"
        allowed = AllowedHosts.parse("127.9.0.0/16")
        [answer] = send(url, allowed=allowed, ssl_context=authority.trusting())
        assert answer.failure is None


def test_plain_http_goes_to_listed_hosts_only(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = names(monkeypatch, lambda _: [PUBLIC])
    [answer] = send("http://shop.example.com/")
    assert (answer.failure, answer.detail) == (Failure.REFUSED_URL, "The URL does not start with https://.")
    assert asked == []


def test_a_name_without_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(_: str) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    names(monkeypatch, nothing)
    [answer] = send("https://gone.example.com/")
    assert (answer.failure, answer.detail) == (Failure.DNS, "The host's name was not found: Name or service not known.")


# TLS


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def test_a_certificate_of_a_trusted_authority_is_good(authority: Authority) -> None:
    with Receiver(PUBLIC, tls=authority.serving(PUBLIC)) as receiver:
        [answer] = send(receiver.url, ssl_context=authority.trusting())
        assert answer.failure is None
        assert receiver.requests[0].body == BODY


def test_a_certificate_for_another_host_is_not(authority: Authority) -> None:
    with Receiver(PUBLIC, tls=authority.serving("other.example.com")) as receiver:
        [answer] = send(receiver.url, ssl_context=authority.trusting())
        assert answer.failure == Failure.TLS
        assert answer.detail.startswith("Its certificate is not good: IP address mismatch")
        assert receiver.requests == []


def test_a_certificate_that_nobody_vouches_for_is_not(authority: Authority) -> None:
    """With the system's own authorities, as in operation."""
    with Receiver(PUBLIC, tls=authority.serving(PUBLIC)) as receiver:
        [answer] = send(receiver.url, ssl_context=None)
        assert answer.failure == Failure.TLS
        assert answer.detail.startswith("Its certificate is not good:")
        assert receiver.requests == []


def test_a_receiver_that_speaks_no_tls() -> None:
    with Receiver(PUBLIC, greeting=b"SSH-2.0-OpenSSH_9.9\r\n") as receiver:
        [answer] = send(f"https://{PUBLIC}:{receiver.port}/")
        assert (answer.failure, answer.detail) == (Failure.TLS, "The TLS handshake failed: wrong version number.")


# What is read and kept


def test_of_an_endless_body_little_is_read(receiver: Receiver) -> None:
    receiver.answers(flood(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65_536), reply(200))
    tracemalloc.start()
    try:
        [answer, after] = send(receiver.url, receiver.url)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (answer.status, answer.failure, answer.body) == (200, None, "x" * BODY_MAX_BYTES)
    assert after.failure is None
    assert receiver.connections == 2  # the first one was closed, not read to its end
    assert peak < 16 * 2**20


def test_framing_without_end_is_cut_off(receiver: Receiver) -> None:
    """A chunk that never comes to its size: no byte of a body, and no end."""
    receiver.answers(flood(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0" * 65_536))
    [answer] = send(receiver.url)
    assert (answer.status, answer.failure, answer.body) == (200, None, "")


def test_a_gzip_bomb_is_not_unpacked(receiver: Receiver) -> None:
    bomb = gzip.compress(bytes(64 * 2**20))  # 64 MiB in 64 KiB
    receiver.answers(reply(200, bomb, {"Content-Encoding": "gzip"}))
    tracemalloc.start()
    try:
        [answer] = send(receiver.url)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (answer.failure, answer.body) == (None, "[gzip, not decoded]")
    assert peak < 16 * 2**20


def test_what_says_that_it_is_gzip_is_not_even_tried(receiver: Receiver) -> None:
    """Unpacking it would fail, and cost the connection."""
    receiver.answers(reply(200, b"no gzip", {"Content-Encoding": "gzip"}))
    assert [answer.failure for answer in send(receiver.url, receiver.url)] == [None, None]
    assert receiver.connections == 1


def test_the_body_is_a_text_that_postgresql_takes(receiver: Receiver) -> None:
    receiver.answers(reply(500, b"a\x00b\x1b[31m\r\nc\td\x7f\xff\xc2\x85\xed\xa0\x80" + "\u202egpj".encode()))
    [answer] = send(receiver.url)
    assert answer.body == "a\ufffdb\ufffd[31m\nc\td\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffdgpj"


@pytest.mark.parametrize("body", [b"\x00" * 3_000, "\N{EURO SIGN}".encode() * 1_000, b"x" * 20_000])
def test_the_body_is_cut_to_its_limit(receiver: Receiver, body: bytes) -> None:
    receiver.answers(reply(500, body))
    [answer] = send(receiver.url)
    assert BODY_MAX_BYTES - 3 < len(answer.body.encode()) <= BODY_MAX_BYTES


@pytest.mark.parametrize(("length", "connections"), [(READ_MAX_BYTES, 1), (2**22, 2)])
def test_a_body_that_is_too_long_costs_the_connection(receiver: Receiver, length: int, connections: int) -> None:
    receiver.answers(reply(200, b"x" * length))
    send(receiver.url, receiver.url)
    assert receiver.connections == connections


# The sender itself


def test_no_more_than_so_many_at_a_time(receiver: Receiver) -> None:
    """Who waits for a connection gives up at half the deadline: the other half is the receiver's."""
    receiver.answers(hang())

    async def run() -> list[Answer]:
        # A second lies between the two limits: a machine that stands still for less does not mix them up.
        sender = Sender(ALLOWED, deadline_s=2.0, connections_max=2, ssl_context=NO_TLS)
        answers = await asyncio.gather(*(sender.post(receiver.url, HEADERS, BODY) for _ in range(5)))
        await sender.close()
        return answers

    failures = [answer.failure for answer in asyncio.run(run())]
    assert failures == [Failure.TIMEOUT] * 2 + [Failure.OVERLOADED] * 3
    assert receiver.connections == 2


def test_connections_that_are_kept_are_bounded() -> None:
    """With one connection at a time, two sockets are kept, whatever the number of receivers."""
    with contextlib.ExitStack() as stack:
        receivers = [stack.enter_context(Receiver(PUBLIC)) for _ in range(5)]

        async def run() -> None:
            sender = Sender(ALLOWED, deadline_s=NEVER_S, connections_max=1, ssl_context=NO_TLS)
            for receiver in receivers:
                assert (await sender.post(receiver.url, HEADERS, BODY)).failure is None
            for _ in range(10):
                await asyncio.sleep(0)  # what is closed is so at one of the next turns of the loop
            assert sum(made.fileno() >= 0 for made in sender._sockets) == 2
            await sender.close()

        asyncio.run(run())


def test_cancelling_an_attempt_gives_its_connection_back(receiver: Receiver) -> None:
    receiver.answers(hang(), reply(200))

    async def run() -> Answer:
        sender = Sender(ALLOWED, deadline_s=NEVER_S, connections_max=1, ssl_context=NO_TLS)
        attempt = asyncio.create_task(sender.post(receiver.url, HEADERS, BODY))
        await asyncio.to_thread(receiver.wait_for, 1)
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
        answer = await sender.post(receiver.url, HEADERS, BODY)
        await sender.close()
        return answer

    assert asyncio.run(run()).failure is None


@pytest.mark.parametrize("headers", [{"X": "a\r\nInjected: b"}, {"X\r\nInjected": "b"}])
def test_a_header_that_is_none_is_our_fault_and_sends_nothing(receiver: Receiver, headers: dict[str, str]) -> None:
    [answer] = send(receiver.url, headers=headers)
    assert (answer.status, answer.failure) == (None, Failure.FAULT)
    assert receiver.requests == []
