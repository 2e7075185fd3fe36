"""Server-sent events (HTML, 9.2.6), out of bytes that arrive in any pieces."""

from collections.abc import Generator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """`id`: None where the event itself had none. An event without data only moves the place to resume from."""

    name: str
    data: str
    id: str | None


class EventReader:
    """One stream's. Lines end with LF or CR LF; nothing else ends one, whatever Unicode has to say."""

    def __init__(self) -> None:
        self._rest = b""
        self._fields: list[tuple[str, str]] = []

    def feed(self, part: bytes) -> Generator[ServerEvent]:
        """The events that are whole now. Raises ValueError for what is not UTF-8."""
        *lines, self._rest = (self._rest + part).split(b"\n")
        for line in lines:
            text = line.removesuffix(b"\r").decode()
            if text.startswith(":"):
                continue  # a comment, which keeps the connection alive
            if text:
                name, _, value = text.partition(":")
                self._fields.append((name, value.removeprefix(" ")))
            elif self._fields:
                fields, self._fields = self._fields, []
                yield _event(fields)


def _event(fields: list[tuple[str, str]]) -> ServerEvent:
    last = dict(fields)
    data = "\n".join(value for name, value in fields if name == "data")
    return ServerEvent(last.get("event", "message"), data, last.get("id"))
