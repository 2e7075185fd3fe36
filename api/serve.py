"""`bursar api`: uvicorn with uvloop and httptools, and the limits of a public door."""

import gc

import uvicorn

from runtime.log import configure
from runtime.settings import settings

KEEP_ALIVE_S = 75  # longer than common balancers keep their side open, so that they close first
BACKLOG = 2048  # connections waiting to be accepted
SHUTDOWN_S = 5  # what is being answered at SIGTERM gets this long; a waiting request is cut short


def serve(*, host: str | None, port: int | None) -> None:
    """Serve until SIGTERM or SIGINT."""
    config = settings()
    configure(config)
    # Requests make no cycles to speak of, and what the imports made stays for good: a full collection every few
    # thousand requests would stop them all for milliseconds and find nothing.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    uvicorn.run(
        "api.app:create_app",
        factory=True,
        host=host or config.host,
        port=config.port if port is None else port,
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
