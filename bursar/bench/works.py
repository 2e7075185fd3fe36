"""The works: what is driven, over which window, and what is read from it."""

import math
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from bursar.bench import figures, told, watched
from bursar.bench.drive import Running
from bursar.bench.machine import CpuUse, cpu_use, memory_mib
from bursar.bench.observe import Observer
from bursar.bench.plan import LOT_WALLET_EVERY, Generator, Kind, LoadResult, Plan, Work
from bursar.bench.posts import LOTS
from bursar.bench.progress import Tell
from bursar.bench.report import DrainFigures, ProcessMemory, WorkFigures, cpu_between
from bursar.bench.stack import OwnStack, StackError, Target

ASSET = "bench_credits"
FUNDS = 1_000_000_000  # minor units a wallet starts with: no spend of the bench is ever refused
BATCH_MAX = 1_000  # of the API
WITH_LOTS = {"lots", "mixed"}  # works on wallets of which some hold lots
LEAD_IN_S = 0.5  # of every load before its window opens: all connections are busy by then
TAIL_S = 0.2  # and after the window has closed: no connection is idle before that
SAMPLE_RATE = 10.0  # posts per second with `Prefer: wait` beside a full load: enough for a p99 in two minutes
SAMPLE_CONNECTIONS = 16  # as many outcomes may be awaited at once; at 10/s that bears an outcome time of 1.6 s
WAIT_EVERY = 5  # of the offered posts one in five waits for its outcome, the others are answered at once
FUND_CONNECTIONS = 4  # with 1,000 commands a post that fills any pipeline
FUND_S = 120.0  # limit for funding and for filling the inbox before a drain
DRAINED_EVERY_S = 0.1
DRAINED_S = 120.0  # limit for what a load leaves pending
SOAK_SLOWEST_PER_S = 300  # slower than this the memory work ends early and says so
MEMORY_EVERY_S = 2.0
QUIET_SAMPLES = 5  # after the last command: memory at rest
QUIET_EVERY_S = 0.3


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How much of everything."""

    works: tuple[Work, ...]
    seconds: float
    warmup_s: float
    connections: int
    wallets: int
    batch: int
    rate: float
    drain: int
    soak: int
    backlog: int  # outcomes of the work `deliveries`
    owing: int  # commands of each drain of the work `owing`
    rounds: int  # of works that go by turns
    generator: Generator


class Bench:
    """One run against one target. Without `observer` only the client's side is seen, without `stack` no process."""

    def __init__(
        self,
        target: Target,
        options: Options,
        folder: Path,
        *,
        observer: Observer | None,
        stack: OwnStack | None,
        progress: Tell,
    ) -> None:
        self.target = target
        self.options = options
        self._folder = folder
        self._observer = observer
        self._stack = stack
        self.progress = progress
        self._run = f"{time.time_ns() // 1_000_000:x}"  # in every key and wallet name: runs never meet
        self._loads = 0

    def prepare(self) -> None:
        """An asset, and wallets with enough in them. Raises StackError when they cannot be filled."""
        self.target.make_asset(ASSET)
        self.progress("filling wallets", 0.0)
        self._fund(self._spread, self.options.wallets)
        self._fund(self._hot, 1)
        if WITH_LOTS.intersection(self.options.works):
            self._fund(self._lots, self.options.wallets)
            self.settle("filling wallets")  # the plain credits first: lots of a wallet that is not there open it, too
            holders = -(-self.options.wallets // LOT_WALLET_EVERY)
            self._fund(self._lots, self.options.wallets, kind="fund_lots", credits=holders * len(LOTS))
        self.settle("filling wallets")

    def _fund(self, prefix: str, wallets: int, *, kind: Kind = "fund", credits: int | None = None) -> None:
        """Every wallet gets its credits once. Raises StackError."""
        count = credits or wallets
        size = min(BATCH_MAX, count)
        plan = self.plan(
            wallet_prefix=prefix, wallets=wallets, kind=kind, amount=FUNDS, batch=size,
            posts_max=math.ceil(count / size), connections=FUND_CONNECTIONS, duration_s=FUND_S,
        )  # fmt: skip
        result = self.start(plan).result()
        if result.errors or result.commands < count:
            raise StackError(f"filling the wallets failed: {result.commands} of {count}, {result.errors}")

    def measure(self, work: Work) -> WorkFigures:
        options = self.options
        wallets = f"{options.wallets:,} wallets"
        match work:
            case "singles":
                return self.full_load(work, f"single-command posts, {wallets}", self.plan())
            case "batch":
                title = f"batch posts of {options.batch}, {wallets}"
                return self.full_load(work, title, self.plan(batch=options.batch))
            case "hot":
                plan = self.plan(batch=options.batch, wallet_prefix=self._hot, wallets=1)
                return self.full_load(work, f"batch posts of {options.batch}, one wallet", plan)
            case "spends":
                title = f"spends alone, posts of {options.batch}, {wallets}"
                return self.full_load(work, title, self.plan(batch=options.batch, kind="spends"))
            case "lots":
                title = f"spends alone, posts of {options.batch}, 1 wallet in {LOT_WALLET_EVERY} with lots"
                plan = self.plan(batch=options.batch, kind="spends", wallet_prefix=self._lots)
                return self.full_load(work, title, plan)
            case "mixed":
                title = f"mixed commands, posts of {options.batch}, 1 wallet in {LOT_WALLET_EVERY} with lots"
                plan = self.plan(batch=options.batch, kind="mixed", wallet_prefix=self._lots)
                return self.full_load(work, title, plan)
            case "offered":
                plan = self.plan(rate=options.rate, wait_every=WAIT_EVERY)
                return self.full_load(work, f"{options.rate:g} posts/s offered", plan, sampled=False)
            case "drain":
                return self._drain()
            case "memory":
                return self._memory()
            case "feed":
                return told.feed(self)
            case "webhooks":
                return told.webhooks(self)
            case "deliveries":
                return told.deliveries(self)
            case "owing":
                return told.owing(self)
            case "broken":
                return told.broken(self)
            case "watched":
                return watched.watched(self)

    # --- loads --------------------------------------------------------------------------------------------------

    @property
    def _spread(self) -> str:
        return f"bench-{self._run}-"

    @property
    def _hot(self) -> str:
        return f"bench-{self._run}-hot-"

    @property
    def _lots(self) -> str:
        return f"bench-{self._run}-lots-"

    def plan(self, **changes: object) -> Plan:
        """Single-command posts on all wallets, closed loop, for a whole window; `changes` say what differs."""
        self._loads += 1
        plan = Plan(
            host=self.target.host,
            port=self.target.port,
            api_key=self.target.api_key,
            asset=ASSET,
            wallet_prefix=self._spread,
            wallets=self.options.wallets,
            nonce=f"{self._run}-{self._loads}",
            connections=self.options.connections,
            duration_s=math.ceil(LEAD_IN_S + self.options.seconds + TAIL_S),
        )
        return msgspec.structs.replace(plan, **changes)

    def start(self, plan: Plan) -> Running:
        running = Running(plan, self._folder, generator=self.options.generator)
        running.wait_ready()
        return running

    def settle(self, what: str) -> list[str]:
        """Wait until nothing is pending; what is wrong if something stays so."""
        if self._observer is None:
            return []
        self.progress(f"{what}: waiting for the last outcomes", 1.0)
        began_s = time.monotonic()
        while not self._observer.drained():
            if time.monotonic() - began_s > DRAINED_S:
                return [f"commands were still pending {DRAINED_S:.0f} s after the load"]
            if self._stack is not None and self._stack.dead():
                return ["commands are pending, and a server has ended"]
            time.sleep(DRAINED_EVERY_S)
        return []

    def metrics(self) -> list[str]:
        """Where the api shows its metrics and, of servers of our own, the workers show theirs."""
        urls = [f"http://{self.target.host}:{self.target.port}/metrics"]
        return urls + self._stack.worker_metrics() if self._stack else urls

    def own_stack(self) -> OwnStack:
        """Raises StackError where the servers are somebody else's."""
        if self._stack is None:
            raise StackError("this work starts and stops servers: it needs the bench's own")
        return self._stack

    def fill(self, what: str, count: int) -> LoadResult:
        """So many commands in large posts."""
        self.progress(f"{what}: filling the inbox", 0.0)
        size = min(BATCH_MAX, count)
        plan = self.plan(batch=size, posts_max=count // size, connections=FUND_CONNECTIONS, duration_s=FUND_S)
        return self.start(plan).result()

    def drain_once(self, what: str, count: int) -> tuple[list[figures.Flow], list[str]]:
        """Fill the inbox while no worker runs, and start one; what flowed, and what was wrong."""
        stack, observer = self.own_stack(), self._observer
        assert observer is not None
        stack.stop_workers()
        observer.level()
        since = observer.last_seq()
        filled = self.fill(what, count)
        stack.start_workers(1)
        problems = [f"{kind}: {number}" for kind, number in filled.errors.items()] + self.settle(what)
        flows = observer.flows(since)
        stack.start_workers(stack.workers - 1)
        return flows, problems + self._lost(flows, answered=filled.commands)

    def _roots(self, *loads: Running) -> Mapping[str, list[int]]:
        if self._stack is None:
            return {}
        return {**self._stack.roots(), "load": [load.process.pid for load in loads]}

    def _cpu(self, *loads: Running) -> CpuUse | None:
        return cpu_use(self._roots(*loads)) if self._stack is not None else None

    def wait(self, what: str, seconds: float) -> None:
        began_s = time.monotonic()
        while (passed_s := time.monotonic() - began_s) < seconds:
            self.progress(what, passed_s / seconds)
            time.sleep(min(0.25, seconds - passed_s))

    def full_load(self, name: Work, title: str, plan: Plan, *, sampled: bool = True) -> WorkFigures:
        """Drive `plan` and look at a window inside of it."""
        options, observer = self.options, self._observer
        if self._stack is not None and observer is not None:
            observer.level()
        if options.warmup_s > 0:
            warmup = msgspec.structs.replace(plan, nonce=f"{plan.nonce}-w", duration_s=options.warmup_s)
            running = self.start(warmup)
            self.wait(f"{name}: warming up", options.warmup_s)
            running.result()
            self.settle(name)
        since = observer.last_seq() if observer else 0
        loads = [self.start(plan)]
        if sampled:
            loads.append(
                self.start(
                    self.plan(rate=SAMPLE_RATE, wait_every=1, connections=SAMPLE_CONNECTIONS,
                               duration_s=plan.duration_s)
                )
            )  # fmt: skip
        try:
            self.wait(name, LEAD_IN_S)
            start_s, before = observer.clock_s() if observer else 0.0, self._cpu(*loads)
            self.wait(name, options.seconds)
            end_s, after = observer.clock_s() if observer else 0.0, self._cpu(*loads)
            results = [load.result() for load in loads]
        finally:
            for load in loads:
                load.stop()
        problems = self.settle(name)
        problems += [f"{kind}: {count}" for result in results for kind, count in result.errors.items()]
        window = cpu = None
        if observer is not None:
            flows = observer.flows(since)
            window = figures.window(flows, start_s=start_s, end_s=end_s)
            problems += self._lost(flows, answered=sum(result.commands for result in results))
            if before is not None and after is not None:
                cpu = cpu_between(before, after, commands=window.applied)
        return WorkFigures(
            name=name, title=title, seconds=options.seconds, load=results[0],
            sample=results[1] if sampled else None, window=window, cpu=cpu, problems=problems,
        )  # fmt: skip

    def _lost(self, flows: list[figures.Flow], *, answered: int) -> list[str]:
        """Every accepted command is stored and applied, or the figures mean nothing."""
        problems: list[str] = []
        stored = sum(flow.commands for flow in flows)
        refused = sum(flow.commands for flow in flows if flow.status not in ("applied", None))
        if stored < answered:
            problems.append(f"{answered} commands were answered with 202, {stored} are stored")
        if unresolved := sum(flow.commands for flow in flows if flow.drain is None):
            problems.append(f"{unresolved} accepted commands are without an outcome")
        if refused:
            problems.append(f"{refused} commands were refused, and none should be")
        if self._stack is not None and (dead := self._stack.dead()):
            problems.append(f"ended during the work: {', '.join(dead)}")
        return problems

    # --- works of their own kind ---------------------------------------------------------------------------------

    def _drain(self) -> WorkFigures:
        """Fill the inbox while no worker runs, start one, see how fast it empties it."""
        stack, observer, count = self._stack, self._observer, self.options.drain
        title = f"drain alone, one worker, {count:,} pending"
        if stack is None or observer is None:
            raise StackError("the work drain stops and starts workers: it needs servers of the bench's own")
        stack.stop_workers()
        observer.level()
        since = observer.last_seq()
        filled = self.fill("drain", count)
        stack.start_workers(1)
        before: CpuUse | None = None
        done = done_before = 0
        deadline_s = time.monotonic() + DRAINED_S
        began_s = time.monotonic()
        while done < filled.commands and time.monotonic() < deadline_s:
            time.sleep(0.2)
            done = observer.applied_since(since)
            self.progress("drain", done / max(1, filled.commands))
            if done and before is None:
                before, done_before = self._cpu(), done
        after = self._cpu()
        seconds = time.monotonic() - began_s
        flows = observer.flows(since)
        problems = [f"{kind}: {count}" for kind, count in filled.errors.items()] + self.settle("drain")
        problems += self._lost(flows, answered=filled.commands)
        try:
            per_s, seconds = figures.drain_rate(flows)
        except ValueError as error:
            problems.append(str(error))
            per_s = 0.0
        drained = figures.window(flows, start_s=0, end_s=float("inf"))
        stack.start_workers(stack.workers - 1)
        return WorkFigures(
            name="drain",
            title=title,
            seconds=seconds,
            cpu=cpu_between(before, after, commands=done - done_before) if before and after else None,
            drain=DrainFigures(filled.commands, per_s, seconds, drained.drain_batch),
            problems=problems,
        )

    def _memory(self) -> WorkFigures:
        """Single-command posts until enough were accepted, looking at every process's memory meanwhile."""
        stack, observer, count = self._stack, self._observer, self.options.soak
        if stack is None or observer is None:
            raise StackError("the work memory looks at processes: it needs servers of the bench's own")
        limit_s = 30 + count / SOAK_SLOWEST_PER_S
        since = observer.last_seq()
        running = self.start(self.plan(posts_max=count, duration_s=limit_s))
        began_s = time.monotonic()
        samples: list[tuple[int, dict[str, float]]] = []
        try:
            while running.process.poll() is None and time.monotonic() - began_s < limit_s + 60:
                accepted = observer.last_seq() - since
                samples.append((accepted, memory_mib(stack.roots())))
                self.progress("memory", accepted / count)
                time.sleep(MEMORY_EVERY_S)
            result = running.result()
        finally:
            running.stop()
        problems = [f"{kind}: {number}" for kind, number in result.errors.items()] + self.settle("memory")
        for _ in range(QUIET_SAMPLES):
            samples.append((observer.last_seq() - since, memory_mib(stack.roots())))
            time.sleep(QUIET_EVERY_S)
        if result.commands < count:
            problems.append(f"only {result.commands:,} of {count:,} commands in {limit_s:.0f} s")
        problems += self._lost(observer.flows(since), answered=result.commands)
        return WorkFigures(
            name="memory",
            title=f"memory over {count:,} single-command posts",
            seconds=time.monotonic() - began_s,
            load=result,
            memory=process_memory(samples, warm_after=count // 10),
            problems=problems,
        )


def process_memory(samples: list[tuple[int, dict[str, float]]], *, warm_after: int) -> list[ProcessMemory]:
    """Each process's memory from the samples of all of them: (commands so far, MiB by process)."""
    names = sorted({name for _, by_process in samples for name in by_process})
    found: list[ProcessMemory] = []
    for name in names:
        seen = [(commands, by_process[name]) for commands, by_process in samples if name in by_process]
        sizes = [mib for _, mib in seen]
        drift = figures.drift_mib(seen, warm_after=warm_after)
        found.append(ProcessMemory(name, sizes[0], sizes[-1], max(sizes), drift))
    return found
