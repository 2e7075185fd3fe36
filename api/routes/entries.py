"""What moved a wallet's balances: its entries, page by page or all at once, and statements."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.responses import Response

from api import export, schemas
from api.auth import Principal, needs
from api.lists import MetadataParameter, Page, each_once, metadata_filter, page
from api.openapi import problems
from api.problems import Problem, invalid
from api.routes.transfers import show_entry
from api.state import autocommit
from api.times import InstantParameter
from ledger import history
from ledger.commands import OWN_TYPES, TYPES
from ledger.history import AheadOfTime, AssetNotFound, Balance, Filter
from ledger.keys import Scope
from ledger.names import ASSET_MAX, REFERENCE_MAX, is_wallet_id

router = APIRouter(prefix="/v1/wallets", tags=["wallets"])

Reader = Annotated[Principal, needs(Scope.WALLETS_READ)]

Asset = Annotated[str, StringConstraints(max_length=ASSET_MAX), Field(examples=["gold_coins"])]
Since = Annotated[InstantParameter | None, Field(alias="from", description="Entries of this time and later.")]
Until = Annotated[InstantParameter | None, Field(alias="to", description="Entries before this time.")]


class AskedEntries(Page):
    """Filters; an entry passes them all."""

    asset: Asset | None = None
    since: Since = None
    until: Until = None
    type: Annotated[str | None, Field(description="The command's type.", examples=["spend"])] = None
    reference: Annotated[str | None, StringConstraints(max_length=REFERENCE_MAX)] = None
    metadata: MetadataParameter = None

    @property
    def filter(self) -> Filter:
        """Raises Problem, 422."""
        if self.type is not None and self.type not in (*TYPES, *OWN_TYPES):
            raise invalid("/query/type", f"must be one of {', '.join((*TYPES, *OWN_TYPES))}")
        _in_order(self.since, self.until)
        for name, text in (("asset", self.asset), ("reference", self.reference)):
            if text is not None and "\0" in text:
                raise invalid(f"/query/{name}", "must not contain NUL", "nul")
        return Filter(self.asset, self.since, self.until, self.type, self.reference, metadata_filter(self.metadata))


class AskedStatement(BaseModel):
    model_config = ConfigDict(extra="forbid")

    asset: Asset
    since: Since = None
    until: Annotated[
        InstantParameter | None, Field(alias="to", description="Entries before this time; unless said, now.")
    ] = None


def _in_order(since: datetime | None, until: datetime | None) -> None:
    if since is not None and until is not None and since > until:
        raise invalid("/query/to", "must not be before `from`")


async def _asked_entries(request: Request, asked: Annotated[AskedEntries, Query()]) -> AskedEntries:
    each_once(request)
    return asked


async def _asked_statement(request: Request, asked: Annotated[AskedStatement, Query()]) -> AskedStatement:
    each_once(request)
    return asked


@router.get(
    "/{id}/entries",
    response_model=schemas.EntryList,
    responses=problems("wallet_not_found", "invalid_cursor") | export.responses("One line for each entry."),
)
async def list_entries(
    request: Request, id: str, principal: Reader, asked: Annotated[AskedEntries, Depends(_asked_entries)]
) -> Response:
    """What moved this wallet's balances, newest first, all filters applied. No page repeats or skips an entry, whatever
    is written meanwhile. A page may be short, or even empty, with a `next_cursor`: one request looks at a bounded
    number of entries. With `Accept: text/csv`: all of them, oldest first, as they stand when the answer begins."""
    which = asked.filter
    as_csv = export.wants_csv(request)
    if as_csv and (given := asked.model_fields_set & {"limit", "cursor"}):
        raise invalid(f"/query/{min(given)}", "CSV is the whole list, not a page of it")
    after = asked.after_position
    async with autocommit(request) as connection:
        left = await history.spans(connection, principal.tenant_id, id, which) if is_wallet_id(id) else None
        if left is None:
            raise Problem("wallet_not_found")
        seqs = await history.commands_of(connection, principal.tenant_id, which)
        if not as_csv:
            found, left = await history.entries(connection, id, _from(left, after), which, limit=asked.limit, seqs=seqs)
            next_page = {account_id: span.high + 1 for account_id, span in left.items()}
            return page(request, asked, [show_entry(entry) for entry in found], next_page or None)
    return export.streamed(export.as_csv(export.chunks(request, id, left, which, seqs)), export.CSV, f"{id}-entries")


def _from(left: history.Spans, after: dict[int, int] | None) -> history.Spans:
    """What is left after a page: below the version at which it left each account; no account that it did not know."""
    if after is None:
        return left
    return {
        account_id: history.Span(span.asset, span.low, min(span.high, after[account_id] - 1))
        for account_id, span in left.items()
        if account_id in after and after[account_id] > span.low
    }


@router.get(
    "/{id}/statement",
    response_model=schemas.Statement,
    responses=problems("wallet_not_found", "asset_not_found")
    | export.responses("One line for the opening balance, for each entry, for the closing balance."),
)
async def get_statement(
    request: Request, id: str, principal: Reader, asked: Annotated[AskedStatement, Depends(_asked_statement)]
) -> Response:
    """The balance of one asset before `from`, every entry from then until before `to`, oldest first, and the balance
    then: the first and the entries add up to the last. A statement that ends within the last 10 seconds may miss an
    entry that is being written."""
    _in_order(asked.since, asked.until)
    async with autocommit(request) as connection:
        try:
            found = (
                await history.statement(
                    connection, principal.tenant_id, id, asked.asset, since=asked.since, until=asked.until
                )
                if is_wallet_id(id) and "\0" not in asked.asset
                else None
            )
        except AheadOfTime:
            raise invalid("/query/to", "is yet to come") from None
        except AssetNotFound:
            raise Problem("asset_not_found") from None
    if found is None:
        raise Problem("wallet_not_found")
    entries = export.chunks(request, id, found.entries, Filter())
    if export.wants_csv(request):
        parts = export.as_csv(
            entries,
            first=statement_line("opening_balance", found.since, asked.asset, found.opening),
            last=statement_line("closing_balance", found.until, asked.asset, found.closing),
        )
        return export.streamed(parts, export.CSV, f"{id}-{asked.asset}")
    time = {"from": found.since, "to": found.until}
    opening = {"opening": show_balance(found.opening)}
    head = {"object": "statement", "wallet": id, "asset": asked.asset, **time, **opening}
    return export.streamed(
        export.as_json(entries, head, "entries", {"closing": show_balance(found.closing)}), export.JSON, id
    )


def show_balance(balance: Balance) -> dict[str, Any]:
    return {
        "posted": str(balance.posted),
        "held": str(balance.held),
        "available": str(balance.posted - balance.held),
        "version": balance.version,
    }


def statement_line(type: str, at: datetime | None, asset: str, balance: Balance) -> dict[str, Any]:
    stood = {"balance_after": str(balance.posted), "held_after": str(balance.held), "version": balance.version}
    return {"at": at, "type": type, "asset": asset, **stood}
