"""What a request comes to: which spellings are one request, which are two, and what the command takes from another."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from api.canonical import InvalidField, as_group, needs_admin, new_command
from api.requests import CommandRequest
from ledger.commands import OWN_TYPES, REVERSIBLE_TYPES, TOMBSTONE, TYPES, read_options
from ledger.ids import command_id
from ledger.inbox import NewCommand
from ledger.outcomes import CommandState

AT = datetime(2026, 11, 21, 12, 0, 5, tzinfo=UTC)
OF_A_PLAYER: dict[str, Any] = {"wallet": "player-42", "asset": "gold_coins", "amount": "30"}


def state(seq: int, type_: str, *, client_id: int = 1) -> CommandState:
    fields: dict[str, Any] = dict.fromkeys(CommandState.__struct_fields__)
    fields |= {"seq": seq, "tenant_id": 1, "client_id": client_id, "type": type_, "accepted_at": AT, "partition": 9}
    fields |= {"wallet": "player-42", "asset": "gold_coins", "idempotency_key": "k"}
    return CommandState(**fields)


HOLD, SPEND = command_id(3, AT), command_id(4, AT)
REFERRED = {3: state(3, "hold"), 4: state(4, "spend"), 5: state(5, "adjust")}


def new(body: Mapping[str, Any], referred: Mapping[int, CommandState] = REFERRED, key: str = "k") -> NewCommand:
    request = msgspec.convert(dict(body), CommandRequest)
    return new_command(request, key=key, tenant_id=1, client_id=1, partitions=16, referred=referred)


def hash_of(body: Mapping[str, Any]) -> str:
    return new(body).request_hash.hex()


FULL = {"reference": "order-99", "metadata": {"item": "sword", "a": [1]}, "expires_at": "2099-11-21T14:00:05+02:00"}


@pytest.mark.parametrize(
    ("body", "frozen"),
    [
        ({"type": "top_up", **OF_A_PLAYER}, "0ad159cfafba41dc6b17f8c1f6d599b7"),
        ({"type": "bonus", **OF_A_PLAYER, "reference": "season-3"}, "7eb79085ac12316dc6d1ca9111be9f2d"),
        ({"type": "spend", **OF_A_PLAYER, **FULL}, "ad8fcfafb1fbbca5069bff885ba92c43"),
        ({"type": "transfer", **OF_A_PLAYER, "to_wallet": "player-7"}, "74630170a7abf05012e4d825e3461efa"),
    ],
)
def test_plain_requests_have_the_hash_that_they_always_had(body: dict[str, Any], frozen: str) -> None:
    """Keys never expire: these were stored before there were other members."""
    assert hash_of(body) == frozen
    unsaid: dict[str, Any] = {"precondition": None}
    if body["type"] in ("top_up", "bonus"):
        unsaid |= {"credits_expire_at": None, "priority": None, "source": None}
    else:
        unsaid |= {"credits_order": None}
        assert hash_of(body | {"credits_order": "soonest_to_expire"}) == frozen
    assert hash_of(body | unsaid) == frozen


WHOLE: dict[str, dict[str, Any]] = {
    "top_up": {**OF_A_PLAYER, "credits_expire_at": "2099-01-01T00:00:00Z", "priority": 10, "source": "promotional"},
    "bonus": {**OF_A_PLAYER, "credits_expire_at": "2099-01-01T00:00:00Z"},
    "spend": {**OF_A_PLAYER, "credits_order": "oldest_first", "precondition": {"version": 3, "available_gte": "10"}},
    "transfer": {**OF_A_PLAYER, "to_wallet": "player-7", "credits_order": "purchased_first"},
    "hold": {**OF_A_PLAYER, "hold_expires_at": "2026-11-22T00:00:00Z"},
    "capture": {"hold": HOLD, "amount": "10", "to_wallet": "player-7", "final": False},
    "release": {"hold": HOLD},
    "exchange": {**OF_A_PLAYER, "to_asset": "diamonds", "rate": "0.5", "rounding": "up"},
    "reverse": {"command": SPEND, "amount": "10", "allow_negative": True},
    "adjust": {**OF_A_PLAYER, "reason": "credited twice"},
}
SAME: list[tuple[str, dict[str, Any]]] = [
    ("top_up", {"credits_expire_at": "2099-01-01T02:00:00+02:00"}),
    ("bonus", {"priority": None, "source": None, "amount": 30}),
    ("spend", {"precondition": {"available_gte": 10, "version": 3}}),
    ("spend", {"precondition": {"available_gte": "0010", "version": 3}}),
    ("hold", {"hold_expires_at": "2026-11-22T01:00:00+01:00", "credits_order": "soonest_to_expire"}),
    ("capture", {"hold": HOLD.upper(), "amount": 10}),
    ("release", {"hold": HOLD.upper(), "precondition": None}),
    ("exchange", {"rate": "00.500", "amount": "030"}),
    ("reverse", {"command": SPEND.upper()}),
    ("adjust", {"amount": 30, "reference": None}),
]
OTHER: list[tuple[str, dict[str, Any]]] = [
    ("top_up", {"priority": None}),
    ("top_up", {"priority": 50}),
    ("top_up", {"source": "purchased"}),
    ("top_up", {"credits_expire_at": None}),
    ("top_up", {"credits_expire_at": "2099-01-01T00:00:00.000001Z"}),
    ("bonus", {"source": "promotional"}),
    ("spend", {"credits_order": None}),
    ("spend", {"precondition": None}),
    ("spend", {"precondition": {"version": 3}}),
    ("spend", {"precondition": {"version": 3, "available_gte": "0"}}),
    ("hold", {"hold_expires_at": "2026-11-22T00:00:01Z"}),
    ("capture", {"amount": None}),
    ("capture", {"to_wallet": None}),
    ("capture", {"final": None}),
    ("release", {"type": "capture"}),
    ("exchange", {"rate": "0.51"}),
    ("exchange", {"rate": "0.500000000000000001"}),
    ("exchange", {"rounding": None}),
    ("exchange", {"to_asset": "gems"}),
    ("reverse", {"allow_negative": False}),
    ("reverse", {"command": command_id(5, AT)}),
    ("adjust", {"amount": "-30"}),
    ("adjust", {"reason": "credited thrice"}),
]


@pytest.mark.parametrize(("kind", "change"), SAME)
def test_one_request_in_other_words(kind: str, change: dict[str, Any]) -> None:
    body = {"type": kind, **WHOLE[kind]}
    assert new(body | change) == new(body)


@pytest.mark.parametrize(("kind", "change"), OTHER)
def test_another_request(kind: str, change: dict[str, Any]) -> None:
    body = {"type": kind, **WHOLE[kind]}
    assert hash_of(body | change) != hash_of(body)


def test_types_differ() -> None:
    assert len({hash_of({"type": kind, **body}) for kind, body in WHOLE.items()}) == len(TYPES)


def test_what_follows_from_a_request_is_no_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the arithmetic were ever mended, the keys of before would still be known."""
    body = {"type": "exchange", **WHOLE["exchange"]}
    before = new(body)
    monkeypatch.setattr("api.canonical.exchanged", lambda *_: 77)
    after = new(body)
    assert after.request_hash == before.request_hash
    assert [read_options(command.options).to_amount for command in (before, after)] == [15, 77]


# --- naming another command ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["capture", "release", "reverse"])
def test_a_command_belongs_where_the_one_that_it_names_does(kind: str) -> None:
    command = new({"type": kind, **WHOLE[kind]})
    assert (command.wallet, command.asset, command.partition) == ("player-42", "gold_coins", 9)
    assert command.ref_seq == (4 if kind == "reverse" else 3)


@pytest.mark.parametrize("kind", ["capture", "release", "reverse"])
@pytest.mark.parametrize("type_", [*TYPES, *OWN_TYPES, TOMBSTONE])
def test_it_must_be_of_a_type_that_fits(kind: str, type_: str) -> None:
    fits = type_ in (REVERSIBLE_TYPES if kind == "reverse" else ("hold",))
    member = "command" if kind == "reverse" else "hold"
    body = {"type": kind, member: command_id(8, AT)}
    if fits:
        assert new(body, {8: state(8, type_)}).ref_seq == 8
    for found in ({}, {8: state(8, type_, client_id=0)}, *([] if fits else [{8: state(8, type_)}])):
        with pytest.raises(InvalidField) as refused:
            new(body, found)
        assert refused.value.pointer == f"/{member}"


def test_the_time_in_an_id_must_be_the_commands() -> None:
    with pytest.raises(InvalidField):
        new({"type": "release", "hold": command_id(3, datetime(2026, 11, 21, 12, 0, 6, tzinfo=UTC))})


@pytest.mark.parametrize(
    ("body", "admin"),
    [
        *(({"type": kind, **WHOLE[kind]}, kind in ("adjust", "reverse")) for kind in TYPES),
        ({"type": "reverse", "command": SPEND}, False),
        ({"type": "reverse", "command": SPEND, "allow_negative": False}, False),
        ({"type": "reverse", "command": command_id(5, AT)}, True),
    ],
)
def test_corrections_are_an_operators(body: dict[str, Any], admin: bool) -> None:
    assert needs_admin(msgspec.convert(body, CommandRequest), REFERRED) is admin


# --- groups ----------------------------------------------------------------------------------------------------------


def hashes(*commands: tuple[str, str]) -> list[bytes]:
    """Of a group of spends: (key, amount) each."""
    group = [new({"type": "spend", **OF_A_PLAYER, "amount": amount}, key=key) for key, amount in commands]
    return [command.request_hash for command in as_group(group)]


def test_a_hash_of_a_group_is_of_all_of_it() -> None:
    whole = hashes(("a", "1"), ("b", "1"))
    assert whole == hashes(("a", "1"), ("b", "1"))
    others = [
        hashes(("a", "1")),
        hashes(("b", "1"), ("a", "1")),
        hashes(("a", "1"), ("b", "2")),
        hashes(("a", "1"), ("c", "1")),
        hashes(("a", "1"), ("b", "1"), ("c", "1")),
        [new({"type": "spend", **OF_A_PLAYER, "amount": "1"}).request_hash],
    ]
    for other in others:
        assert not set(whole) & set(other)
    assert len(set(whole)) == 2
