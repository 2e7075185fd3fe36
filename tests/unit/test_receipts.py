"""Keys of receipts, against the examples of RFC 8037, and what a setting may hold."""

import pytest
from pydantic import SecretStr, ValidationError

from runtime import base64url
from runtime.receipts import Signer, Unverified, jwk, new_key, signer, verify
from runtime.settings import Settings

# RFC 8037, appendix A.1 to A.3
PRIVATE = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"
PUBLIC = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
THUMBPRINT = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def given(**settings: str) -> Settings:
    return Settings(database_url=SecretStr("postgresql://"), redis_url=SecretStr("redis://"), **settings)  # pyright: ignore[reportArgumentType]


def test_a_public_key_and_its_name_are_those_of_the_rfc() -> None:
    [key] = signer(given(receipt_key=PRIVATE)).jwks()["keys"]
    expected = {"kty": "OKP", "crv": "Ed25519", "x": PUBLIC, "kid": THUMBPRINT, "alg": "EdDSA", "use": "sig"}
    assert key == expected


def test_former_keys_stay_published_behind_the_present_one() -> None:
    private, public = new_key()
    keys = signer(given(receipt_key=private, receipt_former_keys=f"{PUBLIC}, {public['x']}")).jwks()["keys"]
    assert [key["x"] for key in keys] == [public["x"], PUBLIC]
    assert signer(given(receipt_former_keys=PUBLIC)).jwks()["keys"][0]["kid"] == THUMBPRINT


def test_padding_and_the_usual_alphabet_are_read() -> None:
    usual = PRIVATE.replace("_", "/").replace("-", "+") + "="
    assert base64url.key_bytes(f"{usual}\n") == base64url.key_bytes(PRIVATE)


@pytest.mark.parametrize("wrong", ["c2hvcnQ=", "§§§", PRIVATE + PRIVATE])
@pytest.mark.parametrize("setting", ["receipt_key", "receipt_former_keys"])
def test_a_wrong_key_is_named_and_not_shown(setting: str, wrong: str) -> None:
    with pytest.raises(ValidationError) as refused:
        given(**{setting: wrong})
    told = str(refused.value)
    assert setting in told
    assert "base64" in told
    assert wrong not in told


def test_the_private_key_does_not_print() -> None:
    assert PRIVATE not in repr(given(receipt_key=PRIVATE))


def test_what_verifies_is_what_was_signed_and_by_whom() -> None:
    ours = Signer(base64url.key_bytes(PRIVATE))
    receipt = ours.sign(b'{"object":"receipt","transfer":null}')
    keys = ours.jwks()["keys"]
    assert verify(receipt, keys) == {"object": "receipt", "transfer": None}
    assert receipt == ours.sign(b'{"object":"receipt","transfer":null}')
    _, stranger = new_key()
    impostor = {**stranger, "kid": THUMBPRINT}  # another key under our name
    flipped = "A" if receipt["signature"][0] != "A" else "B"
    for wrong, by in [
        (receipt, [stranger]),
        (receipt, [impostor]),
        (receipt, []),
        ({**receipt, "payload": base64url.encode(b'{"object":"receipt","transfer":1}')}, keys),
        ({**receipt, "signature": flipped + receipt["signature"][1:]}, keys),
        ({**receipt, "protected": base64url.encode(b'{"alg":"none"}')}, keys),
        ({"payload": receipt["payload"]}, keys),
        ({**receipt, "signature": 5}, keys),
        ([], keys),
        (ours.sign(b"[]"), keys),
        (ours.sign(b"no JSON"), keys),
    ]:
        with pytest.raises(Unverified):
            verify(wrong, by)


def test_a_header_that_is_not_a_receipts_is_refused_though_the_signature_fits() -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.from_private_bytes(base64url.key_bytes(PRIVATE))
    for header in (b'{"alg":"EdDSA","kid":"%s"}', b'{"alg":"EdDSA","kid":"%s","typ":"bursar-receipt","crit":["x"]}'):
        protected = base64url.encode(header % THUMBPRINT.encode())
        payload = base64url.encode(b'{"object":"receipt","transfer":null}')
        signature = base64url.encode(key.sign(f"{protected}.{payload}".encode()))
        with pytest.raises(Unverified, match="not signed as a receipt"):
            verify(
                {"protected": protected, "payload": payload, "signature": signature}, [jwk(base64url.key_bytes(PUBLIC))]
            )
