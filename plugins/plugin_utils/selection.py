# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which components a run means, from the inventory's list and the tags that the run is limited to. Pure."""
from __future__ import annotations

import difflib
import typing as t

from ansible.module_utils.common.validation import check_type_list

# Words of Ansible's own; see https://docs.ansible.com/ansible/latest/playbook_guide/playbooks_tags.html
SPECIAL = ("all", "tagged", "untagged", "always", "never")


def tag_selection(
    components: t.Any, run_tags: t.Iterable[str], skip_tags: t.Iterable[str], aliases: t.Mapping[str, str], others: t.Iterable[str] = ()
) -> dict[str, t.Any]:
    """What `--tags` and `--skip-tags` leave of the components, each of which has its own name as tag.

    `aliases`: components by further tags. `others`: tags of other plays. Returns `listed` (all), `components` (those that are meant),
    `complete` (nothing limits the run) and `mistakes`, a text each. With a mistake all components are meant, so that a run which goes on
    in spite of it lacks some.
    """
    listed, only, skip = [str(name) for name in check_type_list(components)], set(map(str, run_tags)), set(map(str, skip_tags))
    tags = {name: {name, *(alias for alias, meant in aliases.items() if meant == name)} for name in listed}
    known = sorted({*others, *SPECIAL}.union(*tags.values()))
    mistakes = [_unknown(tag, option, known) for option, given in (("--tags", only), ("--skip-tags", skip)) for tag in sorted(given - set(known))]
    if "always" in skip:
        mistakes.append("--skip-tags always leaves out the release itself: leave out components by their names")
    chosen = [name for name in listed if _runs(tags[name], only, skip)]
    if not chosen and not mistakes and not only & set(others):
        mistakes.append(f"no component is left to release{_limits(only, skip)}; common_components has {', '.join(listed) or 'none'}")
    # What only leaves out tags of other plays limits nothing, unless it leaves out a component by one of them.
    complete = only == {"all"} and chosen == listed and not skip - set(others)
    return {"listed": listed, "components": listed if mistakes else chosen, "complete": complete, "mistakes": mistakes}


def _runs(tags: set[str], only: set[str], skip: set[str]) -> bool:
    """Whether Ansible runs a task with these tags, none of which is a special one."""
    return bool(only & {"all", "tagged", *tags}) and not skip & {"all", "tagged", *tags}


def _unknown(tag: str, option: str, known: list[str]) -> str:
    close = difflib.get_close_matches(tag, known, 1)
    guess = f"did you mean {close[0]}? " if close else ""
    return f"unknown tag {tag} in {option}: {guess}Known: {', '.join(known)}. A tag of another play has to be in common_other_tags"


def _limits(only: set[str], skip: set[str]) -> str:
    given = [("--tags", only - {"all"}), ("--skip-tags", skip)]
    return "".join(f" with {option} {','.join(sorted(tags))}" for option, tags in given if tags)
