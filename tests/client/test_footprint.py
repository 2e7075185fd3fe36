"""What importing the client costs, and what comes with it: httpx2, and nothing else of ours or others'."""

import json
import subprocess
import sys
import tomllib

from tests.servers import ROOT

# httpx2 and what it stands on.
ITS_OWN = {"httpx2", "httpcore2", "h11", "anyio", "idna", "truststore", "certifi", "typing_extensions", "sniffio"}
ASKED = """
import json, sys
before = set(sys.modules)
{statement}
print(json.dumps(sorted({{name.partition(".")[0] for name in set(sys.modules) - before}} - sys.stdlib_module_names)))
"""


def brought(statement: str) -> set[str]:
    """The packages that come with it, those of Python itself left out."""
    asked = [sys.executable, "-c", ASKED.format(statement=statement)]
    told = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    return set(json.loads(told.stdout))


def test_the_client_brings_httpx2_alone() -> None:
    told = brought("from bursar import AsyncClient, Client, Order, verify_webhook\nimport bursar.client")
    assert told - ITS_OWN == {"bursar"}
    assert "httpx2" in told


def test_the_package_alone_brings_nothing() -> None:
    assert brought("import bursar") == {"bursar"}


def test_only_the_client_of_our_packages_is_loaded() -> None:
    names = "[name for name in sys.modules if name.startswith('bursar.') and not name.startswith('bursar.client')]"
    assert brought(f"import bursar.client; assert {names} == [], {names}")


def test_installing_the_client_asks_for_httpx2_alone_and_everything_else_is_the_services() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert [dependency.partition(">")[0] for dependency in project["dependencies"]] == ["httpx2"]
    assert "bursar[server]" in project["optional-dependencies"]["local"]


def test_the_command_line_without_the_service_says_what_is_missing() -> None:
    script = "import sys; sys.modules['typer'] = None; from bursar.__main__ import main; main()"
    told = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert told.returncode == 1
    assert told.stderr == "Only the client is installed: there is no typer. The service is the extra `server`.\n"
