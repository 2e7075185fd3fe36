"""The scripts of deploy/: what they promise where nobody looks."""

import asyncio
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ledger import db, inbox
from runtime import base64url
from tests.deploy.places import REPOSITORY

MAKE_ENV = REPOSITORY / "deploy/make-env"
SCRIPTS = [MAKE_ENV, *sorted((REPOSITORY / "deploy").rglob("*.sh"))]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_the_shell_can_read_it(script: Path) -> None:
    shell = "bash" if "bash" in script.read_text().splitlines()[0] else "sh"
    subprocess.run([shell, "-n", script], check=True, capture_output=True, timeout=10)


def test_make_env_tells_nobody_else_and_never_repeats_itself(tmp_path: Path) -> None:
    files = [tmp_path / "one", tmp_path / "two"]
    for file in files:
        subprocess.run([MAKE_ENV, file], check=True, capture_output=True, timeout=10)
        assert file.stat().st_mode & 0o777 == 0o600
    values = [line.partition("=")[2] for file in files for line in file.read_text().splitlines() if "=" in line]
    assert len(values) == len(set(values)) == 12
    passwords = [value for value in values if not value.endswith("=")]
    assert len(passwords) == 8
    assert all(len(value) == 48 and set(value) <= set("0123456789abcdef") for value in passwords)
    assert all(base64url.key_bytes(value) for value in set(values) - set(passwords))


def test_make_env_leaves_an_existing_file_alone(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("POSTGRES_PASSWORD=kept\n")
    result = subprocess.run([MAKE_ENV, file], capture_output=True, text=True, timeout=10, check=False)
    assert result.returncode != 0
    assert str(file) in result.stderr
    assert file.read_text() == "POSTGRES_PASSWORD=kept\n"


def loaded(script: str) -> ModuleType:
    """A script as a module; deploy/ is no package."""
    spec = importlib.util.spec_from_file_location(Path(script).stem, REPOSITORY / script)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def accept_one(url: str) -> None:
    async def accept() -> None:
        command = inbox.NewCommand(
            tenant_id=1, client_id=1, partition=0, type="spend", idempotency_key="k", request_hash=b"h", wallet="w",
            to_wallet=None, asset="gold_coins", amount=1, reference=None, metadata=None, expires_at=None,
        )  # fmt: skip
        async with await db.connect_async(url, application="test") as connection:
            await connection.execute("INSERT INTO clients (tenant_id, name) VALUES (1, 'test')")
            await inbox.accept(connection, [command])

    asyncio.run(accept())


def test_a_worker_is_unhealthy_once_work_has_waited_too_long(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BURSAR_DATABASE_URL", database_url)
    worker_health = loaded("deploy/worker_health.py")
    assert worker_health.main() == 0
    accept_one(database_url)
    assert worker_health.main() == 0  # it has only just come
    monkeypatch.setattr(worker_health, "WAITED_S", 0)
    assert "pending" in str(worker_health.main())


def test_a_worker_is_not_to_blame_for_postgresql() -> None:
    nowhere = {**os.environ, "BURSAR_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    result = subprocess.run(
        [sys.executable, "deploy/worker_health.py"],
        cwd=REPOSITORY, env=nowhere, capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert result.returncode == 0
    assert "cannot tell" in result.stdout
