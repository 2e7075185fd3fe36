"""A real nginx on deploy/nginx, for the apis of a test."""

import datetime
import http.client
import json
import re
import shutil
import signal
import ssl
import subprocess
from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bursar.local import processes
from bursar.local.places import any_free_port
from tests.crash.service import wait_for
from tests.crash.wire import Answer
from tests.deploy.places import REPOSITORY, system_program

FOLDER = REPOSITORY / "deploy/nginx"
ANSWER_S = 20.0


def self_made_certificate(folder: Path) -> None:
    """For 127.0.0.1: `fullchain.pem` and `key.pem`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bursar test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    (folder / "fullchain.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(pem)


class Nginx:
    """deploy/nginx as it is, but for the port, the apis, and what `changed` says: file → [(pattern, replacement)]."""

    def __init__(
        self,
        folder: Path,
        apis: Sequence[int],
        *,
        tls: bool = True,
        changed: dict[str, list[tuple[str, str]]] | None = None,
    ) -> None:
        self.folder = folder
        self.port = any_free_port()
        self._program = system_program("nginx", package="nginx-light")
        self._process: subprocess.Popen[bytes] | None = None
        self._configuration = folder / "etc"
        shutil.copytree(FOLDER, self._configuration)
        (self._configuration / "tls").mkdir()
        self_made_certificate(self._configuration / "tls")
        servers = "\n".join(f"    server 127.0.0.1:{port} max_fails=0;" for port in apis)
        listen = f"listen 127.0.0.1:{self.port}{' ssl' if tls else ''} backlog=2048;\n"
        edits: dict[str, list[tuple[str, str]]] = {
            "upstream.conf": [(r"    server .*", servers)],
            "listen.conf": [(r"(?m)^listen .*\n", ""), (r"\A", listen)],
            "nginx.conf": [(r"access_log /dev/stdout", f"access_log {folder}/access.log")],
        }
        for file, changes in (edits | (changed or {})).items():
            path = self._configuration / file
            for pattern, replacement in changes:
                text, times = re.subn(pattern, replacement, path.read_text())
                assert times, f"{pattern} is not in {file}"
                path.write_text(text)

    @property
    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self._configuration / "tls/fullchain.pem"))

    @property
    def log(self) -> Path:
        return self.folder / "nginx.log"

    def start(self) -> "Nginx":
        arguments = ["-p", f"{self.folder}/", "-c", str(self._configuration / "nginx.conf"), "-e", "stderr"]
        self._process = processes.spawn(
            [self._program, *arguments, "-g", "daemon off;"], log=self.log, at_owners_death=signal.SIGTERM
        )
        wait_for(lambda: self._ended() or self._listens(), "nginx to listen")
        assert not self._ended(), processes.tail(self.log)
        return self

    def stop(self) -> None:
        if self._process is not None:
            processes.stop(self._process, signals=[(signal.SIGTERM, 5.0)])

    def _ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _listens(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.connect()
        except OSError:
            return False
        finally:
            connection.close()
        return True

    def connect(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=ANSWER_S, context=self.context)

    def lines(self) -> list[dict[str, object]]:
        """The access log."""
        return [json.loads(line) for line in (self.folder / "access.log").read_text().splitlines()]


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: object = None, **headers: str) -> Answer:
    """One request; a body that is no bytes is sent as JSON."""
    sent = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    connection.request(method, path, sent, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    text = answer.read()
    names = {name.lower(): value for name, value in answer.getheaders()}
    return Answer(answer.status, names, json.loads(text) if text else None, 0.0)
