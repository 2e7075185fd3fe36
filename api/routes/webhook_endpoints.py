"""Webhook endpoints: where events are sent, and what became of them (docs/webhooks.md)."""

from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from msgspec import UNSET, Meta, Struct, UnsetType
from starlette.responses import Response

from api import schemas
from api.auth import Principal, needs
from api.bodies import read, read_optional
from api.lists import Asked, Page, cursor_to, each_once, json_response, page
from api.openapi import problems, request_body
from api.problems import Problem, invalid
from api.requests import Timestamp, WalletId
from api.sessions import Sessions
from api.state import ring_all, ring_couriers
from api.times import instant
from ledger import deliveries, endpoints
from ledger.endpoints import Attempt, Connection, Delivery, Endpoint, Settings
from ledger.ids import Kind, command_id, endpoint_id, event_id, parse_id, unix_ms
from ledger.keys import Scope
from ledger.names import NAME_PATTERN
from runtime import webhooks
from runtime.egress import URL_MAX, url_fault
from runtime.vault import Vault

router = APIRouter(prefix="/v1/webhook_endpoints", tags=["webhooks"])

Manager = Annotated[Principal, needs(Scope.WEBHOOKS_MANAGE)]
T = TypeVar("T")

DESCRIPTION_MAX = 500
WALLETS_MAX = 100  # of one endpoint's filter; every outcome is held against it
HEADERS_MAX = 10
HEADER_NAME_MAX = 100
HEADER_VALUE_MAX = 1_000
RATE_MAX = 1_000
OVERLAP_MAX_H = 7 * 24  # a secret that may have leaked should not sign for longer
OVERLAP_DEFAULT_H = 24

# Headers that are ours, or the connection's.
_OURS = frozenset(
    (
        "accept", "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect",
        "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "user-agent",
    )
)  # fmt: skip
_OUR_PREFIXES = ("webhook-", "proxy-")

EventType = Literal[
    "command.applied",
    "command.rejected",
    "command.expired",
    "command.cancelled",
    "command.failed",
    "wallet.balance_low",
    "webhook_endpoint.disabled",
]
Url = Annotated[str, Meta(min_length=1, max_length=URL_MAX, description="https, and a public address.")]
Description = Annotated[str, Meta(min_length=1, max_length=DESCRIPTION_MAX, pattern=NAME_PATTERN)]
EventTypes = Annotated[list[EventType], Meta(min_length=1, description="Null: all.")]
Wallets = Annotated[list[WalletId], Meta(min_length=1, max_length=WALLETS_MAX, description="Either side's. Null: all.")]
Rate = Annotated[int, Meta(ge=1, le=RATE_MAX, description="Attempts. Null: as fast as it answers.")]
HeaderName = Annotated[str, Meta(max_length=HEADER_NAME_MAX, pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$(?!\n)")]
HeaderValue = Annotated[str, Meta(max_length=HEADER_VALUE_MAX, pattern=r"^[ -~]*$(?!\n)")]
Headers = Annotated[
    dict[HeaderName, HeaderValue], Meta(max_length=HEADERS_MAX, description="Sent with each attempt; never shown.")
]
Ordering = Literal["none", "per_wallet"]


class NewEndpoint(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """`ordering: per_wallet`: an event waits until all earlier ones of its wallet are delivered or given up."""

    url: Url
    description: Description | None = None
    event_types: EventTypes | None = None
    wallets: Wallets | None = None
    ordering: Ordering = "none"
    max_per_second: Rate | None = None
    headers: Headers | None = None


class PatchEndpoint(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What to change. `headers` are replaced whole; null takes a member back to what it is where none is given."""

    url: Url | UnsetType = UNSET
    description: Description | UnsetType | None = UNSET
    event_types: EventTypes | UnsetType | None = UNSET
    wallets: Wallets | UnsetType | None = UNSET
    ordering: Ordering | UnsetType = UNSET
    max_per_second: Rate | UnsetType | None = UNSET
    headers: Headers | UnsetType | None = UNSET
    status: Literal["enabled", "disabled"] | UnsetType = UNSET


class Rotate(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """`overlap_hours`: how long the secret before goes on signing beside the new one."""

    overlap_hours: Annotated[int, Meta(ge=0, le=OVERLAP_MAX_H)] = OVERLAP_DEFAULT_H


class Since(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Of commands accepted since then. `cursor`: of the answer before."""

    since: Timestamp
    cursor: Annotated[str, Meta(max_length=100)] = ""


_new = msgspec.json.Decoder(NewEndpoint)
_patch = msgspec.json.Decoder(PatchEndpoint)
_rotate = msgspec.json.Decoder(Rotate)
_since = msgspec.json.Decoder(Since)

_one = problems("webhook_endpoint_not_found")


class AskedDeliveries(Page):
    status: Literal["pending", "delivered", "exhausted"] | None = None


async def _asked_deliveries(request: Request, asked: Annotated[AskedDeliveries, Query()]) -> AskedDeliveries:
    each_once(request)
    return asked


@router.post(
    "",
    response_model=schemas.NewWebhookEndpoint,
    status_code=201,
    responses=problems("webhooks_not_offered", "too_many_endpoints"),
    openapi_extra=request_body(NewEndpoint),
)
async def create_webhook_endpoint(request: Request, principal: Manager) -> Response:
    """An endpoint of the tenant's. It is owed every event that it wants of what is decided from the answer on. The
    secret is shown this once."""
    asked = await read(request, _new)
    sealer, tenant_id = _vault(request), principal.tenant_id
    _check_url(request, asked.url)
    settings = Settings(
        asked.url,
        asked.description,
        _once(asked.event_types),
        _once(asked.wallets),
        asked.ordering,
        asked.max_per_second,
        *_sealed_headers(sealer, tenant_id, asked.headers),
    )
    secret = webhooks.new_secret()
    sealed = sealer.seal(secret.encode(), of=webhooks.OF_SECRET.format(tenant_id))
    try:
        made = await _in_transaction(
            request, lambda to: endpoints.create(to, tenant_id, principal.client_id, settings, sealed)
        )
    except endpoints.TooMany:
        raise Problem("too_many_endpoints", f"a tenant has {endpoints.ENDPOINTS_MAX} at the most") from None
    ring_all(request)  # drains that came meanwhile were turned away
    return json_response({**_show(made), "secret": secret}, 201)


@router.get("", response_model=schemas.WebhookEndpointList, responses=problems("invalid_cursor"))
async def list_webhook_endpoints(request: Request, principal: Manager, asked: Asked) -> Response:
    """The tenant's endpoints, oldest first."""
    after = asked.after_number or 0
    found = await _in_transaction(
        request, lambda to: endpoints.listed(to, principal.tenant_id, after=after, limit=asked.limit + 1)
    )
    shown = found[: asked.limit]
    return page(request, asked, [_show(each) for each in shown], shown[-1].id if len(found) > asked.limit else None)


@router.get("/{id}", response_model=schemas.WebhookEndpoint, responses=_one)
async def get_webhook_endpoint(request: Request, id: str, principal: Manager) -> Response:
    return json_response(_show(await _find(request, principal, id)))


@router.patch(
    "/{id}",
    response_model=schemas.WebhookEndpoint,
    responses=problems("webhook_endpoint_not_found", "webhooks_not_offered"),
    openapi_extra=request_body(PatchEndpoint),
)
async def patch_webhook_endpoint(request: Request, id: str, principal: Manager) -> Response:
    """Change what is named. What it is owed already stays owed; where it is sent, and how, changes within a second."""
    asked = await read(request, _patch)
    if asked == PatchEndpoint():
        raise invalid("", "needs a member to change")
    tenant_id = principal.tenant_id
    known = await _find(request, principal, id)
    if asked.url is not UNSET:
        _check_url(request, asked.url)
    headers = asked.headers
    sealed = None if isinstance(headers, UnsetType) else _sealed_headers(_vault(request), tenant_id, headers)

    def wanted(stands: Endpoint) -> tuple[Settings, endpoints.Status]:
        was = stands.settings
        settings = Settings(
            _or(asked.url, was.url),
            _or(asked.description, was.description),
            _once(_or(asked.event_types, was.event_types)),
            _once(_or(asked.wallets, was.wallets)),
            _or(asked.ordering, was.ordering),
            _or(asked.max_per_second, was.max_per_second),
            *(sealed or (was.header_names, was.headers)),
        )
        return settings, _or(asked.status, stands.status)

    owed = (asked.event_types, asked.wallets, asked.status) != (UNSET, UNSET, UNSET)
    changed = await _in_transaction(request, lambda to: endpoints.change(to, tenant_id, known.id, wanted, owed=owed))
    if changed is None:
        raise Problem("webhook_endpoint_not_found")
    if owed:
        ring_all(request)  # drains that came meanwhile were turned away
    ring_couriers(request)
    return json_response(_show(changed))


@router.delete("/{id}", status_code=204, responses=_one, response_class=Response)
async def delete_webhook_endpoint(request: Request, id: str, principal: Manager) -> Response:
    """Nothing more is sent to it, within a second, and its secrets are gone."""
    known = await _find(request, principal, id)
    await _in_transaction(request, lambda to: endpoints.delete(to, principal.tenant_id, known.id))
    return Response(status_code=204)


@router.post(
    "/{id}/rotate_secret",
    response_model=schemas.NewWebhookEndpoint,
    responses=problems("webhook_endpoint_not_found", "webhooks_not_offered"),
    openapi_extra=request_body(Rotate, required=False),
)
async def rotate_webhook_secret(request: Request, id: str, principal: Manager) -> Response:
    """A new secret, shown this once. For `overlap_hours` the one before signs beside it."""
    overlap = timedelta(hours=(await read_optional(request, _rotate)).overlap_hours)
    known, tenant_id = await _find(request, principal, id), principal.tenant_id
    secret = webhooks.new_secret()
    sealed = _vault(request).seal(secret.encode(), of=webhooks.OF_SECRET.format(tenant_id))
    await _in_transaction(request, lambda to: endpoints.rotate(to, tenant_id, known.id, sealed, overlap=overlap))
    return json_response({**_show(await _find(request, principal, id)), "secret": secret})


# --- deliveries ----------------------------------------------------------------------------------------------------


@router.post("/{id}/test", response_model=schemas.Delivery, status_code=202, responses=_one)
async def send_test_event(request: Request, id: str, principal: Manager) -> Response:
    """Send a `webhook.test` event now, whatever event types the endpoint wants."""
    known = await _find(request, principal, id)

    def send(to: Connection) -> Delivery:
        seq = deliveries.send_test(to, principal.tenant_id, known.id)
        return endpoints.deliveries_of(to, known.id, before=None, limit=1, seq=seq)[0]

    delivery = await _in_transaction(request, send)
    ring_couriers(request)
    return json_response(_show_delivery(delivery), 202)


@router.get(
    "/{id}/deliveries",
    response_model=schemas.DeliveryList,
    responses=problems("webhook_endpoint_not_found", "invalid_cursor"),
)
async def list_deliveries(
    request: Request,
    id: str,
    principal: Manager,
    asked: Annotated[AskedDeliveries, Depends(_asked_deliveries)],
) -> Response:
    """What this endpoint is owed and was sent, newest first, as long as it is kept."""
    known = await _find(request, principal, id)
    before = asked.after_number
    found = await _in_transaction(
        request,
        lambda to: endpoints.deliveries_of(to, known.id, before=before, limit=asked.limit + 1, status=asked.status),
    )
    shown = found[: asked.limit]
    after = shown[-1].seq if len(found) > asked.limit else None
    return page(request, asked, [_show_delivery(each) for each in shown], after)


@router.get(
    "/{id}/deliveries/{delivery}",
    response_model=schemas.DeliveryWithAttempts,
    responses=problems("webhook_endpoint_not_found", "delivery_not_found"),
)
async def get_delivery(request: Request, id: str, delivery: str, principal: Manager) -> Response:
    """A delivery with its attempts, oldest first."""
    known = await _find(request, principal, id)
    found = await _find_delivery(request, known, delivery)
    attempts = await _in_transaction(request, lambda to: endpoints.attempts_of(to, known.id, found.seq))
    return json_response({**_show_delivery(found), "attempt_list": [_show_attempt(each) for each in attempts]})


@router.post(
    "/{id}/deliveries/{delivery}/resend",
    response_model=schemas.Delivery,
    status_code=202,
    responses=problems("webhook_endpoint_not_found", "delivery_not_found"),
)
async def resend_delivery(request: Request, id: str, delivery: str, principal: Manager) -> Response:
    """Send it now, whatever became of it before: with the same `webhook-id`."""
    known = await _find(request, principal, id)
    found = await _find_delivery(request, known, delivery)
    await _in_transaction(request, lambda to: endpoints.resend(to, known.id, found.seq))
    ring_couriers(request)
    return json_response(_show_delivery(await _find_delivery(request, known, delivery)), 202)


@router.post(
    "/{id}/recover",
    response_model=schemas.Queued,
    status_code=202,
    responses=problems("webhook_endpoint_not_found", "invalid_cursor"),
    openapi_extra=request_body(Since),
)
async def recover_deliveries(request: Request, id: str, principal: Manager) -> Response:
    """Send again what was given up, of commands accepted since a time."""
    known = await _find(request, principal, id)
    return await _since_then(request, lambda to, after: endpoints.recover(to, known.id, after=after))


@router.post(
    "/{id}/replay",
    response_model=schemas.Queued,
    status_code=202,
    responses=problems("webhook_endpoint_not_found", "invalid_cursor"),
    openapi_extra=request_body(Since),
)
async def replay_outcomes(request: Request, id: str, principal: Manager) -> Response:
    """Send what this endpoint wants and was never owed: outcomes from before it was there, or while it was disabled,
    of commands accepted since a time. Outcomes that it has a delivery of are left alone."""
    known = await _find(request, principal, id)
    return await _since_then(request, lambda to, after: endpoints.replay(to, principal.tenant_id, known, after=after))


@router.get("/{id}/stats", response_model=schemas.DeliveryStats, responses=_one)
async def get_delivery_stats(request: Request, id: str, principal: Manager) -> Response:
    """How its newest 10,000 deliveries went."""
    known = await _find(request, principal, id)
    stats = await _in_transaction(request, lambda to: endpoints.stats(to, known.id))
    return json_response(
        {
            "object": "delivery_stats",
            "pending": stats.pending,
            "delivered": stats.delivered,
            "exhausted": stats.exhausted,
            "attempts": stats.attempts,
            "failed_attempts": stats.failures,
            "p50_ms": stats.p50_ms,
            "p99_ms": stats.p99_ms,
            "oldest_pending_at": stats.oldest_pending_at,
        }
    )


async def _since_then(request: Request, work: Callable[[Connection, int], tuple[int, int | None]]) -> Response:
    asked = await read(request, _since)
    try:
        since = instant(asked.since)
    except ValueError as error:
        raise invalid("/since", str(error)) from None
    place = Page(cursor=asked.cursor).after_number

    def run(to: Connection) -> tuple[int, int | None]:
        return work(to, place if place is not None else endpoints.seq_before(to, since))

    queued, after = await _in_transaction(request, run)
    ring_couriers(request)
    return json_response({"queued": queued, "next_cursor": cursor_to(after) if after is not None else ""}, 202)


async def _in_transaction(request: Request, work: Callable[[Connection], T]) -> T:
    sessions: Sessions = request.app.state.endpoints

    def run(connection: Connection) -> T:
        with connection.transaction():
            return work(connection)

    return await sessions.run(run)


async def _find(request: Request, principal: Principal, id_: str) -> Endpoint:
    parsed = parse_id(Kind.ENDPOINT, id_)
    found: Endpoint | None = None
    if parsed is not None:
        found = await _in_transaction(request, lambda to: endpoints.find(to, principal.tenant_id, parsed[0]))
    if found is None or parsed is None or unix_ms(found.created_at) != parsed[1]:
        raise Problem("webhook_endpoint_not_found")
    return found


async def _find_delivery(request: Request, endpoint: Endpoint, id_: str) -> Delivery:
    parsed = parse_id(Kind.EVENT, id_)
    found: list[Delivery] = []
    if parsed is not None:
        found = await _in_transaction(
            request, lambda to: endpoints.deliveries_of(to, endpoint.id, before=None, limit=1, seq=parsed[0])
        )
    if not found or parsed is None or unix_ms(found[0].at) != parsed[1]:
        raise Problem("delivery_not_found")
    return found[0]


def _vault(request: Request) -> Vault:
    vault: Vault | None = request.app.state.vault
    if vault is None:
        raise Problem("webhooks_not_offered", "BURSAR_SECRETS_KEY is not set: there is nothing to seal secrets with")
    return vault


def _check_url(request: Request, url: str) -> None:
    if (fault := url_fault(url, request.app.state.allowed_hosts)) is not None:
        raise invalid("/url", fault)


def _sealed_headers(vault: Vault, tenant_id: int, headers: dict[str, str] | None) -> tuple[list[str], bytes | None]:
    if not headers:
        return [], None
    lower = [name.lower() for name in headers]
    for name in headers:
        if name.lower() in _OURS or name.lower().startswith(_OUR_PREFIXES):
            raise invalid(f"/headers/{name}", "is a header of ours, or of the connection's")
        if lower.count(name.lower()) > 1:
            raise invalid(f"/headers/{name}", "stands there twice: headers have no case", "duplicate")
    sealed = vault.seal(msgspec.json.encode(headers), of=webhooks.OF_HEADERS.format(tenant_id))
    return list(headers), sealed


def _once(names: list[Any] | None) -> list[Any] | None:
    return None if names is None else list(dict.fromkeys(names))


def _or(given: T | UnsetType, otherwise: T) -> T:
    return otherwise if isinstance(given, UnsetType) else given


def _show(endpoint: Endpoint) -> dict[str, Any]:
    chosen = endpoint.settings
    return {
        "id": endpoint_id(endpoint.id, endpoint.created_at),
        "object": "webhook_endpoint",
        "url": chosen.url,
        "description": chosen.description,
        "event_types": chosen.event_types,
        "wallets": chosen.wallets,
        "ordering": chosen.ordering,
        "max_per_second": chosen.max_per_second,
        "header_names": chosen.header_names,
        "status": endpoint.status,
        "disabled_reason": endpoint.disabled_reason,
        "failing_since": endpoint.failing_since,
        "paused_until": endpoint.paused_until,
        "former_secret_until": endpoint.former_until,
        "created_at": endpoint.created_at,
    }


def _show_delivery(delivery: Delivery) -> dict[str, Any]:
    command = None if delivery.accepted_at is None else command_id(delivery.seq, delivery.accepted_at)
    return {
        "id": event_id(delivery.seq, delivery.at),
        "object": "delivery",
        "event_type": delivery.type,
        "command": command,
        "status": delivery.status,
        "attempts": delivery.attempts,
        "next_attempt_at": delivery.due_at,
        "at": delivery.at,
    }


def _show_attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "number": attempt.n,
        "at": attempt.at,
        "status": attempt.status,
        "failure": attempt.failure,
        "detail": attempt.detail,
        "took_ms": attempt.took_ms,
        "response": attempt.body,
    }
