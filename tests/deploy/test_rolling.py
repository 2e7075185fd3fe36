"""A migration, and every process restarted one by one, while commands flow: nothing of it is seen from outside."""

import os
import shutil
import signal
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from bursar.schema import alembic_config
from tests.crash import load as load_module
from tests.crash.checks import check
from tests.crash.load import Load
from tests.crash.service import Program, Service
from tests.deploy.proxy import Nginx

STOP_S = 20.0  # what docker-compose.yml gives a worker, whose soft shutdown takes five
LANES, PACE_S = 3, 0.1  # a load that lasts as long as the restarts, and is checked in seconds
STEP = 50  # commands between two steps

# What a later version may do to the tables while this version's processes run: a column more, an index on a hot table.
NEXT_MIGRATION = """
from alembic import op

revision, down_revision = "9999", {head!r}


def upgrade() -> None:
    op.execute("ALTER TABLE commands ADD COLUMN of_a_later_version text")
    op.execute("ALTER TABLE accounts ADD COLUMN of_a_later_version bigint NOT NULL DEFAULT 7")
    op.execute("CREATE INDEX of_a_later_version ON outcomes (code) WHERE code = 'internal_error'")


def downgrade() -> None:
    op.execute("DROP INDEX of_a_later_version")
    op.execute("ALTER TABLE accounts DROP COLUMN of_a_later_version")
    op.execute("ALTER TABLE commands DROP COLUMN of_a_later_version")
"""


def next_version(url: str, folder: Path) -> tuple[Config, str]:
    """Alembic's configuration of a version that has one more migration than this one, and this one's revision."""
    config = alembic_config(url)
    head = ScriptDirectory.from_config(config).get_current_head()
    assert head
    (folder / "9999_later.py").write_text(NEXT_MIGRATION.format(head=head))
    config.set_main_option("path_separator", "os")
    here = Path(str(config.get_main_option("script_location"))) / "versions"
    config.set_main_option("version_locations", f"{here}{os.pathsep}{folder}")
    return config, head


def stop(*programs: Program) -> None:
    """SIGTERM, as an orchestrator sends it. They end in order; uvicorn then tells what ended it, as a shell expects."""
    for program in programs:
        program.process.send_signal(signal.SIGTERM)
    for program in programs:
        assert program.process.wait(STOP_S) in (0, -signal.SIGTERM)


@contextmanager
def door(folder: Path, ports: list[int]) -> Generator[list[int]]:
    """Where the load posts to: an nginx before these apis. Where there is none, the apis themselves."""
    if not (shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")):
        yield ports
        return
    proxy = Nginx(folder, ports, tls=False)
    proxy.start()
    try:
        yield [proxy.port]
    finally:
        proxy.stop()


@pytest.mark.timeout(240)
def test_a_new_version_comes_in_while_commands_flow(
    service: Service, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_module, "PACE_S", PACE_S)
    newer, head = next_version(service.database_url, tmp_path)
    second = service.add_api()
    second.start()
    apis = [service.api, second]
    with door(folder, [api.port for api in apis]) as ports:
        with Load(service, ports=ports, lanes=LANES) as load:
            load.until(accepted=STEP)
            command.upgrade(newer, "head")
            load.until(accepted=STEP)  # this version's processes on the newer tables
            for worker, api in zip(service.workers, apis, strict=True):
                stop(worker, api)
                load.until(accepted=STEP)  # by the other ones
                worker.spawn()
                api.start()
                worker.wait_ready()
        # Through nginx no request was refused or lost; a client that has but one api sends again.
        assert set(load.refused) <= (set() if ports[0] != service.api.port else {"unanswered"})
        check(service, load)
    command.downgrade(newer, head)
    service.dismiss(second)
