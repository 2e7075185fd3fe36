"""`bursar seed`: the demo data, given by real commands through the real path. Running it again changes nothing.

The idempotency keys are fixed, so a second run replays the first run's outcomes.
"""

import json
import urllib.error
import urllib.request
from typing import Any

import typer
from rich.console import Console

ASSETS = (("gold_coins", "Gold coins"), ("diamonds", "Diamonds"), ("loyalty_points", "Loyalty points"))
PLAYERS = (("alice", "Alice"), ("bob", "Bob"), ("charlie", "Charlie"))
GIFTS = (("gold_coins", "100"), ("diamonds", "50"), ("loyalty_points", "500"))
WAIT_S = 15  # a worker that is just starting takes a few seconds
TIMEOUT_S = 30


def seed(*, url: str, key: str) -> None:
    """Create assets and players and top them up. Raises typer.Exit with a clear sentence where the api refuses."""
    out = Console(stderr=True)
    for code, name in ASSETS:
        _call(url, key, "POST", "/v1/assets", {"code": code, "name": name, "scale": 0}, accept=(201, 200, 409))
    for wallet, name in PLAYERS:
        _call(url, key, "PUT", f"/v1/wallets/{wallet}", {"name": name}, accept=(200, 201))
    commands = [
        {"idempotency_key": f"seed:{wallet}:{asset}", "type": "top_up", "wallet": wallet, "asset": asset,
         "amount": amount, "reference": "demo"}
        for wallet, _ in PLAYERS
        for asset, amount in GIFTS
    ]  # fmt: skip
    answer = _call(url, key, "POST", "/v1/commands/batch", {"commands": commands}, wait_s=WAIT_S, accept=(200,))
    states = [result.get("command", {}).get("status", "refused") for result in answer["results"]]
    if states != ["applied"] * len(commands):
        typer.echo(
            f"Not all demo credits were applied ({', '.join(sorted(set(states)))}). Is a worker running?", err=True
        )
        raise typer.Exit(1)
    out.print(f"Demo data is in: {', '.join(code for code, _ in ASSETS)}; {', '.join(w for w, _ in PLAYERS)}.")


def _call(
    url: str,
    key: str,
    method: str,
    path: str,
    body: dict[str, Any],
    *,
    accept: tuple[int, ...],
    wait_s: int = 0,
) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    if wait_s:
        headers["Prefer"] = f"wait={wait_s}"
    request = urllib.request.Request(url + path, json.dumps(body).encode(), headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        if error.code in accept:
            return json.loads(text)
        typer.echo(f"{method} {path} was answered {error.code}: {text}", err=True)
        raise typer.Exit(1) from error
    except OSError as error:
        typer.echo(f"No api answers at {url}: {error}", err=True)
        raise typer.Exit(1) from error
