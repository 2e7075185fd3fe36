"""A wallet's life: frozen, unfrozen, limited, closed. Each change names its author (api.routes.changes)."""

from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from api import schemas
from api.auth import Principal, needs
from api.bodies import read, read_optional
from api.limits import LimitsOfWallet, limits_from, show_limits
from api.lists import json_response
from api.openapi import problems, request_body
from api.problems import Problem, invalid
from api.requests import WalletId
from api.routes.changes import Reason, ReasonText, by
from api.routes.wallets import answer
from api.sessions import Sessions
from api.state import autocommit, ring_all, ring_couriers, transaction
from ledger import closing, registers
from ledger.errors import Code
from ledger.keys import Scope
from ledger.names import is_asset_code, is_wallet_id

router = APIRouter(prefix="/v1/wallets", tags=["wallets"])

Reader = Annotated[Principal, needs(Scope.WALLETS_READ)]
Writer = Annotated[Principal, needs(Scope.WALLETS_WRITE)]


class FreezeWallet(Reason, forbid_unknown_fields=True, omit_defaults=True):
    """`debits`: the wallet is still credited."""

    scope: Literal["debits", "all"] = "all"


class CloseWallet(Reason, forbid_unknown_fields=True, omit_defaults=True):
    """`sweep_to`: the wallet that takes all that is left."""

    sweep_to: WalletId | None = None


class PutLimits(LimitsOfWallet, forbid_unknown_fields=True, omit_defaults=True):
    """The wallet's own limits, whole: PUT replaces. None at all is the same as DELETE, with a reason if you like."""

    reason: ReasonText | None = None


_freeze = msgspec.json.Decoder(FreezeWallet)
_close = msgspec.json.Decoder(CloseWallet)
_reason = msgspec.json.Decoder(Reason)
_put_limits = msgspec.json.Decoder(PutLimits)


# --- status --------------------------------------------------------------------------------------------------------


@router.post(
    "/{id}/freeze",
    response_model=schemas.Wallet,
    responses=problems("wallet_not_found", "wallet_closed"),
    openapi_extra=request_body(FreezeWallet, required=False),
)
async def freeze_wallet(request: Request, id: str, principal: Writer) -> Response:
    """From the answer on, no command debits this wallet, nor credits it unless `scope` is `debits`: each is rejected
    `wallet_frozen`. Holds and credits past their time end all the same."""
    asked = await read_optional(request, _freeze)
    status = "debits_frozen" if asked.scope == "debits" else "frozen"
    return await _set_status(request, principal, id, status, asked.reason)


@router.post(
    "/{id}/unfreeze",
    response_model=schemas.Wallet,
    responses=problems("wallet_not_found", "wallet_closed"),
    openapi_extra=request_body(Reason, required=False),
)
async def unfreeze_wallet(request: Request, id: str, principal: Writer) -> Response:
    """Commands apply again. What was rejected meanwhile stays rejected."""
    asked = await read_optional(request, _reason)
    return await _set_status(request, principal, id, "active", asked.reason)


async def _set_status(
    request: Request, principal: Principal, id: str, status: registers.WalletStatus, reason: str | None
) -> Response:
    if not is_wallet_id(id):
        raise Problem("wallet_not_found")
    try:
        async with transaction(request) as connection:
            if not await registers.set_wallet_status(
                connection, principal.tenant_id, id, status, by=by(principal, reason)
            ):
                raise Problem("wallet_not_found")
            shown = await answer(request, connection, principal.tenant_id, id)
    except registers.WalletClosed:
        raise Problem("wallet_closed") from None
    ring_all(request)  # drains that came meanwhile were turned away
    return shown


@router.post(
    "/{id}/close",
    response_model=schemas.Wallet,
    responses=problems(
        "wallet_not_found",
        "wallet_not_empty",
        "wallet_closed",
        "wallet_frozen",
        "asset_frozen",
        "too_many_lots",
        "limit_exceeded",
    ),
    openapi_extra=request_body(CloseWallet, required=False),
)
async def close_wallet(request: Request, id: str, principal: Writer) -> Response:
    """For ever: from the answer on, every command on this wallet is rejected `wallet_closed`, what is queued too.

    Nothing may be left in it: no open hold, no debt, and no credits, unless `sweep_to` names another wallet that takes
    them all, lots as lots. A frozen wallet can be closed. Closing a closed one finds it as it is.
    """
    asked = await read_optional(request, _close)
    if not is_wallet_id(id):
        raise Problem("wallet_not_found")
    if asked.sweep_to == id:
        raise invalid("/sweep_to", "must be another wallet than the one that closes")
    author, tenant_id, sweep_to = by(principal, asked.reason), principal.tenant_id, asked.sweep_to
    sessions: Sessions = request.app.state.closings
    try:
        await sessions.run(lambda to: closing.close(to, tenant_id, id, sweep_to=sweep_to, by=author))
    except registers.NoSuch:
        raise Problem("wallet_not_found") from None
    except closing.Refusal as refusal:
        if refusal.code is Code.WALLET_NOT_FOUND:  # the one that closes is there
            raise invalid("/sweep_to", refusal.detail, refusal.code) from None
        raise Problem(refusal.code, refusal.detail) from None
    ring_all(request)  # drains that came meanwhile were turned away
    ring_couriers(request)  # a sweep is an outcome
    async with autocommit(request) as connection:
        return await answer(request, connection, tenant_id, id)


# --- limits --------------------------------------------------------------------------------------------------------


@router.get(
    "/{id}/limits/{asset}",
    response_model=schemas.WalletLimits,
    responses=problems("wallet_not_found", "asset_not_found"),
)
async def get_limits(request: Request, id: str, asset: str, principal: Reader) -> Response:
    """The wallet's own limits in this asset, and those in force: its own, member by member, before the asset's."""
    _check_names(id, asset)
    try:
        async with autocommit(request) as connection:
            found = await registers.wallet_limits(connection, principal.tenant_id, id, asset)
    except registers.NoSuch as missing:
        raise Problem(f"{missing}_not_found") from None
    return _shown(id, asset, found)


@router.put(
    "/{id}/limits/{asset}",
    response_model=schemas.WalletLimits,
    responses=problems("wallet_not_found", "asset_not_found", "wallet_closed"),
    openapi_extra=request_body(PutLimits),
)
async def put_limits(request: Request, id: str, asset: str, principal: Writer) -> Response:
    """Replace the wallet's own limits in this asset. They hold from the answer on."""
    asked = await read(request, _put_limits)
    return await _set_limits(request, principal, id, asset, asked)


@router.delete(
    "/{id}/limits/{asset}",
    response_model=schemas.WalletLimits,
    responses=problems("wallet_not_found", "asset_not_found", "wallet_closed"),
)
async def delete_limits(request: Request, id: str, asset: str, principal: Writer) -> Response:
    """From the answer on, the asset's limits alone hold."""
    return await _set_limits(request, principal, id, asset, PutLimits())


async def _set_limits(request: Request, principal: Principal, id: str, asset: str, asked: PutLimits) -> Response:
    _check_names(id, asset)
    limits = limits_from(asked, "")
    try:
        async with transaction(request) as connection:
            found = await registers.set_wallet_limits(
                connection, principal.tenant_id, id, asset, limits, by=by(principal, asked.reason)
            )
    except registers.NoSuch as missing:
        raise Problem(f"{missing}_not_found") from None
    except registers.WalletClosed:
        raise Problem("wallet_closed") from None
    return _shown(id, asset, found)


def _check_names(id: str, asset: str) -> None:
    if not is_wallet_id(id):
        raise Problem("wallet_not_found")
    if not is_asset_code(asset):
        raise Problem("asset_not_found")


def _shown(id: str, asset: str, found: registers.WalletLimits) -> Response:
    shown: dict[str, Any] = {
        "object": "limits",
        "wallet": id,
        "asset": asset,
        "own": show_limits(found.own),
        "in_force": show_limits(found.in_force),
    }
    return json_response(shown)
