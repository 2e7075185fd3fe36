"""Supply: how much of each asset was issued, where it went, and how much is in circulation."""

from typing import Annotated

from fastapi import APIRouter, Request
from starlette.responses import Response

from api import schemas
from api.auth import Principal, needs
from api.lists import Asked, page
from api.openapi import problems
from api.state import autocommit
from ledger import reads
from ledger.keys import Scope

router = APIRouter(prefix="/v1/supply", tags=["assets"])


@router.get("", response_model=schemas.SupplyList, responses=problems("invalid_cursor"))
async def list_supply(
    request: Request,
    principal: Annotated[Principal, needs(Scope.ASSETS_READ)],
    asked: Asked,
) -> Response:
    """Of every asset, by code."""
    async with autocommit(request) as connection:
        found = await reads.supply(connection, principal.tenant_id, after=asked.after_name, limit=asked.limit + 1)
    shown = [
        {
            "object": "supply",
            "asset": supply.asset,
            "issued": str(supply.issued),
            "spent": str(supply.spent),
            "expired": str(supply.expired),
            "exchanged": str(supply.exchanged),
            "adjusted": str(supply.adjusted),
            "in_circulation": str(supply.in_circulation),
            "max_supply": None if supply.max_supply is None else str(supply.max_supply),
            "headroom": None if supply.headroom is None else str(supply.headroom),
        }
        for supply in found[: asked.limit]
    ]
    return page(request, asked, shown, shown[-1]["asset"] if len(found) > asked.limit else None)
