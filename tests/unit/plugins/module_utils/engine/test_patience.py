# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Patience is data: by reason, by component and reason, and nothing else."""
from __future__ import annotations

import pytest
from ansible_collections.genai.platform.plugins.module_utils.engine.patience import patience
from ansible_collections.genai.platform.plugins.module_utils.errors import InvalidInput


def test_of_a_component_before_that_of_all():
    found = patience({"ProbeFailing": 200, "app": {"CrashLoopBackOff": 90, "ProbeFailing": 5}})
    told = [found(*each) for each in (("app", "ProbeFailing"), ("app", "CrashLoopBackOff"), ("db", "ProbeFailing"), ("db", "CrashLoopBackOff"))]
    assert told == [5, 90, 200, 0]
    assert patience(None)("app", "ProbeFailing") == patience({})("", "") == 0


@pytest.mark.parametrize("given, said", [
    ({"CrashLoopBackoff": 5}, "CrashLoopBackoff is no reason; did you mean CrashLoopBackOff?"),
    ({"app": {"Tired": 5}}, "app.Tired is no reason. Known: CrashLoopBackOff"),
    ({"ProbeFailing": "long"}, "ProbeFailing is 'long', it must be a number of seconds"),
    ({"ProbeFailing": -1}, "ProbeFailing is -1"),
    ({"app": {"ProbeFailing": True}}, "app.ProbeFailing is True"),
])
def test_what_cannot_be_meant_is_named(given, said):
    with pytest.raises(InvalidInput) as caught:
        patience(given)
    assert said in caught.value.message
