"""Where the files under test lie, and the tools of this virtual environment and of this machine."""

import shutil
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def tool(name: str) -> str:
    """A program that the dev lock installs beside this Python, activated or not."""
    return str(Path(sys.executable).with_name(name))


def system_program(name: str, *, package: str) -> str:
    """A program that the machine's own packages bring. Skips the test where it is missing."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed; Debian's {package} brings it")
    return found
