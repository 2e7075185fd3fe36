"""Hooks for Schemathesis: what JSON Schema cannot say of a good command is mended before it is sent."""

import os
import re
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import schemathesis

from api.command_schemas import KEY_PATTERN
from ledger.money import RATE_PATTERN
from ledger.names import ASSET_PATTERN

ASSET = "generated"  # whatever asset was meant becomes this one, which exists
_numbers = count(1)
_is_key = re.compile(KEY_PATTERN).search
_is_id = re.compile("^[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$").search
_is_rate = re.compile(RATE_PATTERN).search
_is_time = re.compile(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ].+").search
_is_asset = re.compile(ASSET_PATTERN).search


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:
    case.body = mended(case.body)
    headers = case.headers or {}
    key = headers.get("Idempotency-Key")
    if isinstance(key, str) and _is_key(key):
        headers["Idempotency-Key"] = f"generated-{next(_numbers)}"  # another request under a used key is refused
    if "Prefer" in headers:
        headers["Prefer"] = "wait=2"


def mended(body: Any) -> Any:
    match body:
        case {"commands": list(items), "atomic": True} if all(isinstance(item, dict) for item in items):
            return {**body, "commands": [_leg(mended(item)) for item in items]}
        case {"wallet": wallet, "to_wallet": to_wallet} if wallet == to_wallet:
            return mended({**body, "to_wallet": "v" if wallet == "w" else "w"})  # none pays to itself
        case {"asset": str() as asset} if asset != ASSET and _is_asset(asset):
            return mended({**body, "asset": ASSET})
        case dict():
            return {name: _member(name, mended(value)) for name, value in body.items()}
        case list():
            return list(map(mended, body))
        case float() if body.is_integer():
            return int(body)  # to JSON Schema 1.0 is an integer, to the contract it is a float
        case float() if "e" in repr(body):
            return 0.5  # metadata takes no number that needs an exponent
        case _:
            return body


def _member(name: str, value: Any) -> Any:
    """What only makes sense with what is there: ids that name a command, times within reach, rates that make a unit."""
    match name, value:
        case ("hold", str()) if _is_id(value):
            return os.environ["BURSAR_HOLD"]
        case ("command", str()) if _is_id(value):
            return os.environ["BURSAR_COMMAND"]
        case ("hold_expires_at", str()) if _is_time(value):
            return (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        case ("rate", str()) if _is_rate(value):
            return "1"
        case ("to_asset", str()) if value == ASSET:
            return f"{ASSET}_too"
        case _:
            return value


def _leg(item: dict[str, Any]) -> dict[str, Any]:
    """One of an atomic batch: of the wallet of the others, under a key of its own."""
    if "wallet" in item:
        item = {**item, "wallet": os.environ["BURSAR_WALLET"]}
        if item.get("to_wallet") == item["wallet"]:
            item["to_wallet"] = "v"
    key = item.get("idempotency_key")
    return {**item, "idempotency_key": f"leg-{next(_numbers)}"} if isinstance(key, str) and _is_key(key) else item
