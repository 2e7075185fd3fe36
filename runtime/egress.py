"""Where webhooks may go: which addresses are public, which others the operator has allowed, and which URLs are taken.

`ipaddress.is_global` is no such test: it takes 64:ff9b::/96 (NAT64, where every private IPv4 address has a place),
6to4 and multicast for global. Here the ranges are told one by one, from the registries of IANA (RFC 6890):
iana-ipv4-special-registry, iana-ipv6-special-registry and ipv6-address-space. Why: docs/decisions/0022.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

URL_MAX = 2_000  # characters; what browsers and proxies take, too

_NOT_PUBLIC_4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network; 0.0.0.0 connects to this host
            "10.0.0.0/8",  # private (RFC 1918)
            "100.64.0.0/10",  # carrier-grade NAT (RFC 6598); a metadata service of Alibaba Cloud, too
            "127.0.0.0/8",  # loopback
            "168.63.129.16/32",  # Azure's own services, in every virtual machine, on an address that looks public
            "169.254.0.0/16",  # link-local: metadata services
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # protocol assignments, DS-Lite; a metadata service of Oracle Cloud
            "192.0.2.0/24",  # documentation
            "192.31.196.0/24",  # AS112, sinks of name servers
            "192.52.193.0/24",  # AMT relays
            "192.88.99.0/24",  # 6to4 relays
            "192.168.0.0/16",  # private
            "192.175.48.0/24",  # AS112
            "198.18.0.0/15",  # benchmarking
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved; broadcast
        ),
    )
)

# What is not inside is: unspecified, loopback, IPv4-compatible and IPv4-mapped (::/96, ::ffff:0:0/96), NAT64
# (64:ff9b::/96, 64:ff9b:1::/48), discard (100::/64), SRv6 (5f00::/16), private (fc00::/7), link-local (fe80::/10),
# site-local (fec0::/10), multicast (ff00::/8), and reserved.
_UNICAST_6 = IPv6Network("2000::/3")
_NOT_PUBLIC_6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocol assignments: Teredo (2001::/32), benchmarking (2001:2::/48), ORCHID
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4: an IPv4 address inside
            "2620:4f:8000::/48",  # AS112
            "3fff::/20",  # documentation
        ),
    )
)


def is_public(address: Address) -> bool:
    """Whether the address is one of the internet at large. One with a zone (fe80::1%eth0) never is."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    if address.scope_id is not None:
        return False
    return address in _UNICAST_6 and not any(address in network for network in _NOT_PUBLIC_6)


# Underscores are not for host names; some of docker compose have them.
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
# Names that lead to this host or its neighbours wherever they lead at all (RFC 6761, 6762, 8375; ICANN on .internal).
_LOCAL = re.compile(r"(?:.+\.)?(?:localhost|local|internal|home\.arpa)|[^.]+", re.IGNORECASE)
# A last label of which resolvers make an IPv4 address, as in 2130706433, 0x7f.1 and 127.1 (URL Standard, host parsing).
_NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)")
_URI = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")  # RFC 3986, 2
_PARTS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)")
_AUTHORITY = re.compile(r"(?:\[(?P<six>[^\[\]]*)\]|(?P<name>[^\[\]:]+))(?::(?P<port>[^\[\]:]*))?")


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """The receivers that the operator vouches for: names, wherever they lead, and networks."""

    names: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "AllowedHosts":
        """From `receiver.internal, 10.1.0.0/16, ::1`. Raises ValueError, which names the entry that is wrong."""
        names: set[str] = set()
        networks: list[Network] = []
        for entry in filter(None, (part.strip() for part in text.split(","))):
            if ":" in entry or "/" in entry or _NUMERIC.fullmatch(entry):
                networks.append(_network(entry))
            elif _NAME.fullmatch(entry):
                names.add(entry.lower())
            else:
                raise ValueError(f"{entry!r} is neither the name of a host nor an address or network")
        return cls(frozenset(names), tuple(networks))

    def has_name(self, host: str) -> bool:
        """Whether this very name is on the list; names below it are not."""
        return host.lower() in self.names

    def has_address(self, address: Address) -> bool:
        if isinstance(address, IPv6Address) and address.scope_id is not None:
            return False
        return any(address in network for network in self.networks)

    def may_connect(self, address: Address) -> bool:
        """Whether a host that is on the list by no name may be at this address."""
        return is_public(address) or self.has_address(address)


def url_fault(url: str, allowed: AllowedHosts) -> str | None:
    """What is wrong with a URL as a webhook's, in a sentence; None if nothing is.

    It looks nothing up: which address a name has, is asked and checked whenever something is sent there.
    """
    if len(url) > URL_MAX:
        return f"The URL has {len(url)} characters; at most {URL_MAX} are taken."
    if not _URI.fullmatch(url):
        return "The URL has characters that stand in URLs only percent-encoded, such as spaces and non-ASCII letters."
    if "#" in url:
        return "The URL has a fragment (#), which nobody would receive."
    parts = _PARTS.match(url)
    if not parts or parts["scheme"].lower() not in ("https", "http"):
        return "The URL does not start with https://."
    if "@" in parts["authority"]:
        return "The URL has a user name or password before its host."
    found = _AUTHORITY.fullmatch(parts["authority"])
    if not found:
        return "The URL has no valid host."
    if (port := found["port"]) is not None and not (port.isdigit() and 1 <= int(port) <= 65_535):
        return "The URL's port is none from 1 to 65535."
    name, six = found["name"], found["six"]
    if name is not None and not _NUMERIC.fullmatch(name):
        if not _NAME.fullmatch(name):
            return "The URL has no valid host."
        listed, public = allowed.has_name(name), not _LOCAL.fullmatch(name)
    else:
        try:
            address = IPv4Address(name) if name is not None else IPv6Address(six)
        except ValueError:
            return "The URL's host is an address, not in the usual form (four decimal numbers, or IPv6 in brackets)."
        listed, public = allowed.has_address(address), is_public(address)
    if listed:
        return None
    if not public:
        return "The URL's host is not one of the public internet."
    return None if parts["scheme"].lower() == "https" else "The URL does not start with https://."


def _network(entry: str) -> Network:
    try:
        network = ip_network(entry)
    except ValueError as error:
        raise ValueError(f"{entry!r} is no address or network: {error}") from None
    if isinstance(network, IPv6Network) and network.network_address.scope_id is not None:
        raise ValueError(f"{entry!r} has a zone, which no URL may have")
    return network
