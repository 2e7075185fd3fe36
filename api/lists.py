"""Lists: `limit`, an opaque `cursor`, `{data, next_cursor}` and a Link header (RFC 8288)."""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar
from urllib.parse import urlencode

import msgspec
from fastapi import Depends, Query, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError
from starlette.responses import Response

from api.bodies import decode
from api.problems import Problem, invalid
from ledger.names import METADATA_MAX_BYTES, NAME_MAX, NAME_PATTERN, metadata_text

LIMIT_DEFAULT = 50
LIMIT_MAX = 200  # rows of one page: a few milliseconds and some 100 KB
CURSOR_MAX = 8_192  # a cursor over the entries of a wallet with 200 assets has half of that

T = TypeVar("T")

# What a cursor may hold. Clients are told not to look inside or to make their own; some will.
_name_decoder = msgspec.msgpack.Decoder(Annotated[str, msgspec.Meta(pattern=NAME_PATTERN, max_length=NAME_MAX)])
_Bigint = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_number_decoder = msgspec.msgpack.Decoder(Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)])
_object = msgspec.json.Decoder(dict[str, Any])
_position_decoder = msgspec.msgpack.Decoder(dict[_Bigint, _Bigint])


def whole_number(most: int, *, least: int = 1) -> Callable[[object], object]:
    """For a parameter: digits and nothing else. What is too large is `most`; no number is too long to be too large."""

    def parse(value: object) -> object:
        if isinstance(value, str):
            if not (value.isascii() and value.isdigit()):
                raise PydanticCustomError("invalid", "must be a whole number, {least} or more", {"least": least})
            return min(int(value[:6]), most) if len(value) <= 6 else most
        return value

    return parse


class Page(BaseModel):
    """The parameters of a list. A parameter that is not one of them is refused: it may be a misspelt one."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[
        int,
        Field(ge=1, description=f"Rows of a page. More give {LIMIT_MAX}."),
        BeforeValidator(whole_number(LIMIT_MAX)),
    ] = LIMIT_DEFAULT
    cursor: Annotated[
        str, Field(max_length=CURSOR_MAX, description="`next_cursor` of the page before. Empty: the first page.")
    ] = ""

    @property
    def after_name(self) -> str:
        """The last name of the page before; empty for the first page. Raises Problem, 400 invalid_cursor."""
        return self._decoded(_name_decoder) or ""

    @property
    def after_number(self) -> int | None:
        """The number of the last row seen; None for the first page. Raises Problem, 400 invalid_cursor."""
        return self._decoded(_number_decoder)

    @property
    def after_position(self) -> dict[int, int] | None:
        """Where each account was left; None for the first page. Raises Problem, 400 invalid_cursor."""
        return self._decoded(_position_decoder)

    def _decoded(self, decoder: msgspec.msgpack.Decoder[T]) -> T | None:
        if not self.cursor:
            return None
        try:
            padded = self.cursor.encode("ascii") + b"=" * (-len(self.cursor) % 4)
            return decoder.decode(base64.b64decode(padded, altchars=b"-_", validate=True))
        except (ValueError, binascii.Error, msgspec.MsgspecError, RecursionError):
            raise Problem("invalid_cursor") from None


def each_once(request: Request) -> None:
    """Each parameter once: which of two was meant is not for us to guess. Raises Problem, 422."""
    names = [name for name, _ in request.query_params.multi_items()]
    for name in names:
        if names.count(name) > 1:
            raise invalid(f"/query/{name}", "stands there twice", "duplicate")


async def _asked(request: Request, page: Annotated[Page, Query()]) -> Page:  # async: else it would be run in a thread
    each_once(request)
    return page


Asked = Annotated[Page, Depends(_asked)]


MetadataParameter = Annotated[
    str | None,
    Field(
        max_length=METADATA_MAX_BYTES,
        description="A JSON object that the metadata contain.",
        examples=['{"item":"sword"}'],
    ),
]


def metadata_filter(text: str | None) -> str | None:
    """What to look for, as JSON text; None: nothing. Raises Problem, 422."""
    if text is None:
        return None
    try:
        wanted = decode(text.encode(), _object)
        return metadata_text(wanted) if wanted else None  # an empty object is in every other
    except Problem as problem:
        raise invalid("/query/metadata", problem.detail) from None
    except ValueError as error:
        raise invalid("/query/metadata", str(error)) from None


def page(request: Request, page: Page, data: Sequence[dict[str, Any]], after: object | None) -> Response:
    """One page. `after`: where the next one starts, None where there is none. The next one is asked for as this one."""
    cursor, headers = "", {}
    if after is not None:
        cursor = cursor_to(after)
        filters = {name: value for name, value in request.query_params.items() if name not in ("limit", "cursor")}
        query = urlencode({**filters, "limit": page.limit, "cursor": cursor})
        headers = {"Link": f'<{request.url.path}?{query}>; rel="next"'}
    return json_response({"data": data, "next_cursor": cursor}, headers=headers)


def cursor_to(place: object) -> str:
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(place)).decode().rstrip("=")


def json_response(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(value), status, headers, "application/json")
