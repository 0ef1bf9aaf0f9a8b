"""Verdicts: one for each case, with its key figure, the reason and the evidence. Pure: a file in, values out.

The worst finding decides: fail, then invalid, then unknown, then pass. A rule that crashes on a case makes it
unknown, with the exception named; no evidence is never a pass.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from analysis import keyfigure, text
from analysis.commandline import main as run
from analysis.commandline import terminal_width
from analysis.references import Given, References
from analysis.results import CampaignResults, Row
from analysis.rules import RULES
from analysis.summary import exit_status, summarise
from analysis.view import Finding, Rule, View
from harness.model.attempt import UNSETTLED
from harness.model.verdict import Verdict
from harness.store import StoreError

SEVERITY = (Verdict.FAIL, Verdict.INVALID, Verdict.UNKNOWN, Verdict.WITHIN_NOISE, Verdict.PASS)


@dataclass(frozen=True)
class CaseVerdict:
    """The judgement of one case. Texts hold no control characters, but are not escaped for HTML."""

    case_id: str
    label: str
    verdict: Verdict
    key_figure: str
    why: str
    evidence: tuple[str, ...]


def _apply(rule: Rule, view: View) -> list[Finding]:
    try:
        return rule(view)
    except StoreError:
        raise
    except Exception as error:  # whatever a rule trips over in a file that is not as it should be
        name = f"{type(error).__name__}: {error}"
        return [Finding(Verdict.UNKNOWN, f"the rule {rule.__name__!r} crashed on this case: {name}")]


def _key_figure(results: CampaignResults, case: Row) -> str:
    try:
        return keyfigure.of_case(results, case)
    except StoreError:
        raise
    except Exception as error:  # the figure is an ornament; the verdict must still be told
        return f"no figure: {type(error).__name__}: {error}"


def _why(verdict: Verdict, findings: Sequence[Finding]) -> str:
    deciding = [f.words for f in findings if f.verdict is verdict]
    if verdict is Verdict.PASS:
        return "; ".join(deciding[:3])
    more = f" (and {len(deciding) - 1} more)" if len(deciding) > 1 else ""
    return deciding[0] + more


def judge_case(results: CampaignResults, case: Row, references: References | None = None) -> CaseVerdict:
    """The verdict of one case.

    Args:
        references: the file's gates against other files, where several cases are judged.

    Raises:
        StoreError: its samples are damaged.
    """
    view = View.of(results, case, references)
    findings = [finding for rule in RULES for finding in _apply(rule, view)]
    if case["outcome"] == UNSETTLED:  # what is still to come could turn any of them
        findings = [Finding(Verdict.UNKNOWN, f"how it ended is not known (yet): {case['reason']}")]
    if not any(f.verdict for f in findings):
        findings.append(Finding(Verdict.UNKNOWN, "no evidence that the answer is right"))
    verdict = next(v for v in SEVERITY if any(f.verdict is v for f in findings))
    return CaseVerdict(
        case["case_id"],
        text.one_line(case["label"], 200),
        verdict,
        text.one_line(_key_figure(results, case)),
        text.one_line(_why(verdict, findings), text.WHOLE),
        tuple(
            text.one_line(f.words if f.verdict is None else f"{f.verdict.value}: {f.words}", text.WHOLE)
            for f in findings
        ),
    )


def judge(results: CampaignResults, given: Given = Given()) -> tuple[CaseVerdict, ...]:  # noqa: B008 - frozen
    """A verdict for every case of the file, in its order.

    Args:
        given: baseline and history in place of those that the gates name.

    Raises:
        StoreError: a table of samples is damaged.
    """
    references = References(results, given)
    return tuple(judge_case(results, case, references) for case in results.cases)


def act(results: CampaignResults, given: Given = Given()) -> tuple[Any, str, int]:  # noqa: B008 - frozen
    """Every verdict as data, in words, and as an exit code."""
    verdicts = judge(results, given)
    rows = [(v.verdict.value.upper(), v.label, v.key_figure, v.why) for v in verdicts]
    words = text.reasons(("verdict", "case", "key figure", "why"), rows, terminal_width())
    return summarise(results, verdicts), words if rows else "no case in this file", exit_status(verdicts)


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m analysis.verdict results.h5 [--json]``; exit codes as ``harness judge``."""
    return run("verdict", "Judge every case; exit 0 all pass, 1 a fail, 2 bad input, 3 unknown.", act, argv)


if __name__ == "__main__":
    sys.exit(main())
