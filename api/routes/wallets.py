"""Wallets: read them with their balances, present and past, name them."""

from datetime import datetime
from hashlib import blake2b
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from msgspec import Meta, Struct
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from api import schemas
from api.auth import Principal, needs
from api.bodies import read
from api.limits import show_limits
from api.lists import MetadataParameter, Page, each_once, metadata_filter, page
from api.openapi import problems, request_body
from api.problems import Problem, invalid
from api.state import autocommit, transaction
from api.times import InstantParameter
from api.waiting import Waiting
from ledger import history, reads, registers
from ledger.history import AheadOfTime
from ledger.ids import Kind, lot_id, parse_id, unix_ms
from ledger.keys import Scope
from ledger.names import NAME_MAX, NAME_PATTERN, WALLET_PATTERN, is_wallet_id, metadata_text
from ledger.partitions import partition_of

router = APIRouter(prefix="/v1/wallets", tags=["wallets"])

Reader = Annotated[Principal, needs(Scope.WALLETS_READ)]
Writer = Annotated[Principal, needs(Scope.WALLETS_WRITE)]


WAIT_S = 10  # what a read that names a command waits for its outcome: drains take milliseconds, a backlog seconds
WAIT_MAX_S = 30  # as for commands (api.routes.commands)


def _seconds(value: object) -> object:
    if isinstance(value, str):
        if not (value.isascii() and value.isdigit()):
            raise PydanticCustomError("invalid", "must be a whole number of seconds")
        return min(int(value[:6]), WAIT_MAX_S) if len(value) <= 6 else WAIT_MAX_S
    return value


class PutWallet(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What a caller may say of a wallet. An absent member is cleared: PUT replaces."""

    name: Annotated[str, Meta(min_length=1, max_length=NAME_MAX, pattern=NAME_PATTERN)] | None = None
    metadata: dict[str, Any] = {}


_put_wallet = msgspec.json.Decoder(PutWallet)


class AskedWallet(BaseModel):
    """Which balances: the present ones, unless it is said."""

    model_config = ConfigDict(extra="forbid")  # a misspelt `as_of` must not be answered with today's balances

    as_of: Annotated[InstantParameter | None, Field(description="The balances of this time.")] = None
    after: Annotated[str | None, Field(description="The id of a command: waits for its outcome.")] = None
    wait: Annotated[
        int, Field(ge=0, description=f"Seconds to wait for `after`. More give {WAIT_MAX_S}."), BeforeValidator(_seconds)
    ] = WAIT_S


async def _asked_wallet(request: Request, asked: Annotated[AskedWallet, Query()]) -> AskedWallet:
    each_once(request)
    if asked.as_of is not None and asked.after is not None:
        raise invalid("/query/after", "not together with as_of")
    if "wait" in asked.model_fields_set and asked.after is None:
        raise invalid("/query/wait", "only together with after")
    return asked


class AskedWallets(Page):
    metadata: MetadataParameter = None


async def _asked_wallets(request: Request, asked: Annotated[AskedWallets, Query()]) -> AskedWallets:
    each_once(request)
    return asked


@router.get("", response_model=schemas.WalletList, responses=problems("invalid_cursor"))
async def list_wallets(
    request: Request, principal: Reader, asked: Annotated[AskedWallets, Depends(_asked_wallets)]
) -> Response:
    """The players' wallets, by id, closed ones too. The system's own are not among them. `metadata` finds those whose
    metadata contain an object; meant for what few have in common: all of them are sorted for each page."""
    wanted = metadata_filter(asked.metadata)
    async with autocommit(request) as connection:
        found = await reads.wallets(
            connection,
            principal.tenant_id,
            after=asked.after_name,
            limit=asked.limit + 1,
            partitions=request.app.state.partitions,
            metadata=wanted,
        )
    shown = [_show(wallet) for wallet in found[: asked.limit]]
    return page(request, asked, shown, shown[-1]["id"] if len(found) > asked.limit else None)


@router.get(
    "/{id}",
    response_model=schemas.Wallet,
    responses={
        **problems("wallet_not_found", "command_pending"),
        304: {"description": "It is still what `If-None-Match` names."},
    },
)
async def get_wallet(
    request: Request, id: str, principal: Reader, asked: Annotated[AskedWallet, Depends(_asked_wallet)]
) -> Response:
    """One wallet with its balances, all of one instant. Its first credit or a PUT opens it.

    With `as_of`, those of that time, of the assets that it had by then; name, status and metadata are today's. Balances
    of the last 10 seconds may still change by an entry that is being written. With `after`, those that have the outcome
    of that command in them.
    """
    if asked.as_of is not None:
        return await _as_of(request, principal.tenant_id, id, asked.as_of)
    if asked.after is not None:
        await _applied(request, principal.tenant_id, asked.after, asked.wait)
    async with autocommit(request) as connection:
        return await answer(request, connection, principal.tenant_id, id)


async def _as_of(request: Request, tenant_id: int, id: str, at: datetime) -> Response:
    async with autocommit(request) as connection:
        try:
            wallet = await history.wallet_as_of(connection, tenant_id, id, at) if is_wallet_id(id) else None
        except AheadOfTime:
            raise invalid("/query/as_of", "is yet to come") from None
    if wallet is None:
        raise Problem("wallet_not_found")
    return _shown(request, wallet)


async def _applied(request: Request, tenant_id: int, command: str, wait_s: int) -> None:
    """Returns once this command has its outcome. Raises Problem, 422 for no command of this tenant, 409 for one that is
    pending when the time is up."""
    waiting: Waiting = request.app.state.waiting
    name = parse_id(Kind.COMMAND, command)
    state = await waiting.state(name[0]) if name else None
    if name is None or state is None or state.tenant_id != tenant_id or unix_ms(state.accepted_at) != name[1]:
        raise invalid("/query/after", "must be the id of a command", "command_not_found")
    if state.status is None:
        state = (await waiting.outcomes([state.seq], wait_s)).get(state.seq, state)
    if state.status is None:
        raise Problem("command_pending", f"command {command} has no outcome yet; ask again")


@router.put(
    "/{id}",
    response_model=schemas.Wallet,
    responses={**problems("wallet_not_found"), 201: {"model": schemas.Wallet, "description": "It is new."}},
    openapi_extra=request_body(PutWallet),
)
async def put_wallet(request: Request, id: str, principal: Writer) -> Response:
    """Create a wallet, or replace its name and metadata. Its status and balances stay."""
    if not is_wallet_id(id):
        raise invalid("/path/id", f"must match {WALLET_PATTERN}")
    asked = await read(request, _put_wallet)
    try:
        metadata = metadata_text(asked.metadata)
    except ValueError as error:
        raise invalid("/metadata", str(error)) from None
    async with transaction(request) as connection:
        created = await registers.put_wallet(connection, principal.tenant_id, id, name=asked.name, metadata=metadata)
        return await answer(request, connection, principal.tenant_id, id, status=201 if created else 200)


async def answer(
    request: Request, connection: AsyncConnection, tenant_id: int, id: str, *, status: int = 200
) -> Response:
    """The wallet, or 304 where the caller has it already. Raises Problem, 404."""
    partition = partition_of(tenant_id, id, request.app.state.partitions)
    wallet = await reads.wallet(connection, tenant_id, id, partition=partition) if is_wallet_id(id) else None
    if wallet is None:
        raise Problem("wallet_not_found")
    return _shown(request, wallet, status=status)


def _shown(request: Request, wallet: reads.Wallet, *, status: int = 200) -> Response:
    body = msgspec.json.encode(_show(wallet))
    # Of the whole answer, not of one account's version: name, status and queue are in it, too.
    etag = f'"{blake2b(body, digest_size=12).hexdigest()}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    if request.method in ("GET", "HEAD") and _matches(etag, request.headers.getlist("if-none-match")):
        return Response(status_code=304, headers=headers)
    if status == 201:
        headers["Location"] = f"/v1/wallets/{wallet.id}"
    return Response(body, status, headers, "application/json")


def _matches(etag: str, headers: list[str]) -> bool:
    """If-None-Match compares weakly (RFC 9110, 13.1.2)."""
    named = {tag.strip().removeprefix("W/") for header in headers for tag in header.split(",")}
    return etag in named or "*" in named


def _show(wallet: reads.Wallet) -> dict[str, Any]:
    return {
        "id": wallet.id,
        "object": "wallet",
        "status": wallet.status,
        "name": wallet.name,
        "metadata": msgspec.Raw(wallet.metadata.encode()),
        "created_at": wallet.created_at,
        "accounts": [_show_account(account) for account in wallet.accounts],
    }


def _show_account(account: reads.Account) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "asset": account.asset,
        "posted": str(account.posted),
        "held": str(account.held),
        "queued": str(account.queued),
        "available": str(account.available),
        "version": account.version,
    }
    if account.lots is not None:
        shown["lots"] = [_show_lot(lot) for lot in account.lots]
        shown["limits"] = show_limits(account.limits)
    return shown


def _show_lot(lot: reads.Lot) -> dict[str, Any]:
    return {
        "id": lot_id(lot.seq, lot.n, lot.at),
        "source": lot.source,
        "priority": lot.priority,
        "expires_at": lot.expires_at,
        "remaining": str(lot.remaining),
        "held": str(lot.held),
        "available": str(lot.available),
    }
