"""How many CPUs this process may use: what torch's threads are counted by.

A container sees every core of its node, but its cgroup throttles it beyond its limit: more threads than that only wait
for one another.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def usable_cpus(proc: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> int:
    """Whole CPUs within the cgroup's limit (v1 or v2) and the scheduler's affinity, at least 1."""
    return whole_cpus(cgroup_limit(proc, mount), len(os.sched_getaffinity(0)))


def whole_cpus(limit: float, cores: int) -> int:
    """1.5 CPUs are one thread: the second would use up the quota early, and then both stand still."""
    return max(1, min(cores, math.floor(limit) if math.isfinite(limit) else cores))


def cgroup_limit(proc: Path, mount: Path) -> float:
    """CPUs of the tightest limit from this process's cgroup up to the root; infinite without one."""
    limits = (_limit(folder) for folder in _folders(proc, mount))
    return min(limits, default=math.inf)


def _folders(proc: Path, mount: Path) -> Iterator[Path]:
    for line in _lines(proc):
        _, controllers, path = line.split(":", 2)
        root = mount if not controllers else mount / "cpu"
        if not controllers or "cpu" in controllers.split(","):
            inner = PurePosixPath(path.lstrip("/"))
            yield from (root / folder for folder in (inner, *inner.parents))


def _limit(folder: Path) -> float:
    """Quota by period, of cpu.max (v2) or cpu.cfs_* (v1)."""
    words = [word for line in _lines(folder / "cpu.max") for word in line.split()] or [
        line for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us") for line in _lines(folder / name)
    ]
    if len(words) != 2 or words[0] in ("max", "-1"):
        return math.inf
    quota, period = (int(word) for word in words)
    return quota / period


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:  # no such controller here, or not for us to read
        return []
