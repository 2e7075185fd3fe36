"""Endpoints that listen to a bank's tenant."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg

from ledger import db, endpoints
from ledger.endpoints import Settings
from tests.books import Bank

URL = "https://receiver.example.com/hooks"
ALL_OF_IT = Settings(URL, None, None, None, "none", None, [], None)


@contextmanager
def transaction(bank: Bank) -> Generator[psycopg.Connection[Any]]:
    """On a connection as the api has one."""
    connection = db.connect(bank.url, application="test-endpoints")
    try:
        with connection.transaction():
            yield connection
    finally:
        connection.close()


def listen(bank: Bank, **chosen: Any) -> int:
    """A new endpoint of the bank's tenant."""
    with transaction(bank) as connection:
        settings = replace(ALL_OF_IT, **chosen)
        return endpoints.create(connection, bank.tenant, bank.client, settings, b"sealed").id
