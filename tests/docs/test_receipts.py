"""docs/receipts.md: a third party who does what it says comes to what it says."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bursar.local.valkey import Valkey
from ledger import db
from ledger.keys import Scope, create_key
from runtime.receipts import new_key
from tests.api.serving import served
from tests.books import Bank
from tests.docs.pages import ROOT, fences
from tests.docs.walking import Shell

PAGE = ROOT / "docs/receipts.md"
PRIVATE, PUBLIC = new_key()
GETTING, CHECKING = fences(PAGE, "bash")
[OPENSSL] = fences(PAGE, "shell")
[PYTHON] = fences(PAGE, "python")


def run(script: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """As somebody with a shell would."""
    return Shell(folder, **environment).attempt(script)


@pytest.fixture(scope="module")
def folder(module_database_url: str, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """With receipt.json and jwks.json, got as the page says. The service is gone by then."""
    made = tmp_path_factory.mktemp("receipt")
    bank = Bank(module_database_url)
    engine = db.engine(module_database_url, application="test-keys")
    try:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("BURSAR_RECEIPT_KEY", PRIVATE)
            with served(module_database_url, valkey.url) as api:
                tenant = bank.one("SELECT code FROM tenants WHERE id = %s", bank.tenant)
                key = create_key(engine, env="test", client="a shop", scopes=[Scope.ADMIN], tenant=tenant)
                bank.top_up("alice", 100)
                spend = {"type": "spend", "wallet": "alice", "asset": "gold", "amount": "30"}
                with api.client(key) as client:
                    command = client.post("/v1/commands", json=spend, headers={"Idempotency-Key": "k-1"}).json()["id"]
                bank.drain()
                got = run(GETTING, made, BURSAR_URL=api.url, BURSAR_API_KEY=key, COMMAND=command)
                assert got.returncode == 0, got.stderr
        yield made
    finally:
        engine.dispose()
        bank.close()


def changed(folder: Path, tmp_path: Path) -> Path:
    """The same with one character of the payload changed."""
    there = tmp_path / "changed"
    shutil.copytree(folder, there)
    text = (there / "receipt.json").read_text()
    place = text.index('"payload":"') + 100
    (there / "receipt.json").write_text(text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :])
    return there


def test_verify_finds_it_good(folder: Path) -> None:
    told = run(CHECKING, folder)
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("Good: spend ")
    assert "transfer 2 of partition" in told.stdout
    assert run(f"bursar receipts verify - --key {PUBLIC['x']} <receipt.json", folder).returncode == 0


def test_verify_finds_a_change(folder: Path, tmp_path: Path) -> None:
    told = run(CHECKING, changed(folder, tmp_path))
    assert told.returncode == 1
    assert "the signature does not fit" in told.stderr


def test_verify_says_when_it_cannot_look(folder: Path) -> None:
    for arguments in (
        "receipt.json",
        "nothing.json --jwks jwks.json",
        "receipt.json --key short",
        "receipt.json --jwks bin",
    ):
        told = run(f"bursar receipts verify {arguments}", folder)
        assert told.returncode == 2, arguments
        assert told.stderr.startswith("Cannot look")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_openssl_finds_it_good_and_python_makes_its_hash(folder: Path) -> None:
    told = run(OPENSSL, folder)
    assert told.returncode == 0, told.stderr
    assert "Signature Verified Successfully" in told.stdout
    made = subprocess.run([sys.executable, "-c", PYTHON], cwd=folder, check=False, capture_output=True, timeout=20)
    assert made.returncode == 0, made.stderr
    said = (folder / "said.json").read_text()
    (folder / "said.json").write_text(said.replace('"amount":"-30"', '"amount":"-31"'))
    forged = subprocess.run([sys.executable, "-c", PYTHON], cwd=folder, check=False, capture_output=True, timeout=20)
    assert b"AssertionError" in forged.stderr


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_openssl_finds_a_change(folder: Path, tmp_path: Path) -> None:
    told = run(OPENSSL, changed(folder, tmp_path))
    assert told.returncode != 0
    assert "Signature Verification Failure" in told.stdout + told.stderr


def test_a_new_key_is_one_that_the_service_takes(tmp_path: Path) -> None:
    told = run("bursar receipts new-key", tmp_path)
    key = told.stdout.strip()
    assert len(key) == 43
    assert key not in told.stderr
