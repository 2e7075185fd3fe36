"""The service as real processes that are watched: two apis, a worker of two processes, a courier."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import psutil
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from bursar.local.places import any_free_port
from bursar.local.postgres import Postgres
from tests.crash.service import Program, Service, wait_for
from tests.crash.wire import Answer, Connection

PORTS = 12  # of the range: more than there are worker processes, for those that others have taken
PROCESSES = 3  # that show metrics besides the apis: two of the worker, one courier


@dataclass(frozen=True)
class Scrape:
    """What one process showed."""

    port: int
    samples: tuple[Sample, ...]

    @property
    def process(self) -> str:
        return next(sample.labels["process"] for sample in self.samples if sample.name == "bursar_build_info")

    def sum(self, name: str, **labels: str) -> float:
        return sum(
            sample.value
            for sample in self.samples
            if sample.name == name and all(sample.labels.get(key) == value for key, value in labels.items())
        )


def total(scrapes: list[Scrape], name: str, **labels: str) -> float:
    return sum(scrape.sum(name, **labels) for scrape in scrapes)


class Watched(Service):
    def __init__(self, folder: Path, postgres: Postgres, database_url: str, **environment: str) -> None:
        first = any_free_port()
        self.ports = range(min(first, 65_535 - PORTS), min(first, 65_535 - PORTS) + PORTS)
        self._more = environment | {
            "BURSAR_LOG_LEVEL": "debug",
            "BURSAR_METRICS_PORTS": f"{self.ports[0]}-{self.ports[-1]}",
        }
        super().__init__(folder, postgres, database_url)
        self.workers.clear()
        self.apis = [self.api, self.add_api()]
        self.worker = Program(self, "worker", "worker", "--concurrency", "2")
        self.courier = self.add_courier()
        self._programs.append(self.worker)

    def add_program(self, name: str, *arguments: str, **environment: str) -> Program:
        """One more, not started yet."""
        program = Program(self, name, *arguments, **environment)
        self._programs.append(program)
        return program

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | self._more

    def start(self) -> None:
        for program in (self.worker, self.courier, *self.apis):
            program.spawn()
        for program in (*self.apis, self.courier):
            program.wait_ready()
        wait_for(lambda: len(self.scrape_workers()) == PROCESSES, "every worker process to show its metrics")

    # --- looking -----------------------------------------------------------------------------------------------------

    def scrape(self) -> list[Scrape]:
        """Of every process that shows metrics."""
        return [*(read(api.port) for api in self.apis), *self.scrape_workers()]

    def scrape_workers(self) -> list[Scrape]:
        found: list[Scrape] = []
        for port in self.ports:
            try:
                found.append(read(port))
            except (URLError, OSError, StopIteration):
                continue
        return found

    def pid_of(self, scrape: Scrape) -> int:
        """The worker process that listens there."""
        children = psutil.Process(self.worker.pid).children()
        return next(child.pid for child in children if scrape.port in listening(child))

    def logs(self) -> Mapping[str, str]:
        return {file.name: file.read_text(errors="replace") for file in self.folder.glob("*.log")}

    def events(self) -> Iterator[dict[str, Any]]:
        """Every line of every log that is JSON."""
        for text in self.logs().values():
            for line in re.findall(r"^\{.*\}$", text, re.MULTILINE):
                yield json.loads(line)

    # --- doing -------------------------------------------------------------------------------------------------------

    def post(self, key: str, path: str, body: object = None, *, api: int = 0, **headers: str) -> Answer:
        """To one of the apis. `Idempotency_Key` is a header, too."""
        connection = Connection(self.apis[api].port, key)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return connection.request("POST", path, body, **named)
        finally:
            connection.close()

    def settled(self) -> None:
        wait_for(lambda: self.rows("SELECT count(*) FROM pending") == [(0,)], "every command to have its outcome")


def read(port: int) -> Scrape:
    """Raises URLError, OSError, or StopIteration where something else answers."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    scrape = Scrape(port, tuple(sample for family in families for sample in family.samples))
    assert scrape.process
    return scrape


def listening(process: psutil.Process) -> set[int]:
    return {line.laddr.port for line in process.net_connections("tcp4") if line.status == psutil.CONN_LISTEN}
