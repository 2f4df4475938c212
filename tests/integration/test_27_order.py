# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What an object needs of the same release works at the first try."""
from __future__ import annotations

import base64

import pytest
from ansible_collections.genai.platform.plugins.module_utils.errors import ReleaseFailed
from bundles import Platform
from live import until
from living import space, there
from operators import certificate, gauges, operator, sizes

@pytest.fixture
def platform(living, request):
    found: Platform = living("order")
    yield found


def test_a_webhook_its_server_and_what_it_judges_in_one_release(platform, figure):
    """Case 23. Red where resources are written before who judges them is ready: undone each time, so that trying again does not help."""
    name, shown = platform.name, certificate(f"hook.{platform.name}.svc")
    result = platform.deploy({"operator": operator(name, shown), "app": gauges(name, 1)}, wait_timeout=120)
    assert result["changed"] and sizes(name) == [1, 1, 1]
    assert platform.deploy({"operator": operator(name, shown), "app": gauges(name, 1)})["changes"] == []
    # The operator restarts while its resources change: for some seconds nobody answers.
    platform.deploy({"operator": operator(name, shown, "two"), "app": gauges(name, 2)}, wait_timeout=120)
    assert sizes(name) == [2, 2, 2]
    platform.releaser(wait_timeout=120).roll_back("previous", None)
    assert sizes(name) == [1, 1, 1]
    figure("case 23, a webhook, its server and what it judges: in one release / updated at once / rolled back", "yes / yes / yes")


def test_a_webhook_that_never_answers_fails_the_release(platform, figure):
    """A server that shows another certificate than the webhook trusts: ready, and of no use."""
    name, shown = platform.name, certificate(f"hook.{platform.name}.svc")
    bundle = operator(name, shown)
    bundle[-1]["webhooks"][0]["clientConfig"]["caBundle"] = base64.b64encode(certificate("elsewhere")[0]).decode()
    with pytest.raises(ReleaseFailed, match="failed calling webhook"):
        platform.deploy({"operator": bundle, "app": gauges(name, 1)}, wait_timeout=120)
    until("all of it is gone", lambda: there(space(name)) is None)
    figure("case 23, a webhook whose certificate nobody trusts: the release is undone", "yes")
