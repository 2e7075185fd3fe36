"""Receivers of webhooks, on real sockets, that answer as they are told: well, badly, or with malice.

    with Receiver() as receiver:
        receiver.answers(reply(500), reply(200))   # the last one for ever
        ...
        [first, second] = receiver.wait_for(2)

Each has a thread with an event loop of its own, so that any test can use it, asynchronous or not.
"""

import asyncio
import datetime
import ipaddress
import socket
import ssl
import struct
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Request:
    """One that came in, whole."""

    method: str
    target: str
    headers: dict[str, str]
    """With lower-case names."""
    body: bytes
    connection: int
    """Which of the receiver's connections, from 0."""
    at: float = field(default_factory=time.time)


class Peer:
    """The connection that a request came in on, for whoever answers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def gone(self) -> None:
        """Until the sender has closed."""
        await self._reader.read(1)

    def close(self) -> None:
        self._writer.close()

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        made: socket.socket = self._writer.get_extra_info("socket")
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


Answering = Callable[[Peer], Awaitable[None]]


def reply(status: int = 200, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answering:
    """A whole answer; the connection stays open."""
    lines = {"Content-Length": str(len(body)), **(headers or {})}
    head = f"HTTP/1.1 {status} Said\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"
    return raw(head.encode() + body, close=False)


def raw(data: bytes, *, close: bool = True) -> Answering:
    """These bytes, HTTP or not."""

    async def answer(peer: Peer) -> None:
        await peer.send(data)
        if close:
            peer.close()

    return answer


def hang(first: bytes = b"") -> Answering:
    """Send these bytes and nothing more, until the sender has had enough."""

    async def answer(peer: Peer) -> None:
        await peer.send(first)
        await peer.gone()

    return answer


def trickle(first: bytes, piece: bytes = b"x", *, every_s: float = 0.02) -> Answering:
    """Send these bytes, and then a piece again and again, as slowly."""

    async def answer(peer: Peer) -> None:
        await peer.send(first)
        while True:
            await asyncio.sleep(every_s)
            await peer.send(piece)

    return answer


def flood(first: bytes, piece: bytes, *, sent: list[int] | None = None) -> Answering:
    """Send these bytes, and then a piece again and again, as fast as the sender takes them; `sent` counts the bytes."""

    async def answer(peer: Peer) -> None:
        await peer.send(first)
        while True:
            await peer.send(piece)
            if sent is not None:
                sent.append(len(piece))

    return answer


def reset() -> Answering:
    async def answer(peer: Peer) -> None:
        peer.reset()

    return answer


class Door:
    """Holds answers back until it is opened: `receiver.answers(door.answer)`."""

    def __init__(self) -> None:
        self._opened = threading.Event()

    def open(self) -> None:
        self._opened.set()

    async def answer(self, peer: Peer) -> None:
        await asyncio.to_thread(self._opened.wait, 10.0)
        await reply(200)(peer)


class Receiver:
    """Listens on a free port of `host` while its context lasts, and records what it is sent."""

    def __init__(
        self, host: str = "127.0.0.1", *, port: int = 0, tls: ssl.SSLContext | None = None, greeting: bytes = b""
    ) -> None:
        """`greeting`: what it says first, before it is asked anything."""
        self.host = host
        self.port = port
        self.requests: list[Request] = []
        self.connections = 0
        """Accepted since the start, whether or not a request came."""
        self._tls = tls
        self._greeting = greeting
        self._answers: list[Answering] = [reply(200)]
        self._changed = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="receiver", daemon=True)

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}/"

    def answers(self, *answers: Answering) -> None:
        """How the next requests are answered: one after the other, the last one for ever."""
        assert answers
        with self._changed:
            self._answers = list(answers)

    def wait_for(self, count: int, *, within_s: float = 10.0) -> list[Request]:
        """The requests so far, once there are at least so many."""
        with self._changed:
            came = self._changed.wait_for(lambda: len(self.requests) >= count, within_s)
            assert came, f"{len(self.requests)} requests within {within_s} s, not {count}"
            return list(self.requests)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10), "the receiver does not listen"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve())
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        # With a bound socket it looks no name up: tests replace getaddrinfo.
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listening = socket.create_server((self.host, self.port), family=family)
        self.port = listening.getsockname()[1]
        await asyncio.start_server(self._connected, sock=listening, ssl=self._tls)
        self._ready.set()
        await self._stop.wait()
        # The runner cancels the connections' tasks.

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = self.connections
        self.connections += 1
        try:
            writer.write(self._greeting)
            while not writer.is_closing():
                request = await _read(reader, number)
                with self._changed:
                    self.requests.append(request)
                    self._changed.notify_all()
                    answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
                await answer(Peer(reader, writer))
        except (OSError, EOFError):
            pass  # the sender has closed
        finally:
            writer.close()


async def _read(reader: asyncio.StreamReader, connection: int) -> Request:
    """Raises IncompleteReadError, an EOFError, where the sender closes first."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, target, headers, body, connection)


class Authority:
    """A certificate authority that only the tests trust."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Tests")])
        self._certificate = self._sign(self._name, self._key, x509.BasicConstraints(ca=True, path_length=None))

    def trusting(self) -> ssl.SSLContext:
        """For a client that trusts this authority and no other."""
        pem = self._certificate.public_bytes(serialization.Encoding.PEM).decode()
        return ssl.create_default_context(cadata=pem)

    def serving(self, host: str) -> ssl.SSLContext:
        """For a server, with a certificate for a name or an address."""
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            known: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            known = x509.DNSName(host)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a receiver")])
        certificate = self._sign(name, key, x509.SubjectAlternativeName([known]))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "pem"
            path.write_bytes(
                key.private_bytes(
                    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
                )
                + certificate.public_bytes(serialization.Encoding.PEM)
            )
            context.load_cert_chain(path)
        return context

    def _sign(
        self, name: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(extension, critical=False)
            .sign(self._key, hashes.SHA256())
        )
