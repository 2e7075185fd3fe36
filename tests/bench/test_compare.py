"""Comparing two states of the code: which code runs, and what the rounds come to."""

import subprocess
from pathlib import Path

import pytest

from benchmarks.compare import CHECKOUT, Failed, Line, Measured, bench, lines, measured, table, unpack


def test_the_ratio_is_taken_round_by_round() -> None:
    """A machine that was half as fast in the second round changes no ratio."""
    rounds = [
        ({"drain": Measured(1000.0, 50.0)}, {"drain": Measured(950.0, 55.0)}),
        ({"drain": Measured(500.0, 50.0)}, {"drain": Measured(475.0, 45.0)}),
        ({"drain": Measured(1000.0, 50.0)}, {"drain": Measured(1100.0, 50.0)}),
    ]

    assert lines(rounds) == [Line("drain", Measured(1000.0, 50.0), Measured(950.0, 50.0), 0.95, 0.95, 1.1, 1.0)]
    assert "0.950 (0.95 to 1.10)" in table(lines(rounds))


def test_a_work_is_read_from_the_report_with_what_its_servers_cost() -> None:
    cpu = {"us_per_command": {"api": 10.0, "worker": 5.0, "postgres": 20.0, "valkey": 1.0, "load": 99.0}}

    assert measured({"window": {"applied_per_s": 7.0}, "drain": None, "cpu": cpu}) == Measured(7.0, 36.0)
    assert measured({"window": None, "drain": {"per_s": 9.0}, "cpu": None}) == Measured(9.0, 0.0)


@pytest.mark.skipif(not (CHECKOUT / ".git").exists(), reason="no git repository")
def test_a_ref_is_unpacked_beside_the_checkout_and_its_own_code_runs(tmp_path: Path) -> None:
    tree = unpack("HEAD", tmp_path)

    assert (tree / "ledger" / "drain.py").exists()
    with pytest.raises(Failed, match="ended with"):
        bench(tree, ["--only", "no-such-work"])
    with pytest.raises(Failed, match="not the code in"):
        bench(tmp_path / "docs", [])
    with pytest.raises(Failed, match="no-such-ref"):
        unpack("no-such-ref", tmp_path)
    status = subprocess.run(["git", "worktree", "list"], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert str(tmp_path) not in status.stdout
