"""One command: what it asked, what came of it, who was told; and what an operator may still do about it."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from api.dashboard import doors, inward
from api.dashboard.doors import Form
from api.dashboard.inward import Refused
from api.dashboard.pages import minor_units, scales, show
from api.state import autocommit
from api.waiting import Waiting
from ledger import finding
from ledger.commands import REVERSIBLE_TYPES
from ledger.ids import Kind, endpoint_id, event_id, parse_id
from ledger.keys import Scope
from ledger.operators import Session
from runtime.settings import Settings

WAIT_S = 10  # what the page's own question for the outcome waits; then it asks again


async def command(request: Request, session: Session) -> Response:
    return await _shown(request, session, request.path_params["id"])


async def _shown(request: Request, session: Session, id_: str, *, refusal: str = "", status: int = 200) -> Response:
    found = await inward.get(request, session, f"/v1/commands/{id_}")
    outcome = found["outcome"]
    entries: list[dict[str, Any]] = []
    if outcome and outcome["transfers"] and session.may(Scope.WALLETS_READ):
        entries = (await inward.get(request, session, f"/v1/transfers/{outcome['transfers'][0]}"))["entries"]
    name = parse_id(Kind.COMMAND, id_)
    assert name is not None
    waiting: Waiting = request.app.state.waiting
    state = await waiting.state(name[0])
    assert state is not None
    async with autocommit(request) as connection:
        told = await finding.told(connection, session.tenant_id, name[0])
        client = await finding.client_name(connection, session.tenant_id, state.client_id)
    settings: Settings = request.app.state.settings
    values = {
        "command": found,
        "entries": entries,
        "deliveries": _by_endpoint(told),
        "client": client,
        "partition": state.partition,
        "took_ms": (state.at - state.accepted_at).total_seconds() * 1_000 if state.at else None,
        "flower_url": settings.flower_url,
        "scales": await scales(request, session),
        "sends": session.may(Scope.WEBHOOKS_MANAGE),
        "reversible": found["status"] == "applied" and found["type"] in REVERSIBLE_TYPES,
        "refusal": refusal,
    }
    return show(request, "command.html", values, session=session, status=status)


def _by_endpoint(told: list[finding.Told]) -> list[dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for each in told:
        delivery = found.setdefault(
            each.endpoint_id,
            {
                "endpoint": endpoint_id(each.endpoint_id, each.endpoint_created_at),
                "id": event_id(each.seq, each.at),
                "url": each.url,
                "status": each.status,
                "due_at": each.due_at,
                "attempts": [],
            },
        )
        if each.tried_at is not None:
            delivery["attempts"].append(each)
    return list(found.values())


async def outcome(request: Request, session: Session) -> Response:
    """A part of a page: where the command stands, asked for again until it has its outcome."""
    id_ = request.path_params["id"]
    found = await inward.get(request, session, f"/v1/commands/{id_}", wait=WAIT_S)
    values = {"command": found, "scales": await scales(request, session)}
    return show(request, "parts/outcome.html", values, session=session)


async def cancel(request: Request, session: Session, form: Form) -> Response:
    id_ = request.path_params["id"]
    try:
        await inward.post(request, session, f"/v1/commands/{id_}/cancel", {})
    except Refused as refused:
        if refused.code != "already_decided":
            raise
        return await _shown(request, session, id_, refusal=refused.detail, status=refused.status)
    return doors.back(f"/commands/{id_}", request)


async def reverse(request: Request, session: Session, form: Form) -> Response:
    """The reversal is a command of its own, and its page is where it goes on."""
    id_ = request.path_params["id"]
    original = await inward.get(request, session, f"/v1/commands/{id_}")
    why = {"operator": session.who, "reason": form.get("reason", "").strip()}
    body: dict[str, Any] = {"type": "reverse", "command": id_, "metadata": why}
    if form.get("amount", "").strip():
        body["amount"] = minor_units(form["amount"], (await scales(request, session)).get(original["asset"] or "", 0))
    try:
        answer = await inward.post(
            request,
            session,
            "/v1/commands",
            body,
            headers={"Idempotency-Key": form.get("idempotency_key", "")},
        )
    except Refused as refused:
        return await _shown(request, session, id_, refusal=refused.detail, status=refused.status)
    return doors.back(f"/commands/{answer.body['id']}", request)


async def requeue(request: Request, session: Session, form: Form) -> Response:
    """A failed command is asked again by a new one, whose page is where it goes on."""
    id_ = request.path_params["id"]
    try:
        answer = await inward.post(
            request, session, f"/v1/commands/{id_}/requeue", {"reason": form.get("reason", "").strip()}
        )
    except Refused as refused:
        if refused.status == 404:
            raise
        return await _shown(request, session, id_, refusal=refused.detail, status=refused.status)
    return doors.back(f"/commands/{answer.body['id']}", request)


def _id(request: Request, _: Form) -> str:
    return f"command {request.path_params['id']}"


routes = [
    doors.page("/commands/{id}", command),
    doors.page("/commands/{id}/outcome", outcome),
    doors.action("/commands/{id}/cancel", "cancel a command", _id, cancel),
    doors.action("/commands/{id}/reverse", "reverse a command", _id, reverse),
    doors.action("/commands/{id}/requeue", "requeue a failed command", _id, requeue),
]
