"""The overview: how the service does, live."""

from collections.abc import AsyncGenerator

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from api.dashboard import doors
from api.dashboard.inward import Refused
from api.dashboard.pages import HEADERS, render, show
from api.dashboard.sampler import HISTORY_S, Sample, Sampler, TooManyTenants, Watch
from ledger.operators import Session

VIEWERS_MAX = 200  # streams of one process: each renders half a millisecond of page at every sample
ASK_AGAIN_EVERY = 8  # samples after which a stream asks whether its viewer is still signed in

_encode = msgspec.json.Encoder().encode


async def overview(request: Request, session: Session) -> Response:
    watch = _watch(request.app.state.sampler, session)
    return show(request, "overview.html", _values(watch), session=session)


async def live(request: Request, session: Session) -> Response:
    """Server-sent events: `history` first, then `sample` and `state` (parts of the page) every two seconds."""
    sampler: Sampler = request.app.state.sampler
    if sampler.stopping or sampler.viewers >= VIEWERS_MAX:
        raise Refused(503, "overloaded", "too many are looking on")
    watch = _watch(sampler, session)
    headers = {**HEADERS, "X-Accel-Buffering": "no"}  # nginx would hold it back
    return StreamingResponse(_events(request, session, sampler, watch), headers=headers, media_type="text/event-stream")


def _watch(sampler: Sampler, session: Session) -> Watch:
    try:
        return sampler.watch(session.tenant_id)
    except TooManyTenants:
        raise Refused(503, "overloaded", "too many tenants are looked at; the other pages are there") from None


async def _events(request: Request, session: Session, sampler: Sampler, watch: Watch) -> AsyncGenerator[bytes]:
    watch.viewers += 1
    try:
        yield b"retry: 2000\n\n" + _event("history", [_point(sample) for sample in watch.samples])
        count = 0
        while not sampler.stopping:
            await watch.next()
            if sampler.stopping or not watch.samples:
                return
            count += 1
            if count % ASK_AGAIN_EVERY == 0 and not await doors.still_signed_in(request):
                return
            yield _event("sample", _point(watch.samples[-1])) + _event("state", _state(session, watch))
    finally:
        watch.viewers -= 1


def _event(name: str, value: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), _encode(value))


def _point(sample: Sample) -> list[float | None]:
    rates = [_rounded(rate, 2) for rate in (sample.accepted, sample.applied, sample.refused)]
    latency = [_rounded(value, 1) for value in (sample.p50_ms, sample.p99_ms)]
    return [round(sample.at, 1), *rates, *latency, _rounded(sample.oldest_s, 2), sample.pending]


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _state(session: Session, watch: Watch) -> str:
    return render("parts/overview.html", {**_values(watch), "session": session})


def _values(watch: Watch) -> dict[str, object]:
    known = [sample for sample in list(watch.samples)[-3:] if sample.accepted is not None]
    return {
        "state": watch.state,
        "sample": known[-1] if known else (watch.samples[-1] if watch.samples else None),
        "history_min": int(HISTORY_S // 60),
        "most_pending": max((queue.pending for queue in watch.state.queues), default=0),
    }


routes = [doors.page("/", overview), doors.page("/live", live)]
