# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the API server refuses, in words that name the object, its template, the field and the fix. Pure."""
from __future__ import annotations

import re

from ..errors import ApiError
from ..objects.fields import before_image, changed_paths
from ..objects.hints import WEBHOOK_HINT
from ..objects.kinds import ANEW, CHANGEABLE
from ..objects.manifest import Ref
from ..objects.masks import without_secrets
from ..plan.plan import Action


def explain(exc: ApiError, action: Action) -> ApiError:
    """The same refusal, naming the object, its template and, for a conflict, who owns which fields."""
    source = f" ({action.desired.source})" if action.desired and action.desired.source else ""
    subject = f"{action.component}{source}: {action.ref}"
    causes = exc.body.get("details", {}).get("causes") or []
    conflicts = [c for c in causes if c.get("reason") == "FieldManagerConflict"]
    text = without_secrets(exc.message, action.desired.body if action.desired else {})
    if conflicts:
        who = "; ".join(f"{c.get('field', '?').lstrip('.')}: {c.get('message', '')}" for c in conflicts)
        text = f"another manager owns fields that differ: {who}. To take them over: -e common_force_conflicts=true (force_conflicts of the module)"
    fixed = _unchangeable(exc.message, causes, action)
    if fixed:
        text = f"{', '.join(fixed)} cannot be changed once the object is there. Hint: {ANEW.get(action.ref.kind, _ANOTHER_NAME)}"
    if "failed calling webhook" in text:
        text = f"{text}. Hint: {WEBHOOK_HINT}"
    return ApiError(f"{subject}: {text}", exc.status, exc.body, object=str(action.ref), **exc.facts_without_status())


def unanswered(exc: ApiError) -> Ref | None:
    """The Service whose webhook did not answer, where that is why something was refused."""
    found = re.search(r"webhook .*https://([a-z0-9-]+)\.([a-z0-9-]+)\.svc[:/]", exc.message) if exc.status == 500 else None
    return Ref("", "Service", found[2], found[1]) if found else None


_ANOTHER_NAME = "give the object another name, or delete it first, and run again"


def _unchangeable(message: str, causes: list[dict], action: Action) -> list[str]:
    """The fields that a refusal says cannot be changed; [] when it says something else."""
    found = [cause.get("field", "") for cause in causes if "field is immutable" in cause.get("message", "")]
    if "updates to statefulset spec" in message and action.live:
        paths = changed_paths(before_image(action.live).get("spec", {}), action.body.get("spec", {}))
        names = {re.split(r"[.\[]", path)[0] for path in paths}
        found += [f"spec.{name}" for name in sorted(names) if name not in CHANGEABLE["StatefulSet"]]
    return [name for name in dict.fromkeys(found) if name]
