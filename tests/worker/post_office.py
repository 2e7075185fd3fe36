"""Couriers in this process, each in a thread with an event loop of its own; endpoints, and a clock that tests set.

inbox = office.endpoint(receiver, ordering="per_wallet")
bank.top_up("alice", 100)
office.round()  # all that is due has been tried, and what came of it is written
[delivery] = office.deliveries(inbox)
"""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

import msgspec
import pytest

from ledger import deliveries, endpoints
from ledger.ids import event_id
from runtime import webhooks
from runtime.egress import AllowedHosts
from runtime.vault import Vault
from tests.books import Bank, Outcome
from tests.receivers import Receiver
from tests.worker.conftest import eventually
from worker import courier
from worker.courier import IN_THE_AIR_MAX, RETRIES_S, Courier
from worker.sending import Sender

LOCAL = AllowedHosts.parse("127.0.0.0/8")
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody; the system's takes long to load
DEADLINE_S = 10.0  # of an attempt; no test waits for it
RETENTION = timedelta(days=90)
LOOK_EVERY_S = 0.1  # a second is long for a test


class Clock:
    """Stands still between `set` and `advance`; a day ahead, so that all that was owed before is due."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC) + timedelta(days=1)

    def __call__(self) -> datetime:
        return self.now

    def set(self, at: datetime) -> None:
        self.now = at

    def advance(self, by: timedelta) -> None:
        self.now += by


@dataclass(frozen=True)
class Delivery:
    seq: int
    status: str
    attempts: int
    due_at: datetime | None


@dataclass(frozen=True)
class Attempt:
    seq: int
    n: int
    at: datetime
    status: int | None
    failure: str | None
    detail: str | None
    body: str


class Running:
    """A courier at work while the context lasts. Leaving it lets what is in the air come down."""

    def __init__(self, courier: Courier) -> None:
        self.courier = courier
        self.error: BaseException | None = None
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.courier.stop()
        else:
            self.kill()
        self.join()

    def kill(self) -> None:
        """End it wherever it is, as the end of its process would. The connection is closed; nothing is settled."""
        with contextlib.suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(lambda: self._task and self._task.cancel())
        self.join()

    def join(self) -> None:
        self._thread.join(2 * DEADLINE_S)
        assert not self._thread.is_alive(), "the courier does not end"
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        async def run() -> None:
            self._task = asyncio.create_task(self.courier.run())
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self.error = self._task.exception()

        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(run())


class PostOffice:
    def __init__(self, bank: Bank) -> None:
        self.bank = bank
        self.clock = Clock()
        self.vault = Vault(b"k" * 32)
        self.retries_s: Sequence[float] = RETRIES_S
        self._of = webhooks.OF_SECRET.format(bank.tenant)
        self._fence = Receiver()
        self._fence.__enter__()
        self._fence_id: int | None = None

    def close(self) -> None:
        self._fence.__exit__(None, None, None)
        self.bank.do("DELETE FROM deliveries")
        self.bank.do("UPDATE webhook_endpoints SET status = 'deleted'")

    # --- endpoints -----------------------------------------------------------------------------------------------

    def endpoint(self, to: Receiver | str, *, secret: str | None = None, **chosen: Any) -> int:
        """`chosen`: of ledger.endpoints.Settings, `headers` open. It is owed what is decided from now on."""
        with self.bank.sql.transaction():
            sealed = self.vault.seal((secret or webhooks.new_secret()).encode(), of=self._of)
            settings = self._settings(to if isinstance(to, str) else to.url, **chosen)
            return endpoints.create(self.bank.sql, self.bank.tenant, self.bank.client, settings, sealed).id

    def change(self, endpoint: int, to: Receiver, *, status: endpoints.Status = "enabled", **chosen: Any) -> None:
        with self.bank.sql.transaction():
            settings = self._settings(to.url, **chosen)
            assert endpoints.change(self.bank.sql, self.bank.tenant, endpoint, lambda _: (settings, status), owed=True)

    def rotate(self, endpoint: int, secret: str, *, overlap: timedelta) -> None:
        with self.bank.sql.transaction():
            sealed = self.vault.seal(secret.encode(), of=self._of)
            assert endpoints.rotate(self.bank.sql, self.bank.tenant, endpoint, sealed, overlap=overlap)

    def state(self, endpoint: int) -> endpoints.Endpoint:
        found = endpoints.find(self.bank.sql, self.bank.tenant, endpoint)
        assert found is not None
        return found

    def send_test(self, endpoint: int) -> int:
        with self.bank.sql.transaction():
            return deliveries.send_test(self.bank.sql, self.bank.tenant, endpoint)

    def _settings(self, url: str, **chosen: Any) -> endpoints.Settings:
        headers: dict[str, str] | None = chosen.pop("headers", None)
        sealed = None
        if headers is not None:
            of = webhooks.OF_HEADERS.format(self.bank.tenant)
            sealed = self.vault.seal(msgspec.json.encode(headers), of=of)
        plain: dict[str, Any] = {
            "url": url,
            "description": None,
            "event_types": None,
            "wallets": None,
            "ordering": "none",
            "max_per_second": None,
            "header_names": list(headers or ()),
            "headers": sealed,
        }
        return endpoints.Settings(**(plain | chosen))

    # --- couriers ------------------------------------------------------------------------------------------------

    def courier(self, *, vault: Vault | None = None, clock: Any = None) -> Courier:
        return Courier(
            self.bank.url,
            vault or self.vault,
            lambda: Sender(LOCAL, deadline_s=DEADLINE_S, connections_max=IN_THE_AIR_MAX, ssl_context=NO_TLS),
            retention=RETENTION,
            clock=clock or self.clock,
            retries_s=self.retries_s,
        )

    def running(self, **more: Any) -> Running:
        return Running(self.courier(**more))

    def round(self, **more: Any) -> None:
        """A courier comes, tries all that is due, lets it come down, and goes."""
        with self.running(**more):
            self.pass_by()
            eventually(lambda: not self.due(), within_s=10)

    def pass_by(self) -> None:
        """Returns when a courier has looked since, and has sent what was due to anybody: something of the office's own
        has arrived."""
        if self._fence_id is None:
            self._fence_id = self.endpoint(self._fence, event_types=[])
        fence = self.send_test(self._fence_id)
        eventually(lambda: self.delivery(self._fence_id, fence).status == "delivered")

    def due(self) -> int:
        """Deliveries that a courier would try by now."""
        query = """
            SELECT count(*) FROM deliveries d JOIN webhook_endpoints e ON e.id = d.endpoint_id
            WHERE e.status = 'enabled' AND d.due_at <= %s AND (e.paused_until IS NULL OR e.paused_until <= %s)
              AND (d.lane IS NULL OR NOT EXISTS (
                  SELECT FROM deliveries b WHERE b.endpoint_id = d.endpoint_id AND b.lane = d.lane AND b.seq < d.seq
                  AND b.due_at IS NOT NULL))
        """
        return self.bank.one(query, self.clock(), self.clock())

    # --- what became of it ---------------------------------------------------------------------------------------

    def deliveries(self, endpoint: int) -> list[Delivery]:
        query = "SELECT seq, status, attempts, due_at FROM deliveries WHERE endpoint_id = %s ORDER BY seq"
        return [Delivery(*row) for row in self.bank.rows(query, endpoint)]

    def delivery(self, endpoint: int | None, seq: int) -> Delivery:
        query = "SELECT seq, status, attempts, due_at FROM deliveries WHERE endpoint_id = %s AND seq = %s"
        (row,) = self.bank.rows(query, endpoint, seq)
        return Delivery(*row)

    def attempts(self, endpoint: int) -> list[Attempt]:
        query = """
            SELECT seq, n, at, status, failure, detail, body FROM attempts WHERE endpoint_id = %s ORDER BY seq, n
        """
        return [Attempt(*row) for row in self.bank.rows(query, endpoint)]

    def delivered(self, endpoint: int) -> bool:
        """Whether all that it was ever owed has been."""
        return all(delivery.status == "delivered" for delivery in self.deliveries(endpoint))


def id_of(outcome: Outcome) -> str:
    return event_id(outcome.seq, outcome.at)


def ids(receiver: Receiver) -> list[str]:
    """The webhook-ids that came, in order."""
    return [request.headers["webhook-id"] for request in receiver.requests]


@pytest.fixture
def office(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> Generator[PostOffice]:
    monkeypatch.setattr(courier, "LOOK_EVERY_S", LOOK_EVERY_S)
    opened = PostOffice(bank)
    yield opened
    opened.close()
