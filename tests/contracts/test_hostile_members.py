"""The members that only some commands have, as no well-behaved client sends them: each is refused by its name."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api.canonical import HOLD_MAX
from ledger.commands import TYPES
from ledger.keys import Scope
from ledger.money import AMOUNT_MAX
from tests.contracts.caller import Caller, in_an_hour, nothing_stored, order, refusal, unique
from tests.contracts.test_hostile_bodies import AMOUNTS, ASSETS, REFERENCES, TIMES, WALLETS

ID = "01a1fc89-fb3f-8c0d-8000-00000000000b"
OF_A_WALLET: dict[str, Any] = {"wallet": "w", "asset": "gold", "amount": "1"}
GOOD: dict[str, dict[str, Any]] = {
    "top_up": OF_A_WALLET,
    "bonus": OF_A_WALLET,
    "spend": OF_A_WALLET,
    "transfer": {**OF_A_WALLET, "to_wallet": "v"},
    "hold": {**OF_A_WALLET, "hold_expires_at": in_an_hour()},
    "capture": {"hold": ID},
    "release": {"hold": ID},
    "exchange": {**OF_A_WALLET, "to_asset": "gems", "rate": "2"},
    "reverse": {"command": ID},
    "adjust": {**OF_A_WALLET, "reason": "why"},
}


def written(kind: str, **members: str) -> str:
    """A good command of this type, with these members, which are JSON text, in the place of its own or behind them."""
    whole = {name: json.dumps(value) for name, value in {"type": kind, **GOOD[kind]}.items()} | members
    return "{" + ",".join(f'"{name}":{value}' for name, value in whole.items()) + "}"


def refused(game: Caller, body: str, says: str) -> None:
    """As a single command, as an item, and as an item of an atomic batch: by the same member."""
    status, code, *pointers = says.split()
    item = f'{body[:-1]},"idempotency_key":"{unique("key")}"}}'
    with nothing_stored(game.service):
        answer = game.post(None, content=body)
        assert refusal(answer) == says, answer.text
        headers = {"Content-Type": "application/json"}
        batch = game.http.post("/v1/commands/batch", content=f'{{"commands":[{item}]}}', headers=headers)
        (result,) = batch.json()["results"]
        assert [result["status"], result["problem"]["code"]] == [int(status), code]
        assert [fault["pointer"] for fault in result["problem"]["errors"]] == pointers
        atomic = game.http.post("/v1/commands/batch", content=f'{{"commands":[{item}],"atomic":true}}', headers=headers)
        assert refusal(atomic) == " ".join([status, code, *(f"/commands/0{pointer}" for pointer in pointers)])


IDS = [
    *("null", "1", "true", "[]", "{}", '""', '"x"', f'"{ID[:-1]}"', f'"{ID}0"', f'" {ID}"', rf'"{ID}\n"'),
    *(f'"{{{ID}}}"', f'"urn:uuid:{ID}"', f'"{ID.replace("-", "")}"', f'"{"-" * 36}"', f'"{ID}"', f'"{ID.upper()}"'),
    *(f'"{ID.replace("8c0d", "87a4")}"', f'"{ID.replace("8c0d", "4c0d")}"', f'"{"f" * 8}{ID[8:]}"'),
]
FLAGS = ['"true"', "1", "0", '""', "[]", "{}"]
RATES = [
    *(
        '"0"',
        '"0.0"',
        '"000"',
        '"-1"',
        '"+1"',
        '".5"',
        '"5."',
        '"1e3"',
        '"1,5"',
        '"1/3"',
        '"NaN"',
        '"1.5 "',
        r'"1.5\n"',
    ),
    *("null", "1", "1.5", "true", "[]", '""', f'"{"9" * 19}"', f'"1.{"0" * 18}1"', r'"\u0661"'),
]


@pytest.mark.parametrize(
    ("kind", "member", "value"),
    [
        *((kind, "hold", text) for kind in ("capture", "release") for text in IDS),
        *(("reverse", "command", text) for text in IDS),
        *(("capture", "amount", text) for text in AMOUNTS if text != "null"),
        *(("reverse", "amount", text) for text in AMOUNTS if text != "null"),
        *(("hold", "amount", text) for text in AMOUNTS),
        *(("exchange", "amount", text) for text in AMOUNTS),
        *(("adjust", "amount", text) for text in AMOUNTS if text.strip('"') != "-1"),
        *(("adjust", "amount", text) for text in (str(-AMOUNT_MAX - 1), f'"{-AMOUNT_MAX - 1}"', '"--1"', '"- 1"')),
        *(("adjust", "reason", text) for text in (*REFERENCES, "null")),
        *(("capture", "to_wallet", text) for text in WALLETS if text != "null"),
        *(("capture", "final", text) for text in FLAGS),
        *(("reverse", "allow_negative", text) for text in FLAGS),
        *(("exchange", "to_asset", text) for text in (*ASSETS, '"gold"')),
        *(("exchange", "rate", text) for text in RATES),
        *(("exchange", "rounding", text) for text in ('"Down"', '"nearest"', '""', "1", "[]")),
        *(("hold", "hold_expires_at", text) for text in (*TIMES, "null")),
        *((kind, "credits_expire_at", text) for kind in ("top_up", "bonus") for text in TIMES),
        *(("bonus", "priority", text) for text in ("-1", "101", "1.0", '"1"', "true", "[]", "1e1")),
        *(("top_up", "source", text) for text in ('"Purchased"', '"stolen"', '""', "1", "[]")),
        *(("spend", "credits_order", text) for text in ('"newest_first"', '""', "1", "[]", '"Oldest_first"')),
        *((kind, "precondition", text) for kind in TYPES for text in ("{}", "[]", "1", '"version"', "true")),
        ("spend", "precondition", '{"version":null,"available_gte":null}'),
    ],
    ids=lambda text: ascii(text[:30]),
)
def test_what_a_member_cannot_be(game: Caller, kind: str, member: str, value: str) -> None:
    refused(game, written(kind, **{member: value}), f"422 validation_failed /{member}")


@pytest.mark.parametrize(
    ("member", "value"),
    [
        *(("version", text) for text in ("-1", "1.0", '"1"', "true", "[]", str(2**63), "9" * 40)),
        *(("available_gte", text) for text in AMOUNTS if text.strip('"').strip("0") and text not in ("null", "-0")),
        ("colour", '"red"'),
    ],
    ids=lambda text: ascii(text[:20]),
)
def test_what_a_precondition_cannot_be(game: Caller, member: str, value: str) -> None:
    body = written("spend", precondition=f'{{"{member}":{value}}}')
    refused(game, body, f"422 validation_failed /precondition/{member}")


OWN = {
    "credits_expire_at": ("top_up", "bonus"),
    "priority": ("top_up", "bonus"),
    "source": ("top_up", "bonus"),
    "credits_order": ("spend", "transfer", "hold", "exchange"),
    "to_wallet": ("transfer", "capture"),
    "hold_expires_at": ("hold",),
    "hold": ("capture", "release"),
    "final": ("capture",),
    "to_asset": ("exchange",),
    "rate": ("exchange",),
    "rounding": ("exchange",),
    "command": ("reverse",),
    "allow_negative": ("reverse",),
    "reason": ("adjust",),
    "wallet": tuple(kind for kind in TYPES if "wallet" in GOOD[kind]),
    "asset": tuple(kind for kind in TYPES if "wallet" in GOOD[kind]),
    "amount": tuple(kind for kind in TYPES if kind != "release"),
}


@pytest.mark.parametrize(
    ("kind", "member"), [(kind, member) for member, kinds in OWN.items() for kind in TYPES if kind not in kinds]
)
def test_a_member_of_other_types_is_not_known(game: Caller, kind: str, member: str) -> None:
    refused(game, written(kind, **{member: "null"}), f"422 validation_failed /{member}")


@pytest.mark.parametrize(("kind", "member"), [(kind, member) for kind in TYPES for member in GOOD[kind]])
def test_what_must_be_there(game: Caller, kind: str, member: str) -> None:
    body = {"type": kind, **{name: value for name, value in GOOD[kind].items() if name != member}}
    refused(game, json.dumps(body), f"422 validation_failed /{member}")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (written("capture")[:-1] + ',"final":true,"final":false}', "/final"),
        (written("hold")[:-1] + f',"hold_expires_at":"{in_an_hour()}"}}', "/hold_expires_at"),
        (written("spend", precondition='{"version":1,"version":2}'), "/precondition/version"),
        (written("spend", precondition='{"version":1,"versi\\u006fn":2}'), "/precondition/version"),
        (written("adjust")[:-1] + ',"reason":"why"}', "/reason"),
    ],
)
def test_a_member_that_stands_there_twice(game: Caller, body: str, pointer: str) -> None:
    refused(game, body, f"400 duplicate_member {pointer}")


def test_a_hold_ends_within_a_month(game: Caller, rich: str) -> None:
    far = (datetime.now(UTC) + HOLD_MAX + timedelta(minutes=5)).isoformat()
    refused(game, written("hold", hold_expires_at=f'"{far}"'), "422 validation_failed /hold_expires_at")
    near = (datetime.now(UTC) + HOLD_MAX - timedelta(minutes=5)).isoformat()
    assert game.do("hold", rich, "1", hold_expires_at=near)["status"] == "applied"


# --- who may ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clerk(game: Caller, new_caller: Callable[..., Caller]) -> Caller:
    """The same client, with a key that may post and read, and nothing more."""
    caller = new_caller("a game")
    key = game.service.new_key("a game", Scope.COMMANDS_WRITE, Scope.COMMANDS_READ)
    caller.http.headers["Authorization"] = f"Bearer {key}"
    return caller


def test_corrections_are_an_operators(game: Caller, clerk: Caller, rich: str) -> None:
    """And what undoes one, which would be a correction by anybody."""
    fine = game.do("adjust", rich, "-10", reason="cheated")["id"]
    spend = game.do("spend", rich, "10")["id"]
    for body in (
        order("adjust", rich, "1", reason="gift"),
        {"type": "reverse", "command": fine},
        {"type": "reverse", "command": spend, "allow_negative": True},
    ):
        with nothing_stored(game.service):
            assert refusal(clerk.post(body)) == "403 insufficient_scope"
            (result,) = clerk.batch([{"idempotency_key": unique("key"), **body}]).json()["results"]
            assert (result["status"], result["problem"]["code"]) == (403, "insufficient_scope")
    assert clerk.post({"type": "reverse", "command": spend}, prefer="wait=20").json()["status"] == "applied"
    assert game.post({"type": "reverse", "command": fine}, prefer="wait=20").json()["status"] == "applied"


def test_a_command_of_another_tenant_is_not_there(game: Caller, stranger: Caller, rich: str) -> None:
    """Whatever it is: not even that it is an adjustment can be told."""
    fine = game.do("adjust", rich, "-10", reason="cheated")["id"]
    hold = game.do("hold", rich, "10", hold_expires_at=in_an_hour())["id"]
    answers = set[str]()
    for member, body in (
        ("command", {"type": "reverse", "command": fine}),
        ("hold", {"type": "capture", "hold": hold}),
        ("hold", {"type": "release", "hold": hold}),
        ("hold", {"type": "release", "hold": ID}),
    ):
        with nothing_stored(game.service):
            answer = stranger.post(body)
        assert refusal(answer) == f"422 validation_failed /{member}"
        answers.add(answer.json()["errors"][0]["detail"])
    assert len(answers) == 1


def test_the_ledgers_own_commands_are_nobodys_to_reverse(game: Caller, wallet: str) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    game.do("bonus", wallet, "10", credits_expire_at=soon)
    game.until(
        lambda: game.http.get(f"/v1/wallets/{wallet}"), lambda answer: answer.json()["accounts"][0]["posted"] == "0"
    )
    entries = game.http.get(f"/v1/wallets/{wallet}/entries").json()["data"]
    (swept,) = (entry["command"] for entry in entries if entry["type"] == "expire_credits")
    assert game.get(swept).json()["type"] == "expire_credits"
    with nothing_stored(game.service):
        assert refusal(game.post({"type": "reverse", "command": swept})) == "422 validation_failed /command"
