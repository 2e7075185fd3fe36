"""Triggers and functions, kept as SQL beside the migration that creates them."""

from pathlib import Path


def read_sql(name: str) -> str:
    """The text of one file here. `%` needs no care: alembic passes it through unformatted."""
    return (Path(__file__).parent / name).read_text()
