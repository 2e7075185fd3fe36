"""Who may do what, and who did what: API keys, operators, the log of actions, what the last audit found."""

from starlette.requests import Request
from starlette.responses import Response

from api.dashboard import doors
from api.dashboard.inward import Refused
from api.dashboard.pages import show
from api.state import autocommit
from ledger import keys, operators
from ledger.operators import Session

ACTIONS_OF_A_PAGE = 100


async def api_keys(request: Request, session: Session) -> Response:
    """To look at: the api's own role in the database may not make keys, so that whoever breaks into it cannot."""
    _require_person(session)
    async with autocommit(request) as connection:
        found = await keys.keys_of_tenant(connection, session.tenant_id)
        people = await operators.operators_of_tenant(connection, session.tenant_id)
    return show(request, "keys.html", {"keys": found, "people": people}, session=session)


async def log(request: Request, session: Session) -> Response:
    _require_person(session)
    before = request.query_params.get("before", "")
    if before and not (before.isascii() and before.isdigit() and len(before) < 19):
        raise Refused(400, "bad_request", "before: the number of an action")
    async with autocommit(request) as connection:
        found = await operators.actions(
            connection, session.tenant_id, before=int(before) if before else None, limit=ACTIONS_OF_A_PAGE + 1
        )
        audit = await operators.last_audit(connection)
    values = {
        "actions": found[:ACTIONS_OF_A_PAGE],
        "more": found[ACTIONS_OF_A_PAGE - 1].id if len(found) > ACTIONS_OF_A_PAGE else None,
        "audit": audit,
    }
    return show(request, "log.html", values, session=session)


def _require_person(session: Session) -> None:
    """A key that may look at wallets is often a game server's: it tells of no other key, and of nobody's doings."""
    if session.key_id is not None and not session.acts:
        raise Refused(403, "insufficient_scope", "this key lacks the scope admin")


routes = [doors.page("/keys", api_keys), doors.page("/log", log)]
