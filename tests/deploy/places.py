"""Where the files under test lie, and the tools of this virtual environment."""

import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def tool(name: str) -> str:
    """A program that the dev lock installs beside this Python, activated or not."""
    return str(Path(sys.executable).with_name(name))
