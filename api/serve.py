"""`bursar api`: uvicorn with uvloop and httptools, and the limits of a public door."""

import gc
import socket

import uvicorn

from api.app import Api, create_app
from runtime.log import configure
from runtime.settings import settings

KEEP_ALIVE_S = 75  # longer than common balancers keep their side open, so that they close first
BACKLOG = 2048  # connections waiting to be accepted
SHUTDOWN_S = 5  # what is being answered at SIGTERM gets this long; who waits is told at once where the command stands
STARTUP_FAILED = 3  # uvicorn's own exit code for it


class _Server(uvicorn.Server):
    """Uvicorn, which at a signal waits for the requests under way; those that wait for outcomes are let go."""

    def __init__(self, app: Api, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.state.waiting.release()
        self._app.state.feed.release()
        self._app.state.sampler.release()
        await super().shutdown(sockets)


def serve(*, host: str | None, port: int | None) -> None:
    """Serve until SIGTERM or SIGINT."""
    given = settings()
    configure(given)
    app = create_app()
    # Requests make no cycles to speak of, and what the imports made stays for good: a full collection every few
    # thousand requests would stop them all for milliseconds and find nothing.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    config = uvicorn.Config(
        app,
        host=host or given.host,
        port=given.port if port is None else port,
        loop="uvloop",
        http="httptools",
        access_log=False,  # a line a command would cost more than the command; /metrics counts them
        log_config=None,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=SHUTDOWN_S,
        backlog=BACKLOG,
        proxy_headers=False,
    )
    server = _Server(app, config)
    server.run()
    if not server.started:
        raise SystemExit(STARTUP_FAILED)
