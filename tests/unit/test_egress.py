"""Which addresses are public, which URLs are taken for webhooks, and how the operator allows others."""

from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr, ValidationError
from yarl import URL

from runtime.egress import URL_MAX, AllowedHosts, is_public, url_fault
from runtime.settings import Settings

NOBODY = AllowedHosts()

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "168.63.129.15",
    "169.253.255.255",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2606:4700:4700::1111",
    "2a00:1450:4001:81b::200e",
]

# Name, network. Of each, the first and the last address are refused.
NOT_PUBLIC = [
    ("unspecified", "0.0.0.0/8"),
    ("private", "10.0.0.0/8"),
    ("carrier-grade nat", "100.64.0.0/10"),
    ("loopback", "127.0.0.0/8"),
    ("azure", "168.63.129.16/32"),
    ("link-local", "169.254.0.0/16"),
    ("metadata", "169.254.169.254/32"),
    ("private", "172.16.0.0/12"),
    ("protocol assignments", "192.0.0.0/24"),
    ("documentation", "192.0.2.0/24"),
    ("as112", "192.31.196.0/24"),
    ("amt", "192.52.193.0/24"),
    ("6to4 relays", "192.88.99.0/24"),
    ("private", "192.168.0.0/16"),
    ("as112", "192.175.48.0/24"),
    ("benchmarking", "198.18.0.0/15"),
    ("documentation", "198.51.100.0/24"),
    ("documentation", "203.0.113.0/24"),
    ("multicast", "224.0.0.0/4"),
    ("reserved", "240.0.0.0/4"),
    ("broadcast", "255.255.255.255/32"),
    ("unspecified", "::/128"),
    ("loopback", "::1/128"),
    ("ipv4-compatible", "::/96"),
    ("ipv4-compatible, of a public address", "::8.8.8.8/128"),
    ("ipv4-mapped", "::ffff:0:0/96"),
    ("ipv4-mapped, of a public address", "::ffff:8.8.8.8/128"),
    ("ipv4-translated", "::ffff:0:0:0/96"),
    ("nat64", "64:ff9b::/96"),
    ("nat64, of 10.0.0.1", "64:ff9b::a00:1/128"),
    ("local nat64", "64:ff9b:1::/48"),
    ("discard", "100::/64"),
    ("teredo", "2001::/32"),
    ("benchmarking", "2001:2::/48"),
    ("orchid", "2001:20::/28"),
    ("protocol assignments", "2001::/23"),
    ("documentation", "2001:db8::/32"),
    ("6to4", "2002::/16"),
    ("6to4, of 10.0.0.1", "2002:a00:1::/48"),
    ("as112", "2620:4f:8000::/48"),
    ("documentation", "3fff::/20"),
    ("reserved", "4000::/3"),
    ("srv6", "5f00::/16"),
    ("reserved", "e000::/4"),
    ("private", "fc00::/7"),
    ("metadata", "fd00:ec2::254/128"),
    ("link-local", "fe80::/10"),
    ("site-local", "fec0::/10"),
    ("multicast", "ff00::/8"),
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address: str) -> None:
    assert is_public(ip_address(address))
    assert NOBODY.may_connect(ip_address(address))


@pytest.mark.parametrize(("kind", "text"), NOT_PUBLIC)
def test_not_public(kind: str, text: str) -> None:
    network = ip_network(text)
    for address in (network[0], network[-1]):
        assert not is_public(address), kind
        assert not NOBODY.may_connect(address)
        host = f"[{address}]" if address.version == 6 else address
        assert url_fault(f"https://{host}/", NOBODY) == "The URL's host is not one of the public internet."
        assert AllowedHosts.parse(text).may_connect(address)
        assert url_fault(f"http://{host}:8000/", AllowedHosts.parse(text)) is None


def test_a_zone_is_never_public_nor_allowed() -> None:
    for text in ("fe80::1%eth0", "2606:4700:4700::1111%1", "::1%lo"):
        assert not is_public(ip_address(text))
        assert not AllowedHosts.parse("::/0").may_connect(ip_address(text))


# The list


def test_the_list_has_names_addresses_and_networks() -> None:
    allowed = AllowedHosts.parse(" receiver.internal, 10.1.0.0/16,127.0.0.1 ,, fd00::/8,::1,Web_1\n")
    assert allowed.names == {"receiver.internal", "web_1"}
    assert allowed.has_name("Receiver.Internal")
    assert not allowed.has_name("a.receiver.internal")
    assert not allowed.has_name("receiver.internal.example.com")
    for address, expected in (("10.1.255.255", True), ("10.2.0.0", False), ("127.0.0.2", False), ("::1", True)):
        assert allowed.may_connect(ip_address(address)) is expected
    assert not allowed.may_connect(ip_address("::ffff:127.0.0.1"))  # another form is another address
    assert AllowedHosts.parse("") == AllowedHosts.parse(" , ") == NOBODY


@pytest.mark.parametrize(
    "entry",
    [
        "10.1.2.3/16",
        "10.0.0.0/33",
        "10.0.0",
        "127.1",
        "2130706433",
        "0x7f.1",
        "010.0.0.1",
        "https://receiver.internal",
        "receiver.internal:8080",
        "receiver.internal/hooks",
        "*.internal",
        "-a.internal",
        "a..b",
        "a b",
        "b\u00fccher.example",
        "fe80::1%eth0",
        "[::1]",
        "a" * 64,
    ],
)
def test_a_wrong_entry_is_refused_at_the_start_by_its_name(entry: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(database_url=SecretStr("d"), redis_url=SecretStr("r"), webhook_allowed_hosts=f"fine.example, {entry}")  # pyright: ignore[reportCallIssue]
    [error] = caught.value.errors()
    assert error["loc"] == ("webhook_allowed_hosts",)
    assert repr(entry) in error["msg"]


# URLs

HOST = "The URL has no valid host."
HTTPS = "The URL does not start with https://."
PORT = "The URL's port is none from 1 to 65535."
INSIDE = "The URL's host is not one of the public internet."
FORM = "The URL's host is an address, not in the usual form (four decimal numbers, or IPv6 in brackets)."
CHARACTERS = "The URL has characters that stand in URLs only percent-encoded, such as spaces and non-ASCII letters."
USER = "The URL has a user name or password before its host."
FRAGMENT = "The URL has a fragment (#), which nobody would receive."

TAKEN = [
    "https://example.com",
    "https://example.com/",
    "https://example.com?a=b",
    "https://example.com:8443/hooks/bursar?key=a%2Fb&c[]=d",
    "HTTPS://Example.COM/A",
    "https://xn--bcher-kva.example/",
    "https://a-b.c_d.example/",
    "https://1.example/",
    "https://example.com/@alice",
    "https://8.8.8.8/",
    "https://8.8.8.8:65535/",
    "https://[2606:4700:4700::1111]/",
    "https://[2606:4700:4700:0::1111]:1/",
    "https://localhost.example.com/",
    "https://example.com/" + "a" * (URL_MAX - 20),
]


@pytest.mark.parametrize("url", TAKEN)
def test_taken(url: str) -> None:
    assert url_fault(url, NOBODY) is None


@pytest.mark.parametrize("url", TAKEN)
def test_of_what_is_taken_all_parsers_find_the_same_host(url: str) -> None:
    """Whom the list is asked about is whom aiohttp connects to: yarl finds the host for both."""
    ours = urlsplit(url).hostname
    assert str(URL(url, encoded=True).raw_host).lower() == ours
    assert URL(url).raw_host == ours or ":" in str(ours)  # yarl shortens IPv6


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        (
            "https://example.com/" + "a" * (URL_MAX - 19),
            f"The URL has {URL_MAX + 1} characters; at most 2000 are taken.",
        ),
        ("", CHARACTERS),
        ("example.com", HTTPS),
        ("//example.com/", HTTPS),
        ("https:/example.com/", HTTPS),
        ("https:example.com", HTTPS),
        ("http://example.com/", HTTPS),
        ("http://8.8.8.8/", HTTPS),
        ("ftp://example.com/", HTTPS),
        ("file:///etc/passwd", HTTPS),
        ("gopher://example.com/", HTTPS),
        ("unix://example.com/", HTTPS),
        ("javascript:alert(1)", HTTPS),
        ("https://alice@example.com/", USER),
        ("https://alice:hush@example.com/", USER),
        ("https://example.com@10.0.0.1/", USER),
        ("https://@example.com/", USER),
        ("https://example.com/#part", FRAGMENT),
        ("https://example.com#@10.0.0.1/", FRAGMENT),
        ("https://example.com/a b", CHARACTERS),
        (" https://example.com/", CHARACTERS),
        ("https://example.com/\n", CHARACTERS),
        ("https://example.com/\r\nHost: 10.0.0.1", CHARACTERS),
        ("https://exam\tple.com/", CHARACTERS),
        ("https://example.com/\x00", CHARACTERS),
        ("https://example.com\\@10.0.0.1/", CHARACTERS),
        ("https://b\u00fccher.example/", CHARACTERS),
        ("https://example\u3002com/", CHARACTERS),
        ("https://\uff11\uff10.0.0.1/", CHARACTERS),
        ("https://\u2460\u2461\u2466.0.0.1/", CHARACTERS),
        ("https:///hooks", HOST),
        ("https://?a", HOST),
        ("https://:443/", HOST),
        ("https://.example.com/", HOST),
        ("https://example..com/", HOST),
        ("https://example.com./", HOST),
        ("https://10.0.0.1./", HOST),
        ("https://-example.com/", HOST),
        ("https://example-.com/", HOST),
        ("https://" + "a" * 64 + ".com/", HOST),
        ("https://" + "a." * 126 + "com/", HOST),
        ("https://%31%30.0.0.1/", FORM),
        ("https://example.com%2f.evil.com/", HOST),
        ("https://exa$mple.com/", HOST),
        ("https://a,b.example/", HOST),
        ("https://[::1/", HOST),
        ("https://::1/", HOST),
        ("https://[2606:4700:4700::1111]x/", HOST),
        ("https://x[2606:4700:4700::1111]/", HOST),
        ("https://example.com:/", PORT),
        ("https://example.com:0/", PORT),
        ("https://example.com:65536/", PORT),
        ("https://example.com:" + "9" * 1_000, PORT),
        ("https://example.com:443a/", PORT),
        ("https://example.com:-1/", PORT),
        ("https://example.com:+443/", PORT),
        ("https://2130706433/", FORM),
        ("https://017700000001/", FORM),
        ("https://0x7f000001/", FORM),
        ("https://0x7f.1/", FORM),
        ("https://127.1/", FORM),
        ("https://127.0.1/", FORM),
        ("https://0177.0.0.1/", FORM),
        ("https://127.0.0.01/", FORM),
        ("https://127.0.0.0x1/", FORM),
        ("https://127.0.0.0x/", FORM),
        ("https://256.0.0.1/", FORM),
        ("https://1.2.3.4.5/", FORM),
        ("https://example.1/", FORM),
        ("https://[]/", FORM),
        ("https://[127.0.0.1]/", FORM),
        ("https://[v1.x]/", FORM),
        ("https://[::1%25lo]/", INSIDE),
        ("https://[2606:4700:4700::1111%251]/", INSIDE),
        ("https://[::FFFF:127.0.0.1]/", INSIDE),
        ("https://[0:0:0:0:0:0:0:1]/", INSIDE),
        ("https://localhost/", INSIDE),
        ("https://LOCALHOST:8000/", INSIDE),
        ("https://a.localhost/", INSIDE),
        ("https://postgres/", INSIDE),
        ("https://printer.local/", INSIDE),
        ("https://metadata.google.internal/", INSIDE),
        ("https://router.home.arpa/", INSIDE),
    ],
)
def test_not_taken(url: str, fault: str) -> None:
    assert url_fault(url, NOBODY) == fault


@pytest.mark.parametrize("scheme", ["https", "http", "HTTP"])
@pytest.mark.parametrize("host", ["receiver.internal", "RECEIVER.internal", "10.1.2.3", "[::1]", "web_1"])
def test_what_the_list_has_is_taken(scheme: str, host: str) -> None:
    allowed = AllowedHosts.parse("receiver.internal, 10.1.0.0/16, ::1, web_1")
    assert url_fault(f"{scheme}://{host}:8000/hooks", allowed) is None
    assert url_fault(f"{scheme}://alice@{host}:8000/hooks", allowed) == USER
    assert url_fault(f"{scheme}://{host}:0/hooks", allowed) == PORT


def test_odd_forms_of_a_listed_address_are_not_taken() -> None:
    allowed = AllowedHosts.parse("127.0.0.0/8")
    for host in ("127.1", "2130706433", "0x7f.1"):
        assert url_fault(f"http://{host}/", allowed) == FORM
