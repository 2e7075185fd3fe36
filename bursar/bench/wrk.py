"""wrk as the load generator of closed loops: a tool that others know, a fifth cheaper than the bundled one.

It cannot offer a fixed rate, wait for an outcome or learn ids from an answer; the bundled generator (load.py) does.
"""

import shutil
import subprocess

import msgspec

from bursar.bench.figures import Spread
from bursar.bench.plan import RESULT_MARK, WALLET_DIGITS, LoadResult, Plan
from bursar.bench.posts import TOP_UP_EVERY

TIMEOUT_S = 30  # an answer later than this is an error; wrk's own default of 2 s would call a slow answer none

# wrk runs `setup` once for each thread and all else in the thread's own Lua state: `numbered` counts within
# one thread, over all its connections, and the thread's number in the key keeps threads apart.
SCRIPT = """
local threads = 0
function setup(thread)
  thread:set("thread_number", threads)
  threads = threads + 1
end

function init(args)
  numbered = 0
  math.randomseed(%(seed)d + thread_number)
end

local function key()
  numbered = numbered + 1
  return "%(nonce)s-" .. thread_number .. "-" .. numbered
end

local function members()
  local top_up = numbered %% %(top_up_every)d == 0
  return string.format(
    '"type":"%%s","wallet":"%(prefix)s%%0%(digits)dd","asset":"%(asset)s","amount":"%%d"}',
    top_up and "top_up" or "spend", math.random(0, %(wallets)d - 1), top_up and %(top_up)d or %(amount)d)
end

local head = "POST %(path)s HTTP/1.1\\r\\nHost: %(host)s\\r\\nAuthorization: Bearer %(api_key)s\\r\\n" ..
  "Content-Type: application/json\\r\\n"

function request()
  if %(batch)d == 1 then
    local idempotency_key, body = key(), "{" .. members()
    return head .. "Idempotency-Key: " .. idempotency_key ..
      "\\r\\nContent-Length: " .. #body .. "\\r\\n\\r\\n" .. body
  end
  local items = {}
  for item = 1, %(batch)d do
    items[item] = '{"idempotency_key":"' .. key() .. '",' .. members()
  end
  local body = '{"commands":[' .. table.concat(items, ",") .. "]}"
  return head .. "Content-Length: " .. #body .. "\\r\\n\\r\\n" .. body
end

function done(summary, latency, requests)
  io.write(string.format('%(mark)s{"requests":%%d,' ..
    '"connect":%%d,"read":%%d,"write":%%d,"status":%%d,"timeout":%%d,' ..
    '"mean":%%.3f,"p50":%%.3f,"p95":%%.3f,"p99":%%.3f,"max":%%.3f}\\n',
    summary.requests,
    summary.errors.connect, summary.errors.read, summary.errors.write,
    summary.errors.status, summary.errors.timeout,
    latency.mean / 1e3, latency:percentile(50) / 1e3, latency:percentile(95) / 1e3,
    latency:percentile(99) / 1e3, latency.max / 1e3))
end
"""


class _Done(msgspec.Struct):
    """What `done` writes: latencies in milliseconds, errors by kind."""

    requests: int
    connect: int
    read: int
    write: int
    status: int
    timeout: int
    mean: float
    p50: float
    p95: float
    p99: float
    max: float


def installed() -> str | None:
    """The path of wrk, or None."""
    return shutil.which("wrk")


def version() -> str | None:
    """wrk's version as it states it, or None where it is not installed. (It states it with exit code 1.)"""
    path = installed()
    if path is None:
        return None
    said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False)
    return (said.stdout + said.stderr).split("[")[0].strip()


def can_do(plan: Plan) -> bool:
    return plan.kind == "mix" and plan.rate is None and plan.wait_every == 0 and plan.posts_max is None


def script(plan: Plan) -> str:
    """The Lua script that carries out `plan`."""
    return SCRIPT % {
        "nonce": plan.nonce,
        "seed": sum(plan.nonce.encode()),
        "prefix": plan.wallet_prefix,
        "digits": WALLET_DIGITS,
        "asset": plan.asset,
        "amount": plan.amount,
        "top_up": plan.amount * (TOP_UP_EVERY - 1),
        "top_up_every": TOP_UP_EVERY,
        "wallets": plan.wallets,
        "batch": plan.batch,
        "path": "/v1/commands" if plan.batch == 1 else "/v1/commands/batch",
        "host": plan.host,
        "api_key": plan.api_key,
        "mark": RESULT_MARK,
    }


def arguments(path: str, plan: Plan, script_path: str) -> list[str]:
    """wrk's command line. One thread: a fraction of a core is enough for it."""
    return [
        path,
        "--threads=1",
        f"--connections={plan.connections}",
        f"--duration={max(1, round(plan.duration_s))}s",  # wrk knows whole seconds only
        f"--timeout={TIMEOUT_S}s",
        f"--script={script_path}",
        f"http://{plan.host}:{plan.port}",
    ]


def read_result(output: str, plan: Plan) -> LoadResult:
    """What wrk printed, as a LoadResult. Raises ValueError when the line of `done` is not there."""
    lines = [line for line in output.splitlines() if line.startswith(RESULT_MARK)]
    if not lines:
        raise ValueError(f"wrk ended without a result: {output[-500:]!r}")
    done = msgspec.json.decode(lines[-1].removeprefix(RESULT_MARK), type=_Done)
    answered = done.requests - done.status
    errors = {name: getattr(done, name) for name in ("connect", "read", "write", "status", "timeout")}
    latency = Spread(count=done.requests, mean=done.mean, p50=done.p50, p95=done.p95, p99=done.p99, max=done.max)
    return LoadResult(
        generator="wrk",
        posts=answered,
        commands=answered * plan.batch,
        errors={name: count for name, count in errors.items() if count},
        accept_ms=latency if done.requests else None,
        outcome_ms=None,
        late=0,
    )
