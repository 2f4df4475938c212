# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a role says of its component in meta/component.yml."""
from __future__ import annotations

import pathlib

import pytest
from ansible_collections.genai.platform.plugins.plugin_utils._descriptor import Malformed, descriptor

ROLES = pathlib.Path(__file__).resolve().parents[4] / "roles"


@pytest.fixture
def role(tmp_path):
    (tmp_path / "meta").mkdir()

    def write(text: str) -> pathlib.Path:
        (tmp_path / "meta" / "component.yml").write_text(text, encoding="utf-8")
        return tmp_path

    return write


def test_a_role_without_one_comes_after_nothing(tmp_path):
    assert descriptor(tmp_path) == {"after": []}


def test_what_it_comes_after(role):
    assert descriptor(role("after: [postgresql, redis]")) == {"after": ["postgresql", "redis"]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("aftr: [postgresql]", "unknown key aftr; did you mean after?"),
        ("after: postgresql", "after: a list of components is expected"),
        ("after: [1]", "after: a list of components is expected"),
        ("[postgresql]", "a mapping is expected; known keys: after"),
        ("", "a mapping is expected; known keys: after"),
        ("after: [", "no YAML"),
    ],
)
def test_what_cannot_be_right_is_said_with_the_file(role, text, said):
    with pytest.raises(Malformed) as caught:
        descriptor(role(text))
    assert "meta/component.yml: " in str(caught.value) and said in str(caught.value)


def test_the_descriptors_of_this_collection_can_be_read():
    assert all(isinstance(descriptor(role)["after"], list) for role in ROLES.iterdir() if role.is_dir())
