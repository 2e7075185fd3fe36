"""Holds: what is reserved, and what became of it."""

from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field
from starlette.responses import Response

from api import schemas
from api.auth import Principal, needs
from api.lists import Page, each_once, json_response, page
from api.openapi import problems
from api.problems import Problem
from api.state import autocommit
from ledger import holdings, reads
from ledger.holdings import Hold
from ledger.ids import command_id
from ledger.keys import Scope
from ledger.names import is_wallet_id

router = APIRouter(tags=["wallets"])

Reader = Annotated[Principal, needs(Scope.WALLETS_READ)]


class AskedHolds(Page):
    status: Annotated[Literal["open"] | None, Field(description="Only those that are open.")] = None


async def _asked(request: Request, asked: Annotated[AskedHolds, Query()]) -> AskedHolds:
    each_once(request)
    return asked


@router.get(
    "/v1/wallets/{id}/holds", response_model=schemas.HoldList, responses=problems("wallet_not_found", "invalid_cursor")
)
async def list_holds(
    request: Request, id: str, principal: Reader, asked: Annotated[AskedHolds, Depends(_asked)]
) -> Response:
    """The wallet's holds, newest first."""
    async with autocommit(request) as connection:
        if not is_wallet_id(id) or not await reads.wallet_exists(connection, principal.tenant_id, id):
            raise Problem("wallet_not_found")
        found = await holdings.holds(
            connection,
            principal.tenant_id,
            id,
            open_only=asked.status == "open",
            before=asked.after_number,
            limit=asked.limit + 1,
        )
    shown = [_show(hold) for hold in found[: asked.limit]]
    return page(request, asked, shown, found[asked.limit - 1].seq if len(found) > asked.limit else None)


@router.get("/v1/holds/{id}", response_model=schemas.Hold, responses=problems("hold_not_found"))
async def get_hold(request: Request, id: str, principal: Reader) -> Response:
    """A hold as it stands, by the id of the command that placed it."""
    async with autocommit(request) as connection:
        found = await holdings.hold(connection, principal.tenant_id, id)
    if found is None:
        raise Problem("hold_not_found")
    return json_response(_show(found))


def _show(hold: Hold) -> dict[str, Any]:
    return {
        "id": command_id(hold.seq, hold.accepted_at),
        "object": "hold",
        "wallet": hold.wallet,
        "asset": hold.asset,
        "status": hold.status,
        "amount": str(hold.amount),
        "remaining": str(hold.remaining),
        "captured": str(hold.captured),
        "expires_at": hold.expires_at,
        "ended_at": hold.ended_at,
        "reference": hold.reference,
        "metadata": msgspec.Raw(hold.metadata.encode()) if hold.metadata is not None else {},
    }
