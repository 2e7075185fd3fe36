"""The worker's health check: fails when work waits and nobody does it.

A worker that lives but does not consume looks well from outside: its process runs, Celery answers pings. Its work
tells. One worker drains 100,000 commands in seconds and looks for forgotten ones twice a second, so a command that has
waited for WAITED_S means that nothing drains, or that far more comes in than is drained. Either wants an operator.

With `webhooks`: the same of deliveries. A courier looks every second and spares an endpoint that fails or asks for a
pause, so one that answers, and has had something due for WAITED_S, is served by nobody.

Exit code 0 also when PostgreSQL does not answer: workers wait for it and resume, and restarting them would help nobody.
"""

import os
import sys

import psycopg

from ledger import db, deliveries, inbox

WAITED_S = 30
PARTITIONS_MAX = 256  # migrations/versions/0002_wallets.py; a partition that does not exist has nothing pending


def main() -> str | int:
    try:
        with db.connect(os.environ["BURSAR_DATABASE_URL"], application="bursar-worker-health") as connection:
            if sys.argv[1:] == ["webhooks"]:
                waits = deliveries.unserved(connection, age_s=WAITED_S)
            else:
                waits = inbox.overdue(connection, range(PARTITIONS_MAX), age_s=WAITED_S)
    except psycopg.OperationalError as error:
        print(f"cannot tell, PostgreSQL does not answer: {str(error).strip()[:200]}")
        return 0
    what = "a delivery has been due" if sys.argv[1:] == ["webhooks"] else "a command has been pending"
    return f"{what} for more than {WAITED_S} s" if waits else 0


if __name__ == "__main__":
    sys.exit(main())
