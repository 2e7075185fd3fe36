"""`make run`: the whole service on one machine, started in order, watched, and stopped in order."""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import FrameType

from bursar.local import given, processes
from bursar.local.errors import LocalError, sentence_for
from bursar.local.flower import PORT as FLOWER_PORT
from bursar.local.home import Home, require_free_port
from bursar.local.parts import Program, Watch, answers
from bursar.local.places import LOOPBACK, remembered_port, remembered_secret, write_private
from bursar.local.postgres import Postgres
from bursar.local.processes import StopRequested
from bursar.local.screen import Screen
from bursar.local.valkey import Valkey
from runtime import base64url

WORKERS = 2
READY_TIMEOUT_S = 90.0  # two seconds on a quiet machine; importing everything on a busy one takes longer
MIGRATE_TIMEOUT_S = 1800.0  # building an index on a large table takes minutes
SEED_TIMEOUT_S = 120.0  # a score of commands: what takes longer hangs
SEED_TRIES = 3  # the demo data may be put in again and again; two more tries are time enough for slow workers
OPERATOR = "demo"
KEY_ENVIRONMENT = "demo"  # stands in the key, so that nobody takes it for one that opens anything else
STOP_API_S = 15.0  # requests that still wait for an outcome are cut off: their commands are safe, they ask again
STOP_WORKER_S = 20.0  # the drain under way, and several of its size
STOP_WEBHOOKS_S = 22.0  # a receiver has 15 s to answer
STOP_FLOWER_S = 5.0
LOOK_EVERY_S = 0.2
BOUND_LOGS_EVERY_S = 2.0
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_local(
    *, home: Path, port: int = 8000, host: str = LOOPBACK, database_url: str = "", redis_url: str = ""
) -> int:
    """Run everything until told to stop; returns the exit code. Call it from the main thread.

    A server whose URL is given is used and none of that kind started.
    """
    screen = Screen()
    stack = Stack(Home(home), screen, port=port, host=host, database_url=database_url, redis_url=redis_url)
    with _signals_noted():
        try:
            try:
                stack.start()
                stack.watch()
            finally:
                stack.stop()
        except StopRequested:
            return 0
        except LocalError as error:
            screen.problem(str(error))
        except OSError as error:
            screen.problem(sentence_for(error, doing="Bursar"))
    return 1


class Stack:
    """The parts in their order, and what they need to know of each other."""

    def __init__(self, home: Home, screen: Screen, *, port: int, host: str, database_url: str, redis_url: str) -> None:
        self._home = home
        self._screen = screen
        self._port = port
        self._host = host
        self._database_url = database_url
        self._redis_url = redis_url
        self._postgres = None if database_url else Postgres(home.path / "postgres", log=home.log("postgres"))
        self._valkey = None if redis_url else Valkey(home.path / "valkey", log=home.log("valkey"))
        self._flower_port = 0
        self._flower_auth = ""
        self._receipt_key = self._secrets_key = ""
        self._key = self._password = ""
        self._claimed = False
        self._told: dict[str, str] = {}
        self._watches: list[Watch] = []
        self._api = self._program("api", stop_wait_s=STOP_API_S, ready=self._api_is_ready)
        self._workers = [
            self._program("worker", "--name", f"worker-{number}", stop_wait_s=STOP_WORKER_S)
            for number in range(1, WORKERS + 1)
        ]
        self._webhooks = self._program("worker", "--webhooks", "--name", "webhooks", stop_wait_s=STOP_WEBHOOKS_S)
        self._flower = self._program("flower", stop_wait_s=STOP_FLOWER_S, ready=self._flower_is_ready)

    @property
    def url(self) -> str:
        """Where people reach the api."""
        return f"http://{self._reachable_host}:{self._port}"

    @property
    def flower_url(self) -> str:
        """Flower's address with user and password."""
        return f"http://{self._flower_auth}@{LOOPBACK}:{self._flower_port}"

    @property
    def _reachable_host(self) -> str:
        return LOOPBACK if self._host in ("", "0.0.0.0") else self._host

    def start(self) -> None:
        """Start every part and say so. Raises LocalError with a sentence; `stop` cleans up in any case."""
        self._home.claim()
        self._claimed = True
        self._screen.title(f"Bursar in {self._home.path}")
        self._stop_leftovers()
        require_free_port(self._port, host=self._host, remedy="PORT=… make run takes another one.")
        self._start_servers()
        with self._screen.step("migrations", "bringing the tables up to date") as notes:
            self._run_once("migrate", timeout_s=MIGRATE_TIMEOUT_S)
            notes.append("tables are up to date")
        self._start_programs()
        with self._screen.step("demo data", "posting commands"):
            self._key = self._demo_key()
            self._password = self._demo_operator()
            self._seed()
        self._tell()
        self._greet()

    def watch(self) -> None:
        """Look after the parts until a signal ends it."""
        bound_logs_at = 0.0
        while True:
            started = [watch.name for watch in self._watches if watch.look(self._screen.event)]
            if {"postgresql", "valkey"} & set(started):
                self._follow_servers()
            if time.monotonic() >= bound_logs_at:
                self._home.bound_logs()
                bound_logs_at = time.monotonic() + BOUND_LOGS_EVERY_S
            processes.pause(LOOK_EVERY_S)

    def stop(self) -> None:
        """Stop everything in order, each wait bounded; a second signal kills what is left. Leaves no process."""
        if not self._claimed:
            return
        processes.stop_request.forget()  # the next one means: faster
        with contextlib.suppress(OSError):
            self._home.hide()
        try:
            self._screen.line("Stopping")
            self._api.stop()
            for worker in (*self._workers, self._webhooks):  # all at once, then wait for all
                worker.ask_to_stop()
            for name, part in self._in_stopping_order():
                if not part.stop():
                    self._screen.event(f"{name} did not stop in time and was killed")
        except StopRequested:
            for number in STOP_SIGNALS:
                signal.signal(number, signal.SIG_IGN)
            processes.stop_request.forget()
            for _, part in self._in_stopping_order():
                part.kill()
        # Nobody should be left; but a signal may have come between the birth of a child and the note of it.
        processes.end(processes.marked(self._home.path), first=signal.SIGKILL, wait_s=processes.KILL_WAIT_S)
        for server in self._own_servers():
            server.stop_leftover()
        self._home.release()

    def _in_stopping_order(self) -> Iterator[tuple[str, Program | Valkey | Postgres]]:
        yield "api", self._api
        for number, worker in enumerate(self._workers, 1):
            yield f"worker-{number}", worker
        yield "webhooks", self._webhooks
        yield "flower", self._flower
        if self._valkey is not None:
            yield "valkey", self._valkey
        if self._postgres is not None:
            yield "postgresql", self._postgres

    def _own_servers(self) -> list[Valkey | Postgres]:
        return [server for server in (self._valkey, self._postgres) if server is not None]

    def _stop_leftovers(self) -> None:
        """End what an earlier run left when it was killed with -9: its programs first, then its servers."""
        programs = processes.marked(self._home.path)
        processes.end(programs, first=signal.SIGTERM, wait_s=5.0)
        left = len(programs) + sum(server.stop_leftover() is not None for server in self._own_servers())
        if left:
            self._screen.event(f"stopped {left} process{'es' if left > 1 else ''} that an earlier run left")

    def _start_servers(self) -> None:
        with self._screen.step("postgresql", "starting") as notes:
            if self._postgres is None:
                notes.append(given.wait_for_database(self._database_url))
            else:
                self._postgres.start()
                notes.append(f"18 on {LOOPBACK}:{self._postgres.port}")
                self._watches.append(Watch("postgresql", self._postgres, self._postgres.log))
        with self._screen.step("valkey" if self._valkey else "redis", "starting") as notes:
            if self._valkey is None:
                notes.append(given.wait_for_redis(self._redis_url))
            else:
                self._valkey.start()
                notes.append(f"on {LOOPBACK}:{self._valkey.port}")
                notes.extend([self._valkey.note] if self._valkey.note else [])
                self._watches.append(Watch("valkey", self._valkey, self._valkey.log))

    def _start_programs(self) -> None:
        self._flower_auth = f"bursar:{remembered_secret(self._home.path / 'flower-password')}"
        self._receipt_key, self._secrets_key = self._remembered_key("receipt"), self._remembered_key("secrets")
        self._flower_port = remembered_port(self._home.path / "flower-port", preferred=FLOWER_PORT)
        named = {
            "api": self._api,
            **{f"worker-{number}": worker for number, worker in enumerate(self._workers, 1)},
            "webhooks": self._webhooks,
            "flower": self._flower,
        }
        for program in named.values():  # all at once: most of their start is importing
            program.start()
        where = {"api": f"on {self.url}", "flower": f"on {LOOPBACK}:{self._flower_port}"}
        for name, program in named.items():
            watch = Watch(name, program, program.log)
            with self._screen.step(name, "starting") as notes:
                self._wait_until_ready(watch, program)
                notes.append(where.get(name, "running"))
            self._watches.append(watch)

    def _remembered_key(self, of: str) -> str:
        return os.environ.get(f"BURSAR_{of.upper()}_KEY") or remembered_secret(
            self._home.path / f"{of}-key", make=lambda: base64url.encode(secrets.token_bytes(base64url.KEY_BYTES))
        )

    def _wait_until_ready(self, watch: Watch, program: Program) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not (program.running and program.ready()):
            if time.monotonic() > deadline:
                raise LocalError(
                    f"{watch.name} was not ready within {READY_TIMEOUT_S:.0f} s. "
                    f"Its log ({watch.log}) ends so:\n{watch.words()}"
                )
            watch.look(self._screen.event)
            watch.require_life()
            processes.pause(processes.POLL_S)

    def _demo_key(self) -> str:
        """The API key of the demo, with all scopes: the one of an earlier run if it still opens the door."""
        path = self._home.path / "api-key"
        with contextlib.suppress(FileNotFoundError):
            known = path.read_text().strip()
            headers = {"Authorization": f"Bearer {known}"}
            if known and answers(self._port, "/v1/assets", host=self._reachable_host, headers=headers) == 200:
                return known
        # In here, not at the top: the supervisor should be up and speaking before half a second of imports.
        from sqlalchemy.exc import SQLAlchemyError

        from ledger import db
        from ledger.keys import Scope, create_key

        engine = db.engine(self._environment()["BURSAR_DATABASE_URL"], application="bursar-run")
        try:
            key = create_key(engine, env=KEY_ENVIRONMENT, client="demo", scopes=list(Scope))
        except SQLAlchemyError as error:
            raise LocalError(f"The demo key could not be made: {error}") from error
        finally:
            engine.dispose()
        write_private(path, f"{key}\n")
        return key

    def _demo_operator(self) -> str:
        """The password of the demo's operator, who is made at the first start."""
        from sqlalchemy.exc import SQLAlchemyError

        from ledger import db
        from ledger.operators import Role, add_operator

        path = self._home.path / "operator-password"
        known = path.exists()
        password = remembered_secret(path, make=lambda: secrets.token_hex(8))
        engine = db.engine(self._environment()["BURSAR_DATABASE_URL"], application="bursar-run")
        try:
            # Whoever is signed in stays so: a password that was known goes on being his.
            with contextlib.suppress(*((ValueError,) if known else ())):
                add_operator(engine, name=OPERATOR, password=password, role=Role.OPERATOR, renew=not known)
        except SQLAlchemyError as error:
            raise LocalError(f"The demo operator could not be made: {error}") from error
        finally:
            engine.dispose()
        return password

    def _seed(self) -> None:
        """Put in the demo data. It waits some seconds for its outcomes; workers on a busy machine may need more."""
        for attempt in range(1, SEED_TRIES + 1):
            try:
                self._run_once("seed", timeout_s=SEED_TIMEOUT_S)
                return
            except LocalError:
                if attempt == SEED_TRIES:
                    raise

    def _run_once(self, *arguments: str, timeout_s: float) -> str:
        """Run one `bursar` command to its end; what it printed. Its log gets the rest."""
        log = self._home.log(arguments[0])
        with log.open("ab") as errors:
            child = subprocess.Popen(
                _bursar(*arguments),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=self._environment(),
                start_new_session=True,
            )
            try:
                output = self._output_of(child, timeout_s=timeout_s)
            except TimeoutError:
                raise LocalError(
                    f"`bursar {' '.join(arguments)}` took more than {timeout_s:.0f} s; see {log}."
                ) from None
            finally:
                processes.kill_group(child)
        if child.returncode != 0:
            words = (processes.tail(log) + "\n" + output).strip()
            raise LocalError(f"`bursar {' '.join(arguments)}` failed. Its last words:\n{words}")
        return output

    def _output_of(self, child: subprocess.Popen[bytes], *, timeout_s: float) -> str:
        """What a child prints until it ends, while the parts are looked after: it may be waiting for one of them."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return child.communicate(timeout=LOOK_EVERY_S)[0].decode(errors="replace")
            processes.stop_request.heed()
            for watch in self._watches:
                watch.look(self._screen.event)
                watch.require_life()
        raise TimeoutError

    def _program(
        self,
        *command: str,
        stop_wait_s: float,
        ready: Callable[[], bool] = lambda: True,
    ) -> Program:
        return Program(
            _bursar(*command),
            log=self._home.log(command[-1]),
            environment=self._environment,
            ready=ready,
            stop_wait_s=stop_wait_s,
        )

    def _environment(self) -> dict[str, str]:
        """What every child sees, as of now: the servers may have moved since the last one was started."""
        return {
            **os.environ,
            processes.STACK_MARK: str(self._home.path),
            "PYTHONUNBUFFERED": "1",
            "BURSAR_HOST": self._host,
            "BURSAR_PORT": str(self._port),
            "BURSAR_DATABASE_URL": self._postgres.url if self._postgres else self._database_url,
            "BURSAR_REDIS_URL": self._valkey.url if self._valkey else self._redis_url,
            "BURSAR_FLOWER_PORT": str(self._flower_port),
            "BURSAR_FLOWER_URL": f"http://{LOOPBACK}:{self._flower_port}",
            "BURSAR_FLOWER_BASIC_AUTH": self._flower_auth,
            "BURSAR_URL": self.url,
            "BURSAR_API_KEY": self._key,
            **({"BURSAR_RECEIPT_KEY": self._receipt_key} if self._receipt_key else {}),
            **({"BURSAR_SECRETS_KEY": self._secrets_key} if self._secrets_key else {}),
        }

    def _follow_servers(self) -> None:
        """A server came back. If it had to take another port, the programs must learn it by a new start."""
        before = self._told
        self._tell()
        if self._told != before:
            for program in (self._api, *self._workers, self._webhooks, self._flower):
                program.kill()

    def _tell(self) -> None:
        environment = self._environment()
        names = ("BURSAR_URL", "BURSAR_API_KEY", "BURSAR_DATABASE_URL", "BURSAR_REDIS_URL")
        self._told = {name: environment[name] for name in names} | {
            "FLOWER_URL": self.flower_url,
            "BURSAR_OPERATOR": OPERATOR,
            "BURSAR_OPERATOR_PASSWORD": self._password,
        }
        self._home.tell(self._told)

    def _greet(self) -> None:
        post = (
            f"curl -sS {self.url}/v1/commands -H 'Authorization: Bearer {self._key}' "
            "-H 'Content-Type: application/json'"
        )
        for line in (
            "",
            f"  dashboard  {self.url}  (sign in as {OPERATOR}, password {self._password})",
            f"  reference  {self.url}/docs",
            f"  flower     {self.flower_url}",
            f"  key        {self._key}",
            f"  all of it in {self._home.path / 'local.env'}, logs in {self._home.logs}",
            "",
            "Top up alice, spend from her wallet and wait for the outcome, read what is left:",
            "",
            f"""{post} -H "Idempotency-Key: top-up-$(date +%s)" """
            """-d '{"type": "top_up", "wallet": "alice", "asset": "gold_coins", "amount": "50"}'""",
            f"""{post} -H "Idempotency-Key: spend-$(date +%s)" -H 'Prefer: wait=5' """
            """-d '{"type": "spend", "wallet": "alice", "asset": "gold_coins", "amount": "30"}'""",
            f"curl -sS {self.url}/v1/wallets/alice -H 'Authorization: Bearer {self._key}'",
            "",
            "Ctrl-C stops it; the data stay.",
        ):
            self._screen.line(line)

    def _api_is_ready(self) -> bool:
        return answers(self._port, "/readyz", host=self._reachable_host) == 200

    def _flower_is_ready(self) -> bool:
        return answers(self._flower_port, "/healthcheck") == 200


def _bursar(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "bursar", *arguments]


@contextlib.contextmanager
def _signals_noted() -> Generator[None]:
    """Let Ctrl-C, SIGTERM and a closed terminal mean: stop in order."""

    def note(number: int, frame: FrameType | None) -> None:
        processes.stop_request.note()

    before = {number: signal.signal(number, note) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        processes.stop_request.forget()
        for number, handler in before.items():
            signal.signal(number, handler)
