"""The list of removals is about the code as it is: what was changed since is named here, not passed over in a run."""

from pathlib import Path

from tests.mutations.removals import REMOVALS, TESTS

ROOT = Path(__file__).resolve().parents[2]


def test_each_removal_stands_once_in_its_file() -> None:
    stale = [f"{each.file}: {each.what}" for each in REMOVALS if (ROOT / each.file).read_text().count(each.old) != 1]
    assert stale == []


def test_each_file_has_tests_that_should_notice() -> None:
    assert {each.file for each in REMOVALS} - set(TESTS) == set()
    gone = [
        test
        for tests in TESTS.values()
        for test in tests
        for file, _, name in [test.partition("::")]
        if not (ROOT / file).exists() or name.split("[")[0] not in (ROOT / file).read_text()
    ]
    assert gone == []
