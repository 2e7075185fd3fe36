"""An api per module, a tenant per test, and clients that hold keys."""

from collections.abc import Callable, Iterator
from datetime import datetime

import httpx2
import pytest
from sqlalchemy import Engine

from bursar.local.valkey import Valkey
from ledger import db
from ledger.keys import Scope, create_key
from runtime import base64url
from tests.api.serving import Served
from tests.books import Bank
from tests.books import bank as bank

NewKey = Callable[..., str]
SECRETS_KEY = base64url.encode(b"k" * base64url.KEY_BYTES)


@pytest.fixture(scope="module")
def api(module_database_url: str, valkey: Valkey) -> Iterator[Served]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("BURSAR_SECRETS_KEY", SECRETS_KEY)
        running = Served(module_database_url, valkey.url)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def engine(module_database_url: str) -> Iterator[Engine]:
    """As the command line has one."""
    engine = db.engine(module_database_url, application="test-keys")
    yield engine
    engine.dispose()


@pytest.fixture
def new_key(engine: Engine, bank: Bank) -> NewKey:
    """Keys of the bank's tenant, or of another bank's: `new_key(Scope.WALLETS_READ)`."""

    def create(*scopes: Scope, of: Bank = bank, expires_at: datetime | None = None) -> str:
        tenant = of.one("SELECT code FROM tenants WHERE id = %s", of.tenant)
        opens = scopes or (Scope.ADMIN,)
        return create_key(engine, env="test", client="a game", scopes=opens, tenant=tenant, expires_at=expires_at)

    return create


@pytest.fixture
def client(api: Served, new_key: NewKey) -> Iterator[httpx2.Client]:
    """Holds a key of the bank's tenant that opens everything."""
    with api.client(new_key()) as client:
        yield client


@pytest.fixture
def stranger(api: Served, bank: Bank, new_key: NewKey) -> Iterator[httpx2.Client]:
    """Holds such a key of another tenant."""
    other = Bank(bank.url)
    try:
        with api.client(new_key(of=other)) as client:
            yield client
    finally:
        other.close()
