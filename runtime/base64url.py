"""Base64 as JOSE writes it (RFC 7515, appendix C): the URL alphabet, no padding. Read is the usual alphabet, too."""

import base64
import binascii

KEY_BYTES = 32  # of an Ed25519 key, private or public (RFC 8032), and of an AES-256 key


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """Raises ValueError."""
    plain = text.strip().rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is not base64") from None


def key_bytes(text: str) -> bytes:
    """A key. Raises ValueError, which does not repeat it."""
    key = decode(text)
    if len(key) != KEY_BYTES:
        raise ValueError(f"is {len(key)} bytes in base64, a key has {KEY_BYTES}")
    return key
