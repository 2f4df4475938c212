# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lookup, through Ansible's own templar."""
from __future__ import annotations

import pytest
import yaml
from ansible import constants
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible_collections.genai.platform.plugins.lookup import manifests

NAME = "genai.platform.manifests"
CONFIGMAP = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: one, namespace: ns}
data:
"""
SPECS = {"main": {"options": {"shop_name": {}, "shop_image": {}}}, "other": {"options": {"shop_size": {}}}}


@pytest.fixture(name="role")
def role_folder(tmp_path):
    """A role `shop` with options and no template yet; call it to write one."""
    folder = tmp_path / "shop"
    (folder / "meta").mkdir(parents=True)
    (folder / "meta" / "argument_specs.yml").write_text(yaml.safe_dump({"argument_specs": SPECS}), encoding="utf-8")

    def write(text: str, name: str = "configmap.yaml.j2") -> None:
        path = folder / "templates" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    write.path = folder
    return write


def look_up(role, variables=None, **options):
    loader = DataLoader()
    documented = yaml.safe_load(manifests.DOCUMENTATION)["options"]
    constants.config.initialize_plugin_configuration_definitions("lookup", NAME, documented)
    plugin = manifests.LookupModule(loader=loader, templar=Templar(loader=loader, variables=variables or {}))
    plugin._load_name = NAME
    return plugin.run([str(role.path)], variables or {}, **options)


def fails(role, variables=None):
    with pytest.raises(AnsibleError) as caught:
        look_up(role, variables)
    return str(caught.value)


def test_manifests_in_the_order_of_the_files(role):
    role(CONFIGMAP + "  a: {{ shop_name }}\n---\n" + CONFIGMAP + "  a: second\n---\n", "b.yaml.j2")
    role(CONFIGMAP + "  a: first\n", "a.yaml.j2")
    role("not: looked at", "notes.txt.j2")
    found = look_up(role, {"shop_name": "from a variable"})
    assert [manifest["data"]["a"] for manifest in found] == ["first", "from a variable", "second"]
    assert [manifest["metadata"]["annotations"][manifests.SOURCE] for manifest in found] == [
        "roles/shop/templates/a.yaml.j2",
        "roles/shop/templates/b.yaml.j2",
        "roles/shop/templates/b.yaml.j2",
    ]


@pytest.mark.parametrize("distribution", ["kubernetes", "openshift"])
def test_folders_of_one_distribution(role, distribution):
    role(CONFIGMAP + "  where: kubernetes\n", "kubernetes/x.yaml.j2")
    role(CONFIGMAP + "  where: openshift\n", "openshift/x.yaml.j2")
    assert [manifest["data"]["where"] for manifest in look_up(role, distribution=distribution)] == [distribution]


def test_a_role_without_templates_describes_nothing(role):
    assert look_up(role) == []


def test_a_template_that_renders_to_nothing(role):
    role("{% if shop_name == 'x' %}\n" + CONFIGMAP + "{% endif %}\n")
    assert look_up(role, {"shop_name": "y"}) == []


def test_unknown_variable_comes_with_a_suggestion(role):
    said = fails(role, {"shop_nmae": "x"})
    assert "shop_nmae" in said and "did you mean shop_name?" in said


def test_unknown_variable_without_a_likeness_lists_all(role):
    assert "known: shop_image, shop_name, shop_size" in fails(role, {"shop_qqqqqq": "x"})


def test_variables_of_others_and_of_every_entry_point_are_welcome(role):
    role(CONFIGMAP + "  a: b\n")
    assert look_up(role, {"shopping": 1, "other_name": 1, "shop_size": 1, "shop_image": "x"})


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("  a: one\n  a: two\n", ["the key 'a' stands twice", "line 6"]),
        ("\ta: b\n", ["line 5", "not valid YAML"]),
        ("  a: {{ shop_missing }}\n", ["shop_missing"]),
    ],
    ids=["key that stands twice", "tab", "undefined variable"],
)
def test_a_bad_template_is_reported_with_its_file(role, data, said):
    role(CONFIGMAP + data)
    message = fails(role)
    assert all(text in message for text in ["roles/shop/templates/configmap.yaml.j2", *said])


def test_date_stays_a_string(role):
    role(CONFIGMAP + "  day: 2026-01-01\n  time: 2026-01-01T10:00:00Z\n  number: 7\n  truth: true\n")
    assert look_up(role)[0]["data"] == {"day": "2026-01-01", "time": "2026-01-01T10:00:00Z", "number": 7, "truth": True}


def test_template_syntax_error_is_reported_with_the_file(role):
    role(CONFIGMAP + "  a: {% if %}\n")
    assert "roles/shop/templates/configmap.yaml.j2" in fails(role)


@pytest.mark.parametrize("value", ["{{ braces }}", "{% statement %}", "{# comment #}", "a\\nb {{ x", "!unsafe {{ x }}"])
def test_braces_in_values_survive(role, value):
    role(CONFIGMAP + "  a: {{ shop_name | to_json }}\n")
    assert look_up(role, {"shop_name": value})[0]["data"] == {"a": value}


def test_what_is_no_manifest_is_left_to_the_engine(role):
    """The engine names every bad manifest at once; the lookup hands them over as they are."""
    role("- a list\n---\ntext\n---\nmetadata: text\n")
    assert look_up(role) == [["a list"], "text", {"metadata": "text"}]
