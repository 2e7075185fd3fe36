"""What every page is made with: templates, headers, numbers and times as people read them."""

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from api.dashboard import inward
from ledger.keys import Scope
from ledger.money import AMOUNT_MAX
from ledger.operators import Session

# As for /docs; forms may be sent to this server. No script or style stands in a page.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cache-Control": "no-store",  # balances are nobody's to find in a browser's cache
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)


def render(template: str, values: Mapping[str, Any]) -> str:
    return _templates.get_template(template).render(values)


def show(
    request: Request,
    template: str,
    values: Mapping[str, Any],
    *,
    session: Session | None,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A page, or a part of one where the template is one."""
    given = {"session": session, "path": request.url.path, "q": "", "now": datetime.now(UTC)}
    return HTMLResponse(render(template, {**given, **values}), status, {**HEADERS, **(headers or {})})


async def scales(request: Request, session: Session) -> dict[str, int]:
    """Decimal places of the tenant's assets, as far as one page of them goes."""
    if not session.may(Scope.ASSETS_READ):
        return {}
    found = await inward.get(request, session, "/v1/assets", limit=200)
    return {asset["code"]: asset["scale"] for asset in found["data"]}


def new_key() -> str:
    """An idempotency key for one form: sent twice, it is one command."""
    return f"dashboard-{secrets.token_hex(12)}"


# --- how things read -------------------------------------------------------------------------------------------------


def amount(minor: str | int | None, scale: int = 0) -> str:
    """Minor units as people write them: 1234567 at scale 2 is 12,345.67."""
    if minor is None:
        return "—"
    value = int(minor)
    digits = str(abs(value)).rjust(scale + 1, "0")
    whole = f"{int(digits[: len(digits) - scale]):,}"
    fraction = "." + digits[len(digits) - scale :] if scale else ""
    return f"{'−' if value < 0 else ''}{whole}{fraction}"  # noqa: RUF001  # a minus sign, as wide as a plus


def minor_units(text: str, scale: int) -> str:
    """What somebody typed as an amount, in minor units; as it is where it is no amount: the api says why."""
    plain = text.strip().replace(",", "").replace(" ", "")
    whole, dot, fraction = plain.partition(".")
    if not (whole.isascii() and whole.isdigit()) or (dot and not (fraction.isascii() and fraction.isdigit())):
        return text.strip()
    fraction = fraction.rstrip("0")
    if len(fraction) > scale or len(whole) > len(str(AMOUNT_MAX)):
        return text.strip()
    return str(int(whole + fraction.ljust(scale, "0")))


def instant(at: datetime | str | None) -> datetime | None:
    return datetime.fromisoformat(at) if isinstance(at, str) else at


def moment(at: datetime | str | None) -> str:
    """To the second, in UTC."""
    found = instant(at)
    return f"{found.astimezone(UTC):%Y-%m-%d %H:%M:%S}" if found else "—"


def moment_ms(at: datetime | str | None) -> str:
    found = instant(at)
    return f"{found.astimezone(UTC):%H:%M:%S.%f}"[:-3] if found else "—"


def ago(at: datetime | str | None) -> str:
    found = instant(at)
    if found is None:
        return "never"
    seconds = (datetime.now(UTC) - found).total_seconds()
    if seconds < 0:
        return f"in {duration(round(-seconds))}"
    return f"{duration(round(seconds))} ago" if seconds >= 1 else "just now"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "—"
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 or seconds == int(seconds) else f"{seconds:.1f} s"


def milliseconds(value: float | None) -> str:
    if value is None:
        return "—"
    return f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"


def pretty(value: Any) -> str:
    """JSON for reading."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def words(code: str | None) -> str:
    """`insufficient_funds` as it reads in a sentence."""
    return (code or "").replace("_", " ")


def segment(text: str) -> str:
    """One part of a path."""
    return quote(text, safe="")


_templates.filters.update(
    amount=amount,
    moment=moment,
    moment_ms=moment_ms,
    ago=ago,
    duration=duration,
    milliseconds=milliseconds,
    pretty=pretty,
    words=words,
    segment=segment,
)
