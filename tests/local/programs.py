"""One run of many groups of programs on site ``local``, and what is read of it. Not a test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import analysis
from analysis.verdict import CaseVerdict, judge
from harness.store import Results


class Ended(NamedTuple):
    """A run that has ended: its folder, and the verdict of each group; of a twin its group's name with "/twin"."""

    folder: Path
    verdicts: dict[str, CaseVerdict]

    def rows(self, table: str, group: str) -> list[dict[str, Any]]:
        """The rows of a group's one case."""
        with Results(self.folder / "results.h5") as results:
            return [row for row in results.rows(table) if row["case_id"] == self.verdicts[group].case_id]


def run_groups(folder: Path, campaign: str, *, status: int, timeout_s: float) -> Ended:
    """Run a campaign's text, each group of one case, in a new folder; ``harness run`` must end with ``status``."""
    path = folder.parent / "campaign.yaml"
    path.write_text(campaign)
    result = subprocess.run(
        [sys.executable, "-m", "harness", "run", str(path), "--site", "local", "--folder", str(folder)],
        text=True,
        capture_output=True,
        timeout=timeout_s,
    )
    assert result.returncode == status, result.stdout + result.stderr
    with analysis.load(folder / "results.h5") as results:
        return Ended(
            folder,
            {
                case["group"] + "/twin" * bool(case["is_twin"]): verdict
                for case, verdict in zip(results.cases, judge(results), strict=True)
            },
        )
