"""The api, wired together. `uvicorn --factory api.app:create_app`."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from importlib.metadata import version

from fastapi import FastAPI
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from api import cancelling_docs, command_docs, docs, preview_docs, problems, requeuing_docs
from api.auth import KeyRing
from api.backlog import Backlog
from api.dashboard import routes as dashboard
from api.dashboard.doors import Hashing, Throttle
from api.dashboard.sampler import Sampler
from api.edge import Edge
from api.feed import Feed
from api.intake import Intake
from api.metrics import Metrics
from api.openapi import document
from api.routes import (
    assets,
    batches,
    cancelling,
    changes,
    commands,
    entries,
    health,
    holds,
    outcomes,
    previews,
    receipts,
    requeuing,
    supply,
    transfers,
    wallet_life,
    wallets,
    webhook_endpoints,
)
from api.sessions import Sessions
from api.waiting import Waiting
from ledger import db, inbox
from runtime.announce import Announcer
from runtime.celery_app import make_celery
from runtime.doorbell import Doorbell, impatient_client
from runtime.egress import AllowedHosts
from runtime.receipts import signer
from runtime.settings import settings
from runtime.vault import vault


class Api(FastAPI):
    """FastAPI behind our edge, which takes the two hottest routes past the framework's own layers."""

    edge: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self
        await self.edge(scope, receive, send)

    def build_middleware_stack(self) -> ASGIApp:
        """Without the framework's last resort, whose answer would be plain text: the edge is ours."""
        stack = super().build_middleware_stack()
        assert isinstance(stack, ServerErrorMiddleware)
        return stack.app


def create_app() -> Api:
    """One app per process. It connects when it starts, and waits for PostgreSQL no longer than a connection takes."""
    app = Api(
        title="Bursar",
        version=version("bursar"),
        lifespan=_lifespan,
        openapi_url="/openapi.json",
        docs_url=None,  # ours needs no CDN (api.docs)
        redoc_url=None,
        redirect_slashes=False,
        # Flat, the hottest first: matching takes them in turn.
        routes=[
            *commands.routes,
            *batches.routes,
            *cancelling.routes,
            *requeuing.routes,
            *previews.routes,
            *wallets.router.routes,
            *entries.router.routes,
            *wallet_life.router.routes,
            *holds.router.routes,
            *outcomes.router.routes,
            *transfers.router.routes,
            *assets.router.routes,
            *supply.router.routes,
            *changes.router.routes,
            *receipts.router.routes,
            *webhook_endpoints.router.routes,
            *health.router.routes,
            *docs.routes,
            *dashboard.routes,
        ],
    )
    app.state.metrics = Metrics()
    app.state.metrics.requests.know(app.routes)
    app.edge = Edge(
        super(Api, app).__call__,
        hot=commands.hot | batches.hot,
        answered=app.state.metrics.requests.answered,
    )
    problems.install(app)
    bodies = (
        wallets.PutWallet,
        wallet_life.CloseWallet,
        wallet_life.FreezeWallet,
        wallet_life.PutLimits,
        assets.NewAsset,
        assets.PatchAsset,
        changes.Reason,
        webhook_endpoints.NewEndpoint,
        webhook_endpoints.PatchEndpoint,
        webhook_endpoints.Rotate,
        webhook_endpoints.Since,
    )
    fragments = (command_docs.FRAGMENT, cancelling_docs.FRAGMENT, preview_docs.FRAGMENT, requeuing_docs.FRAGMENT)
    document(app, bodies=bodies, fragments=fragments)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncGenerator[None]:
    state = app.state
    state.settings = config = settings()
    database_url, redis_url = config.database_url.get_secret_value(), config.redis_url.get_secret_value()
    async with await db.connect_async(database_url, application="bursar-api") as connection:
        state.partitions = await inbox.partition_count(connection)
    state.engine = db.async_engine(database_url, application="bursar-api")
    state.signer = signer(config)
    state.keys = KeyRing(state.engine)
    metrics: Metrics = state.metrics
    state.doorbell = Doorbell(make_celery(config, partitions=state.partitions), redis_url, rings=metrics.rings)
    state.redis = impatient_client(redis_url)
    retention = timedelta(days=config.feed_retention_days)
    state.feed = Feed(database_url, partitions=state.partitions, retention=retention)
    state.waiting = Waiting(database_url, redis_url, feed=state.feed)
    state.announcer = Announcer(redis_url)
    # Apart from each other: a cancel may have to wait for a drain, a preview never does.
    state.cancels = Sessions(database_url, application="bursar-cancels")
    state.previews = Sessions(database_url, application="bursar-previews")
    state.closings = Sessions(database_url, application="bursar-closings")
    state.endpoints = Sessions(database_url, application="bursar-endpoints")
    state.vault = vault(config)
    state.allowed_hosts = AllowedHosts.parse(config.webhook_allowed_hosts or "")
    state.backlog = Backlog(database_url, max_backlog=config.max_backlog)
    intake, tracing = Intake, None
    if config.otlp_endpoint:
        from api.traced import TracedEdge, TracedIntake
        from runtime.tracing import Tracing

        assert isinstance(app, Api)
        tracing = Tracing(config.otlp_endpoint, ratio=config.trace_ratio, service="bursar-api")
        app.edge = TracedEdge(app.edge, tracing)
        intake = partial(TracedIntake, tracing)
    state.intake = intake(database_url, state.doorbell, backlog=state.backlog, grouped=metrics.group_size.observe)
    metrics.watch(
        waiting=lambda: state.waiting.waiting, feed=lambda: state.feed.waiting, pace_s=lambda: state.backlog.pace_s
    )
    state.sampler = Sampler(database_url, redis_url, state.engine)
    state.throttle, state.hashing = Throttle(), Hashing()
    sessions = (state.cancels, state.previews, state.closings, state.endpoints)
    parts = (state.keys, state.feed, state.waiting, *sessions, state.backlog, state.intake, state.sampler)
    for part in parts:
        part.start()
    try:
        yield
    finally:
        for part in reversed(parts):
            await part.stop()
        if tracing is not None:
            await asyncio.to_thread(tracing.stop)
        await state.redis.aclose()
        await state.engine.dispose()
