"""`/docs`: the reference, from files of our own. Nothing is loaded from anywhere else, and the browser is told so."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

STATIC = Path(__file__).parent / "static"

# Scripts and styles from this server only, none inline; `data:` images are the icons of the style sheet.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


async def docs(_: Request) -> Response:
    return FileResponse(STATIC / "docs.html", headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY})


routes: list[BaseRoute] = [
    Route("/docs", docs, methods=["GET"], include_in_schema=False),
    Mount("/docs/static", StaticFiles(directory=STATIC), name="static"),
]
