"""What holds the two commands together: the locks, and that no package escapes the checks."""

import re
import tomllib
from pathlib import Path

from tests.servers import ROOT


def pins(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9._-]+(?:\[[a-z,]+\])?)==([^ ;\\]+)", (ROOT / lock).read_text(), re.MULTILINE))


def test_the_tests_lock_holds_all_that_runs_in_the_same_versions() -> None:
    running, testing = pins("requirements.lock"), pins("requirements-dev.lock")
    assert len(running) > 40
    assert running.items() <= testing.items()


def test_the_locks_have_hashes_and_name_no_host() -> None:
    for lock in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / lock).read_text()
        assert "://" not in text
        assert all("--hash=sha256:" in entry for entry in re.split(r"\n(?=[a-z0-9])", text)[1:])


def test_every_package_of_ours_is_linted_typed_and_layered() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    ours = {path.parent.name for path in Path(ROOT).glob("*/__init__.py")} - {"tests"}
    assert ours - {"migrations"} == set(tools["importlinter"]["root_packages"])
    assert ours <= set(tools["pyright"]["include"])
