"""Bodies that no well-behaved client sends: each is refused by a problem that names the member; nothing is stored."""

import json
from typing import Any

import pytest

from ledger.money import AMOUNT_MAX
from ledger.names import METADATA_DEPTH_MAX, METADATA_MAX_BYTES
from tests.contracts.caller import Caller, nothing_stored, refusal, unique

GOOD = {"type": "transfer", "wallet": "w", "to_wallet": "v", "asset": "gold", "amount": "1"}


def written(**members: str) -> str:
    """A good body with these members, which are JSON text, in the place of its own or behind them."""
    whole = {name: json.dumps(value) for name, value in GOOD.items()} | members
    return "{" + ",".join(f'"{name}":{value}' for name, value in whole.items()) + "}"


def refused(game: Caller, body: str | bytes, says: str) -> None:
    """As a single command."""
    with nothing_stored(game.service):
        answer = game.post(None, content=body)
    assert refusal(answer) == says, answer.text
    assert answer.json()["detail"]


def refused_item(game: Caller, body: str, says: str) -> None:
    """As an item of a batch, whose good item is accepted all the same."""
    key = f'"idempotency_key":"{unique("key")}"'
    good = json.dumps({"idempotency_key": unique("key"), **GOOD, "wallet": unique("player")})
    content = f'{{"commands":[{body[:-1]},{key}}},{good}]}}'
    stored = game.service.stored()
    answer = game.http.post("/v1/commands/batch", content=content, headers={"Content-Type": "application/json"})
    bad, fine = answer.json()["results"]
    pointers = [fault["pointer"] for fault in bad["problem"]["errors"]]
    assert " ".join([str(bad["status"]), bad["problem"]["code"], *pointers]) == says
    assert fine["status"] == 202
    assert game.service.stored() == stored + 1


# --- amounts -------------------------------------------------------------------------------------------------------

AMOUNTS = [
    *("1.0", "1.5", "0.1", "1e2", "1E2", "1e400", "-1e400", "1e-400", "0", "-0", "-0.0", "-1", "true", "false", "null"),
    *("[]", "{}", "[1]", '{"value":1}'),
    *(str(AMOUNT_MAX + 1), str(2**63), str(2**64), str(-(2**63)), "9" * 4_000, "9007199254740993.0"),
    *(
        '""',
        '" "',
        '"0"',
        '"000"',
        '"-1"',
        '"+1"',
        '"-0"',
        '"1.0"',
        '"1e2"',
        '"1_000"',
        '"1,000"',
        '"0x10"',
        '"1 "',
        '" 1"',
    ),
    *(
        r'"1\n"',
        r'"1\u000a"',
        r'"\u0661"',
        r'"\uff11"',
        r'"1\u00b2"',
        '"\u0661"',
        '"NaN"',
        '"Infinity"',
        '"one"',
        '"true"',
    ),
    *(f'"{AMOUNT_MAX + 1}"', f'"{2**63}"', f'"{"0" * 20}1"', f'"{"9" * 19}"', f'"{"9" * 4_000}"'),
]


@pytest.mark.parametrize("amount", AMOUNTS, ids=lambda text: ascii(text[:20]))
def test_what_is_no_amount(game: Caller, amount: str) -> None:
    refused(game, written(amount=amount), "422 validation_failed /amount")
    refused_item(game, written(amount=amount), "422 validation_failed /amount")


@pytest.mark.parametrize(
    "amount", ["NaN", "Infinity", "-Infinity", "nan", "01", "+1", ".5", "1.", "1_000", "1x1", "'1'", "1n", "--1"]
)
def test_what_is_no_json_number(game: Caller, amount: str) -> None:
    refused(game, written(amount=amount), "400 malformed_json")


# --- names ---------------------------------------------------------------------------------------------------------

WALLETS = [
    *('"@treasury"', '"@revenue"', '"@bonus"', '"@"', '""', '" w"', '"w "', r'"w\n"', '"w/x"', '"w#"', '"größe"'),
    *(f'"{"w" * 129}"', '"-w"', '".w"', r'"w\u0661"', r'"\u0661"', "null", "1", "true", "[]", '["w"]', '{"id":"w"}'),
]
ASSETS = [
    '"Gold"',
    '""',
    '"9gold"',
    '"_gold"',
    '"gold "',
    r'"gold\n"',
    '"go-ld"',
    '"größe"',
    f'"{"g" * 65}"',
    "null",
    "7",
    "{}",
]
TYPES = [
    '"Spend"',
    '"spend "',
    '""',
    '"conjure"',
    '"expire_hold"',
    '"tombstone"',
    "null",
    "1",
    "[]",
    "{}",
    '"spend\\n"',
]
REFERENCES = [
    '""',
    r'"a\nb"',
    r'"\t"',
    r'"a\u007f"',
    r'"a\u0085"',
    r'"order-1\n"',
    f'"{"r" * 201}"',
    "1",
    "true",
    "[]",
    "{}",
]
TIMES = [
    *('"2026-11-21"', '"2026-11-21T12:00:05"', '"tomorrow"', '""', '"2026-13-01T00:00:00Z"', '"2026-02-30T00:00:00Z"'),
    *('"2026-11-21T25:00:00Z"', '"2026-11-21T12:00:05+25:00"', '"10000-01-01T00:00:00Z"', '"0000-01-01T00:00:00Z"'),
    *(
        '"0001-01-01T00:00:00+23:59"',
        '"9999-12-31T23:59:59-23:59"',
        '"2026-11-21T12:00:05Z\\n"',
        '"-2026-11-21T12:00:05Z"',
    ),
    *(
        "1795262405",
        "1.5",
        "true",
        "[]",
        "{}",
        f'"2026-11-21T12:00:05.{"0" * 30}Z"',
        '"2026-11-21T12:00:0\u0665Z"',
        '"1795262405"',
    ),
]


@pytest.mark.parametrize(
    ("member", "value"),
    [
        *(("wallet", text) for text in WALLETS),
        *(("to_wallet", text) for text in WALLETS),
        *(("asset", text) for text in ASSETS),
        *(("type", text) for text in TYPES),
        *(("reference", text) for text in REFERENCES),
        *(("expires_at", text) for text in TIMES),
        *(("metadata", text) for text in ('"text"', "1", "true", "[]", '[{"a":1}]')),
    ],
    ids=lambda text: ascii(text[:30]),
)
def test_what_a_member_cannot_be(game: Caller, member: str, value: str) -> None:
    refused(game, written(**{member: value}), f"422 validation_failed /{member}")
    refused_item(game, written(**{member: value}), f"422 validation_failed /{member}")


def test_a_wallet_pays_nothing_to_itself(game: Caller) -> None:
    refused(game, written(to_wallet='"w"'), "422 validation_failed /to_wallet")


@pytest.mark.parametrize("member", ["type", "wallet", "to_wallet", "asset", "amount"])
def test_what_must_be_there(game: Caller, member: str) -> None:
    body = json.dumps({name: value for name, value in GOOD.items() if name != member})
    refused(game, body, f"422 validation_failed /{member}")
    refused_item(game, body, f"422 validation_failed /{member}")


@pytest.mark.parametrize(
    ("name", "pointer"),
    [
        ("hold", "/hold"),
        ("Amount", "/Amount"),
        ("amount ", "/amount "),
        ("idempotency_key", "/idempotency_key"),
        ("precondition", "/precondition"),
        ("a/b~c", "/a~1b~0c"),
        ("", "/"),
        ("größe", "/größe"),
        (r"\u0000", "/\0"),
        ("$", "/$"),
        ("__proto__", "/__proto__"),
    ],
)
def test_what_is_not_known(game: Caller, name: str, pointer: str) -> None:
    refused(game, written(**{name: "1"}), f"422 validation_failed {pointer}")


def test_a_member_of_another_type_is_not_known(game: Caller) -> None:
    refused(game, written(type='"spend"'), "422 validation_failed /to_wallet")


# --- JSON ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", ["[]", "[{}]", "null", "true", "1", '"spend"'])
def test_a_command_is_an_object(game: Caller, body: str) -> None:
    refused(game, body, "422 validation_failed ")


@pytest.mark.parametrize(
    "body",
    [
        *(
            b"",
            b" ",
            b"\n",
            b"{",
            b"}",
            written().encode() * 2,
            written().encode() + b"x",
            b"{,}",
            b'{"type"}',
            b'{"type":}',
            b"{'type':'spend'}",
            b"spend",
        ),
        *(b"\x00", b"\xff\xfe", b"\x1f\x8b\x08\x00", b"<?xml version='1.0'?>", b"type=spend&wallet=w"),
        b"\xef\xbb\xbf" + written().encode(),
        written().encode("utf-16"),
        written().encode("utf-32-be"),
        written().encode()[:-1],
        written().encode() + b"\x00",
        written().encode() + b",",
        written().encode().replace(b'"w"', b'"w\x00"'),
        written().encode().replace(b'"w"', b'"w\n"'),
        written(reference='"R"').encode().replace(b"R", b"\xff"),
        written(reference='"R"').encode().replace(b"R", b"\xc0\x80"),
        written(reference='"R"').encode().replace(b"R", b"\xed\xa0\x80"),
        written(metadata='{"R":1}').encode().replace(b"R", b"\xed\xa0\x80"),
        written(metadata='{"a":1,}').encode(),
        written(metadata="{a:1}").encode(),
        written(metadata=r'{"a":"\x"}').encode(),
        written(metadata='{"a":/*1*/2}').encode(),
    ],
    ids=lambda body: ascii(body[:16]),
)
def test_what_is_not_json(game: Caller, body: bytes) -> None:
    refused(game, body, "400 malformed_json")


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity", "undefined"])
def test_constants_that_are_not_json(game: Caller, constant: str) -> None:
    for metadata in (f'{{"a":{constant}}}', f'{{"a":[{{"b":{constant}}}]}}', f'{{"\\u0061":{constant}}}'):
        refused(game, written(metadata=metadata), "400 malformed_json")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (written()[:-1] + ',"amount":"1"}', "/amount"),
        (written()[:-1] + ',"amount":"100"}', "/amount"),
        (written()[:-1] + ',"type":"transfer"}', "/type"),
        (written()[:-1] + ',"\\u0061mount":"100"}', "/amount"),
        (written()[:-1] + ',"amount" : "100"}', "/amount"),
        (written()[:-1] + ',"amount"\n\t:\r\n"100"}', "/amount"),
        (written(reference='"a:b:c"')[:-1] + ',"reference":"::::"}', "/reference"),
        (written(reference="null")[:-1] + ',"reference":null}', "/reference"),
        (written(metadata="{}")[:-1] + ',"metadata":{}}', "/metadata"),
        (written(metadata='{"a":1,"a":1}'), "/metadata/a"),
        (written(metadata='{"a":1,"a":":"}'), "/metadata/a"),
        (written(metadata='{"a":{"b":[0,{"c":1,"c" :2}]}}'), "/metadata/a/b/1/c"),
        (written(metadata=r'{"a":1,"\u0061":2}'), "/metadata/a"),
        (written(metadata=r'{"é":1,"\u00e9":2}'), "/metadata/é"),
        (written(metadata=r'{"🗡":1,"\ud83d\udde1":2}'), "/metadata/🗡"),
        (written(metadata=r'{"/":1,"\/":2}'), "/metadata/~1"),
        (written(metadata='{"":1,"":2}'), "/metadata/"),
        (written(metadata=r'{"a:":1,"a:":2,"b\"":3}'), "/metadata/a:"),
    ],
)
def test_a_member_that_stands_there_twice(game: Caller, body: str, pointer: str) -> None:
    refused(game, body, f"400 duplicate_member {pointer}")


@pytest.mark.parametrize(
    ("member", "value", "pointer"),
    [
        ("metadata", r'{"a":"\u0000"}', "/metadata/a"),
        ("metadata", r'{"a":{"b":["x\u0000y"]}}', "/metadata/a/b/0"),
        ("metadata", r'{"\u0000":1}', "/metadata/\0"),
        ("reference", r'"a\u0000b"', "/reference"),
        ("wallet", r'"w\u0000"', "/wallet"),
        ("asset", r'"gold\u0000"', "/asset"),
        ("amount", r'"1\u0000"', "/amount"),
        ("expires_at", r'"2099-11-21T12:00:05Z\u0000"', "/expires_at"),
    ],
)
def test_nul(game: Caller, member: str, value: str, pointer: str) -> None:
    refused(game, written(**{member: value}), f"422 validation_failed {pointer}")


HALVES = [r"\ud800", r"\udc00", r"\udbff\ud800", r"\ud83dx", r"\ud83d\n", r"\ud83d\u0041", r"x\udde1\ud83d", r"\uDFFF"]


@pytest.mark.parametrize("half", HALVES)
def test_half_of_a_surrogate_pair(game: Caller, half: str) -> None:
    places = [
        written(metadata=f'{{"a":"{half}"}}'),
        written(metadata=f'{{"{half}":1}}'),
        written(reference=f'"{half}"'),
    ]
    places += [
        written(wallet=f'"{half}"'),
        written(type=f'"{half}"'),
        written(**{half: "1"}),
        written(expires_at=f'"{half}"'),
    ]
    with nothing_stored(game.service):
        for body in places:
            answer = game.post(None, content=body)
            assert (answer.status_code, answer.json()["code"]) in [(400, "malformed_json"), (422, "validation_failed")]


@pytest.mark.parametrize("number", ["1e400", "-1e400", "1" + "0" * 400 + ".0", "9" * 4_400])
def test_numbers_in_metadata_that_nobody_can_hold(game: Caller, number: str) -> None:
    refused(game, written(metadata=f'{{"a":{number}}}'), "422 validation_failed /metadata")


# --- sizes ---------------------------------------------------------------------------------------------------------


def nested(levels: int, opening: str, closing: str) -> str:
    """Metadata of so many levels, its own among them."""
    return '{"a":' + opening * (levels - 1) + "1" + closing * (levels - 1) + "}"


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")], ids=["arrays", "objects"])
def test_metadata_has_a_depth(game: Caller, opening: str, closing: str) -> None:
    wallet = f'"{unique("player")}"'
    deepest = game.post(None, content=written(wallet=wallet, metadata=nested(METADATA_DEPTH_MAX, opening, closing)))
    assert deepest.status_code == 202
    # What Python's own recursion limit stands against is refused as one: no depth is a 500.
    for levels in (METADATA_DEPTH_MAX + 1, 100, *range(900, 1_010, 2), 3_000, 100_000):
        for escape in ("", r'{"reference":"\u0041"}'[1:-1]):
            body = written(metadata=nested(levels, opening, closing))
            body = f"{body[:-1]},{escape}}}" if escape else body
            with nothing_stored(game.service):
                answer = game.post(None, content=body)
            assert refusal(answer) in ("422 validation_failed /metadata", "400 malformed_json"), levels


def test_metadata_has_a_size(game: Caller) -> None:
    def sized(size: int, filling: str) -> str:
        return '{"a":"' + filling * ((size - len('{"a":""}')) // len(filling.encode())) + '"}'

    for filling in ("x", "é"):
        wallet = f'"{unique("player")}"'
        fits = game.post(None, content=written(wallet=wallet, metadata=sized(METADATA_MAX_BYTES, filling)).encode())
        assert fits.status_code == 202
        too_large = written(metadata=sized(METADATA_MAX_BYTES + 2, filling)).encode()
        refused(game, too_large, "422 validation_failed /metadata")


@pytest.mark.parametrize(
    "text", ["\u2028", "\u202e", "\ufeff", "\U0010ffff", "\ufffe", "\U0001d7d9", "a" * 200, "::::", '"\\']
)
def test_odd_but_lawful_text_goes_through(game: Caller, wallet: str, text: str) -> None:
    metadata: dict[str, Any] = {text: [text, {text: None}]}
    command = game.do("top_up", wallet, "1", reference=text, metadata=metadata)
    assert (command["reference"], command["metadata"]) == (text, metadata)
