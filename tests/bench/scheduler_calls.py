"""What was asked of the scheduler, by its own count: ``sdiag`` of slurmctld, ``sacctmgr show stats`` of slurmdbd.

Nobody's own counter is believed. Calls of the cluster's ordinary user are counted, and among these those that
a job's own ``srun`` makes on a node are told apart from those of the login node.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.bench.bench_cluster import BenchCluster, BenchError

# What an srun inside a job asks of slurmctld; on an idle cluster nobody else sends these.
OF_JOBS = frozenset({"REQUEST_JOB_STEP_CREATE", "REQUEST_HET_JOB_ALLOC_INFO"})
SUBMIT = "REQUEST_SUBMIT_BATCH_JOB"
# One for each sacct; it also says hello and goodbye.
ACCOUNTS = "DBD_GET_JOBS_COND"

_ROW = re.compile(r"^\s*([A-Za-z_]\w*)\s+\(\s*(\d+)\)\s+count:(\d+)", re.MULTILINE)
_SINCE = re.compile(r"^Data since\s+(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Calls:
    """Calls between a reset and now."""

    submissions: int
    """sbatch, as slurmctld counts it."""
    questions: int
    """Other calls of the login node to slurmctld; one squeue is three."""
    accounts: int
    """Questions to slurmdbd: one for each sacct."""
    of_jobs: int
    """Calls to slurmctld from inside the jobs: their own srun."""
    by_type: dict[str, int]
    """slurmctld's whole table by message type, of all users, daemons included."""

    @property
    def of_login(self) -> int:
        """Everything that the login node asked of either daemon."""
        return self.submissions + self.questions + self.accounts


def reset(cluster: BenchCluster) -> str:
    """Begin to count; give the answer to ``count``."""
    cluster.as_root(["sdiag", "--reset"])
    cluster.as_root(["sacctmgr", "-i", "clear", "stats"])
    return _since(cluster.as_root(["sdiag"]))


def count(cluster: BenchCluster, since: str, user: str = "alice") -> Calls:
    """Calls since the reset."""
    controller = cluster.as_root(["sdiag"])
    if _since(controller) != since:
        raise BenchError("slurmctld began to count anew (it does so at midnight UTC); measure again")
    types, users = _tables(controller)
    of_user = users.get(user, 0)
    of_jobs = sum(types.get(name, 0) for name in OF_JOBS)
    submissions = types.get(SUBMIT, 0)
    questions = of_user - of_jobs - submissions
    if questions < 0:
        raise BenchError(
            f"sdiag counts {of_user} calls of {user}, fewer than {of_jobs} + {submissions}: {types}"
        )
    accounts, _ = _tables(cluster.as_root(["sacctmgr", "show", "stats"]))
    return Calls(submissions, questions, accounts.get(ACCOUNTS, 0), of_jobs, types)


def _since(text: str) -> str:
    found = _SINCE.search(text)
    if not found:
        raise BenchError(f"sdiag does not say since when it counts: {text[:300]}")
    return found[1].strip()


def _tables(text: str) -> tuple[dict[str, int], dict[str, int]]:
    """Count by message type, and count by user."""
    by_type, _, rest = text.partition("statistics by user")
    by_type = by_type.partition("statistics by message type")[2]
    by_user = rest.partition("Pending RPC")[0]
    return tuple({m[1]: int(m[3]) for m in _ROW.finditer(part)} for part in (by_type, by_user))  # type: ignore[return-value]
