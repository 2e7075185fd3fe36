"""Webhooks: endpoints, how they do, what they are owed, and sending it again."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from api.dashboard import doors, inward
from api.dashboard.doors import Form
from api.dashboard.inward import Refused
from api.dashboard.pages import segment, show
from ledger.operators import Session

ENDPOINTS_SHOWN = 100
DELIVERIES_OF_A_PAGE = 50
BATCHES_MAX = 20  # of a recovery: 20 x 1,000 deliveries and more; whoever has more to send again uses the api
STATUSES = ("pending", "delivered", "exhausted")


async def endpoints(request: Request, session: Session) -> Response:
    return await _listed(request, session)


async def _listed(
    request: Request, session: Session, *, refusal: str = "", form: Form | None = None, status: int = 200
) -> Response:
    found = await inward.get(request, session, "/v1/webhook_endpoints", limit=ENDPOINTS_SHOWN)
    stats = [await inward.get(request, session, f"/v1/webhook_endpoints/{each['id']}/stats") for each in found["data"]]
    values = {"endpoints": list(zip(found["data"], stats, strict=True)), "refusal": refusal, "form": form or {}}
    return show(request, "webhooks.html", values, session=session, status=status)


async def endpoint(request: Request, session: Session) -> Response:
    return await _shown(request, session, request.path_params["id"])


async def _shown(
    request: Request, session: Session, id_: str, *, refusal: str = "", secret: str = "", status: int = 200
) -> Response:
    place = f"/v1/webhook_endpoints/{id_}"
    found = await inward.get(request, session, place)
    which: dict[str, Any] = {"limit": DELIVERIES_OF_A_PAGE, "cursor": request.query_params.get("cursor", "")}
    if (chosen := request.query_params.get("status", "")) in STATUSES:
        which["status"] = chosen
    deliveries = await inward.get(request, session, f"{place}/deliveries", **which)
    values = {
        "endpoint": found,
        "stats": await inward.get(request, session, f"{place}/stats"),
        "deliveries": deliveries["data"],
        "next_cursor": deliveries["next_cursor"],
        "statuses": STATUSES,
        "chosen": which.get("status", ""),
        "sent": request.query_params.get("sent", "")[:20],
        "secret": secret,
        "refusal": refusal,
    }
    return show(request, "webhook.html", values, session=session, status=status)


async def delivery(request: Request, session: Session) -> Response:
    """A part of a page: the attempts of one delivery."""
    id_, event = request.path_params["id"], request.path_params["delivery"]
    found = await inward.get(request, session, f"/v1/webhook_endpoints/{id_}/deliveries/{event}")
    return show(request, "parts/attempts.html", {"attempts": found["attempt_list"]}, session=session)


# --- actions -----------------------------------------------------------------------------------------------------


async def create(request: Request, session: Session, form: Form) -> Response:
    """The secret is shown this once."""
    body: dict[str, Any] = {"url": form.get("url", "").strip()}
    if description := form.get("description", "").strip():
        body["description"] = description
    if form.get("ordering") == "per_wallet":
        body["ordering"] = "per_wallet"
    try:
        made = (await inward.post(request, session, "/v1/webhook_endpoints", body)).body
    except Refused as refused:
        return await _listed(request, session, refusal=refused.detail, form=form, status=refused.status)
    return await _shown(request, session, made["id"], secret=made["secret"], status=201)


async def enable(request: Request, session: Session, form: Form) -> Response:
    return await _set(request, session, "enabled")


async def disable(request: Request, session: Session, form: Form) -> Response:
    return await _set(request, session, "disabled")


async def _set(request: Request, session: Session, status: str) -> Response:
    id_ = request.path_params["id"]
    body = msgspec.json.encode({"status": status})
    await inward.ask(request, session, "PATCH", f"/v1/webhook_endpoints/{id_}", body=body)
    return doors.back(f"/webhooks/{segment(id_)}", request)


async def test(request: Request, session: Session, form: Form) -> Response:
    id_ = request.path_params["id"]
    try:
        await inward.post(request, session, f"/v1/webhook_endpoints/{id_}/test", {})
    except Refused as refused:
        if refused.status == 404:
            raise
        return await _shown(request, session, id_, refusal=refused.detail, status=refused.status)
    return doors.back(f"/webhooks/{segment(id_)}?sent=1", request)


async def recover(request: Request, session: Session, form: Form) -> Response:
    """Everything that was given up, of commands accepted since then."""
    return await _since(request, session, form, "recover")


async def replay(request: Request, session: Session, form: Form) -> Response:
    """Everything that it wants and was never owed, of commands accepted since then."""
    return await _since(request, session, form, "replay")


async def _since(request: Request, session: Session, form: Form, verb: str) -> Response:
    id_ = request.path_params["id"]
    since = form.get("since", "").strip()
    if len(since) == len("2026-11-21T12:00"):  # what a browser's field gives: our pages are in UTC
        since += ":00Z"
    queued, cursor = 0, ""
    try:
        for _ in range(BATCHES_MAX):
            body = {"since": since, "cursor": cursor}
            answer = (await inward.post(request, session, f"/v1/webhook_endpoints/{id_}/{verb}", body)).body
            queued, cursor = queued + answer["queued"], answer["next_cursor"]
            if not cursor:
                break
    except Refused as refused:
        if refused.status == 404:
            raise
        return await _shown(request, session, id_, refusal=refused.detail, status=refused.status)
    return doors.back(f"/webhooks/{segment(id_)}?sent={queued}", request)


async def resend(request: Request, session: Session, form: Form) -> Response:
    id_, event = request.path_params["id"], request.path_params["delivery"]
    await inward.post(request, session, f"/v1/webhook_endpoints/{id_}/deliveries/{event}/resend", {})
    return doors.back(f"/webhooks/{segment(id_)}?sent=1", request)


def _id(request: Request, _: Form) -> str:
    return f"webhook endpoint {request.path_params['id']}"


def _url(_: Request, form: Form) -> str:
    return form.get("url", "")[:200]


def _delivery(request: Request, _: Form) -> str:
    return f"webhook endpoint {request.path_params['id']}, event {request.path_params['delivery']}"


routes = [
    doors.page("/webhooks", endpoints),
    doors.page("/webhooks/{id}", endpoint),
    doors.page("/webhooks/{id}/deliveries/{delivery}", delivery),
    doors.action("/webhooks", "create a webhook endpoint", _url, create),
    doors.action("/webhooks/{id}/enable", "enable a webhook endpoint", _id, enable),
    doors.action("/webhooks/{id}/disable", "disable a webhook endpoint", _id, disable),
    doors.action("/webhooks/{id}/test", "send a test event", _id, test),
    doors.action("/webhooks/{id}/recover", "recover deliveries", _id, recover),
    doors.action("/webhooks/{id}/replay", "replay outcomes", _id, replay),
    doors.action("/webhooks/{id}/deliveries/{delivery}/resend", "resend a delivery", _delivery, resend),
]
