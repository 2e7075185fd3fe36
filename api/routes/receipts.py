"""Receipts of commands, and the public keys that they are checked with (docs/receipts.md)."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from api import schemas
from api.auth import Principal, needs
from api.openapi import problems
from api.problems import Problem
from api.state import autocommit
from api.waiting import Waiting
from ledger import chain, receipts
from ledger.ids import Kind, parse_id, transfer_id, unix_ms
from ledger.keys import Scope
from runtime.receipts import Signer
from runtime.shown import represent

KEYS_KEPT_S = 3600  # how long others may keep the list of keys; publish a new one that much earlier than it signs
NOT_OFFERED = "set BURSAR_RECEIPT_KEY; `bursar receipts new-key` makes one"

router = APIRouter(tags=["receipts"])
_encode = msgspec.json.Encoder().encode


class Jose(JSONResponse):  # so that the document has its model, not a string
    media_type = "application/jose+json"

    def render(self, content: bytes) -> bytes:
        return content


class JwkSet(Jose):
    media_type = "application/jwk-set+json"


@router.get(
    "/v1/commands/{id}/receipt",
    response_model=schemas.Receipt,
    response_class=Jose,
    responses=problems("receipts_not_offered", "command_not_found", "command_pending"),
)
async def get_receipt(
    request: Request, id: str, principal: Annotated[Principal, needs(Scope.COMMANDS_READ)]
) -> Response:
    """What a command came to, signed with Ed25519, to be checked by anybody, offline: a flattened JWS (RFC 7515). The
    same command has the same receipt for as long as the key is the same."""
    signer: Signer = request.app.state.signer
    if not signer.offered:
        raise Problem("receipts_not_offered", NOT_OFFERED)
    waiting: Waiting = request.app.state.waiting
    name = parse_id(Kind.COMMAND, id)
    state = await waiting.state(name[0]) if name else None
    if name is None or state is None or state.tenant_id != principal.tenant_id or unix_ms(state.accepted_at) != name[1]:
        raise Problem("command_not_found")
    if state.status is None:
        raise Problem("command_pending", "a receipt is of an outcome; ask again")
    async with autocommit(request) as connection:
        link = await receipts.link(connection, state.seq)
    payload = {"object": "receipt", "command": represent(state), "transfer": _transfer(link) if link else None}
    return Jose(_encode(signer.sign(_encode(payload))))


@router.get("/.well-known/jwks.json", response_model=schemas.JwkSet, response_class=JwkSet)
async def get_keys(request: Request) -> Response:
    """The public keys of receipts, present and former, as a JWK set (RFC 7517, RFC 8037). No key is needed."""
    signer: Signer = request.app.state.signer
    headers = {"Cache-Control": f"public, max-age={KEYS_KEPT_S}"}
    return JwkSet(_encode(signer.jwks()), headers=headers)


def _transfer(link: receipts.Link) -> dict[str, Any]:
    """All that its hash is made of, numbers as strings: some are beyond what JavaScript can count."""
    return {
        "id": transfer_id(link.seq, link.at),
        "seq": str(link.seq),
        "tenant_id": str(link.tenant_id),
        "partition": str(link.partition),
        "position": None if link.position is None else str(link.position),
        "at_us": str(chain.microseconds(link.at)),
        "request_hash": link.request_hash.hex(),
        "previous_hash": None if link.previous_hash is None else link.previous_hash.hex(),
        "hash": None if link.hash is None else link.hash.hex(),
        "entries": [
            {
                "wallet": line.wallet,
                "asset": line.asset,
                "amount": str(line.amount),
                "balance_after": str(line.balance_after),
                "held_after": str(line.held_after),
                "account_id": str(line.account_id),
                "version": str(line.version),
                "asset_id": str(line.asset_id),
            }
            for line in link.lines
        ],
    }
