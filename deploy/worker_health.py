"""The worker's health check: fails when work waits and nobody does it.

A worker that lives but does not consume looks well from outside: its process runs, Celery answers pings. Its work
tells. One worker drains 100,000 commands in seconds and looks for forgotten ones twice a second, so a command that has
waited for WAITED_S means that nothing drains, or that far more comes in than is drained. Either wants an operator.

Exit code 0 also when PostgreSQL does not answer: workers wait for it and resume, and restarting them would help nobody.
"""

import os
import sys

import psycopg

from ledger import db, inbox

WAITED_S = 30
PARTITIONS_MAX = 256  # migrations/versions/0002_wallets.py; a partition that does not exist has nothing pending


def main() -> str | int:
    try:
        with db.connect(os.environ["BURSAR_DATABASE_URL"], application="bursar-worker-health") as connection:
            waits = inbox.overdue(connection, range(PARTITIONS_MAX), age_s=WAITED_S)
    except psycopg.OperationalError as error:
        print(f"cannot tell, PostgreSQL does not answer: {str(error).strip()[:200]}")
        return 0
    return f"a command has been pending for more than {WAITED_S} s" if waits else 0


if __name__ == "__main__":
    sys.exit(main())
