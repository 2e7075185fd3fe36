"""What the routes take from the app: connections to PostgreSQL, and the doorbells."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import Request
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from runtime.doorbell import COURIERS, Doorbell


@asynccontextmanager
async def autocommit(request: Request) -> AsyncGenerator[AsyncConnection]:
    """For reads: each statement is a transaction of its own, without the round trips of BEGIN and COMMIT."""
    engine: AsyncEngine = request.app.state.engine
    async with engine.connect() as connection:
        yield await connection.execution_options(isolation_level="AUTOCOMMIT")


@asynccontextmanager
async def transaction(request: Request) -> AsyncGenerator[AsyncConnection]:
    """For changes: committed at the end, rolled back by an exception."""
    engine: AsyncEngine = request.app.state.engine
    async with engine.begin() as connection:
        yield connection


def ring_all(request: Request) -> None:
    """Every partition's doorbell. Call after the commit."""
    doorbell: Doorbell = request.app.state.doorbell
    doorbell.ring_all(range(request.app.state.partitions))


def ring_couriers(request: Request) -> None:
    """Webhooks are due. Call after the commit."""
    doorbell: Doorbell = request.app.state.doorbell
    doorbell.ring(COURIERS)
