"""What looking on costs: spends at full load with the dashboard's overview open and metrics scraped, and without."""

import contextlib
import re
import statistics
import threading
import time
from collections.abc import Generator
from typing import TYPE_CHECKING

import httpx2

from bursar.bench.report import Telling, WorkFigures
from bursar.bench.stack import StackError, Target

if TYPE_CHECKING:
    from bursar.bench.works import Bench

SCRAPE_EVERY_S = 1.0  # fifteen times as often as Prometheus does unless it is told otherwise
HTTP_S = 10.0
POLL_S = 0.1
_TOKEN = re.compile(r'name="csrf" value="([^"]+)"')


def watched(bench: "Bench") -> WorkFigures:
    """The same load by turns, unwatched first. The dashboard goes on sampling for a while, more rarely, when nobody
    looks any more; that counts to the rounds without."""
    began_s, options = time.monotonic(), bench.options
    rates: dict[bool, list[float]] = {False: [], True: []}
    problems: list[str] = []
    for looked_at in (False, True) * options.rounds:
        with _looking(bench) if looked_at else contextlib.nullcontext():
            plan = bench.plan(batch=options.batch, kind="spends")
            one = bench.full_load("watched", "", plan, sampled=False)
        problems += one.problems
        rates[looked_at].append(one.window.applied_per_s if one.window else 0.0)
    return WorkFigures(
        name="watched",
        title=f"spends alone, posts of {options.batch}, {options.rounds} rounds by turns",
        seconds=time.monotonic() - began_s,
        told=[
            Telling("nobody looks", per_s=statistics.median(rates[False])),
            Telling("an overview open, metrics scraped", per_s=statistics.median(rates[True])),
        ],
        problems=problems,
    )


@contextlib.contextmanager
def _looking(bench: "Bench") -> Generator[None]:
    """An overview, and the metrics of the api and the workers. Raises StackError where they do not come."""
    stopped = threading.Event()
    seen = {"samples": 0, "scrapes": 0}
    with httpx2.Client(base_url=f"http://{bench.target.host}:{bench.target.port}", timeout=HTTP_S) as browser:
        _sign_in(browser, bench.target)
        lookers = [
            threading.Thread(target=_look, args=(browser, seen, stopped), name="viewer", daemon=True),
            threading.Thread(target=_scrape, args=(bench.metrics(), seen, stopped), name="scraper", daemon=True),
        ]
        for looker in lookers:
            looker.start()
        try:
            deadline_s = time.monotonic() + HTTP_S
            while not all(seen.values()):
                if time.monotonic() > deadline_s:
                    raise StackError(f"nothing is to be seen: {seen}")
                time.sleep(POLL_S)
            yield
        finally:
            stopped.set()
            for looker in lookers:
                looker.join(HTTP_S)


def _sign_in(browser: httpx2.Client, target: Target) -> None:
    token = _TOKEN.search(browser.get("/sign-in").text)
    form = {"csrf": token.group(1) if token else "", "key": target.api_key, "next": "/"}
    answer = browser.post("/sign-in", data=form)
    if answer.status_code != 303 or browser.get("/").status_code != 200:
        raise StackError(f"the dashboard lets nobody in: {answer.status_code}")


def _look(browser: httpx2.Client, seen: dict[str, int], stopped: threading.Event) -> None:
    with contextlib.suppress(httpx2.HTTPError), browser.stream("GET", "/live") as answer:
        for line in answer.iter_lines():
            if line == "event: sample":
                seen["samples"] += 1
            if stopped.is_set():
                return


def _scrape(urls: list[str], seen: dict[str, int], stopped: threading.Event) -> None:
    with httpx2.Client(timeout=HTTP_S) as scraper:
        while not stopped.wait(SCRAPE_EVERY_S):
            for url in urls:
                with contextlib.suppress(httpx2.HTTPError):
                    seen["scrapes"] += scraper.get(url).status_code == 200
