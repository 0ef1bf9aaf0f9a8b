"""How often repeats of two files failed or gave a wrong answer, compared as rates: k of n against k of n.

What B did and A never did is worse by itself, however few repeats there are. Where A did it as well, it is worse where
B did it more often than chance lets expect (Fisher's exact test, one-sided); more often, but not beyond chance, is
told and is no pass. Repeats that neither failed nor gave a figure (a node was lost, evidence is missing) do not count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from analysis.repeats import Repeats
from analysis.results import CampaignResults
from harness.model.attempt import FAILED

FAILURES, WRONG = "failures", "wrong answers"


@dataclass(frozen=True)
class Rate:
    """One kind of failure in A and in B, of which B has relatively more."""

    kind: str
    failed_a: int
    of_a: int
    failed_b: int
    of_b: int

    @property
    def never_in_a(self) -> bool:
        """Whether A had none at all, so that no test is asked."""
        return not self.failed_a

    @property
    def p(self) -> float:
        """Of so many or more in B, were both rates equal."""
        return fisher(self.failed_a, self.of_a, self.failed_b, self.of_b)

    def words(self) -> str:
        """The two rates."""
        return f"{self.kind} {self.failed_a} of {self.of_a} in A, {self.failed_b} of {self.of_b} in B"


def fisher(failed_a: int, of_a: int, failed_b: int, of_b: int) -> float:
    """Fisher's exact test, one-sided: the chance of ``failed_b`` or more of all failures in B, by luck alone."""
    failed, every = failed_a + failed_b, of_a + of_b
    ways = sum(
        math.comb(of_b, k) * math.comb(of_a, failed - k) for k in range(failed_b, min(failed, of_b) + 1)
    )
    return ways / math.comb(every, failed)


def _counted(results: CampaignResults, side: Repeats) -> tuple[int, int, int]:
    """Repeats of one file that crashed, that gave a wrong answer, and that count at all."""
    crashed = wrong = 0
    for case in side.cases:
        if any(not check["passed"] for check in results.of_case("checks", case["case_id"])):
            wrong += 1
        elif case["outcome"] == FAILED:
            crashed += 1
    return crashed, wrong, crashed + wrong + len(side.usable)


def rates(a: CampaignResults, b: CampaignResults, one: Repeats, two: Repeats) -> list[Rate]:
    """Kinds of failure that are relatively more frequent in B, wrong answers first."""
    crashed_a, wrong_a, of_a = _counted(a, one)
    crashed_b, wrong_b, of_b = _counted(b, two)
    kinds = ((WRONG, wrong_a, wrong_b), (FAILURES, crashed_a, crashed_b))
    return [Rate(kind, x, of_a, y, of_b) for kind, x, y in kinds if y * of_a > x * of_b or (y and not x)]
