# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation that every module of the collection shares."""
from __future__ import annotations


class ModuleDocFragment:
    """Options that every module of the collection takes beside the connection."""

    DOCUMENTATION = r"""
options:
  platform:
    description:
      - Name of the platform on this cluster. Its objects carry it as a label, its ledger is kept under it.
    type: str
    default: genai
  ledger_namespace:
    description:
      - Namespace of the ledger, created when it is missing. Whoever may read its Secrets can read every Secret released.
    type: str
    default: genai-ledger
  expected_server:
    description:
      - API URL this inventory host stands for. When the connection leads elsewhere the task fails before it sends anything.
    type: str
requirements:
  - kubernetes >= 31
  - kubernetes.core >= 6.0.0 (for its authentication)
"""

    WORKING = r"""
options:
  workers:
    description:
      - Number of requests under way at a time.
    type: int
    default: 16
"""

    RECORDING = r"""
options:
  wait_timeout:
    description:
      - Seconds to wait until every workload is ready.
    type: int
    default: 600
  patience:
    description:
      - Seconds that trouble which may be the way to being ready may last before it fails the release, by reason, for all
        components or, under a component's name, for that one.
      - Reasons are V(CrashLoopBackOff), V(OOMKilled), V(ProbeFailing), V(Unschedulable), V(ErrImagePull), V(ImagePullBackOff),
        V(CreateContainerConfigError), V(CreateContainerError), V(RunContainerError), V(FailedMount), V(FailedCreate) and V(ClaimNotBound).
        Each has a patience of its own of 0 to 13 seconds (a readiness probe three times what it allows itself), which this can only
        lengthen. The default waits for a start of three minutes without a startup probe.
      - A crash counts from the first one until the pod is ready, not from one restart to the next.
    type: dict
    default: {ProbeFailing: 200}
  keep:
    description:
      - Number of releases to keep in the ledger.
    type: int
    default: 10
  by:
    description:
      - Who makes the release, kept in the ledger. The user and host that run the module when not given.
    type: str
"""

    ATTRIBUTES = r"""
attributes:
  check_mode:
    description: Can run in check mode and return the changes without making them.
    support: full
  diff_mode:
    description: Returns what has changed, or would change, as diffs; values of Secrets are hidden.
    support: full
  platform:
    description: Runs where Python and the network path to the API server are, usually the controller.
    platforms: posix
    support: full
"""
