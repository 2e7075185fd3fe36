"""JSON bodies, read strictly.

msgspec checks types, lengths and alphabets. What it lets pass is found here: the same member twice in one object (the
last would win in silence), NUL and lone surrogates (PostgreSQL could not store them), nesting without end.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn, TypeVar, cast

import msgspec
from starlette.requests import Request

from api.problems import FieldError, Problem, invalid

T = TypeVar("T")

_SURROGATE = re.compile("[\ud800-\udfff]")
_PLACE = re.compile(r" - at `(?:key` in `)?\$(.*)`$")
_MEMBER = re.compile(r"field `(.*)`")
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+)\]")


async def read(request: Request, decoder: msgspec.json.Decoder[T]) -> T:
    """The request's body. Raises Problem: 400, 413, 415 or 422."""
    content_type = request.headers.get("content-type", "")
    if content_type != "application/json" and not _is_json(content_type):
        raise Problem("unsupported_media_type", f"send Content-Type: application/json, not {content_type[:100]!r}")
    return decode(await request.body(), decoder)


async def read_optional(request: Request, decoder: msgspec.json.Decoder[T]) -> T:
    """The same where a body may be absent, of whatever media type: then all members are."""
    return await read(request, decoder) if await request.body() else decoder.decode(b"{}")


def _is_json(content_type: str) -> bool:
    media_type, *parameters = (part.strip().lower() for part in content_type.split(";"))
    return media_type == "application/json" and all(
        not parameter or parameter.replace('"', "") == "charset=utf-8" for parameter in parameters
    )


def decode(body: bytes, decoder: msgspec.json.Decoder[T], *, inspect: bool = True) -> T:
    """`body` as the decoder's type. Raises Problem: 400 malformed_json or duplicate_member, 422 validation_failed.

    The type's structs must have `omit_defaults` and `forbid_unknown_fields`, and read times as `str` (a `datetime` may
    be written with one colon more): then the value, written again, has as many colons as the body, unless a member
    stood there twice. Escapes, and members that state a default, take the slow path.
    """
    try:
        value = decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem("malformed_json", str(error)) from None
    except RecursionError:
        raise Problem("malformed_json", "the body is nested too deeply") from None
    if not inspect:
        return value
    if b"\\" in body or msgspec.json.encode(value).count(b":") != body.count(b":"):
        _inspect(body)
    return value


def _invalid(message: str) -> Problem:
    """msgspec's message, with its path as a JSON pointer to the member that is meant."""
    place = _PLACE.search(message)
    detail = message[: place.start()] if place else message
    pointer = ""
    for name, index in _STEP.findall(place[1].partition("[...]")[0]) if place else ():  # [...]: somewhere in there
        pointer += f"/{name or index}"
    code = "invalid"
    if member := _MEMBER.search(detail):
        pointer += "/" + _escape(member[1])
        code = "missing" if "missing required" in detail else "unknown"
    return invalid(pointer, detail, code)


class _Members(list[tuple[str, Any]]):
    """An object as the list of its members, doubles included."""


def _inspect(body: bytes) -> None:
    """Read the body again, slowly, for what msgspec does not refuse."""
    try:
        root = json.loads(body, object_pairs_hook=_Members, parse_constant=_refuse, parse_int=str, parse_float=str)
    except RecursionError:
        raise Problem("malformed_json", "the body is nested too deeply") from None
    except ValueError as error:
        raise Problem("malformed_json", str(error)) from None
    for pointer, value in _walk(root):
        if isinstance(value, _Members):
            seen: set[str] = set()
            for name, _ in value:
                _check_text(f"{pointer}/{_escape(name)}", name)
                if name in seen:
                    where = f"{pointer}/{_escape(name)}"
                    fault = FieldError(pointer=where, code="duplicate", detail="stands there twice")
                    raise Problem("duplicate_member", f"{where} stands there twice", errors=[fault])
                seen.add(name)
        elif isinstance(value, str):
            _check_text(pointer, value)


def _walk(root: Any) -> Iterator[tuple[str, Any]]:
    stack: list[tuple[str, Any]] = [("", root)]
    while stack:
        pointer, value = stack.pop()
        yield pointer, value
        if isinstance(value, _Members):
            stack.extend((f"{pointer}/{_escape(name)}", inner) for name, inner in value)
        elif isinstance(value, list):
            stack.extend((f"{pointer}/{n}", inner) for n, inner in enumerate(cast(list[Any], value)))


def _check_text(pointer: str, text: str) -> None:
    if "\0" in text:
        raise invalid(_SURROGATE.sub("?", pointer), "must not contain NUL (\\u0000)", "nul")
    if _SURROGATE.search(text):
        raise invalid(_SURROGATE.sub("?", pointer), "must not contain half of a surrogate pair", "surrogate")


def _escape(token: str) -> str:
    return token.replace("~", "~0").replace("/", "~1")  # RFC 6901


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
