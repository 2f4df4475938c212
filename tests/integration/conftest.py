# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Makes the helpers beside the tests importable, and their figures last."""
from __future__ import annotations

import pathlib
import sys

import pytest

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tools")]

from figures import figure, pytest_terminal_summary  # noqa: E402, F401

from bundles import Platform  # noqa: E402
from cluster import own  # noqa: E402


@pytest.fixture
def living():
    """Makes platforms of the test's own, and removes them with all that is in their namespaces."""
    made: list[Platform] = []

    def make(name: str) -> Platform:
        made.append(Platform(own(f"living-{name}")))
        made[-1].remove()
        return made[-1]

    yield make
    for platform in made:
        platform.remove(wait=False)
