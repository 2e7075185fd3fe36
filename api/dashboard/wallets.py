"""Wallets: find them, see what is in them and how it came there, stop them, and send them commands."""

from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from api.dashboard import doors, inward
from api.dashboard.doors import Form
from api.dashboard.inward import Refused
from api.dashboard.pages import instant, minor_units, new_key, scales, segment, show
from ledger.operators import Session

WALLETS_OF_A_PAGE = 50
ENTRIES_OF_A_PAGE = 50
CHARTED = 200  # entries of one asset behind its chart: the api's largest page
ASSETS_CHARTED = 4  # charts of a wallet; the rest has its table
HOLDS_SHOWN = 20
CHANGES_SHOWN = 10
COMMANDS = ("top_up", "bonus", "spend", "transfer")  # what the form offers


async def wallets(request: Request, session: Session) -> Response:
    query = {"limit": WALLETS_OF_A_PAGE, "cursor": request.query_params.get("cursor", "")}
    found = await inward.get(request, session, "/v1/wallets", **query)
    values = {"wallets": found["data"], "next_cursor": found["next_cursor"], "scales": await scales(request, session)}
    return show(request, "wallets.html", values, session=session)


async def wallet(request: Request, session: Session) -> Response:
    return await _shown(request, session, request.path_params["id"])


async def _shown(
    request: Request, session: Session, id_: str, *, refusal: str = "", form: Form | None = None, status: int = 200
) -> Response:
    place = f"/v1/wallets/{id_}"
    found = await inward.get(request, session, place)
    entries = await inward.get(request, session, f"{place}/entries", limit=ENTRIES_OF_A_PAGE)
    holds = await inward.get(request, session, f"{place}/holds", limit=HOLDS_SHOWN, status="open")
    changes = await inward.get(request, session, f"{place}/changes", limit=CHANGES_SHOWN)
    charts: list[dict[str, Any]] = []
    for account in found["accounts"][:ASSETS_CHARTED]:
        asset = account["asset"]
        if account["version"]:
            lines = await inward.get(request, session, f"{place}/entries", limit=CHARTED, asset=asset)
            charts.append({"asset": asset, "points": _points(lines["data"])})
    values = {
        "wallet": found,
        "entries": entries["data"],
        "next_cursor": entries["next_cursor"],
        "holds": holds["data"],
        "changes": changes["data"],
        "charts": charts,
        "scales": await scales(request, session),
        "commands": COMMANDS,
        "key": (form or {}).get("idempotency_key") or new_key(),
        "form": form or {},
        "refusal": refusal,
    }
    return show(request, "wallet.html", values, session=session, status=status)


def _points(entries: list[dict[str, Any]]) -> list[list[float]]:
    """Time and balance, oldest first; minor units, as far as a picture needs them."""
    points: list[list[float]] = [[], []]
    for entry in reversed(entries):
        at = instant(entry["at"])
        assert at is not None
        points[0].append(round(at.timestamp(), 3))
        points[1].append(float(entry["balance_after"]))
    if points[0]:  # and so it has stayed
        points[0].append(round(datetime.now(UTC).timestamp(), 3))
        points[1].append(points[1][-1])
    return points


async def entries(request: Request, session: Session) -> Response:
    """A part of a page: the next entries."""
    id_ = request.path_params["id"]
    query = {"limit": ENTRIES_OF_A_PAGE, "cursor": request.query_params.get("cursor", "")}
    found = await inward.get(request, session, f"/v1/wallets/{id_}/entries", **query)
    values = {
        "wallet": {"id": id_},
        "entries": found["data"],
        "next_cursor": found["next_cursor"],
        "scales": await scales(request, session),
    }
    return show(request, "parts/entries.html", values, session=session)


# --- actions -----------------------------------------------------------------------------------------------------


async def freeze(request: Request, session: Session, form: Form) -> Response:
    scope = "debits" if form.get("scope") == "debits" else "all"
    return await _change(request, session, form, "freeze", {"scope": scope})


async def unfreeze(request: Request, session: Session, form: Form) -> Response:
    return await _change(request, session, form, "unfreeze", {})


async def close(request: Request, session: Session, form: Form) -> Response:
    sweep_to = form.get("sweep_to", "").strip()
    return await _change(request, session, form, "close", {"sweep_to": sweep_to} if sweep_to else {})


async def _change(request: Request, session: Session, form: Form, verb: str, body: dict[str, Any]) -> Response:
    id_ = request.path_params["id"]
    try:
        await inward.post(
            request, session, f"/v1/wallets/{id_}/{verb}", {**body, "reason": form.get("reason", "").strip()}
        )
    except Refused as refused:
        if refused.status in (404, 403) and refused.code != "insufficient_scope":
            raise
        return await _shown(request, session, id_, refusal=refused.detail, form=form, status=refused.status)
    return doors.back(f"/wallets/{segment(id_)}", request)


async def send(request: Request, session: Session, form: Form) -> Response:
    """A command on this wallet, by the operator's client. Sent twice by mistake, it is one: its key is the form's."""
    id_ = request.path_params["id"]
    asset = form.get("asset", "")
    type_ = form.get("type", "")
    if type_ not in COMMANDS:
        raise Refused(422, "validation_failed", f"type: one of {', '.join(COMMANDS)}")
    body: dict[str, Any] = {
        "type": type_,
        "wallet": id_,
        "asset": asset,
        "amount": minor_units(form.get("amount", ""), (await scales(request, session)).get(asset, 0)),
        "metadata": {"operator": session.who, "reason": form.get("reason", "").strip()},
    }
    if type_ == "transfer":
        body["to_wallet"] = form.get("to_wallet", "").strip()
    if reference := form.get("reference", "").strip():
        body["reference"] = reference
    headers = {"Idempotency-Key": form.get("idempotency_key", "")}
    try:
        answer = await inward.post(request, session, "/v1/commands", body, headers=headers)
    except Refused as refused:
        if "hx-request" in request.headers:
            raise
        return await _shown(request, session, id_, refusal=refused.detail, form=form, status=refused.status)
    if "hx-request" in request.headers:
        values = {"command": answer.body, "scales": await scales(request, session), "sent": True, "key": new_key()}
        return show(request, "parts/outcome.html", values, session=session)
    return doors.back(f"/commands/{answer.body['id']}", request)


def _id(request: Request, _: Form) -> str:
    return f"wallet {request.path_params['id']}"


def _sent(request: Request, form: Form) -> str:
    asked = " ".join(form.get(name, "")[:100] for name in ("type", "amount", "asset", "to_wallet")).strip()
    return f"wallet {request.path_params['id']}: {asked}"


routes = [
    doors.page("/wallets", wallets),
    doors.page("/wallets/{id}", wallet),
    doors.page("/wallets/{id}/entries", entries),
    doors.action("/wallets/{id}/freeze", "freeze a wallet", _id, freeze),
    doors.action("/wallets/{id}/unfreeze", "unfreeze a wallet", _id, unfreeze),
    doors.action("/wallets/{id}/close", "close a wallet", _id, close),
    doors.action("/wallets/{id}/commands", "send a command", _sent, send),
]
