"""Who changed a wallet or an asset by hand, when and why."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Request
from msgspec import Meta, Struct
from starlette.responses import Response

from api import schemas
from api.auth import Principal, needs
from api.limits import show_limits
from api.lists import Asked, page
from api.openapi import problems
from api.problems import Problem
from api.state import autocommit
from ledger import changes, reads
from ledger.changes import REASON_MAX, By, Change
from ledger.ids import command_id
from ledger.keys import Scope
from ledger.limits import read_limits
from ledger.names import NAME_PATTERN, is_asset_code, is_wallet_id

router = APIRouter()


ReasonText = Annotated[
    str, Meta(min_length=1, max_length=REASON_MAX, pattern=NAME_PATTERN, description="Why: for whoever asks later.")
]


class Reason(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Never required: an emergency is no time for prose. Kept, with the client and its key, in the list of changes."""

    reason: ReasonText | None = None


def by(principal: Principal, reason: str | None = None) -> By:
    return By(principal.client_id, principal.key_id, reason)


@router.get(
    "/v1/wallets/{id}/changes",
    response_model=schemas.ChangeList,
    responses=problems("wallet_not_found", "invalid_cursor"),
    tags=["wallets"],
)
async def list_wallet_changes(
    request: Request, id: str, principal: Annotated[Principal, needs(Scope.WALLETS_READ)], asked: Asked
) -> Response:
    """Who froze, unfroze, limited or closed this wallet, newest first."""
    async with autocommit(request) as connection:
        if not is_wallet_id(id) or not await reads.wallet_exists(connection, principal.tenant_id, id):
            raise Problem("wallet_not_found")
        found = await changes.of_wallet(
            connection, principal.tenant_id, id, before=asked.after_number, limit=asked.limit + 1
        )
    return _page(request, asked, found)


@router.get(
    "/v1/assets/{code}/changes",
    response_model=schemas.ChangeList,
    responses=problems("asset_not_found", "invalid_cursor"),
    tags=["assets"],
)
async def list_asset_changes(
    request: Request, code: str, principal: Annotated[Principal, needs(Scope.ASSETS_READ)], asked: Asked
) -> Response:
    """Who froze, unfroze or limited this asset, newest first. Its wallets' own limits stand with the wallets."""
    async with autocommit(request) as connection:
        if not is_asset_code(code) or not await reads.asset_exists(connection, principal.tenant_id, code):
            raise Problem("asset_not_found")
        found = await changes.of_asset(
            connection, principal.tenant_id, code, before=asked.after_number, limit=asked.limit + 1
        )
    return _page(request, asked, found)


def _page(request: Request, asked: Asked, found: list[Change]) -> Response:
    shown = [_show(change) for change in found[: asked.limit]]
    return page(request, asked, shown, found[asked.limit - 1].id if len(found) > asked.limit else None)


def _show(change: Change) -> dict[str, Any]:
    command = None
    if change.seq is not None and change.accepted_at is not None:
        command = command_id(change.seq, change.accepted_at)
    return {
        "object": "change",
        "wallet": change.wallet,
        "asset": change.asset,
        "member": change.member,
        "before": _value(change, change.before),
        "after": _value(change, change.after),
        "reason": change.reason,
        "client": change.client,
        "key_id": change.key_id,
        "command": command,
        "at": change.at,
    }


def _value(change: Change, text: str | None) -> Any:
    if text is None:
        return None
    return show_limits(read_limits(text)) if change.member == "limits" else msgspec.json.decode(text)
