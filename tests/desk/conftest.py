"""The command line of whoever operates the service, in this process, on a bank's database."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from bursar.cli import app
from runtime.settings import settings
from tests.books import Bank
from tests.books import bank as bank

NO_REDIS = "redis://127.0.0.1:1/0"  # nobody listens there


@dataclass(frozen=True)
class Said:
    """What a command said, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.out)

    @property
    def lines(self) -> list[Any]:
        """Of JSON, one a line."""
        return [msgspec.json.decode(line) for line in self.out.splitlines()]


Bursar = Callable[..., Said]


@pytest.fixture
def environment(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    monkeypatch.setenv("BURSAR_DATABASE_URL", bank.url)
    monkeypatch.setenv("BURSAR_REDIS_URL", NO_REDIS)
    settings.cache_clear()
    yield monkeypatch
    settings.cache_clear()


@pytest.fixture
def bursar(environment: pytest.MonkeyPatch) -> Bursar:
    """`bursar("commands", "list", "--failed")`. No traceback, whatever comes."""
    runner = CliRunner()

    def run(*arguments: object, code: int | None = 0, stdin: str | None = None) -> Said:
        ended = runner.invoke(app, [str(argument) for argument in arguments], input=stdin)
        assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exception
        said = Said(ended.exit_code, ended.stdout, ended.stderr)
        assert "Traceback" not in said.err
        assert code is None or said.code == code, said
        return said

    return run


@pytest.fixture
def tenant(bank: Bank) -> str:
    """The code of the bank's tenant."""
    return bank.one("SELECT code FROM tenants WHERE id = %s", bank.tenant)


@pytest.fixture
def client_name(bank: Bank) -> str:
    return bank.one("SELECT name FROM clients WHERE id = %s", bank.client)
