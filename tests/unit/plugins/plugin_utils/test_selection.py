# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which components a run means: the same that Ansible would run."""
from __future__ import annotations

import itertools

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.taggable import Taggable
from ansible_collections.genai.platform.plugins.plugin_utils.selection import tag_selection

LISTED = ["namespaces", "policy", "inference_app"]
ALIASES = {"app": "inference_app", "nodes": "gpu_nodes"}  # of the last there is no component here
WORDS = ("all", "tagged", "untagged", "always", "never", "namespaces", "app", "inference_app", "elsewhere")


def select(only=("all",), skip=(), listed=None):
    return tag_selection(LISTED if listed is None else listed, only, skip, ALIASES, ["elsewhere"])


@pytest.mark.parametrize(
    ("only", "skip", "chosen", "complete"),
    [
        (["all"], [], LISTED, True),
        (["policy"], [], ["policy"], False),
        (["app", "namespaces"], [], ["namespaces", "inference_app"], False),
        (["all", "policy"], [], LISTED, False),
        (["tagged"], [], LISTED, False),
        (["always", "policy"], [], ["policy"], False),
        (["all"], ["policy"], ["namespaces", "inference_app"], False),
        (["all"], ["app"], ["namespaces", "policy"], False),
        (["all"], ["never"], LISTED, False),
        (["elsewhere"], [], [], False),
        (["elsewhere", "policy"], [], ["policy"], False),
    ],
)
def test_what_is_meant(only, skip, chosen, complete):
    assert select(only, skip) == {"listed": LISTED, "components": chosen, "complete": complete, "mistakes": []}


@pytest.mark.parametrize(
    ("only", "skip", "said"),
    [
        (["inference"], [], ["unknown tag inference in --tags: did you mean inference_app? Known: ", "namespaces, never, policy"]),
        (["all"], ["polcy"], ["unknown tag polcy in --skip-tags: did you mean policy?"]),
        (["nodes"], [], ["unknown tag nodes in --tags"]),
        (["zzz"], [], ["unknown tag zzz in --tags: Known: all, always, app"]),
        (["always"], [], ["no component is left to release with --tags always; common_components has namespaces, policy, inference_app"]),
        (["untagged"], [], ["no component is left"]),
        (["never"], [], ["no component is left"]),
        (["policy"], ["policy"], ["no component is left to release with --tags policy with --skip-tags policy"]),
        (["all"], ["tagged"], ["no component is left"]),
        (["all"], ["always"], ["--skip-tags always leaves out the release itself"]),
    ],
)
def test_mistakes(only, skip, said):
    selection = select(only, skip)
    assert all(text in " ".join(selection["mistakes"]) for text in said), selection
    assert selection["components"] == LISTED, "a run that goes on in spite of it must not pass"


def test_every_mistake_is_said():
    assert len(select(["one", "two"], ["three"])["mistakes"]) == 3


def test_no_components():
    assert select(listed=[])["mistakes"] == ["no component is left to release; common_components has none"]


def test_a_list_may_be_text():
    assert select(listed="namespaces,policy")["components"] == ["namespaces", "policy"]


def test_ansible_chooses_the_same():
    """Asked of a task of each component that carries the tags of its role, for up to three words after each option."""
    words = [some for size in (0, 1, 2, 3) for some in itertools.combinations(WORDS, size)]
    tags = {"namespaces": ["namespaces"], "policy": ["policy"], "inference_app": ["inference_app", "app"]}
    compared = 0
    for only, skip in itertools.product(words[1:], words):
        selection = select(only, skip)
        if not selection["mistakes"]:
            assert selection["components"] == [name for name in LISTED if _runs(tags[name], only, skip)], (only, skip)
            compared += 1
    assert compared > 1000


class _Tagged(Taggable):
    """A task with these tags, as far as Ansible asks it."""

    _loader, _parent = DataLoader(), None

    def __init__(self, tags):
        self._tags = tags

    tags = property(lambda self: self._tags)

    def _get_all_taggable_objects(self):
        return []


def _runs(tags, only, skip):
    return _Tagged(tags).evaluate_tags(list(only), list(skip), {})


@pytest.mark.parametrize(("skip", "complete"), [(["elsewhere"], True), (["app"], False), (["notest"], True)])
def test_a_tag_of_other_plays_that_is_also_a_components_leaves_it_out(skip, complete):
    """Such a run is no complete one: what it leaves out is not to be pruned."""
    found = tag_selection(LISTED, ["all"], skip, ALIASES, ["elsewhere", "app", "notest"])
    assert found["complete"] is complete and ("inference_app" in found["components"]) is complete
