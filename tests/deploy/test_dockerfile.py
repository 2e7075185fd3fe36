"""The image: built from the lock, run by nobody special, made of what it needs and nothing else."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.deploy.places import REPOSITORY, tool

DOCKERFILE = REPOSITORY / "deploy/Dockerfile"
TEXT = DOCKERFILE.read_text()
IGNORED = (REPOSITORY / ".dockerignore").read_text().splitlines()
ALLOWED = [line.removeprefix("!").rstrip("/") for line in IGNORED if line.startswith("!")]


@pytest.mark.parametrize("path", sorted(REPOSITORY.glob("deploy/**/*Dockerfile")), ids=lambda path: path.name)
def test_hadolint_finds_nothing(path: Path) -> None:
    result = subprocess.run([tool("hadolint"), path], capture_output=True, text=True, timeout=30, check=False)
    assert (result.returncode, result.stdout) == (0, "")


def test_everything_comes_from_the_lock_by_its_hash() -> None:
    installs = re.findall(r"pip install (.*)", TEXT)
    assert len(installs) == 2
    assert "--require-hashes -r /app/requirements.lock" in installs[0]
    assert "--no-deps --no-build-isolation" in installs[1]


def test_it_runs_as_a_number_that_is_not_root() -> None:
    *_, user = re.findall(r"^USER (.+)$", TEXT, re.MULTILINE)
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user)


def test_signals_reach_the_process() -> None:
    assert re.search(r'^ENTRYPOINT \["bursar"\]$', TEXT, re.MULTILINE)
    assert re.search(r"^STOPSIGNAL SIGTERM$", TEXT, re.MULTILINE)
    assert "REMAP_SIGTERM=SIGQUIT" in TEXT


def test_the_base_is_pinned_and_the_same_as_in_the_compose_file() -> None:
    base = re.search(r"^ARG PYTHON_IMAGE=(python:3\.\d+-slim-\w+)$", TEXT, re.MULTILINE)
    assert base
    services = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]
    assert services["migrate"]["build"]["args"]["PYTHON_IMAGE"] == f"${{PYTHON_IMAGE:-{base[1]}}}"
    assert re.findall(r"^FROM (\S+)", TEXT, re.MULTILINE) == ["${PYTHON_IMAGE}"] * 2


def test_nothing_reaches_the_image_unless_it_is_named() -> None:
    assert next(line for line in IGNORED if line and not line.startswith("#")) == "*"
    assert not [name for name in ALLOWED if not (REPOSITORY / name).exists()]
    assert "**/.env*" in IGNORED


def test_every_package_is_named() -> None:
    """A package that was added and forgotten here would be missing in the image only."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    packages = {pattern.rstrip("*") for pattern in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert packages <= set(ALLOWED)
    assert {"alembic.ini", "pyproject.toml", project["project"]["readme"], "requirements.lock"} <= set(ALLOWED)
