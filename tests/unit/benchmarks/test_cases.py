# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One rule for every tool, and the page that tells what was seen."""
from __future__ import annotations

import pathlib
import sys

import pytest

TESTS = pathlib.Path(__file__).resolve().parents[2]
sys.path += [str(TESTS / "integration"), str(TESTS / "benchmarks" / "cases")]

import case
import page
from tools import TOOLS, UNDO, Lacks, Run, errors

OURS, HELM, CORE = TOOLS


def made(bring_about, right=lambda seen: seen.release.ok, needs=()) -> case.Case:
    return case.Case("00", "a situation", "must hold", bring_about, right, frozenset(needs))


def attempt(tool) -> case.Attempt:
    return case.Attempt(tool, f"cases-00-{tool.name}")


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("ok", [True, False])
def test_the_rule_does_not_know_whose_it_is(tool, ok):
    seen = case.Seen(release=Run(ok, f"not ready: {attempt(tool).namespace}/web", 1.0))
    verdict = case.judge(made(lambda _attempt: seen), attempt(tool))
    assert verdict.word == (case.RIGHT if ok else case.WRONG)
    assert verdict.seen == ("release: ok" if ok else 'release: failed, "not ready: N/web"')


@pytest.mark.parametrize(("tool", "word"), [(HELM, case.WRONG), (CORE, case.CANNOT_SAY)])
def test_who_cannot_undo_is_not_judged_by_it(tool, word):
    verdict = case.judge(made(lambda _attempt: case.Seen(release=Run(False, "no", 1.0)), needs=[UNDO]), attempt(tool))
    assert verdict.word == word and "no" in verdict.seen


def test_a_command_that_is_not_there_and_a_situation_that_is_not():
    def rolls_back(_attempt):
        raise Lacks

    def fails_before(_attempt):
        raise case.NotBroughtAbout("failed")

    assert case.judge(made(rolls_back, needs=[UNDO]), attempt(CORE)) == case.Verdict(case.CANNOT_SAY, "has no way back", 0)
    assert case.judge(made(fails_before), attempt(HELM)).word == case.CANNOT_SAY


@pytest.mark.parametrize(("said", "told"), [
    ('Failed to apply: {"kind":"Status","message":"field \\"a\\" is fixed","code":422}', 'field "a" is fixed'),
    ("x509: certificate is valid for a.example.com, b.example.com, not hook", "x509: certificate is valid for others, not hook"),
    ("Deployment cases-00/web: as it is", "Deployment N/web: as it is"),
])  # fmt: skip
def test_a_message(said, told):
    assert case.message(said, "cases-00") == told


def test_a_long_message_keeps_both_ends():
    short = case.shortened("a" * 200 + "b" * 200)
    assert short == f"{'a' * 40} … {'b' * 80}"


def test_what_helm_says():
    assert errors("a line\nError: UPGRADE FAILED\n") == "UPGRADE FAILED\n"
    assert errors("Release has been upgraded") == "Release has been upgraded"


def test_the_page():
    cases = [made(lambda _attempt: case.Seen())]
    verdicts = {("00", tool.name): case.Verdict(word, "a|b_c", 2.4) for tool, word in zip(TOOLS, (case.RIGHT, case.WRONG, case.CANNOT_SAY))}
    text = page.markdown(cases, TOOLS, verdicts, {"kubernetes": "1", "helm": "4", "core": "6"})
    assert "| right | 1 | 0 | 0 |\n| wrong | 0 | 1 | 0 |\n| cannot say | 0 | 0 | 1 |" in text
    assert "| 00 | a situation | must hold | right, 2 s<br>a\\|b\\_c | **wrong**, 2 s<br>a\\|b\\_c | **cannot say**, 2 s<br>a\\|b\\_c |" in text
