"""Assets: what balances are counted in."""

from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Request
from msgspec import UNSET, Meta, Struct, UnsetType
from starlette.responses import Response

from api import schemas
from api.auth import Principal, needs
from api.bodies import read, read_optional
from api.limits import LimitsOfAsset, limits_from, show_limits
from api.lists import Asked, json_response, page
from api.openapi import problems, request_body
from api.problems import Problem, invalid
from api.routes.changes import Reason, ReasonText, by
from api.state import autocommit, ring_all, transaction
from ledger import reads, registers
from ledger.keys import Scope
from ledger.limits import NO_LIMITS
from ledger.names import ASSET_PATTERN, NAME_MAX, NAME_PATTERN, is_asset_code

router = APIRouter(prefix="/v1/assets", tags=["assets"])

Reader = Annotated[Principal, needs(Scope.ASSETS_READ)]
Writer = Annotated[Principal, needs(Scope.ASSETS_WRITE)]


class NewAsset(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """`scale`: decimal places of the minor unit. Fixed for ever: amounts would change their meaning. `limits`: as
    PATCH sets them."""

    code: Annotated[str, Meta(pattern=ASSET_PATTERN)]
    name: Annotated[str, Meta(min_length=1, max_length=NAME_MAX, pattern=NAME_PATTERN)]
    scale: Annotated[int, Meta(ge=0, le=registers.SCALE_MAX)] = 0
    limits: LimitsOfAsset | None = None


class PatchAsset(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What to change: one of `status` and `limits`, or both. `limits` are replaced whole; null: none any more."""

    status: Literal["active", "frozen"] | UnsetType = UNSET
    limits: LimitsOfAsset | UnsetType | None = UNSET
    reason: ReasonText | None = None


_new_asset = msgspec.json.Decoder(NewAsset)
_patch_asset = msgspec.json.Decoder(PatchAsset)
_reason = msgspec.json.Decoder(Reason)


@router.get("", response_model=schemas.AssetList, responses=problems("invalid_cursor"))
async def list_assets(request: Request, principal: Reader, asked: Asked) -> Response:
    """The assets, by code."""
    async with autocommit(request) as connection:
        found = await reads.assets(connection, principal.tenant_id, after=asked.after_name, limit=asked.limit + 1)
    shown = [_show(asset) for asset in found[: asked.limit]]
    return page(request, asked, shown, shown[-1]["code"] if len(found) > asked.limit else None)


@router.post(
    "",
    response_model=schemas.Asset,
    status_code=201,
    responses={**problems("asset_exists"), 200: {"model": schemas.Asset, "description": "It was there already."}},
    openapi_extra=request_body(NewAsset),
)
async def create_asset(request: Request, principal: Writer) -> Response:
    """Create an asset. Asking again for the same one finds it; another name or scale, or other limits than it has,
    under its code is a conflict. Limits that are not given are not compared."""
    asked = await read(request, _new_asset)
    limits = limits_from(asked.limits, "/limits") if asked.limits is not None else NO_LIMITS
    try:
        async with transaction(request) as connection:
            asset, created = await registers.create_asset(
                connection, principal.tenant_id, code=asked.code, name=asked.name, scale=asked.scale
            )
            if created and limits != NO_LIMITS:
                limited = await registers.set_asset_limits(
                    connection, principal.tenant_id, asked.code, limits, by=by(principal, None)
                )
                assert limited is not None
                asset = limited
            elif asked.limits is not None and limits != (asset.limits or NO_LIMITS):
                raise registers.AssetExists
    except registers.AssetExists:
        raise Problem("asset_exists", f"asset {asked.code} has another name or scale, or other limits") from None
    if created and limits != NO_LIMITS:
        ring_all(request)  # drains that came meanwhile were turned away
    return json_response(_show(asset), 201 if created else 200)


@router.patch(
    "/{code}",
    response_model=schemas.Asset,
    responses=problems("asset_not_found"),
    openapi_extra=request_body(PatchAsset),
)
async def patch_asset(request: Request, code: str, principal: Writer) -> Response:
    """Change its status, the same as freeze and unfreeze, or its limits. Both hold from the answer on."""
    asked = await read(request, _patch_asset)
    if asked.status is UNSET and asked.limits is UNSET:
        raise invalid("", "needs status or limits, or both")
    return await _change(request, principal, code, asked)


@router.post(
    "/{code}/freeze",
    response_model=schemas.Asset,
    responses=problems("asset_not_found"),
    openapi_extra=request_body(Reason, required=False),
)
async def freeze_asset(request: Request, code: str, principal: Writer) -> Response:
    """From the answer on, no command moves this asset: each is rejected `asset_frozen`."""
    reason = (await read_optional(request, _reason)).reason
    return await _change(request, principal, code, PatchAsset(status="frozen", reason=reason))


@router.post(
    "/{code}/unfreeze",
    response_model=schemas.Asset,
    responses=problems("asset_not_found"),
    openapi_extra=request_body(Reason, required=False),
)
async def unfreeze_asset(request: Request, code: str, principal: Writer) -> Response:
    """Commands apply again. What was rejected meanwhile stays rejected."""
    reason = (await read_optional(request, _reason)).reason
    return await _change(request, principal, code, PatchAsset(status="active", reason=reason))


async def _change(request: Request, principal: Principal, code: str, asked: PatchAsset) -> Response:
    if not is_asset_code(code):
        raise Problem("asset_not_found")
    author, asset = by(principal, asked.reason), None
    limits = limits_from(asked.limits, "/limits") if isinstance(asked.limits, LimitsOfAsset) else None
    async with transaction(request) as connection:
        if asked.status is not UNSET:
            asset = await registers.set_asset_status(connection, principal.tenant_id, code, asked.status, by=author)
        if asked.limits is not UNSET:
            asset = await registers.set_asset_limits(connection, principal.tenant_id, code, limits, by=author)
    if asset is None:
        raise Problem("asset_not_found")
    ring_all(request)  # drains that came meanwhile were turned away
    return json_response(_show(asset))


def _show(asset: registers.Asset) -> dict[str, Any]:
    return {
        "code": asset.code,
        "object": "asset",
        "name": asset.name,
        "scale": asset.scale,
        "status": asset.status,
        "limits": show_limits(asset.limits),
        "created_at": asset.created_at,
    }
