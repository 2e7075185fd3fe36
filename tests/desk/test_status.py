"""`bursar status` and `bursar partitions`: what they show, what is stuck, and what they say when they cannot look."""

import pytest

from bursar.desk import status
from ledger import db
from ledger.operators import Audit, AuditFinding, keep_audit
from runtime.settings import settings
from tests.books import PARTITIONS, Bank
from tests.desk.conftest import Bursar
from tests.ledger.listening import listen
from tests.ledger.test_requeuing import fail


def test_all_is_well(bank: Bank, bursar: Bursar, tenant: str, redis_url: str, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("BURSAR_REDIS_URL", redis_url)
    settings.cache_clear()
    bank.top_up("alice", 1_000)
    bank.spend("alice", 9_999)
    said = bursar("status", "--tenant", tenant)
    assert "Nothing is stuck." in said.out
    assert "insufficient_funds" in said.out
    assert "does not answer" not in said.out
    assert "1,000" in said.out, "the supply"
    shown = bursar("status", "--tenant", tenant, "--json").json
    assert (shown["reachable"], shown["stuck"], shown["notes"]) == (True, [], [])
    assert (shown["pending"], shown["oldest_pending_s"], len(shown["partitions"])) == (0, 0, PARTITIONS)
    assert {"status": "rejected", "code": "insufficient_funds", "count": 1} in shown["decided"]
    assert shown["redis"]["answers"]
    assert {"tenant": tenant, "asset": "gold", "in_circulation": "1000", "max_supply": None} in shown["supply"]


def test_with_redis_gone_it_says_so_and_nothing_is_stuck(bursar: Bursar, tenant: str) -> None:
    said = bursar("status", "--tenant", tenant)
    assert "Redis does not answer" in said.out
    assert "nothing is lost" in said.out
    assert bursar("status", "--json").json["redis"]["answers"] is False


def test_what_waits_without_a_worker_is_stuck(bank: Bank, bursar: Bursar) -> None:
    bank.order("spend", "alice", 1)
    said = bursar("status", code=1)
    assert "STUCK" in said.out
    assert "start `bursar worker`" in said.out
    assert bursar("status", "--json", code=1).json["pending"] == 1


def test_what_waits_for_long_is_stuck_though_a_worker_is_there(
    bank: Bank, bursar: Bursar, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank.do("SET application_name = 'bursar-worker'")
    bank.order("spend", "alice", 1)
    assert "Nothing is stuck." in bursar("status").out
    monkeypatch.setattr(status, "STUCK_S", 0.0)
    said = bursar("status", code=1)
    assert f"in partition {bank.partition('alice')} and nobody has it" in said.out


def test_webhooks_without_a_courier_are_stuck(bank: Bank, bursar: Bursar, monkeypatch: pytest.MonkeyPatch) -> None:
    listen(bank)
    bank.top_up("alice", 1)
    assert "Nothing is stuck." in bursar("status").out
    monkeypatch.setattr(status, "WEBHOOK_STUCK_S", 0.0)
    assert "bursar worker --webhooks" in bursar("status", code=1).out
    bank.do("SET application_name = 'bursar-courier'")
    assert "do not keep up" in bursar("status", code=1).out
    bank.do("DELETE FROM deliveries")


def test_an_old_schema_is_stuck(bank: Bank, bursar: Bursar) -> None:
    at = bank.one("SELECT version_num FROM alembic_version")
    bank.do("UPDATE alembic_version SET version_num = '0001'")
    try:
        assert "run `bursar migrate`" in bursar("status", code=1).out
    finally:
        bank.do("UPDATE alembic_version SET version_num = %s", at)


def test_a_broken_invariant_is_stuck_until_an_audit_finds_it_whole(bank: Bank, bursar: Bursar) -> None:
    engine = db.engine(bank.url, application="test-audit")
    try:
        for broken, code in ((3, 1), (0, 0)):
            found = [AuditFinding(2, "balances", 10, broken), AuditFinding(3, "holds", 10, 0)]
            keep_audit(engine, Audit(bank.in_seconds(0), 5, found))
            said = bursar("status", code=code)
            assert ("found invariants broken (2)" in said.out) == bool(broken)
        assert "all 2 invariants hold" in said.out
    finally:
        engine.dispose()


def test_what_failed_is_noted(bank: Bank, bursar: Bursar, tenant: str) -> None:
    bank.order("spend", "alice", 1)
    fail(bank)
    assert "1 commands failed within 5 minutes" in bursar("status", "--tenant", tenant).out


def test_partitions_tell_who_has_them(bank: Bank, bursar: Bursar) -> None:
    bank.order("spend", "alice", 1)
    with bank.another_drain() as drain:
        drain.claim()
        said = bursar("partitions")
        held = [each for each in bursar("partitions", "--json").lines if each["holder"]]
        assert f"test-second-drain, process {drain.connection.info.backend_pid}" in said.out
    assert [(each["partition"], each["holder"]) for each in held] == [(bank.partition("alice"), "test-second-drain")]
    assert len(said.out.splitlines()) == PARTITIONS + 1, "a line each, in a pipe"


# --- when it cannot look -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [["status"], ["partitions"], ["commands", "list", "--failed"], ["keys", "list"], ["operators", "list"]],
)
def test_without_postgresql_it_says_so_in_a_line(
    bursar: Bursar, environment: pytest.MonkeyPatch, command: list[str]
) -> None:
    environment.setenv("BURSAR_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    settings.cache_clear()
    said = bursar(*command, code=2)
    assert said.out == ""
    assert said.err.startswith("PostgreSQL does not answer: ")
    assert "BURSAR_DATABASE_URL" in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("command", [["keys", "list"], ["operators", "list"]])
def test_without_tables_it_says_what_makes_them(
    bursar: Bursar, environment: pytest.MonkeyPatch, empty_database_url: str, command: list[str]
) -> None:
    environment.setenv("BURSAR_DATABASE_URL", empty_database_url)
    settings.cache_clear()
    said = bursar(*command, code=2)
    assert said.err.count("\n") == 1
    assert "Run `bursar migrate`" in said.err


def test_a_tenant_that_is_not_there(bursar: Bursar) -> None:
    assert "no tenant 'nobody'" in bursar("status", "--tenant", "nobody", code=1).err


def test_watching_goes_on_without_postgresql_and_ends_with_ctrl_c(
    bursar: Bursar, environment: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []

    def wait(seconds: float) -> None:
        looks.append(seconds)
        environment.setenv("BURSAR_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
        settings.cache_clear()
        if len(looks) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(status.time, "sleep", wait)
    first, second = bursar("status", "--watch", "--json", "--every", "0.5").lines
    assert (first["reachable"], second["reachable"]) == (True, False)
    assert "PostgreSQL does not answer" in second["stuck"][0]
    assert looks == [0.5, 0.5]
