"""The benchmark of reads, on a small ledger: it runs, every read finds what it asks for, and nothing is left behind."""

import subprocess
import sys

import pytest

from benchmarks.compare import CHECKOUT
from benchmarks.reads import reads


@pytest.mark.timeout(120)
def test_every_read_finds_what_it_asks_for() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.reads", "--entries", "200000", "--requests", "20"],
        cwd=CHECKOUT, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip

    assert ran.returncode in (0, 3), ran.stderr  # how fast it was is not judged here
    for name in reads(1):
        assert name in ran.stdout
