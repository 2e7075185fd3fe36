"""Who is asking: API keys, remembered for seconds, so that the hot path never waits for the database.

A key revoked or expired in the books stops working within REMEMBER_S in every api process, on the second where its
expiry was known.
"""

import asyncio
import time
from typing import Annotated, Any

import structlog
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from api.problems import Problem
from ledger import keys
from ledger.keys import Scope

log = structlog.get_logger()

REMEMBER_S = 5.0  # how long a revoked key may go on working
REFRESH_AFTER_S = 3.0  # a key in use is looked up again, behind the scenes, before it is forgotten
REMEMBER_UNKNOWN_S = 1.0  # a client that keeps knocking with a dead key costs a lookup a second
KNOWN_MAX = 10_000  # keys in use at once by one deployment: dozens; past this all are forgotten and looked up again
UNKNOWN_MAX = 1_000
RECORD_USE_EVERY_S = 60.0


# Whoever asks from within the process (api.dashboard.inward) is named under this in the request's scope, where nothing
# from the network gets in.
PRINCIPAL = "bursar.principal"


class Principal:
    """The holder of a key: which client of which tenant, and what the key opens. `key_id` None: an operator's password
    takes the place of a key."""

    __slots__ = ("client_id", "key_id", "scopes", "tenant_id")

    def __init__(self, *, tenant_id: int, client_id: int, key_id: int | None, scopes: frozenset[Scope]) -> None:
        self.tenant_id = tenant_id
        self.client_id = client_id
        self.key_id = key_id
        self.scopes = scopes

    def require(self, scope: Scope) -> None:
        """Raises Problem, 403, which names the scope. `admin` opens everything."""
        if scope not in self.scopes and Scope.ADMIN not in self.scopes:
            challenge = f'Bearer realm="bursar", error="insufficient_scope", scope="{scope}"'
            raise Problem(
                "insufficient_scope", f"this key lacks the scope {scope}", headers={"WWW-Authenticate": challenge}
            )


class _Remembered:
    __slots__ = ("forget_at", "principal", "refresh_at")

    def __init__(self, principal: Principal, refresh_at: float, forget_at: float) -> None:
        self.principal = principal
        self.refresh_at = refresh_at
        self.forget_at = forget_at


class KeyRing:
    """The keys that this api process has seen lately. Times are of the monotonic clock, in seconds."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._known: dict[str, _Remembered] = {}  # by Authorization header
        self._unknown: dict[bytes, float] = {}  # hash → forget at
        self._lookups: dict[str, asyncio.Task[Principal]] = {}
        self._used: set[int] = set()
        self._recorder: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._recorder = asyncio.create_task(self._record(), name="keys-recorder")

    async def stop(self) -> None:
        if self._recorder is not None:
            self._recorder.cancel()
            await asyncio.gather(self._recorder, *self._lookups.values(), return_exceptions=True)
        await self._write_used()

    async def authenticate(self, authorization: str | None) -> Principal:
        """Whose key this is. Raises Problem, 401. A key seen lately costs a dictionary's lookup and no await."""
        if authorization is None:
            raise _unauthorized("send one header, Authorization: Bearer <key>")
        now = time.monotonic()
        remembered = self._known.get(authorization)
        if remembered is not None and now < remembered.forget_at:
            if now >= remembered.refresh_at:
                remembered.refresh_at = remembered.forget_at  # once
                self._look_up(authorization)
            return remembered.principal
        return await asyncio.shield(self._look_up(authorization))

    def _look_up(self, authorization: str) -> "asyncio.Task[Principal]":
        """Requests that miss the same key share one lookup. Nonsense gets none."""
        lookup = self._lookups.get(authorization)
        if lookup is None:
            scheme, _, key = authorization.partition(" ")
            if scheme.lower() != "bearer" or not keys.is_well_formed(key):
                raise _unauthorized("this is not an API key: send Authorization: Bearer bursar_…")
            lookup = asyncio.create_task(self._find(authorization, keys.key_hash(key)))
            self._lookups[authorization] = lookup
            lookup.add_done_callback(lambda done: self._looked_up(authorization, done))
        return lookup

    def _looked_up(self, authorization: str, lookup: "asyncio.Task[Principal]") -> None:
        del self._lookups[authorization]
        # Whoever waits hears of a failure. A refresh that failed changes nothing yet: the key is forgotten in time.
        if not lookup.cancelled():
            lookup.exception()

    async def _find(self, authorization: str, hash_: bytes) -> Principal:
        now = time.monotonic()
        if self._unknown.get(hash_, 0.0) > now:
            raise _unauthorized("this key is not known, or no longer valid")
        async with self._engine.connect() as connection:
            found = await keys.find_key(connection, hash_)
        if found is None:
            self._known.pop(authorization, None)
            if len(self._unknown) >= UNKNOWN_MAX:
                self._unknown.clear()
            self._unknown[hash_] = now + REMEMBER_UNKNOWN_S
            raise _unauthorized("this key is not known, or no longer valid")
        self._used.add(found.key_id)
        principal = Principal(
            tenant_id=found.tenant_id, client_id=found.client_id, key_id=found.key_id, scopes=found.scopes
        )
        left_s = REMEMBER_S if found.expires_in_s is None else min(REMEMBER_S, found.expires_in_s)
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        self._known[authorization] = _Remembered(principal, now + min(REFRESH_AFTER_S, left_s), now + left_s)
        return principal

    async def _record(self) -> None:
        while True:
            await asyncio.sleep(RECORD_USE_EVERY_S)
            await self._write_used()

    async def _write_used(self) -> None:
        used, self._used = self._used, set()
        if not used:
            return
        try:
            async with self._engine.begin() as connection:
                await keys.record_use(connection, used)
        except (SQLAlchemyError, OSError) as error:
            log.warning("keys.use_not_recorded", error=type(error).__name__)


def _unauthorized(detail: str) -> Problem:
    return Problem("unauthorized", detail, headers={"WWW-Authenticate": 'Bearer realm="bursar"'})


_bearer = HTTPBearer(auto_error=False, scheme_name="api_key", description="An API key: `bursar_<env>_…`")


def needs(scope: Scope) -> Any:
    """A FastAPI dependency: `principal: Annotated[Principal, needs(Scope.WALLETS_READ)]`."""

    async def authorized(
        request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
    ) -> Principal:
        principal: Principal | None = request.scope.get(PRINCIPAL)
        if principal is None:
            sent = request.headers.getlist("authorization")
            ring: KeyRing = request.app.state.keys
            principal = await ring.authenticate(sent[0] if len(sent) == 1 else None)
        principal.require(scope)
        return principal

    return Depends(authorized)
