# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lowest and the newest versions of Ansible and kubernetes.core see on the cluster what the pinned ones see: nothing to change."""
from __future__ import annotations

import os

import cluster
import pytest
import versions


@pytest.mark.parametrize("combination", versions.COMBINATIONS, ids=str)
def test_a_preview_of_what_is_deployed(combination, figure):
    python = versions.interpreter(combination.python)
    if not python:
        pytest.skip(f"there is no Python 3.{combination.python} or newer")
    wanted = cluster.play("site.yml", "--check")
    audit = cluster.Audit()
    kept = {name: os.environ[name] for name in ("GENAI_KIND_CLUSTER",) if name in os.environ}
    with versions.clone(combination, python) as (folder, environment):
        output = versions.run(["ansible-playbook", "site.yml", "--check"], folder, {**environment, **kept, "XDG_CACHE_HOME": str(cluster.CACHE.parent)})
    assert summary(output) == summary(wanted.output) != [] and audit.writes() == []
    assert audit.requests(), "it was this cluster that was asked"
    figure(f"preview with {combination}", "the same, nothing written")


def summary(output: str) -> list[str]:
    """The lines that say what would change."""
    return [line.strip() for line in output.splitlines() if " =" in line and "+" in line]
