# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From verdicts to docs/cases.md. Pure."""
from __future__ import annotations

import typing as t

from case import CANNOT_SAY, LONG, RIGHT, SHORT, TIMEOUT, WRONG, Case, Verdict
from tools import Tool

HEAD = """\
# The same situations, three tools

Printed by `make cases` on the cluster of `make up` (Kubernetes {kubernetes}): situations that came out wrong for users of tools that deploy to
Kubernetes, each brought about in the same way for every tool, in a namespace of its own. One rule a case, without knowing whose it is, judges
what was seen: how the command ended, what it said, and what the cluster has afterwards.

| | {titles} |
|---|{rule}|
{counts}
"""
NOTES = """\
N is the namespace. What was seen is the run's own words, shortened in the middle; seconds are of the tool's commands together, on two shared cores.

- All tools get the same YAML documents and may wait as long: {timeout} s, {long} s for what takes long, {short} s where they wait in vain by design.
- `genai.platform`: `genai.platform.release` with its defaults; `genai.platform.drift` with `fix: true` where something is to be put back.
- Helm {helm}: `helm upgrade --install --wait --rollback-on-failure --create-namespace --history-max=0`, so that it forgets no release; the
  preview is `--dry-run=server`; what is to be put back is upgraded again, with `--force-conflicts`. It applies on the server.
- `kubernetes.core` {core}: one task of `kubernetes.core.k8s` with `src`, `apply: true`, `server_side_apply` and `wait: true`; the
  preview is `--check`; what is to be put back is applied again, with `force_conflicts`. It keeps no record and undoes nothing: where a case
  is about that, it was tried, but is not judged.
- A definition stands in the chart's folder `crds`, which Helm does not upgrade; where a case changes it (09), in a template, and it is released
  before the objects of its kind.
- Not here: cases of pools of GPU nodes and of the inference service, about which the others have nothing to say."""


def markdown(cases: t.Sequence[Case], tools: t.Sequence[Tool], verdicts: dict[tuple[str, str], Verdict], versions: dict[str, str]) -> str:
    head = HEAD.format(
        titles=" | ".join(tool.title for tool in tools), rule="|".join("---" for _tool in tools), counts=_counts(cases, tools, verdicts), **versions
    )
    columns = " | ".join(tool.title for tool in tools)
    rows = [_row(case, [verdicts[case.number, tool.name] for tool in tools]) for case in cases]
    table = [f"| case | situation | what must hold | {columns} |", "|---" * (3 + len(tools)) + "|", *rows]
    return "\n".join([head, *table, "", NOTES.format(timeout=TIMEOUT, long=LONG, short=SHORT, **versions), ""])


def _counts(cases: t.Sequence[Case], tools: t.Sequence[Tool], verdicts: dict[tuple[str, str], Verdict]) -> str:
    def count(word: str, tool: Tool) -> str:
        return str(sum(verdicts[case.number, tool.name].word == word for case in cases))

    return "\n".join(f"| {word} | {' | '.join(count(word, tool) for tool in tools)} |" for word in (RIGHT, WRONG, CANNOT_SAY))


def _row(case: Case, verdicts: t.Iterable[Verdict]) -> str:
    return f"| {case.number} | {case.situation} | {case.must} | {' | '.join(map(_cell, verdicts))} |"


def _cell(verdict: Verdict) -> str:
    word = verdict.word if verdict.word == RIGHT else f"**{verdict.word}**"
    return f"{word}, {verdict.seconds:.0f} s<br>{_as_text(verdict.seen)}"


def _as_text(words: str) -> str:
    """Nothing in it is Markdown."""
    return words.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_").replace("`", "'")
