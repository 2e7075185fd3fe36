"""Transfers: the balanced sets of entries that applied commands wrote."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from api import schemas
from api.auth import Principal, needs
from api.lists import json_response
from api.openapi import problems
from api.problems import Problem
from api.state import autocommit
from ledger import history
from ledger.ids import command_id, transfer_id
from ledger.keys import Scope

router = APIRouter(prefix="/v1/transfers", tags=["transfers"])


@router.get("/{id}", response_model=schemas.Transfer, responses=problems("transfer_not_found"))
async def get_transfer(
    request: Request, id: str, principal: Annotated[Principal, needs(Scope.WALLETS_READ)]
) -> Response:
    """A transfer with all its entries, those of the system's wallets among them."""
    async with autocommit(request) as connection:
        found = await history.transfer(connection, principal.tenant_id, id)
    if found is None:
        raise Problem("transfer_not_found")
    entries = [show_entry(entry) for entry in found.entries]
    of_command = {name: entries[0][name] for name in ("command", "type", "at", "reference", "metadata")}
    shown = {"id": transfer_id(found.seq, found.at), "object": "transfer", **of_command, "entries": entries}
    return json_response(shown)


def show_entry(entry: history.Entry) -> dict[str, Any]:
    ours = entry.wallet.startswith("@")  # then version and balance are a shard's, and mean nothing to a caller
    return {
        "id": entry.id,
        "object": "entry",
        "transfer": transfer_id(entry.seq, entry.at),
        "command": command_id(entry.seq, entry.accepted_at),
        "type": entry.type,
        "wallet": entry.wallet,
        "asset": entry.asset,
        "direction": "debit" if entry.amount < 0 else "credit" if entry.amount > 0 else "none",
        "amount": str(abs(entry.amount)),
        "balance_after": None if ours else str(entry.balance_after),
        "held_after": None if ours else str(entry.held_after),
        "version": None if ours else entry.version,
        "at": entry.at,
        "reference": entry.reference,
        "metadata": msgspec.Raw(entry.metadata.encode()) if entry.metadata is not None else {},
    }
