# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Renders the roles for every inventory, once per test session."""
from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = ROOT / "tests" / "render"
sys.path[:0] = [str(HERE), str(ROOT / "tests" / "tools")]

from figures import figure  # noqa: E402, F401  pylint: disable=unused-import

INVENTORIES = sorted(path.name for path in (ROOT / "inventories").iterdir() if path.is_dir())


@pytest.fixture(scope="session", params=INVENTORIES)
def rendered(request: pytest.FixtureRequest) -> dict[str, dict[str, dict[str, list[dict]]]]:
    """{host: {distribution: {component: [manifests]}}} of one inventory and the variants that join it."""
    return render(request.param, ROOT / "build" / "render" / f"{request.param}.json")


def render(inventory: str, target: pathlib.Path) -> dict[str, dict[str, dict[str, list[dict]]]]:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    command = [
        pathlib.Path(sys.executable).parent / "ansible-playbook", HERE / "render.yml", "--extra-vars", f"render_file={target}",
        "--inventory", ROOT / "inventories" / inventory, "--inventory", HERE / "variants.yml",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=230, check=False)
    assert done.returncode == 0, f"{inventory} does not render:\n{done.stdout[-4000:]}\n{done.stderr[-2000:]}"
    return json.loads(target.read_text(encoding="utf-8"))
