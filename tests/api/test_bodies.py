"""JSON bodies, read strictly: what msgspec lets pass is found, and the fault is named by its place."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.bodies import decode
from api.problems import Problem
from api.requests import BatchRequest, CommandRequest
from api.routes.assets import NewAsset
from api.routes.wallets import PutWallet

DECODERS: dict[str, msgspec.json.Decoder[Any]] = {
    "wallet": msgspec.json.Decoder(PutWallet),
    "asset": msgspec.json.Decoder(NewAsset),
    "command": msgspec.json.Decoder(CommandRequest),
    "batch": msgspec.json.Decoder(BatchRequest),
}


def refused(body: bytes, kind: str = "wallet") -> tuple[str, str]:
    """The problem's code and the place of its fault."""
    with pytest.raises(Problem) as raised:
        decode(body, DECODERS[kind])
    errors = raised.value.errors
    return raised.value.code, errors[0]["pointer"] if errors else ""


SPEND = b'"type":"spend","wallet":"alice","asset":"gold","amount":"30"'


@pytest.mark.parametrize(
    ("kind", "body", "place"),
    [
        ("wallet", b'{"name":"a","name":"b"}', "/name"),
        ("wallet", b'{"name":"a","n\\u0061me":"b"}', "/name"),
        ("wallet", b'{"metadata":{"a":1,"a":1}}', "/metadata/a"),
        ("wallet", b'{"metadata":{"a":[{"b":{}},{"c":1,"d":2,"c":3}]}}', "/metadata/a/1/c"),
        ("wallet", b'{"metadata":{"a/b":1,"a/b":2}}', "/metadata/a~1b"),
        ("wallet", b'{"metadata":{"":1,"":2}}', "/metadata/"),
        ("wallet", b'{"name":null,"name":"a"}', "/name"),
        ("wallet", b'{ "name" : "a:b" , "name" : "a:b:c" }', "/name"),
        ("asset", b'{"code":"a","name":"A","scale":0,"scale":2}', "/scale"),
        ("command", b"{%s,%s}" % (SPEND, b'"amount":"31"'), "/amount"),
        ("command", b'{"type":"spend",%s}' % SPEND, "/type"),
        ("command", b'{%s,"metadata":{"x":{"y":1,"y":1}}}' % SPEND, "/metadata/x/y"),
        ("command", b'{%s,"expires_at":"2026-11-21T12:00:05+0100","wallet":"bob"}' % SPEND, "/wallet"),
        ("batch", b'{"commands":[{"idempotency_key":"k",%s},{"idempotency_key":"l",%s,"asset":"x"}]}' % (SPEND, SPEND),
         "/commands/1/asset"),
        ("batch", b'{"commands":[{"idempotency_key":"k",%s}],"atomic":false,"atomic":true}' % SPEND, "/atomic"),
    ],
)  # fmt: skip
def test_the_same_member_twice(kind: str, body: bytes, place: str) -> None:
    assert refused(body, kind) == ("duplicate_member", place)


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b'{"metadata":{"a":"\\u0000"}}', "/metadata/a"),
        (b'{"metadata":{"a\\u0000":1}}', "/metadata/a\0"),
        (b'{"metadata":{"a":["x",["\\u0000"]]}}', "/metadata/a/1/0"),
    ],
)
def test_nul(body: bytes, place: str) -> None:
    assert refused(body) == ("validation_failed", place)


@pytest.mark.parametrize("half", [b"\\ud800", b"\\udc00", b"\\ud800\\ud800", b"\\ud800x", b"\\uDBFF\\u0041"])
def test_half_a_surrogate_pair(half: bytes) -> None:
    for body in (b'{"metadata":{"a":"%s"}}' % half, b'{"metadata":{"%s":1}}' % half, b'{"name":"%s"}' % half):
        assert refused(body)[0] in ("malformed_json", "validation_failed")


def test_whole_surrogate_pairs_and_escapes_are_welcome() -> None:
    wallet = decode(
        b'{"name":"\\ud83d\\udcb0 \\"x\\" \\/","metadata":{"back\\\\slash":"\\\\u0000"}}', DECODERS["wallet"]
    )
    assert wallet == PutWallet(name='\N{MONEY BAG} "x" /', metadata={"back\\slash": "\\u0000"})


@pytest.mark.parametrize(
    "body",
    [b"", b" ", b"{", b"{}x", b"{'a':1}", b'{"name":"a",}', b"\xef\xbb\xbf{}", b"\xff", b'{"name":"\xff"}',
     b'{"name":"\x00"}', b'{"name":"\xed\xa0\x80"}', b'{"name":"a\nb"}', b"nul", b'{"metadata":{"a":NaN}}',
     b'{"metadata":{"a":Infinity}}', b'{"metadata":{"a":-Infinity}}', b'{"metadata":{"a":01}}',
     b'{"metadata":{"a":+1}}', b'{"metadata":{"a":0x1}}'],
)  # fmt: skip
def test_what_is_not_json(body: bytes) -> None:
    assert refused(body)[0] == "malformed_json"


@pytest.mark.parametrize("opening", [b'{"a":', b"["])
def test_nesting_without_end(opening: bytes) -> None:
    closing = b"}" if opening.startswith(b"{") else b"]"
    for depth in (2_000, 100_000):
        body = b'{"metadata":{"a":%s1%s}}' % (opening * depth, closing * depth)
        assert refused(body)[0] == "malformed_json"
        assert refused(body.replace(b"1", b'"\\u0061"'))[0] == "malformed_json"


@pytest.mark.parametrize(
    ("kind", "body", "place"),
    [
        ("wallet", b"[]", ""),
        ("wallet", b"null", ""),
        ("wallet", b'"x"', ""),
        ("wallet", b'{"nme":"a"}', "/nme"),
        ("wallet", b'{"name":1}', "/name"),
        ("wallet", b'{"name":true}', "/name"),
        ("wallet", b'{"name":""}', "/name"),
        ("wallet", b'{"name":"a\\u0007"}', "/name"),
        ("wallet", b'{"name":"a\\n"}', "/name"),
        ("wallet", b'{"name":"a\\u0085b"}', "/name"),
        ("wallet", b'{"metadata":[]}', "/metadata"),
        ("wallet", b'{"metadata":null}', "/metadata"),
        ("wallet", b'{"metadata":{"a":1e999}}', "/metadata"),
        ("asset", b'{"name":"A"}', "/code"),
        ("asset", b'{"code":"A","name":"A"}', "/code"),
        ("asset", b'{"code":"a\\n","name":"A"}', "/code"),
        ("asset", b'{"code":"a","name":"A","scale":true}', "/scale"),
        ("asset", b'{"code":"a","name":"A","scale":1.0}', "/scale"),
        ("asset", b'{"code":"a","name":"A","scale":"1"}', "/scale"),
        ("asset", b'{"code":"a","name":"A","scale":-1}', "/scale"),
        ("asset", b'{"code":"a","name":"A","scale":19}', "/scale"),
        ("asset", b'{"code":"a","name":"A","scale":1e400}', "/scale"),
        ("asset", b'{"code":"a","name":"A","scale":%s}' % (b"9" * 5_000), "/scale"),
        ("command", b'{"type":"steal"}', "/type"),
        ("command", b"{%s}" % SPEND.replace(b'"30"', b"30.0"), "/amount"),
        ("command", b"{%s}" % SPEND.replace(b'"30"', b"true"), "/amount"),
        ("command", b"{%s}" % SPEND.replace(b'"30"', b'"1_000"'), "/amount"),
        ("batch", b'{"commands":[{"idempotency_key":"k","type":"spend"}]}', "/commands/0/wallet"),
    ],
)
def test_a_member_that_cannot_be_is_named(kind: str, body: bytes, place: str) -> None:
    assert refused(body, kind) == ("validation_failed", place)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('ab:"\\é', max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(
    metadata=st.dictionaries(st.text('ab:"\\é', max_size=3), json_values, max_size=4),
    loose=st.booleans(),
    ascii_only=st.booleans(),
)
def test_every_lawful_body_is_read_as_it_was_meant(metadata: dict[str, Any], loose: bool, ascii_only: bool) -> None:
    """However it is spaced and escaped. NUL apart, which PostgreSQL cannot hold."""
    body = json.dumps(
        {"metadata": metadata}, separators=(" , ", " : ") if loose else (",", ":"), ensure_ascii=ascii_only
    ).encode()
    if b"\\u0000" in body.replace(b"\\\\", b""):
        assert refused(body)[0] == "validation_failed"
    else:
        assert decode(body, DECODERS["wallet"]).metadata == metadata


@given(metadata=st.dictionaries(st.text("abc:", max_size=2), json_values, min_size=1, max_size=4), data=st.data())
def test_no_doubled_member_passes(metadata: dict[str, Any], data: st.DataObject) -> None:
    members = [f"{json.dumps(name)}:{json.dumps(value)}" for name, value in metadata.items()]
    doubled = data.draw(st.sampled_from(members))
    members.insert(data.draw(st.integers(0, len(members))), doubled)
    assert refused(f'{{"metadata":{{{",".join(members)}}}}}'.encode())[0] in ("duplicate_member", "validation_failed")
