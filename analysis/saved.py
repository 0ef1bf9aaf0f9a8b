"""Checkpoints of a campaign: taken, refused, restored, and whether what was restored is what had been committed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from analysis import spread, text
from analysis.results import CampaignResults, Row


@dataclass(frozen=True)
class Saved:
    """Counts, each of a checkpoint of all ranks; a rollback is an attempt that began from one.

    A rollback succeeded when every rank's restored state has the digest that was committed for that step and rank.
    """

    taken: int
    failed: int  # could not be committed
    refused: int
    restored: int
    right: int  # rollbacks that succeeded
    rate_95: tuple[float, float]
    kinds: tuple[tuple[str, int], ...]  # level and engine, how many were taken
    reasons: tuple[tuple[str, int], ...]  # why refused, how often

    @property
    def words(self) -> str:
        """In one line."""
        low, high = (text.percent(share) for share in self.rate_95)
        rollback = (
            f"{self.right} of {self.restored} with the state that was committed (95 %: {low} to {high})"
        )
        counts = f"{self.taken} taken, {self.failed} not committed, {self.refused} refused"
        return f"{counts}, {self.restored} restored, {rollback}"


def of(results: CampaignResults) -> Saved:
    """The checkpoints of a campaign."""
    groups: dict[str, dict[Hashable, list[Row]]] = {
        "committed": {},
        "failed": {},
        "refused": {},
        "restored": {},
    }
    committed: dict[Hashable, set[str]] = {}
    for row in results.checkpoints:
        if row["event"] not in groups:
            continue
        # All ranks refuse the same checkpoint, each in its own words or in one's.
        which = row["why"].split(":")[0] if row["event"] == "refused" else row["step"]
        key = (row["case_id"], row["attempt"], which, row["level"])
        groups[row["event"]].setdefault(key, []).append(row)
        if row["event"] == "committed":
            committed.setdefault((row["case_id"], row["rank"], row["step"]), set()).add(row["digest"])
    rollbacks = groups["restored"].values()
    right = sum(
        all(
            r["digest"] == r["committed_digest"]
            or r["digest"] in committed.get((r["case_id"], r["rank"], r["step"]), ())
            for r in rows
        )
        for rows in rollbacks
    )
    return Saved(
        taken=len(groups["committed"]),
        failed=len(groups["failed"]),
        refused=len(groups["refused"]),
        restored=len(rollbacks),
        right=right,
        rate_95=spread.wilson(right, len(rollbacks)),
        kinds=_counted(_kind(rows[0]) for rows in groups["committed"].values()),
        reasons=_counted(rows[0]["why"].split(": ", 1)[-1] for rows in groups["refused"].values()),
    )


def _kind(row: Row) -> str:
    return ", ".join(part for part in (row["level"], row["engine"]) if part) or "not said"


def _counted(words: Iterable[str]) -> tuple[tuple[str, int], ...]:
    return tuple(Counter(words).most_common())
