"""API keys: told at once when they cannot be keys, stored as hashes, scoped, expiring, rotated, revoked."""

import asyncio
import logging
import time
from datetime import timedelta

import httpx2
import pytest
from sqlalchemy import Engine, event

from api import auth
from api.auth import KeyRing
from api.problems import Problem
from ledger import db, keys, tenants
from ledger.keys import Scope
from tests.api.conftest import NewKey
from tests.api.serving import Served, code
from tests.books import Bank


def key_id(bank: Bank, key: str) -> int:
    return bank.one("SELECT id FROM api_keys WHERE key_hash = %s", keys.key_hash(key))


# --- what a key is -------------------------------------------------------------------------------------------------


def test_a_key_says_what_it_is() -> None:
    key = keys.new_key("live")
    name, env, secret, checksum = key.split("_")
    assert (name, env, len(secret), len(checksum)) == ("bursar", "live", 43, 6)
    assert keys.is_well_formed(key)
    assert len({keys.new_key("live") for _ in range(100)}) == 100


def test_any_one_character_changed_is_noticed_without_a_lookup() -> None:
    key = keys.new_key("live")
    for position in range(len(key)):
        other = "1" if key[position] == "0" else "0"
        assert not keys.is_well_formed(key[:position] + other + key[position + 1 :])
    assert not any(map(keys.is_well_formed, ("", "bursar", key + "\n", key + "0", key[:-1], key.upper(), "ß" * 60)))


def test_only_its_hash_and_a_prefix_are_stored(bank: Bank, new_key: NewKey) -> None:
    key = new_key()
    (row,) = bank.rows("SELECT * FROM api_keys WHERE key_hash = %s", keys.key_hash(key))
    secret = key.split("_")[2]
    assert not any(secret[8:] in str(value) for value in row)
    assert any(value == key[: len("bursar_test_") + 8] for value in row)


# --- at the door ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Basic YTpi", "Bearer bursar_live_x_y", "Bearer  {key}", "{key}"]
)
def test_no_entry_without_a_key(api: Served, new_key: NewKey, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization.format(key=new_key())}
    with api.client(**headers) as client:
        refused = client.get("/v1/wallets")
    assert code(refused) == "401 unauthorized"
    assert refused.headers["www-authenticate"].startswith("Bearer")


def test_a_key_that_nobody_made(api: Served) -> None:
    with api.client(keys.new_key("live")) as client:
        assert [code(client.get("/v1/wallets")) for _ in range(3)] == ["401 unauthorized"] * 3


def test_two_keys_at_once_are_none(api: Served, new_key: NewKey) -> None:
    headers = [("Authorization", f"Bearer {new_key()}"), ("Authorization", f"Bearer {new_key()}")]
    with httpx2.Client(base_url=api.url) as client:
        assert code(client.get("/v1/wallets", headers=headers)) == "401 unauthorized"


def test_the_scheme_may_be_spelt_in_any_case(api: Served, new_key: NewKey) -> None:
    with api.client(Authorization=f"bEARER {new_key()}") as client:
        assert client.get("/v1/wallets").status_code == 200


def test_whoever_has_no_key_hears_of_nothing_else(api: Served) -> None:
    """401 comes before 404, 415 and 422: nothing about the service is told at the door."""
    with api.client() as client:
        assert code(client.get("/v1/wallets/nobody")) == "401 unauthorized"
        assert code(client.get("/v1/wallets?limit=-1")) == "401 unauthorized"
        assert code(client.put("/v1/wallets/a", content=b"{")) == "401 unauthorized"


SCOPE_OF = {
    "GET /v1/wallets": Scope.WALLETS_READ,
    "GET /v1/wallets/alice": Scope.WALLETS_READ,
    "GET /v1/wallets/alice/entries": Scope.WALLETS_READ,
    "GET /v1/transfers/x": Scope.WALLETS_READ,
    "PUT /v1/wallets/alice": Scope.WALLETS_WRITE,
    "POST /v1/wallets/alice/freeze": Scope.WALLETS_WRITE,
    "POST /v1/wallets/alice/unfreeze": Scope.WALLETS_WRITE,
    "GET /v1/assets": Scope.ASSETS_READ,
    "GET /v1/supply": Scope.ASSETS_READ,
    "POST /v1/assets": Scope.ASSETS_WRITE,
    "PATCH /v1/assets/gold": Scope.ASSETS_WRITE,
    "POST /v1/assets/gold/freeze": Scope.ASSETS_WRITE,
    "POST /v1/assets/gold/unfreeze": Scope.ASSETS_WRITE,
    "POST /v1/commands": Scope.COMMANDS_WRITE,
    "POST /v1/commands/batch": Scope.COMMANDS_WRITE,
    "GET /v1/commands?idempotency_key=k": Scope.COMMANDS_READ,
    "GET /v1/commands/x": Scope.COMMANDS_READ,
}


def test_each_route_opens_to_its_scope_and_to_no_other(api: Served, bank: Bank, new_key: NewKey) -> None:
    bank.open_wallet("alice")
    for scope in Scope:
        with api.client(new_key(scope)) as client:
            for route, needed in SCOPE_OF.items():
                method, path = route.split(" ")
                answer = client.request(method, path)
                if scope in (needed, Scope.ADMIN):
                    assert answer.status_code not in (401, 403), (scope, route)
                else:
                    assert code(answer) == "403 insufficient_scope", (scope, route)
                    assert needed in answer.json()["detail"]
                    assert f'scope="{needed}"' in answer.headers["www-authenticate"]


# --- the end of a key ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("remember_s", "refresh_after_s"), [(0.3, 100.0), (100.0, 0.1)])
def test_a_revoked_key_stops_when_it_is_forgotten_or_looked_up_again(
    api: Served, bank: Bank, engine: Engine, new_key: NewKey, monkeypatch: pytest.MonkeyPatch,
    remember_s: float, refresh_after_s: float,
) -> None:  # fmt: skip
    monkeypatch.setattr(auth, "REMEMBER_S", remember_s)
    monkeypatch.setattr(auth, "REFRESH_AFTER_S", refresh_after_s)
    key = new_key()
    with api.client(key) as client:
        assert client.get("/v1/wallets").status_code == 200
        keys.revoke_key(engine, key_id(bank, key))
        deadline = time.monotonic() + 3.0
        while client.get("/v1/wallets").status_code == 200:
            assert time.monotonic() < deadline, "the revoked key still opens"
            time.sleep(0.02)
        assert code(client.get("/v1/wallets")) == "401 unauthorized"


def test_a_key_is_not_remembered_for_longer_than_the_manual_says() -> None:
    assert auth.REFRESH_AFTER_S < auth.REMEMBER_S <= 5


def test_a_key_expires_on_time_though_it_is_remembered(api: Served, bank: Bank, new_key: NewKey) -> None:
    with api.client(new_key(expires_at=bank.in_seconds(1.0))) as client:
        assert client.get("/v1/wallets").status_code == 200
        time.sleep(1.1)
        assert code(client.get("/v1/wallets")) == "401 unauthorized"


def test_rotation_overlaps_and_ends(bank: Bank, engine: Engine, new_key: NewKey) -> None:
    old = new_key(Scope.WALLETS_READ)
    new = keys.rotate_key(engine, key_id(bank, old), overlap=timedelta(hours=1))
    listed = {key.id: key for key in keys.list_keys(engine)}
    old_row, new_row = listed[key_id(bank, old)], listed[key_id(bank, new)]
    assert old_row.works
    assert new_row.works
    assert (new_row.client, new_row.tenant, new_row.scopes) == (old_row.client, old_row.tenant, ["wallets:read"])
    assert new_row.expires_at is None
    assert old_row.expires_at is not None
    assert timedelta(minutes=59) < old_row.expires_at - bank.in_seconds(0) <= timedelta(hours=1)


def test_rotation_never_lengthens_a_keys_life(bank: Bank, engine: Engine, new_key: NewKey) -> None:
    ends = bank.in_seconds(60)
    old = new_key(expires_at=ends)
    new = keys.rotate_key(engine, key_id(bank, old), overlap=timedelta(days=1))
    listed = {key.id: key for key in keys.list_keys(engine)}
    assert listed[key_id(bank, old)].expires_at == listed[key_id(bank, new)].expires_at == ends


def test_a_dead_key_is_not_rotated(bank: Bank, engine: Engine, new_key: NewKey) -> None:
    revoked, expired = new_key(), new_key(expires_at=bank.in_seconds(-1))
    keys.revoke_key(engine, key_id(bank, revoked))
    for dead in (revoked, expired):
        with pytest.raises(LookupError):
            keys.rotate_key(engine, key_id(bank, dead), overlap=timedelta(hours=1))
    with pytest.raises(LookupError):
        keys.revoke_key(engine, 999_999)


def test_an_expired_key_is_listed_as_one_that_does_not_work(bank: Bank, engine: Engine, new_key: NewKey) -> None:
    expired, expiring = new_key(expires_at=bank.in_seconds(-1)), new_key(expires_at=bank.in_seconds(60))
    listed = {key.id: key for key in keys.list_keys(engine)}
    assert [listed[key_id(bank, key)].works for key in (expired, expiring)] == [False, True]


def test_a_scope_that_this_version_does_not_know_opens_nothing_and_shuts_nothing(
    api: Served, bank: Bank, new_key: NewKey
) -> None:
    """As a newer version may have granted it, before somebody went back to this one."""
    key = new_key(Scope.WALLETS_READ)
    bank.do("UPDATE api_keys SET scopes = scopes || ARRAY['worlds:rule'] WHERE id = %s", key_id(bank, key))
    with api.client(key) as client:
        assert client.get("/v1/wallets").status_code == 200
        assert code(client.get("/v1/assets")) == "403 insufficient_scope"


def test_rotating_and_revoking_a_key_touch_no_other(bank: Bank, engine: Engine, new_key: NewKey) -> None:
    stranger = Bank(bank.url)
    theirs = new_key(of=stranger)
    before, ours, after = new_key(Scope.ASSETS_READ), new_key(Scope.WALLETS_READ), new_key(Scope.ADMIN)
    new = keys.rotate_key(engine, key_id(bank, ours), overlap=timedelta(hours=1))
    keys.revoke_key(engine, key_id(bank, ours))
    tenant = bank.one("SELECT code FROM tenants WHERE id = %s", bank.tenant)
    listed = keys.list_keys(engine, tenant=tenant)
    assert [key.id for key in listed] == [key_id(bank, key) for key in (before, ours, after, new)]
    assert [(key.works, key.expires_at) for key in (listed[0], listed[2], listed[3])] == [(True, None)] * 3
    assert not listed[1].works
    assert listed[3].scopes == ["wallets:read"]
    keys.revoke_key(engine, key_id(bank, ours))
    assert keys.list_keys(engine, tenant=tenant) == listed, "revoking twice is revoking once"
    found = {key.id: key for key in keys.list_keys(engine)}[key_id(bank, theirs)]
    assert (found.works, found.client) == (True, "a game")
    stranger.close()


def test_one_name_is_one_client(bank: Bank, new_key: NewKey) -> None:
    new_key()
    new_key()
    named = "SELECT count(*) FROM clients WHERE tenant_id = %s AND name = 'a game'"
    assert bank.one(named, bank.tenant) == 1


@pytest.mark.parametrize(
    "wrong",
    [{"env": "Live"}, {"env": "a_b"}, {"client": ""}, {"client": "a\nb"}, {"client": "x" * 201}, {"scopes": ()}],
)
def test_what_no_key_can_be_made_of(engine: Engine, wrong: dict[str, str]) -> None:
    given = {"env": "test", "client": "x", "scopes": (Scope.ADMIN,)} | wrong
    with pytest.raises(ValueError, match=r"."):
        keys.create_key(engine, **given)  # pyright: ignore[reportArgumentType]
    with pytest.raises(LookupError):
        keys.create_key(engine, env="test", client="x", scopes=[Scope.ADMIN], tenant="nobody")


# --- tenants -------------------------------------------------------------------------------------------------------


def test_a_tenant_is_made_once(bank: Bank, engine: Engine) -> None:
    made = tenants.create_tenant(engine, "a-new-game")
    assert tenants.create_tenant(engine, "a-new-game") == made
    assert bank.one("SELECT id FROM tenants WHERE code = 'a-new-game'") == made


@pytest.mark.parametrize("wrong", ["", "Game", "2-games", "a game", "a_game", "game\n", "x" * 64])
def test_what_no_tenant_can_be_called(engine: Engine, wrong: str) -> None:
    with pytest.raises(ValueError, match="is no tenant code"):
        tenants.create_tenant(engine, wrong)


# --- the ring ------------------------------------------------------------------------------------------------------


class Counted:
    """A ring on the real database, and how many statements it has sent."""

    def __init__(self, url: str) -> None:
        self.engine = db.async_engine(url, application="test-ring")
        self.ring = KeyRing(self.engine)
        self.lookups = 0
        event.listen(self.engine.sync_engine, "before_cursor_execute", self._count)

    def _count(self, *_: object) -> None:
        self.lookups += 1


def test_a_thousand_requests_at_once_share_one_lookup(bank: Bank, new_key: NewKey) -> None:
    async def run() -> int:
        counted = Counted(bank.url)
        asked = (counted.ring.authenticate(f"Bearer {key}") for _ in range(1000))
        principals = await asyncio.gather(*asked)
        assert len({id(principal) for principal in principals}) == 1
        await counted.engine.dispose()
        return counted.lookups

    key = new_key()
    assert asyncio.run(run()) == 1


def test_nonsense_costs_no_lookup_and_a_dead_key_one_a_second(bank: Bank) -> None:
    async def run() -> tuple[int, int]:
        counted = Counted(bank.url)

        async def refused(authorization: str) -> None:
            with pytest.raises(Problem, match="unauthorized"):
                await counted.ring.authenticate(authorization)

        await refused("Bearer " + keys.new_key("live")[:-1] + "!")
        after_nonsense = counted.lookups
        dead = keys.new_key("live")
        for _ in range(20):
            await refused(f"Bearer {dead}")
        await counted.engine.dispose()
        return after_nonsense, counted.lookups

    assert asyncio.run(run()) == (0, 1)


def test_a_key_in_use_is_refreshed_behind_the_scenes(
    bank: Bank, new_key: NewKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while the database is away for a moment: what is remembered opens until it is forgotten."""
    monkeypatch.setattr(auth, "REFRESH_AFTER_S", 0.05)

    async def run() -> int:
        counted = Counted(bank.url)
        header = f"Bearer {key}"
        first = await counted.ring.authenticate(header)
        await asyncio.sleep(0.06)
        call = counted.ring.authenticate(header)
        with pytest.raises(StopIteration) as answered:
            call.send(None)  # answers without a single await
        assert answered.value.value is first
        for _ in range(100):
            await asyncio.sleep(0.02)
            if counted.lookups == 2:
                break
        lookups = counted.lookups
        await counted.ring.stop()
        await counted.engine.dispose()
        return lookups

    key = new_key()
    assert asyncio.run(run()) == 2


def test_last_use_is_recorded_once_a_minute(bank: Bank, new_key: NewKey) -> None:
    async def use() -> None:
        engine = db.async_engine(bank.url, application="test-ring")
        ring = KeyRing(engine)
        ring.start()
        await ring.authenticate(f"Bearer {key}")
        await ring.stop()
        await engine.dispose()

    key, unused = new_key(), new_key()
    last_used = "SELECT last_used_at FROM api_keys WHERE key_hash = %s"
    assert bank.one(last_used, keys.key_hash(key)) is None
    asyncio.run(use())
    first = bank.one(last_used, keys.key_hash(key))
    assert first is not None
    assert bank.one(last_used, keys.key_hash(unused)) is None
    asyncio.run(use())
    assert bank.one(last_used, keys.key_hash(key)) == first
    bank.do("UPDATE api_keys SET last_used_at = last_used_at - interval '1 minute'")
    asyncio.run(use())
    assert bank.one(last_used, keys.key_hash(key)) > first


def test_no_log_names_a_key(api: Served, new_key: NewKey, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    key = new_key(Scope.WALLETS_READ)
    with api.client(key) as client:
        client.get("/v1/wallets")
        client.put("/v1/wallets/x", json={})
        client.get("/nowhere")
    assert key.split("_")[2] not in caplog.text
