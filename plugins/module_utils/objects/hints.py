# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What to do about a refusal or a failure, by the words in which Kubernetes tells it. Pure."""
from __future__ import annotations

import re


def creation_hint(message: str) -> str:
    """What to do when pods of a workload cannot be created, by the message of the API server."""
    if "exceeded quota" in message:
        return "raise the namespace's quota (namespaces_list[].quota of the role namespaces), or ask for less"
    if "because it is being terminated" in message:
        return "its Namespace is being deleted: wait until it is gone, then run again"
    if "no PriorityClass with name" in message or 'RuntimeClass "' in message:
        return "name a class that exists (kubectl get priorityclass,runtimeclass), or make it first"
    if "usage per Container" in message or "usage per Pod" in message:
        return "the namespace's LimitRange (namespaces_list[].limits of the role namespaces) does not allow that much, or that little"
    if 'serviceaccount "' in message and "not found" in message:
        return "the workload names a ServiceAccount that is not there"
    if "violates PodSecurity" in message:
        return "fix the pod's securityContext, or lower the namespace's Pod Security level"
    if "failed calling webhook" in message:
        return WEBHOOK_HINT
    return "the API server refuses the pods of this workload; the message says why"


WEBHOOK_HINT = "the webhook's service does not answer: start it, or delete its webhook configuration"


def scheduling_hint(message: str) -> str:
    """What to do when no node takes a pod, by the message of the scheduler (`3 Insufficient nvidia.com/gpu`)."""
    short = sorted(set(re.findall(r"Insufficient ([\w./-]+?)[.,]?(?:\s|$)", message)))
    if short:
        return f"no node has enough {' and '.join(short)} free: add such nodes, free some, or lower the requests"
    if "PersistentVolumeClaim" in message:
        return "a claim of this pod is not bound: kubectl describe pvc says why"
    return "no node fits: check nodeSelector, affinity and tolerations"
