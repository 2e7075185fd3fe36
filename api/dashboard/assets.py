"""Assets: what they are, how much of each is about, and stopping one."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from api.dashboard import doors, inward
from api.dashboard.doors import Form
from api.dashboard.inward import Refused
from api.dashboard.pages import segment, show
from ledger.operators import Session

ASSETS_SHOWN = 200  # the api's largest page
CHANGES_SHOWN = 50


async def assets(request: Request, session: Session) -> Response:
    return await _listed(request, session)


async def _listed(
    request: Request, session: Session, *, refusal: str = "", form: Form | None = None, status: int = 200
) -> Response:
    found = (await inward.get(request, session, "/v1/assets", limit=ASSETS_SHOWN))["data"]
    supply = {each["asset"]: each for each in (await inward.get(request, session, "/v1/supply", limit=200))["data"]}
    values = {"assets": found, "supply": supply, "refusal": refusal, "form": form or {}}
    return show(request, "assets.html", values, session=session, status=status)


async def asset(request: Request, session: Session) -> Response:
    code = request.path_params["code"]
    changes = await inward.get(request, session, f"/v1/assets/{code}/changes", limit=CHANGES_SHOWN)
    found = (await inward.get(request, session, "/v1/assets", limit=ASSETS_SHOWN))["data"]
    supply = (await inward.get(request, session, "/v1/supply", limit=ASSETS_SHOWN))["data"]
    values = {
        "asset": next((each for each in found if each["code"] == code), None),
        "supply": next((each for each in supply if each["asset"] == code), None),
        "changes": changes["data"],
    }
    if values["asset"] is None or values["supply"] is None:
        raise Refused(
            404, "asset_not_found", "it is not among the first 200 assets, which is as far as this page looks"
        )
    return show(request, "asset.html", values, session=session)


async def create(request: Request, session: Session, form: Form) -> Response:
    scale = form.get("scale", "").strip()
    body: dict[str, Any] = {
        "code": form.get("code", "").strip(),
        "name": form.get("name", "").strip(),
        "scale": int(scale) if scale.isascii() and scale.isdigit() and len(scale) < 5 else scale,
    }
    try:
        await inward.post(request, session, "/v1/assets", body)
    except Refused as refused:
        return await _listed(request, session, refusal=refused.detail, form=form, status=refused.status)
    return doors.back("/assets", request)


async def freeze(request: Request, session: Session, form: Form) -> Response:
    return await _set(request, session, form, "freeze")


async def unfreeze(request: Request, session: Session, form: Form) -> Response:
    return await _set(request, session, form, "unfreeze")


async def _set(request: Request, session: Session, form: Form, verb: str) -> Response:
    code = request.path_params["code"]
    await inward.post(request, session, f"/v1/assets/{code}/{verb}", {"reason": form.get("reason", "").strip()})
    return doors.back(f"/assets/{segment(code)}", request)


def _code(request: Request, form: Form) -> str:
    return f"asset {request.path_params.get('code') or form.get('code', '')[:100]}"


routes = [
    doors.page("/assets", assets),
    doors.page("/assets/{code}", asset),
    doors.action("/assets", "create an asset", _code, create),
    doors.action("/assets/{code}/freeze", "freeze an asset", _code, freeze),
    doors.action("/assets/{code}/unfreeze", "unfreeze an asset", _code, unfreeze),
]
