# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter genai.platform.inference_app."""
from __future__ import annotations

DOCUMENTATION = r"""
name: inference_app
short_description: Parts of the inference service's manifests out of one description
version_added: 0.4.0
author: genai.platform authors (@genai-platform)
description:
  - Makes what the templates of the role C(inference_app) put into their manifests, wherever its shape depends on the description, such as
    Deployments of API, canary and workers, init containers and volumes of the models, autoscalers, and shares of the traffic.
  - What is wrong with the description is no error here but C(finding), a line each, which the role notes on a manifest.
    M(genai.platform.release) refuses it, together with everything else that is wrong.
positional: _input, distribution
options:
  _input:
    description: The inputs of the role by their names without C(inference_app_), and what the role adds to them.
    type: dict
    required: true
  distribution:
    description: Which the manifests are for.
    type: str
    choices: [kubernetes, openshift]
    default: kubernetes
"""

EXAMPLES = r"""
# As the role has it: {finding: null, settings: {GENAI_LOG_LEVEL: info, ...}, deployments: [{name: inference, ...}], ...}
parts: "{{ __inference_app_described | genai.platform.inference_app('kubernetes') }}"
"""

RETURN = r"""
_value:
  description: Parts of manifests by what they are for.
  type: dict
"""

import typing as t

from ansible_collections.genai.platform.plugins.plugin_utils.inference import inference


class FilterModule:
    def filters(self) -> dict[str, t.Callable]:
        return {"inference_app": inference}
