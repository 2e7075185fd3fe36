"""Receipts: what a command came to, signed, so that a third party can check it without asking us.

A receipt is a JWS in its flattened JSON form (RFC 7515, 7.2.2), signed with Ed25519 (RFC 8037), over a JSON object:
the command with its outcome, and what its transfer's hash in the chain is made of (ledger.chain). Keys are named by
their thumbprint (RFC 7638) and published as a JWK set (RFC 7517). How to read one is told in docs/receipts.md.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, cast

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ledger import chain
from runtime import base64url
from runtime.settings import Settings

ALGORITHM = "EdDSA"
TYPE = "bursar-receipt"  # in the signed header: our key signs nothing else, and no receipt passes for anything else

Jwk = dict[str, str]


class Unverified(Exception):
    """The receipt is not one, or not ours, or was changed. The message says which."""


class Signer:
    """The key that signs now, and those that did, whose receipts stay good."""

    def __init__(self, private_key: bytes | None, former: Iterable[bytes] = ()) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(private_key) if private_key is not None else None
        public = [] if self._key is None else [self._key.public_key().public_bytes_raw()]
        self._jwks = [jwk(key) for key in dict.fromkeys([*public, *former])]

    @property
    def offered(self) -> bool:
        return self._key is not None

    def jwks(self) -> dict[str, list[Jwk]]:
        """Every public key, the present one first."""
        return {"keys": self._jwks}

    def sign(self, payload: bytes) -> dict[str, str]:
        """The receipt of a JSON payload. Ed25519 has no randomness: the same payload makes the same receipt."""
        assert self._key is not None
        header = {"alg": ALGORITHM, "kid": self._jwks[0]["kid"], "typ": TYPE}
        protected, body = base64url.encode(msgspec.json.encode(header)), base64url.encode(payload)
        signature = self._key.sign(f"{protected}.{body}".encode())
        return {"payload": body, "protected": protected, "signature": base64url.encode(signature)}


def signer(settings: Settings) -> Signer:
    key = settings.receipt_key
    former = filter(None, (settings.receipt_former_keys or "").replace(",", " ").split())
    return Signer(
        base64url.key_bytes(key.get_secret_value()) if key is not None else None,
        [base64url.key_bytes(public) for public in former],
    )


def new_key() -> tuple[str, Jwk]:
    """A private key, as the setting has it, and its public half."""
    key = Ed25519PrivateKey.generate()
    return base64url.encode(key.private_bytes_raw()), jwk(key.public_key().public_bytes_raw())


def jwk(public_key: bytes) -> Jwk:
    key = {"crv": "Ed25519", "kty": "OKP", "x": base64url.encode(public_key)}
    # RFC 7638: the hash of just these members, in this order, without spaces.
    kid = base64url.encode(hashlib.sha256(msgspec.json.encode(key)).digest())
    return {**key, "kid": kid, "alg": ALGORITHM, "use": "sig"}


def verify(receipt: object, keys: Iterable[Mapping[str, object]]) -> dict[str, Any]:
    """What a receipt says, once it is found to be signed by one of these JWKs and true to its own hash.

    Raises Unverified. It needs neither network nor database.
    """
    payload = _signed(receipt, keys)
    try:
        said = msgspec.json.decode(payload)
    except msgspec.DecodeError:
        said = None
    if not isinstance(said, dict) or cast(dict[str, Any], said).get("object") != "receipt":
        raise Unverified("what is signed is no receipt")
    found = cast(dict[str, Any], said)
    if found.get("transfer") is not None:
        _check_hash(found["transfer"])
    return found


def _signed(receipt: object, keys: Iterable[Mapping[str, object]]) -> bytes:
    try:
        parts = msgspec.convert(receipt, dict[str, str])
        protected, body, signature = parts["protected"], parts["payload"], base64url.decode(parts["signature"])
        header = msgspec.json.decode(base64url.decode(protected), type=dict[str, Any])
        payload = base64url.decode(body)
    except (KeyError, ValueError, msgspec.MsgspecError):
        raise Unverified("not a JWS in flattened JSON form: payload, protected and signature, each in base64") from None
    if (header.get("alg"), header.get("typ"), "crit" in header) != (ALGORITHM, TYPE, False):
        raise Unverified(f"not signed as a receipt: the header is {header}")
    known = {key.get("kid"): key.get("x") for key in keys}
    public = known.get(header.get("kid"))
    if not isinstance(public, str):
        raise Unverified(f"signed with key {header.get('kid')}, which is none of the given ones")
    try:
        Ed25519PublicKey.from_public_bytes(base64url.key_bytes(public)).verify(
            signature, f"{protected}.{body}".encode()
        )
    except (InvalidSignature, ValueError):
        raise Unverified("the signature does not fit: the receipt was changed, or another key signed it") from None
    return payload


def _check_hash(transfer: Mapping[str, Any]) -> None:
    """The transfer's hash is that of what the receipt says of it. One from before the chain has none."""
    if transfer["hash"] is None:
        return
    names = ("account_id", "version", "asset_id", "amount", "balance_after", "held_after")
    seq, tenant_id, partition, position, at_us = (
        int(transfer[name]) for name in ("seq", "tenant_id", "partition", "position", "at_us")
    )
    lines: list[chain.Line] = []
    for entry in transfer["entries"]:
        account_id, version, asset_id, amount, balance, held = (int(entry[name]) for name in names)
        lines.append((account_id, version, seq, asset_id, amount, balance, held))
    request_hash = bytes.fromhex(transfer["request_hash"])
    text = chain.canonical(seq, tenant_id, partition, position, at_us, sorted(lines), request_hash)
    made = hashlib.sha256(bytes.fromhex(transfer["previous_hash"]) + text).hexdigest()
    if made != transfer["hash"]:
        raise Unverified(f"its hash should be {made}, and says {transfer['hash']}")
