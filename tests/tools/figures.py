# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Figures: every test that measures says so here; they are printed when the run ends and kept for the next one."""
from __future__ import annotations

import fcntl
import json
import pathlib
import typing as t

import pytest

FIGURES = pathlib.Path(__file__).resolve().parents[2] / "build" / "figures.json"


@pytest.fixture
def figure() -> t.Callable[[str, object], None]:
    """Keeps one figure under its name. Several processes may do so at once."""

    def keep(name: str, value: object) -> None:
        FIGURES.parent.mkdir(exist_ok=True)
        with FIGURES.with_suffix(".lock").open("w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            table = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
            FIGURES.write_text(json.dumps({**table, name: value}, indent=1), encoding="utf-8")

    return keep


def pytest_terminal_summary(terminalreporter: t.Any) -> None:
    if FIGURES.exists():
        terminalreporter.section("figures so far")
        for name, value in json.loads(FIGURES.read_text(encoding="utf-8")).items():
            terminalreporter.write_line(f"{name:<64} {value}")
