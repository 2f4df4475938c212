# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The set of objects that is measured: as many as asked for, the same every time, and valid."""
from __future__ import annotations

import objects
import pytest
from ansible_collections.genai.platform.plugins.module_utils.objects.manifest import prepare


@pytest.mark.parametrize(("count", "spaces"), [(15, 1), (60, 2), (300, 12), (1000, 12), (5000, 12)])
def test_as_many_as_asked_for(count, spaces):
    made = objects.objects(count, "p")
    assert len(made) == count and sum(m["kind"] == "Namespace" for m in made) == spaces
    assert objects.kinds(made) == 9
    assert made == objects.objects(count, "p")


def test_the_engine_takes_them():
    made = objects.objects(300, "p")
    desired = prepare(objects.bundle(made), "p")
    assert len(desired) == 300
    assert all(item.body["spec"]["replicas"] == 0 for item in desired.values() if item.ref.kind == "Deployment")


@pytest.mark.parametrize(("change", "differ"), [({"version": 2}, 300), ({"changed": 1}, 1), ({"changed": 2}, 2), ({}, 0)])
def test_what_differs(change, differ):
    before, after = objects.objects(300, "p"), objects.objects(300, "p", **change)
    assert sum(a != b for a, b in zip(before, after)) == differ
