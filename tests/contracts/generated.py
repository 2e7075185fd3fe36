"""Hooks for Schemathesis: what JSON Schema cannot say of a good command is mended before it is sent."""

import re
from itertools import count
from typing import Any

import schemathesis

from api.command_docs import KEY_PATTERN
from ledger.names import ASSET_PATTERN

ASSET = "generated"  # whatever asset was meant becomes this one, which exists
_numbers = count(1)
_is_key = re.compile(KEY_PATTERN).search
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
        case {"wallet": wallet, "to_wallet": to_wallet} if wallet == to_wallet:
            return mended({**body, "to_wallet": "v" if wallet == "w" else "w"})  # none pays to itself
        case {"asset": str() as asset} if asset != ASSET and _is_asset(asset):
            return mended({**body, "asset": ASSET})
        case dict():
            return {name: mended(value) for name, value in body.items()}
        case list():
            return list(map(mended, body))
        case float() if body.is_integer():
            return int(body)  # to JSON Schema 1.0 is an integer, to the contract it is a float
        case float() if "e" in repr(body):
            return 0.5  # metadata takes no number that needs an exponent
        case _:
            return body
