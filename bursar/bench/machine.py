"""Which machine this is, and what its processes use."""

import os
import platform
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
import psutil

from bursar.bench import wrk

MIB = 1024 * 1024
NO_DISK = {"tmpfs", "ramfs", "devtmpfs"}  # an fsync there costs nothing, so a figure from there says nothing


class Machine(msgspec.Struct, frozen=True):
    """What a reader must know to judge a figure."""

    cpu: str
    cores: int
    memory_gib: float
    system: str
    python: str
    wrk: str | None
    folder: str
    filesystem: str
    load_average_1m: float  # at the start: above a tenth or so, somebody else was at work


class CpuUse(NamedTuple):
    """Seconds of CPU since each process began; the difference of two is what a window cost."""

    by_role: dict[str, float]
    machine_busy_s: float
    at_s: float


def describe(folder: Path) -> Machine:
    return Machine(
        cpu=_cpu_model(),
        cores=psutil.cpu_count() or 1,
        memory_gib=round(psutil.virtual_memory().total / 1024**3, 1),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        wrk=wrk.version(),
        folder=str(folder),
        filesystem=filesystem(folder),
        load_average_1m=round(os.getloadavg()[0], 2),
    )


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def filesystem(folder: Path) -> str:
    """The type of the file system that holds `folder`."""
    path = folder.resolve()
    mounts = {Path(mount.mountpoint): mount.fstype for mount in psutil.disk_partitions(all=True)}
    return next((mounts[parent] for parent in (path, *path.parents) if parent in mounts), "unknown")


def folder_on_disk() -> Path:
    """A new temporary folder whose fsync reaches a disk. Raises OSError if there is none."""
    for candidate in (Path(tempfile.gettempdir()), Path("/var/tmp"), Path.cwd()):
        if candidate.is_dir() and filesystem(candidate) not in NO_DISK:
            return Path(tempfile.mkdtemp(prefix="bursar-bench-", dir=candidate))
    raise OSError("no folder on a real disk found; --folder names one")


def cpu_use(roots: Mapping[str, Iterable[int]]) -> CpuUse:
    """CPU so far of each role: its root processes, their descendants, and those of them that have ended.

    The role `bench` is this process alone, without what it started.
    """
    times = psutil.cpu_times()
    idle_s = times.idle + getattr(times, "iowait", 0.0)
    by_role = {role: sum(_tree_cpu_s(pid) for pid in pids) for role, pids in roots.items()}
    own = psutil.Process().cpu_times()
    by_role["bench"] = own.user + own.system
    return CpuUse(by_role, sum(times[:8]) - idle_s, time.monotonic())


def _tree_cpu_s(pid: int) -> float:
    total_s = 0.0
    for process in _tree(pid):
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue  # it ended just now; its parent counts it from here on
        total_s += times.user + times.system + times.children_user + times.children_system
    return total_s


def _tree(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def memory_mib(roots: Mapping[str, Iterable[int]]) -> dict[str, float]:
    """Resident memory of each process. PostgreSQL's is one sum, without the buffers they share."""
    found: dict[str, float] = {}
    for role, pids in roots.items():
        for number, pid in enumerate(pids, start=1):
            for depth, process in enumerate(_tree(pid)):
                try:
                    memory = process.memory_info()
                except psutil.Error:
                    continue
                if role == "postgres":
                    own = memory.rss - getattr(memory, "shared", 0)
                    found[role] = found.get(role, 0.0) + own / MIB
                else:
                    child = f" child {depth}" if depth else ""
                    found[f"{role} {number}{child}"] = memory.rss / MIB
    return found
