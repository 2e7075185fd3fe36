"""One service of several processes, watched: its metrics add up, rules and dashboard ask for what is there, and a trace
leads from a request to its webhook."""

import json
from collections.abc import Generator
from typing import Any, NamedTuple
from urllib.request import Request as UrlRequest
from urllib.request import urlopen

import psutil
import psycopg
import pytest
import yaml

from api.problems import KINDS
from bursar.local.postgres import Postgres
from tests import servers
from tests.crash.model import ASSET
from tests.crash.service import SECRETS_KEY, Tenant, lives, wait_for
from tests.deploy.collector import spans
from tests.deploy.places import REPOSITORY
from tests.deploy.promql import Matcher, parse
from tests.deploy.watched import PROCESSES, Scrape, Watched, total
from tests.receivers import Receiver, Request, reply

pytestmark = pytest.mark.timeout(120)

COMMANDS = 40
TARGET_LABELS = {"job", "instance", "le"}  # that Prometheus gives each series, or each bucket


class Running(NamedTuple):
    stack: Watched
    tenant: Tenant
    receiver: Receiver
    collector: Receiver


@pytest.fixture(scope="module")
def running(postgres: Postgres, template: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[Running]:
    """Everything has happened: commands applied and refused, replayed and cancelled, webhooks delivered and not."""
    with (
        servers.fresh_database(postgres, template=template) as url,
        Receiver() as receiver,
        Receiver() as collector,
    ):
        tracing = {"BURSAR_OTLP_ENDPOINT": collector.url, "BURSAR_TRACE_RATIO": "0"}
        stack = Watched(tmp_path_factory.mktemp("watched"), postgres, url, **tracing)
        try:
            stack.start()
            yield Running(stack, busy(stack, receiver), receiver, collector)
        finally:
            stack.end()


def busy(stack: Watched, receiver: Receiver) -> Tenant:
    tenant = stack.new_tenant(ASSET)
    receiver.answers(reply(500), reply(200))
    made = stack.post(tenant.key, "/v1/webhook_endpoints", {"url": receiver.url})
    assert made.status == 201, made
    for n in range(COMMANDS):
        body = {"type": "top_up" if n % 2 else "spend", "wallet": f"w{n % 7}", "asset": ASSET, "amount": "1"}
        for _ in range(2 if n == 0 else 1):
            answer = stack.post(tenant.key, "/v1/commands", body, api=n % 2, Idempotency_Key=f"k{n}")
            assert answer.status in (200, 202), answer
    assert stack.post(tenant.key, "/v1/commands/cancel", {"idempotency_key": "never"}).status == 200
    stack.settled()
    receiver.wait_for(COMMANDS)
    return tenant


@pytest.fixture
def stack(running: Running) -> Watched:
    return running.stack


def test_the_processes_figures_add_up(stack: Watched) -> None:
    scrapes = stack.scrape()
    assert sorted(scrape.process for scrape in scrapes) == ["api", "api", "courier", "worker", "worker"]
    accepted = {"result": "accepted"}
    assert total(scrapes, "bursar_commands_total", **accepted) == COMMANDS
    assert min(scrape.sum("bursar_commands_total", **accepted) for scrape in scrapes[:2]) > 0
    assert total(scrapes, "bursar_commands_total", result="replayed") == 1
    assert total(scrapes, "bursar_cancels_total", result="cancelled") == 1
    assert total(scrapes, "bursar_outcomes_total") == COMMANDS + 1
    assert total(scrapes, "bursar_drain_commands_sum") == COMMANDS
    stored = dict(stack.rows("SELECT status, count(*) FROM outcomes GROUP BY status"))
    assert {status: total(scrapes, "bursar_outcomes_total", status=status) for status in stored} == stored
    wait_for(
        lambda: total(stack.scrape_workers(), "bursar_webhook_attempts_total", result="delivered") >= COMMANDS - 1,
        "the deliveries to be counted",
    )
    assert total(stack.scrape_workers(), "bursar_webhook_attempts_total", result="status") == 1


def test_the_whole_service_as_each_api_tells_it(stack: Watched) -> None:
    for scrape in stack.scrape()[:2]:
        assert scrape.sum("bursar_database_up") == scrape.sum("bursar_redis_up") == 1
        assert scrape.sum("bursar_webhook_endpoints", state="enabled") == 1
        assert scrape.sum("bursar_database_sessions", application="bursar-worker") >= 2
        assert scrape.sum("bursar_database_sessions", application="bursar-courier") == 1


# --- traces ----------------------------------------------------------------------------------------------------------

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def posted(running: Running, key: str, traceparent: str) -> str:
    """The id of a command that was posted with this traceparent, once its webhook has arrived."""
    before = len(running.receiver.requests)
    body = {"type": "top_up", "wallet": "traced", "asset": ASSET, "amount": "1"}
    answer = running.stack.post(running.tenant.key, "/v1/commands", body, Idempotency_Key=key, traceparent=traceparent)
    assert answer.status in (200, 202), answer
    wait_for(
        lambda: any(answer.body["id"] in request.body.decode() for request in running.receiver.requests[before:]),
        "the webhook of the command",
    )
    return answer.body["id"]


def webhook_of(running: Running, command: str) -> Request:
    return next(request for request in running.receiver.requests if command in request.body.decode())


def test_a_trace_leads_from_the_callers_request_to_the_webhook(running: Running) -> None:
    command = posted(running, "traced", f"00-{TRACE}-{CALLER}-01")
    wait_for(
        lambda: (
            {span.name for span in spans(running.collector.requests) if span.trace == TRACE}
            >= {"POST /v1/commands", "accept", "drain", "deliver"}
        ),
        "all four spans",
    )
    found = {span.name: span for span in spans(running.collector.requests) if span.trace == TRACE}
    request, accept, drain, deliver = (found[name] for name in ("POST /v1/commands", "accept", "drain", "deliver"))
    assert {span.service for span in (request, accept)} == {"bursar-api"}
    assert (drain.service, deliver.service) == ("bursar-worker", "bursar-courier")
    assert request.parent == CALLER
    assert accept.parent == request.id
    assert drain.parent == deliver.parent == accept.id
    assert accept.attributes["bursar.command"] == drain.attributes["bursar.command"] == command
    assert (drain.attributes["bursar.type"], drain.attributes["bursar.code"]) == ("top_up", "applied")
    assert request.attributes["http.response.status_code"] == 202
    assert min(span.took_ns for span in found.values()) > 0
    assert webhook_of(running, command).headers["traceparent"] == f"00-{TRACE}-{deliver.id}-01"


def test_what_nobody_traces_leaves_no_row_and_no_header(running: Running) -> None:
    """The caller says no; and of those that say nothing, this service traces none."""
    told = posted(running, "untraced", f"00-{TRACE[::-1]}-{CALLER}-00")
    assert "traceparent" not in webhook_of(running, told).headers
    keys = running.stack.rows("SELECT idempotency_key FROM traces JOIN commands USING (seq)")
    assert set(keys) <= {("traced",)}
    assert {span.trace for span in spans(running.collector.requests)} <= {TRACE}


# --- rules and dashboard ---------------------------------------------------------------------------------------------


def ours(scrapes: list[Scrape], matcher: Matcher, name: str) -> bool:
    """Whether some process shows the metric with that label, and with that value where it is one."""
    if name == "bursar_http_requests_total" and matcher.label == "status" and matcher.operator == "=":
        return matcher.value in {str(kind.status) for kind in KINDS.values()}
    values = {
        sample.labels[matcher.label]
        for scrape in scrapes
        for sample in scrape.samples
        if sample.name == name and matcher.label in sample.labels
    }
    return matcher.value in values if matcher.operator == "=" else bool(values)


def queries() -> dict[str, str]:
    """Every query of the rules and of the dashboard, by what it is for."""
    groups: list[dict[str, Any]] = yaml.safe_load((REPOSITORY / "deploy/prometheus/bursar.rules.yml").read_text())[
        "groups"
    ]
    rules = [rule for group in groups for rule in group["rules"]]
    found = {rule.get("alert") or rule["record"]: rule["expr"] for rule in rules}
    dashboard = json.loads((REPOSITORY / "deploy/grafana/bursar.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            found[f"{panel['title']}: {target['refId']}"] = target["expr"].replace("$__rate_interval", "5m")
    return found


def test_rules_and_dashboard_ask_for_what_is_shown(stack: Watched) -> None:
    scrapes = stack.scrape()
    shown: dict[str, set[str]] = {}
    for scrape in scrapes:
        for sample in scrape.samples:
            shown.setdefault(sample.name, set()).update(sample.labels)
    asked = queries()
    assert len(asked) > 50
    recorded = {name: parse(text) for name, text in asked.items() if ":" in name and " " not in name}
    for purpose, text in asked.items():
        query = parse(text)
        assert query.selectors or text == "time()", purpose
        for selector in query.selectors:
            if selector.name in recorded:
                continue
            assert selector.name in shown, f"{purpose}: there is no {selector.name}"
            assert query.grouped_by <= shown[selector.name] | TARGET_LABELS, f"{purpose}: {query.grouped_by}"
            for matcher in selector.matchers:
                if matcher.label not in TARGET_LABELS:
                    assert ours(scrapes, matcher, selector.name), f"{purpose}: {matcher}"


def test_a_killed_worker_leaves_no_lies(stack: Watched, running: Running) -> None:
    """Its figures go with it, and its successor begins at zero."""
    workers = [scrape for scrape in stack.scrape_workers() if scrape.process == "worker"]
    victim, survivor = sorted(workers, key=lambda scrape: -scrape.sum("bursar_outcomes_total"))
    process = psutil.Process(stack.pid_of(victim))
    process.kill()
    wait_for(lambda: not lives(process), "its end")
    wait_for(lambda: len(stack.scrape_workers()) == PROCESSES, "its successor")
    left = [scrape for scrape in stack.scrape_workers() if scrape.process == "worker"]
    before = survivor.sum("bursar_outcomes_total")
    assert sorted(scrape.sum("bursar_outcomes_total") for scrape in left) == [0, before]
    body = {"type": "top_up", "wallet": "w1", "asset": ASSET, "amount": "1"}
    stack.post(running.tenant.key, "/v1/commands", body, Idempotency_Key="after")
    stack.settled()
    left = [scrape for scrape in stack.scrape_workers() if scrape.process == "worker"]
    assert total(left, "bursar_outcomes_total") == before + 1


# --- logs ------------------------------------------------------------------------------------------------------------

HUSH = "hush-hush-"  # begins every secret of these tests that may be chosen


def test_no_secret_is_in_a_log(running: Running) -> None:
    """Of any process, at the most talkative level: those that work, and those that do not find their servers."""
    stack, key, wrong_key = running.stack, running.tenant.key, running.tenant.key[:-8] + "00000000"
    headers = {"Authorization": f"Bearer {HUSH}header"}
    with Receiver() as gone:
        unreachable = gone.url
    secrets = [key, wrong_key, SECRETS_KEY]
    for url in (f"{running.receiver.url}?token={HUSH}url", f"{unreachable}?token={HUSH}url"):
        made = stack.post(key, "/v1/webhook_endpoints", {"url": url, "headers": headers})
        assert made.status == 201, made
        rotated = stack.post(key, f"/v1/webhook_endpoints/{made.body['id']}/rotate_secret", {})
        assert stack.post(key, f"/v1/webhook_endpoints/{made.body['id']}/test").status == 202
        secrets += [made.body["secret"], rotated.body["secret"]]
    assert stack.post(wrong_key, "/v1/commands", {}).status == 401
    assert stack.post(key, "/v1/commands", {"type": "spend", "metadata": None}).status >= 400
    lost = {
        "api": {"BURSAR_DATABASE_URL": f"postgresql://nobody:{HUSH}database@127.0.0.1:1/none"},
        "worker": {"BURSAR_REDIS_URL": f"redis://:{HUSH}redis@127.0.0.1:1/0"},
    }
    api, worker = (stack.add_program(name, name, **environment) for name, environment in lost.items())
    for program in (api, worker):
        program.spawn()
    wait_for(lambda: any("token=" in request.target for request in running.receiver.requests), "the test event")
    wait_for(lambda: not api.alive and "Cannot connect to redis" in worker.log.read_text(), "complaints of both")
    for program in (api, worker):
        stack.dismiss(program)
    logs = stack.logs()
    assert all(text for text in logs.values())
    assert len(logs) == 6
    assert any(line.get("level") == "debug" for line in stack.events())
    for name, text in logs.items():
        assert [secret for secret in (*secrets, HUSH) if secret in text] == [], name


def test_what_a_request_causes_names_it(running: Running) -> None:
    """A line of JSON, with the id that whoever asked was told: a scrape to which PostgreSQL does not say all."""
    stack = running.stack
    asked = UrlRequest(f"http://127.0.0.1:{stack.api.port}/metrics", headers={"Request-Id": "a-scrape"})
    with psycopg.connect(stack.database_url) as holder:
        holder.execute("LOCK TABLE webhook_endpoints")
        with urlopen(asked, timeout=10) as answer:
            assert b"bursar_database_up 0.0" in answer.read()
    (line,) = [line for line in stack.events() if line["event"] == "metrics.no_backlog"]
    assert (line["request_id"], line["level"]) == ("a-scrape", "warning")
