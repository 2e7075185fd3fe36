"""One box: a command's id, an idempotency key, a wallet, a reference, a transfer."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from api.dashboard import doors, inward
from api.dashboard.inward import Refused
from api.dashboard.pages import segment, show
from api.state import autocommit
from api.waiting import Waiting
from ledger import finding
from ledger.ids import Kind, parse_id
from ledger.keys import Scope
from ledger.names import REFERENCE_MAX, WALLET_MAX, is_wallet_id
from ledger.operators import Session
from runtime.shown import represent

FOUND_MAX = 20  # of each kind: who has more in mind knows more of it
KEY_MAX = 255  # an idempotency key's, the longest thing to look for


async def search(request: Request, session: Session) -> Response:
    asked = request.query_params.get("q", "").strip()
    if not asked or len(asked) > KEY_MAX or not asked.isprintable():
        return show(request, "search.html", {"q": asked[:KEY_MAX], "wallets": [], "commands": []}, session=session)
    if (place := await _named(request, session, asked)) is not None:
        return doors.back(place, request)
    wallets = await _wallets(request, session, asked)
    commands = await _commands(request, session, asked)
    if len(commands) == 1 and not wallets:
        return doors.back(f"/commands/{commands[0]['id']}", request)
    if asked in wallets and not commands:
        return doors.back(f"/wallets/{segment(asked)}", request)
    return show(request, "search.html", {"q": asked, "wallets": wallets, "commands": commands}, session=session)


async def _named(request: Request, session: Session, asked: str) -> str | None:
    """Where the thing of this id is shown."""
    try:
        if parse_id(Kind.COMMAND, asked):
            command = await inward.get(request, session, f"/v1/commands/{asked}")
            return f"/commands/{command['id']}"
        if parse_id(Kind.TRANSFER, asked):
            transfer = await inward.get(request, session, f"/v1/transfers/{asked}")
            return f"/commands/{transfer['command']}"
    except Refused as refused:
        if refused.status != 404:
            raise
    return None


async def _wallets(request: Request, session: Session, asked: str) -> list[str]:
    if not session.may(Scope.WALLETS_READ) or len(asked) > WALLET_MAX or not is_wallet_id(asked):
        return []
    async with autocommit(request) as connection:
        return await finding.wallets_like(connection, session.tenant_id, asked, limit=FOUND_MAX)


async def _commands(request: Request, session: Session, asked: str) -> list[dict[str, Any]]:
    if not session.may(Scope.COMMANDS_READ):
        return []
    async with autocommit(request) as connection:
        seqs = await finding.commands_by_key(connection, session.tenant_id, asked, limit=FOUND_MAX)
        if len(asked) <= REFERENCE_MAX:
            seqs += await finding.commands_by_reference(connection, session.tenant_id, asked, limit=FOUND_MAX)
    waiting: Waiting = request.app.state.waiting
    states = await waiting.states(sorted(set(seqs), reverse=True)[:FOUND_MAX])
    return [represent(state) for _, state in sorted(states.items(), reverse=True)]


routes = [doors.page("/search", search)]
