"""What can go wrong, as exceptions. A refusal by the books is none of them: it is a command's outcome."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from bursar.client.answers import Command


class BursarError(Exception):
    """All that this client raises by itself, apart from TypeError and ValueError for wrong arguments.

    `args` are those of the constructor, so that it can be pickled.
    """


class Refused(BursarError):
    """Raised by `Command.raise_for_refusal` alone. `command.outcome` says why."""

    def __init__(self, message: str, command: "Command") -> None:
        super().__init__(message, command)
        self.command = command

    def __str__(self) -> str:
        return str(self.args[0])

    @property
    def code(self) -> str:
        return self.command.outcome.code if self.command.outcome else ""


class Unreachable(BursarError):
    """No answer that can be read. Of what would change something: nothing was sent; else see Unknown."""


class Unknown(BursarError):
    """Sent, and nobody knows whether it arrived: the answers were lost, also those to the retries.

    Ask later, with `find(idempotency_key)`, or send the same order again: it never applies twice. `__cause__` is what
    the last attempt met. `idempotency_keys` are all those of the request, more than one of a batch alone.
    """

    def __init__(self, idempotency_keys: Sequence[str]) -> None:
        self.idempotency_keys = tuple(idempotency_keys)
        super().__init__(self.idempotency_keys)

    def __str__(self) -> str:
        more = f" and {len(self.idempotency_keys) - 1} more" if len(self.idempotency_keys) > 1 else ""
        return f"nobody knows yet what became of the command under key {self.idempotency_key}{more}"

    @property
    def idempotency_key(self) -> str:
        return self.idempotency_keys[0]


class BufferFull(BursarError):
    """`fire` found no place in its buffer, and the policy is `raise`. Nothing was taken."""


class Closed(BursarError):
    """The client was closed before."""


class WebhookRefused(BursarError):
    """The request is not one that the holder of the secret sent just now. Answer 400 and do nothing."""


class Problem(BursarError):
    """The service said no (RFC 9457). Match on the class or on `code`; `detail` is for a person.

    `members` are all that the answer had, those of this one problem included. What is no problem+json, a proxy's
    page for instance, has the code `http_<status>`.
    """

    def __init__(self, status: int, members: Mapping[str, Any], *, retry_after_s: float | None = None) -> None:
        self.status = status
        self.members = dict(members)
        self.code = str(members.get("code") or f"http_{status}")
        self.title = str(members.get("title") or _phrase(status))
        self.detail = str(members.get("detail") or self.title)
        self.type: str | None = members.get("type")
        self.instance: str | None = members.get("instance")
        self.request_id: str | None = members.get("request_id")
        self.retryable = members.get("retryable") is True
        errors: Any = members.get("errors")
        self.errors: list[Mapping[str, Any]] = errors if isinstance(errors, list) else []
        self.retry_after_s = retry_after_s
        super().__init__(status, self.members)

    def __str__(self) -> str:
        return f"{self.status} {self.code}: {self.detail}"


class BadRequest(Problem):
    """400: the request cannot be understood."""


class Unauthorized(Problem):
    """401: no API key that works."""


class Forbidden(Problem):
    """403: the API key may not do this."""


class NotFound(Problem):
    """404: it is not there, or not this tenant's."""


class Conflict(Problem):
    """409: not in the state in which things are."""


class CursorExpired(Problem):
    """410: what came after the cursor is kept no longer. Start anew without one, and look up what may be missing."""


class Invalid(Problem):
    """422: a member that cannot be; `errors` name it."""


class KeyReused(Invalid):
    """422: the idempotency key was used for another request. Nothing was stored."""


class TooMany(Problem):
    """429: too much at once; nothing was stored. `retry_after_s` says when to come again."""


class ServerFault(Problem):
    """5xx: a defect, an overload or an outage."""


_BY_CODE: Mapping[str, type[Problem]] = {"cursor_expired": CursorExpired, "idempotency_key_reused": KeyReused}
_BY_STATUS: Mapping[int, type[Problem]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    422: Invalid,
    429: TooMany,
}


def problem_from(status: int, members: object, *, retry_after_s: float | None = None) -> Problem:
    """The class that fits best; members other than a JSON object's count as none."""
    told = cast(dict[str, Any], members) if isinstance(members, dict) else {}
    made = _BY_CODE.get(str(told.get("code"))) or _BY_STATUS.get(status) or (ServerFault if status >= 500 else Problem)
    return made(status, told, retry_after_s=retry_after_s)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "An answer that is not in the contract"
