"""Nobody thought of these: bodies made at random, and all that Schemathesis finds to ask from the OpenAPI document."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contracts import generated
from tests.contracts.caller import Caller, in_an_hour
from tests.servers import ROOT

# Values at the edges of what is lawful, beside anything at all. Lone surrogates travel as escapes.
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(codec=None, exclude_categories=())),
    st.sampled_from(
        ["player-42", "gold", "spend", "transfer", "1", "0", "@treasury", "2099-11-21T12:00:05Z", 10**18, ""]
    ),
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner))
lawful: dict[str, st.SearchStrategy[Any]] = {
    "type": st.sampled_from(["top_up", "bonus", "spend", "transfer", "hold", "exchange", "adjust"]),
    "wallet": st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._:@+=~-]{0,20}\Z"),
    "to_wallet": st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._:@+=~-]{0,20}\Z"),
    "asset": st.just("gold"),
    "amount": st.integers(1, 1_000) | st.integers(1, 1_000).map(str),
}
optional = dict.fromkeys(
    ("reference", "metadata", "expires_at", "hold", "precondition", "rate", "hold_expires_at", "reason"), values
)
optional |= {
    "rate": st.just("2") | values,
    "hold_expires_at": st.just("2026-11-21T12:00:05Z") | values,
    "reason": st.just("a mistake") | values,
}
commands = st.fixed_dictionaries({name: lawful[name] | values for name in lawful}, optional=optional)
nearly = st.fixed_dictionaries(lawful, optional=optional)


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    """JSON with NaN and its like as Python writes them; sometimes with a few bytes changed, doubled or gone."""
    whole = json.dumps(draw(st.one_of(nearly, commands, values)), ensure_ascii=draw(st.booleans()))
    body = bytearray(whole.encode("utf-8", "surrogatepass"))
    for _ in range(draw(st.sampled_from([0, 0, 1, 3]))):
        place = draw(st.integers(0, len(body)))
        length = draw(st.integers(0, 3))
        body[place : place + length] = draw(
            st.binary(max_size=3) | st.sampled_from([b'"', b",", b":", b"\\u0000", b"e9"])
        )
    return bytes(body)


@settings(
    max_examples=300,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(body=texts())
def test_no_body_breaks_the_api(game: Caller, body: bytes) -> None:
    """Accepted, or refused with a problem: `game` checks every answer against the document."""
    stored = game.service.stored()
    answer = game.post(None, content=body)
    assert answer.status_code in (202, 400, 422)
    assert game.service.stored() == stored + (answer.status_code == 202)
    if answer.status_code == 202:
        assert json.loads(body)["wallet"] == answer.json()["wallet"]
    batch = game.http.post(
        "/v1/commands/batch",
        content=b'{"commands":[' + body + b"]}",
        headers={"Content-Type": "application/json"},
    )
    assert batch.status_code in (200, 400, 422)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("paths", "selected"),
    [("^/v1/commands(/batch|/[{]id[}])?$", 4), ("^/v1/commands/(cancel|(batch/)?preview|[{]id[}](/cancel)?)$", 5)],
    ids=["posts", "cancels and previews"],
)
def test_schemathesis_finds_nothing(
    new_caller: Callable[..., Caller], tmp_path: Path, paths: str, selected: int
) -> None:
    """Zero findings; schemathesis.toml says which checks do not apply, and why. The other routes: tests/api."""
    tester = new_caller("schemathesis")
    tester.http.post("/v1/assets", json={"code": generated.ASSET, "name": "Generated"})
    wallet = tester.new_wallet(1_000_000)
    credit = tester.do("top_up", wallet, "1000000")
    hold = tester.do("hold", wallet, "1000000", hold_expires_at=in_an_hour())
    names = {"BURSAR_WALLET": wallet, "BURSAR_COMMAND": credit["id"], "BURSAR_HOLD": hold["id"]}
    run = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"),
            *("--config-file", Path(__file__).with_name("schemathesis.toml")),
            *("run", f"{tester.service.url}/openapi.json", "--include-path-regex", paths),
            *("--max-examples", "12", "--no-color"),
        ],
        env=os.environ | {"BURSAR_API_KEY": tester.api_key, "PYTHONPATH": str(ROOT)} | names,
        cwd=tmp_path,  # where it leaves its notes
        capture_output=True,
        text=True,
        timeout=290,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-6_000:] + run.stderr[-1_000:]
    assert f"{selected} selected" in run.stdout
