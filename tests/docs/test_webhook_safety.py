"""docs/webhook-safety.md: its limits and codes are the sender's, its examples are taken and refused as it says."""

import re

import pytest

from runtime.egress import URL_MAX, AllowedHosts, url_fault
from tests.docs.pages import ROOT, rows, section
from worker import sending
from worker.sending import Failure

PAGE = ROOT / "docs/webhook-safety.md"


def test_the_limits_are_the_codes() -> None:
    stated = {row[0].strip("`"): float(row[1]) for row in rows(section(PAGE, "Limits"))}
    assert stated == {name: getattr(sending, name) for name in stated}
    code = (ROOT / "worker/sending.py").read_text()
    assert set(stated) == set(re.findall(r"^([A-Z][A-Z_]+) = [0-9]", code, re.MULTILINE))
    assert f"more than {URL_MAX:,} characters" in PAGE.read_text()


def test_the_failures_are_the_codes() -> None:
    assert [row[0].strip("`") for row in rows(section(PAGE, "Why an attempt failed"))] == [*map(str, Failure)]


@pytest.mark.parametrize("host", ["127.1", "0x7f.1", "2130706433"])
def test_the_odd_forms_are_refused(host: str) -> None:
    assert f"`{host}`" in section(PAGE, "What is refused")
    assert url_fault(f"https://{host}/", AllowedHosts())


def test_the_example_of_a_list_is_one() -> None:
    [example] = re.findall(r"^`(.+, .+)`\.", section(PAGE, "What may be opened"), re.MULTILINE)
    allowed = AllowedHosts.parse(example)
    assert (len(allowed.names), len(allowed.networks)) == (1, 2)
