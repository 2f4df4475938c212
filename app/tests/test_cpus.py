"""The threads of torch are counted by the CPUs this process may use."""

import math
from pathlib import Path

import pytest

from genai_inference.cpus import cgroup_limit, usable_cpus, whole_cpus

V2, V1 = "0::/{}\n", "3:memory:/x\n2:cpu,cpuacct:/{}\n1:name=systemd:/\n"
LIMITS = {
    "v2, in a container": (V2, "", {"cpu.max": "150000 100000\n"}, 1.5),
    "v2, no limit": (V2, "", {"cpu.max": "max 100000\n"}, math.inf),
    "v2, the parent's is tighter": (V2, "a/b", {"a/b/cpu.max": "400000 100000", "a/cpu.max": "200000 100000"}, 2),
    "v2, the child's is tighter": (V2, "a/b", {"a/b/cpu.max": "50000 100000", "a/cpu.max": "200000 100000"}, 0.5),
    "v1": (V1, "", {"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
    "v1, no limit": (V1, "", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
    "v1, a path of the host's": (V1, "pod/c", {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
    "nothing to read": (V2, "a", {}, math.inf),
}


@pytest.mark.parametrize(("lines", "path", "files", "limit"), LIMITS.values(), ids=LIMITS)
def test_limit(tmp_path: Path, lines: str, path: str, files: dict[str, str], limit: float) -> None:
    proc, mount = tmp_path / "cgroup", tmp_path / "fs"
    proc.write_text(lines.format(path))
    for name, content in files.items():
        (mount / name).parent.mkdir(parents=True, exist_ok=True)
        (mount / name).write_text(content)
    assert cgroup_limit(proc, mount) == limit


@pytest.mark.parametrize(
    ("limit", "cores", "threads"), [(math.inf, 8, 8), (1.5, 8, 1), (0.25, 8, 1), (4.0, 8, 4), (16.0, 8, 8)]
)
def test_whole_cpus(limit: float, cores: int, threads: int) -> None:
    assert whole_cpus(limit, cores) == threads


def test_there_is_always_one(tmp_path: Path) -> None:
    assert usable_cpus(tmp_path / "nothing", tmp_path) >= 1
