# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lookup genai.platform.manifests."""
from __future__ import annotations

DOCUMENTATION = r"""
name: manifests
short_description: Render the templates of a role to a list of Kubernetes manifests
version_added: 0.1.0
author: genai.platform authors (@genai-platform)
description:
  - Renders every C(*.yaml.j2) under the C(templates) folder of a role, in the order of their names, with the variables of
    the task, and returns the manifests they hold.
  - A folder C(templates/kubernetes) or C(templates/openshift) is rendered only for that distribution.
  - Each manifest remembers its template in the annotation C(genai.platform/source), which M(genai.platform.release)
    uses in errors and does not send to the cluster.
  - Fails when a variable is set that looks like one of the role's and is none (a typing error), and when a template is not
    valid YAML or uses an undefined variable; the message names the file.
options:
  _terms:
    description: Folder of the role.
    required: true
    type: list
    elements: path
  distribution:
    description: Which of the distribution folders to render besides the templates themselves.
    type: str
    choices: [kubernetes, openshift]
    default: kubernetes
"""

EXAMPLES = r"""
- name: Put the manifests of a role into a variable
  ansible.builtin.set_fact:
    manifests: "{{ lookup('genai.platform.manifests', role_path, wantlist=true) }}"
"""

RETURN = r"""
_list:
  description: Manifests.
  type: list
  elements: dict
"""

import pathlib
import typing as t

import yaml
from ansible.errors import AnsibleError, AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible.template import trust_as_template
from ansible_collections.genai.platform.plugins.plugin_utils.spelling import unknown_options
from ansible_collections.genai.platform.plugins.plugin_utils.yaml_loader import Loader

SOURCE = "genai.platform/source"


class LookupModule(LookupBase):
    def run(self, terms: list[str], variables: dict | None = None, **kwargs: t.Any) -> list[dict]:
        self.set_options(var_options=variables, direct=kwargs)
        manifests: list[dict] = []
        for term in terms:
            role = pathlib.Path(term)
            wrong = unknown_options(role, variables or {})
            if wrong:
                raise AnsibleLookupError("\n".join(wrong))
            for template in _templates(role, self.get_option("distribution")):
                manifests += self._render(template, f"roles/{role.name}/{template.relative_to(role)}", variables or {})
        return manifests

    def _render(self, template: pathlib.Path, source: str, variables: dict) -> list[dict]:
        text = trust_as_template(template.read_text(encoding="utf-8"))
        templar = self._templar.copy_with_new_env(searchpath=[str(template.parent)], available_variables=variables)
        try:
            rendered = templar.template(text, preserve_trailing_newlines=True, escape_backslashes=False)
        except AnsibleError as exc:
            raise AnsibleLookupError(f"{source}: {_innermost(exc)}") from None
        try:
            documents = [d for d in yaml.load_all(str(rendered or ""), Loader=Loader) if d is not None]  # a safe loader
        except yaml.YAMLError as exc:
            raise AnsibleLookupError(f"{source}: not valid YAML once rendered: {_where(exc)}") from None
        return [_sourced(document, source) for document in documents]


def _templates(role: pathlib.Path, distribution: str) -> list[pathlib.Path]:
    folder = role / "templates"
    return sorted([*folder.glob("*.yaml.j2"), *(folder / distribution).glob("*.yaml.j2")])


def _sourced(document: t.Any, source: str) -> t.Any:
    """Notes the template in the manifest, where the manifest is well-formed enough to hold the note."""
    metadata = document.get("metadata") if isinstance(document, dict) else None
    if isinstance(metadata, dict):
        annotations = metadata.get("annotations")
        if annotations is None or isinstance(annotations, dict):
            metadata["annotations"] = {**(annotations or {}), SOURCE: source}
    return document


def _innermost(exc: BaseException) -> str:
    while exc.__cause__ is not None:
        exc = exc.__cause__
    return str(exc)


def _where(exc: yaml.YAMLError) -> str:
    mark = getattr(exc, "problem_mark", None)
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return f"{place}{getattr(exc, 'problem', None) or exc}"
