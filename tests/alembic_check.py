"""`alembic check` against a PostgreSQL of its own: do the tables in code and in the migrations agree?"""

import sys

from alembic import command
from alembic.util import CommandError

from tests.servers import alembic_config, migrate, running_postgres


def main() -> int:
    """0 if a database migrated to head is what `ledger.tables` describes, else 1 with what differs."""
    with running_postgres() as server:
        migrate(server.url)
        try:
            command.check(alembic_config(server.url))
        except CommandError as difference:
            print(difference, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
