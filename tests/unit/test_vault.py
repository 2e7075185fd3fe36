"""The vault: what it seals opens again, with its key, for what it belongs to, unchanged; and nothing else does."""

from pathlib import Path

import pytest

from runtime import base64url
from runtime.settings import Settings
from runtime.vault import Unsealable, Vault, vault

KEY, OTHER = b"k" * 32, b"o" * 32
SECRET = b"whsec_of-somebody"


def test_what_is_sealed_opens_again_and_does_not_show() -> None:
    sealed = Vault(KEY).seal(SECRET, of="tenant 1")
    assert SECRET not in sealed
    assert Vault(KEY).open(sealed, of="tenant 1") == SECRET


def test_the_same_is_sealed_differently_each_time() -> None:
    assert len({Vault(KEY).seal(SECRET, of="tenant 1") for _ in range(100)}) == 100


def test_it_opens_for_nobody_else() -> None:
    sealed = Vault(KEY).seal(SECRET, of="tenant 1")
    with pytest.raises(Unsealable):
        Vault(KEY).open(sealed, of="tenant 2")
    with pytest.raises(Unsealable):
        Vault(OTHER).open(sealed, of="tenant 1")


def test_a_bit_that_was_changed_anywhere_is_noticed() -> None:
    sealed = Vault(KEY).seal(SECRET, of="tenant 1")
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(Unsealable):
            Vault(KEY).open(bytes(changed), of="tenant 1")


@pytest.mark.parametrize("length", range(0, 40, 3))
def test_a_piece_of_it_opens_nothing(length: int) -> None:
    sealed = Vault(KEY).seal(SECRET, of="tenant 1")
    assert length < len(sealed)
    with pytest.raises(Unsealable):
        Vault(KEY).open(sealed[:length], of="tenant 1")


def test_a_former_key_opens_and_the_new_one_seals() -> None:
    old = Vault(KEY).seal(SECRET, of="tenant 1")
    turned = Vault(OTHER, [KEY])
    assert turned.open(old, of="tenant 1") == SECRET
    assert Vault(OTHER).open(turned.seal(SECRET, of="tenant 1"), of="tenant 1") == SECRET


def test_the_settings_make_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BURSAR_DATABASE_URL", "postgresql://localhost/x")
    monkeypatch.setenv("BURSAR_REDIS_URL", "redis://localhost")
    monkeypatch.delenv("BURSAR_SECRETS_KEY", raising=False)
    assert vault(Settings()) is None  # pyright: ignore[reportCallIssue]
    monkeypatch.setenv("BURSAR_SECRETS_KEY", base64url.encode(OTHER))
    monkeypatch.setenv("BURSAR_SECRETS_FORMER_KEYS", f"{base64url.encode(b'f' * 32)}, {base64url.encode(KEY)}")
    made = vault(Settings())  # pyright: ignore[reportCallIssue]
    assert made is not None
    assert made.open(Vault(KEY).seal(SECRET, of="it"), of="it") == SECRET
    assert Vault(OTHER).open(made.seal(SECRET, of="it"), of="it") == SECRET
