"""The command line, the whole service on one machine, and the client of game servers: `from bursar import Client`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bursar.client import AsyncClient as AsyncClient
    from bursar.client import Client as Client
    from bursar.client import Order as Order
    from bursar.client import verify_webhook as verify_webhook

_OF_THE_CLIENT = ("AsyncClient", "Client", "Order", "verify_webhook")


def __getattr__(name: str) -> Any:
    """The client is imported when it is asked for: the command line does without."""
    if name in _OF_THE_CLIENT:
        return getattr(import_module("bursar.client"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
