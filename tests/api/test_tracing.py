"""Where the traces of commands continue is stored with them, for those that are traced and new; off, nothing is."""

import subprocess
import sys
from collections.abc import Iterator
from uuid import uuid4

import httpx2
import pytest

from bursar.local.valkey import Valkey
from tests.api.conftest import SECRETS_KEY, NewKey
from tests.api.serving import Served
from tests.books import Bank
from tests.receivers import Receiver

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACED = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.fixture(scope="module")
def traced_api(module_database_url: str, valkey: Valkey) -> Iterator[Served]:
    with Receiver() as collector:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("BURSAR_SECRETS_KEY", SECRETS_KEY)
            environment.setenv("BURSAR_OTLP_ENDPOINT", collector.url)
            environment.setenv("BURSAR_TRACE_RATIO", "0")
            running = Served(module_database_url, valkey.url)
        yield running
        running.stop()


@pytest.fixture
def traced(traced_api: Served, new_key: NewKey) -> Iterator[httpx2.Client]:
    with traced_api.client(new_key()) as client:
        yield client


def item(key: str | None = None) -> dict[str, str]:
    return {"idempotency_key": key or str(uuid4()), "type": "spend", "wallet": "alice", "asset": "gold", "amount": "1"}


def post(client: httpx2.Client, *items: dict[str, str], traceparent: str | None = None, atomic: bool = False) -> None:
    headers = {} if traceparent is None else {"traceparent": traceparent}
    answer = client.post("/v1/commands/batch", json={"commands": items, "atomic": atomic}, headers=headers)
    assert answer.status_code == 200


def stored(bank: Bank) -> list[str]:
    """The keys of the commands of this bank that are traced, in order."""
    query = "SELECT c.idempotency_key FROM traces t JOIN commands c USING (seq) WHERE c.tenant_id = %s ORDER BY seq"
    return [key for (key,) in bank.rows(query, bank.tenant)]


def test_each_new_command_of_a_traced_request_has_its_row(traced: httpx2.Client, bank: Bank) -> None:
    old, new = item(), item()
    post(traced, old)
    post(traced, old, new, traceparent=TRACED)
    assert stored(bank) == [new["idempotency_key"]]
    traceparent = bank.one("SELECT traceparent FROM traces JOIN commands USING (seq) WHERE tenant_id = %s", bank.tenant)
    assert traceparent.split("-")[1] == TRACE
    assert traceparent != TRACED, "it continues from the accept, not from the caller"
    post(traced, old, new, traceparent=TRACED)
    assert stored(bank) == [new["idempotency_key"]]


def test_a_group_is_traced_command_by_command(traced: httpx2.Client, bank: Bank) -> None:
    group = [item(), item()]
    post(traced, *group, atomic=True, traceparent=TRACED)
    assert stored(bank) == [each["idempotency_key"] for each in group]


@pytest.mark.parametrize("traceparent", ["nonsense", "00-0-0-01", f"00-{TRACE}-00f067aa0ba902b7-00", ""])
def test_what_is_not_to_be_traced_has_none(traced: httpx2.Client, bank: Bank, traceparent: str) -> None:
    post(traced, item(), traceparent=traceparent)
    assert stored(bank) == []


def test_the_row_and_the_command_are_one_transaction(traced: httpx2.Client, bank: Bank) -> None:
    """Whoever sees the command sees its row: no drain can come in between."""
    first, second = item(), item()
    post(traced, first, second, traceparent=TRACED)
    together = """
        SELECT count(DISTINCT t.xmin::text), bool_and(t.xmin = c.xmin) FROM traces t JOIN commands c USING (seq)
        WHERE c.tenant_id = %s
    """
    assert bank.rows(together, bank.tenant) == [(1, True)]


def test_off_there_is_no_row_and_nothing_is_imported(client: httpx2.Client, bank: Bank) -> None:
    post(client, item(), traceparent=TRACED)
    assert stored(bank) == []
    # Of OpenTelemetry redis imports some by itself, where it is installed.
    code = "import sys, api.serve, worker.drain, worker.courier; print('runtime.tracing' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True)
    assert done.stdout.strip() == "False"
