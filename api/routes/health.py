"""For those who operate the service; no key. Nothing here tells of a tenant, a client or a wallet."""

import asyncio

import structlog
from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST
from psycopg import Error as PsycopgError
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import Response

from api import schemas
from api.lists import json_response
from api.metrics import Metrics, Service
from api.openapi import problems
from api.problems import KINDS, Problem, unavailable
from api.state import autocommit
from ledger import operators, overview, reads

log = structlog.get_logger()

PROBE_TIMEOUT_S = 2.0  # orchestrators give a probe a few seconds, then call it failed
SCRAPE_TIMEOUT_S = 1.0  # the other figures must arrive while PostgreSQL is away

router = APIRouter(tags=["operation"])


@router.get("/livez", response_model=schemas.Live)
async def livez() -> Response:
    """The process answers. It does not ask PostgreSQL or Redis: restarting this would not mend them."""
    return json_response({"status": "alive"})


@router.get("/readyz", response_model=schemas.Ready, responses=problems("not_ready", "database_unavailable"))
async def readyz(request: Request) -> Response:
    """PostgreSQL answers, and its schema is at least this version's. Redis may be down: commands are accepted and
    applied without it."""
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S), autocommit(request) as connection:
            schema, oldest_s = await reads.schema_and_age(connection)
    except TimeoutError:
        raise unavailable() from None
    if schema < reads.SCHEMA:
        raise Problem("not_ready", f"the schema is at {schema or 'nothing'}, this version needs {reads.SCHEMA}")
    return json_response({"status": "ready", "schema_revision": schema, "oldest_pending_s": oldest_s})


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """This process's figures, and those of the whole service, for Prometheus."""
    metrics: Metrics = request.app.state.metrics
    service, redis_up = await asyncio.gather(_service(request), _redis_answers(request.app.state.redis))
    body = metrics.render(service, redis_up=redis_up)
    return Response(body, headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _service(request: Request) -> Service | None:
    try:
        async with asyncio.timeout(SCRAPE_TIMEOUT_S), autocommit(request) as connection:
            return Service(
                await reads.backlog(connection),
                await overview.partitions(connection),
                await overview.webhooks(connection, None),
                await overview.database(connection),
                await operators.last_audit(connection),
            )
    except (TimeoutError, SQLAlchemyError, PsycopgError) as error:
        log.warning("metrics.no_backlog", error=type(error).__name__)
        return None


async def _redis_answers(client: Redis) -> bool:
    try:
        async with asyncio.timeout(SCRAPE_TIMEOUT_S):
            await client.ping()  # pyright: ignore[reportGeneralTypeIssues]  # one of the two that it may return
    except (TimeoutError, RedisError, OSError):
        return False
    return True


@router.get("/problems/{code}", include_in_schema=False)
async def problem(code: str) -> Response:
    """What the `type` of a problem refers to."""
    kind = KINDS.get(code)
    if kind is None:
        raise Problem("not_found")
    shown = {"code": code, "status": kind.status, "title": kind.title, "retryable": kind.retryable}
    return json_response(shown)
