"""Wallets: read them with their balances and entries, name them."""

import re
from hashlib import blake2b
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Request
from msgspec import Meta, Struct
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from api import schemas
from api.auth import Principal, needs
from api.bodies import read
from api.lists import Asked, page
from api.openapi import problems, request_body
from api.problems import Problem, invalid
from api.routes.transfers import show_entry
from api.state import autocommit, transaction
from ledger import history, reads, registers
from ledger.keys import Scope
from ledger.names import NAME_MAX, NAME_PATTERN, WALLET_PATTERN, metadata_text
from ledger.partitions import partition_of

router = APIRouter(prefix="/v1/wallets", tags=["wallets"])

Reader = Annotated[Principal, needs(Scope.WALLETS_READ)]
Writer = Annotated[Principal, needs(Scope.WALLETS_WRITE)]

_is_wallet_id = re.compile(WALLET_PATTERN).search


class PutWallet(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What a caller may say of a wallet. An absent member is cleared: PUT replaces."""

    name: Annotated[str, Meta(min_length=1, max_length=NAME_MAX, pattern=NAME_PATTERN)] | None = None
    metadata: dict[str, Any] = {}


_put_wallet = msgspec.json.Decoder(PutWallet)


@router.get("", response_model=schemas.WalletList, responses=problems("invalid_cursor"))
async def list_wallets(request: Request, principal: Reader, asked: Asked) -> Response:
    """The players' wallets, by id. The system's own are not among them."""
    async with autocommit(request) as connection:
        found = await reads.wallets(
            connection,
            principal.tenant_id,
            after=asked.after_name,
            limit=asked.limit + 1,
            partitions=request.app.state.partitions,
        )
    shown = [_show(wallet) for wallet in found[: asked.limit]]
    return page(request, asked, shown, shown[-1]["id"] if len(found) > asked.limit else None)


@router.get(
    "/{id}",
    response_model=schemas.Wallet,
    responses={**problems("wallet_not_found"), 304: {"description": "It is still what `If-None-Match` names."}},
)
async def get_wallet(request: Request, id: str, principal: Reader) -> Response:
    """One wallet with its balances, all of one instant. Its first credit or a PUT opens it."""
    async with autocommit(request) as connection:
        return await answer(request, connection, principal.tenant_id, id)


@router.put(
    "/{id}",
    response_model=schemas.Wallet,
    responses={**problems("wallet_not_found"), 201: {"model": schemas.Wallet, "description": "It is new."}},
    openapi_extra=request_body(PutWallet),
)
async def put_wallet(request: Request, id: str, principal: Writer) -> Response:
    """Create a wallet, or replace its name and metadata. Its status and balances stay."""
    if not _is_wallet_id(id):
        raise invalid("/path/id", f"must match {WALLET_PATTERN}")
    asked = await read(request, _put_wallet)
    try:
        metadata = metadata_text(asked.metadata)
    except ValueError as error:
        raise invalid("/metadata", str(error)) from None
    async with transaction(request) as connection:
        created = await registers.put_wallet(connection, principal.tenant_id, id, name=asked.name, metadata=metadata)
        return await answer(request, connection, principal.tenant_id, id, status=201 if created else 200)


@router.get("/{id}/entries", response_model=schemas.EntryList, responses=problems("wallet_not_found", "invalid_cursor"))
async def list_entries(request: Request, id: str, principal: Reader, asked: Asked) -> Response:
    """What moved this wallet's balances, newest first. No page repeats or skips an entry, whatever is written
    meanwhile."""
    async with autocommit(request) as connection:
        if not _is_wallet_id(id) or not await reads.wallet_exists(connection, principal.tenant_id, id):
            raise Problem("wallet_not_found")
        found, position = await history.entries(
            connection, principal.tenant_id, id, after=asked.after_position, limit=asked.limit
        )
    return page(request, asked, [show_entry(entry) for entry in found], position or None)


async def answer(
    request: Request, connection: AsyncConnection, tenant_id: int, id: str, *, status: int = 200
) -> Response:
    """The wallet, or 304 where the caller has it already. Raises Problem, 404."""
    partition = partition_of(tenant_id, id, request.app.state.partitions)
    wallet = await reads.wallet(connection, tenant_id, id, partition=partition) if _is_wallet_id(id) else None
    if wallet is None:
        raise Problem("wallet_not_found")
    body = msgspec.json.encode(_show(wallet))
    # Of the whole answer, not of one account's version: name, status and queue are in it, too.
    etag = f'"{blake2b(body, digest_size=12).hexdigest()}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    if request.method in ("GET", "HEAD") and _matches(etag, request.headers.getlist("if-none-match")):
        return Response(status_code=304, headers=headers)
    if status == 201:
        headers["Location"] = f"/v1/wallets/{id}"
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
        "accounts": [
            {
                "asset": account.asset,
                "posted": str(account.posted),
                "held": str(account.held),
                "queued": str(account.queued),
                "available": str(account.available),
                "version": account.version,
            }
            for account in wallet.accounts
        ],
    }
