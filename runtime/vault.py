"""Secrets that have to be read again, sealed: AES-256-GCM (NIST SP 800-38D) under a key from the settings.

    1 byte: the format | 4 bytes: which key | 12 bytes: nonce | ciphertext and tag

What a secret belongs to is authenticated with it, so that none can be put in the place of another.
"""

import hashlib
import secrets
from collections.abc import Iterable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from runtime import base64url
from runtime.settings import Settings

_FORMAT = b"\x01"
_NAME_BYTES = 4
_NONCE_BYTES = 12


class Unsealable(Exception):
    """No key of the settings opens it, or it belongs to something else, or it was changed."""


class Vault:
    """The key that seals now, and those that did, which still open."""

    def __init__(self, key: bytes, former: Iterable[bytes] = ()) -> None:
        """Keys of 32 bytes."""
        self._name = _name(key)
        self._keys = {_name(each): AESGCM(each) for each in (*former, key)}

    def seal(self, secret: bytes, *, of: str) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _FORMAT + self._name + nonce + self._keys[self._name].encrypt(nonce, secret, of.encode())

    def open(self, sealed: bytes, *, of: str) -> bytes:
        """Raises Unsealable."""
        name, rest = sealed[1 : 1 + _NAME_BYTES], sealed[1 + _NAME_BYTES :]
        if sealed[:1] != _FORMAT or name not in self._keys:
            raise Unsealable("no key that is set opens this secret")
        try:
            return self._keys[name].decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], of.encode())
        except (InvalidTag, ValueError):  # ValueError: cut short
            raise Unsealable("this secret was changed, or belongs to something else") from None


def vault(settings: Settings) -> Vault | None:
    """None where the settings have no key."""
    if settings.secrets_key is None:
        return None
    former = (settings.secrets_former_keys.get_secret_value() if settings.secrets_former_keys else "").replace(",", " ")
    key = base64url.key_bytes(settings.secrets_key.get_secret_value())
    return Vault(key, map(base64url.key_bytes, former.split()))


def _name(key: bytes) -> bytes:
    return hashlib.sha256(b"bursar vault key\0" + key).digest()[:_NAME_BYTES]
