"""All of the dashboard's routes."""

from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles

from api.dashboard import assets, commands, doors, overview, records, search, wallets, webhooks
from api.docs import STATIC

routes: list[BaseRoute] = [
    *doors.routes,
    *overview.routes,
    *search.routes,
    *commands.routes,
    *wallets.routes,
    *webhooks.routes,
    *assets.routes,
    *records.routes,
    Mount("/static", StaticFiles(directory=STATIC), name="dashboard static"),
]
