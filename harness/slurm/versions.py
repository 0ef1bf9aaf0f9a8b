"""What differs between versions of Slurm, 20.02 to 26.05, in the flags and outputs that we use. Standard library only.

One table, read where a flag is written: by the launcher, by templates (``has``), by questions to ``sacct``.
Each line was looked up in Slurm's own sources at its release tags (github.com/SchedMD/slurm): which options
``src/common/slurm_opt.c`` knows, which fields ``src/sacct``, and what RELEASE_NOTES and the man pages say.
Only 22.05 was run. It refuses what is older than 20.02, and takes what is newer than 26.05 for 26.05.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from harness.slurm.commands import CommandError

_VERSION = re.compile(r"(?<![\d.])(\d{1,2})\.(\d{1,2})(?:\.(\d+))?")


class VersionError(CommandError):
    """Slurm's version cannot be told, or is too old; the message says what to do."""


@dataclass(frozen=True, order=True)
class Version:
    """A version of Slurm. Flags come and go with year and month; ``micro`` is for the record."""

    year: int
    month: int
    micro: int = 0

    def __str__(self) -> str:
        return f"{self.year:02}.{self.month:02}.{self.micro}"

    @property
    def release(self) -> str:
        """``22.05``."""
        return f"{self.year:02}.{self.month:02}"


OLDEST = Version(20, 2)
NEWEST = Version(26, 5)
RUN_HERE = Version(22, 5)
"""The one that the emulated cluster runs; the others are known from their sources."""


@dataclass(frozen=True)
class Feature:
    """One thing that only some versions have: from ``since`` on, and, if ``until`` is set, no longer from there on."""

    since: Version
    what: str
    otherwise: str  # what we do without it
    source: str  # in Slurm's own repository
    until: Version | None = None

    def in_version(self, version: Version) -> bool:
        """Whether that version has it."""
        return self.since <= version and (self.until is None or version < self.until)


# What we write ourselves, or read, or leave to own templates. `otherwise` says which.
FEATURES: Mapping[str, Feature] = {
    # --- steps: flags of srun ---
    "overlap": Feature(
        Version(20, 11),
        "steps hold their processors for themselves, and `srun --overlap` shares them",
        "left out: steps share processors by themselves",
        "RELEASE_NOTES 20.11; slurm_opt.c: no --overlap, --exact or --whole in 20.02",
    ),
    "overlap_gres": Feature(
        Version(22, 5),
        "--overlap shares memory and GPUs as well",
        "MPI ranks are refused where a job asks for GPUs: their step would wait for those that the agent's holds",
        "RELEASE_NOTES 22.05, COMMAND CHANGES",
    ),
    "exact_by_cpus_per_task": Feature(
        Version(22, 5),
        "`srun -c` implies --exact",
        "nothing: only agents have -c, with all processors of the smallest node",
        "RELEASE_NOTES 23.11: 'Starting in Slurm 22.05, --cpus-per-task implies --exact'",
    ),
    "srun_cpus_per_task": Feature(
        Version(22, 5),
        "srun reads SRUN_CPUS_PER_TASK, and not SLURM_CPUS_PER_TASK",
        "nothing: the launcher takes both out of the environment of steps",
        "RELEASE_NOTES 22.05 and 23.11; src/srun/opt.c, env_vars",
        until=Version(23, 11),
    ),
    "tres_per_task": Feature(
        Version(23, 2),
        "--tres-per-task, and from 23.11 on SLURM_TRES_PER_TASK, which --cpus-per-task sets",
        "nothing: the launcher takes it out of the environment of steps",
        "RELEASE_NOTES 23.02 and 23.11; slurm_opt.c",
    ),
    "external_launcher": Feature(
        Version(23, 11),
        "`srun --external-launcher`: a step over all of a node that takes nothing away",
        "not used: --overlap does for agents in all versions",
        "RELEASE_NOTES 23.11; slurm_opt.c",
    ),
    "container_oci": Feature(
        Version(21, 8),
        "`--container` for OCI bundles",
        "not used: Pyxis' options are --container-image and others, and Apptainer needs none",
        "slurm_opt.c: --container since 21.08",
    ),
    # --- jobs: flags of sbatch; all that base.sh.j2 writes are in 20.02 ---
    "expedited_requeue": Feature(
        Version(25, 11),
        "`--requeue=expedite`, and the job state EXPEDITING",
        "not used: --requeue alone means the same everywhere",
        "RELEASE_NOTES.md 25.11; slurm.h, JOB_EXPEDITING",
    ),
    "requeue_limit_set": Feature(
        Version(23, 2),
        "MaxBatchRequeue in slurm.conf",
        "a job that failed to start is held after five starts",
        "RELEASE_NOTES 23.02; slurmctld.h before: MAX_BATCH_REQUEUE 5",
    ),
    "log_folders_made": Feature(
        Version(23, 2),
        "folders of --output are made",
        "nothing: a run folder has its logs/ before anything is submitted",
        "RELEASE_NOTES 23.02",
    ),
    "prefer": Feature(
        Version(22, 5),
        "`--prefer`, a constraint that may be broken",
        "not used; for own templates",
        "slurm_opt.c: --prefer since 22.05",
    ),
    "one_of_exclusive_and_oversubscribe": Feature(
        Version(23, 2),
        "--exclusive and --oversubscribe together are refused",
        "nothing: base.sh.j2 writes the first alone",
        "RELEASE_NOTES 23.02, COMMAND CHANGES",
    ),
    "scrontab": Feature(
        Version(20, 11),
        "`scrontab`, where the site has switched it on (ScronParameters=enable)",
        "schedules are made by cron, or by a job that submits itself",
        "RELEASE_NOTES 20.11",
    ),
    # --- answers ---
    "now_minus": Feature(
        Version(20, 11),
        "times such as now-7days",
        "not used: a date is written, in all versions",
        "RELEASE_NOTES 20.11; parse_time.c of 20.02 knows now+ alone",
    ),
    "sacct_restarts": Feature(
        Version(24, 11),
        "sacct's field Restarts",
        "not used: starts are counted in `sacct --duplicates`, in all versions",
        "src/sacct/sacct.c: no such field up to 24.05",
    ),
    "sacct_failed_node": Feature(
        Version(23, 2),
        "sacct's field FailedNode",
        "not used: the supervisor says which node it lost",
        "src/sacct/sacct.c",
    ),
    "sacct_reserved": Feature(
        Version(20, 2),
        "sacct's field Reserved, later called Planned",
        "not asked for",
        "RELEASE_NOTES 23.02, COMMAND CHANGES",
        until=Version(23, 2),
    ),
    "json": Feature(
        Version(21, 8),
        "--json of sacct, squeue and sinfo; of scontrol from 23.02 on",
        "not used: its layout changes with each version, and builds without it are common; --parsable2 and "
        "-o are in all",
        "src/sacct/options.c, src/squeue/opts.c, src/scontrol/scontrol.c",
    ),
    "mpi_list_on_stdout": Feature(
        Version(22, 5),
        "`srun --mpi=list` prints 'MPI plugin types are...' to its standard output",
        "both outputs are read: before, 'srun: MPI types are...' came as log lines on standard error",
        "src/common/plugrack.c",
    ),
    "node_state_flags": Feature(
        Version(21, 8),
        "node states with flags after a plus, IDLE+POWERING_UP, and the flag PLANNED",
        "a sign after the state is read as well: IDLE#",
        "RELEASE_NOTES 21.08",
    ),
    "cgroup_v2": Feature(
        Version(22, 5),
        "cgroup/v2",
        "nothing: no path of a cgroup is assumed",
        "RELEASE_NOTES 22.05",
    ),
    "pmix_unless_left_out": Feature(
        Version(20, 2),
        "builds with PMIx where it is found",
        "site check asks `srun --mpi=list`: from 23.11 on only builds that ask for it have pmix",
        "RELEASE_NOTES 23.11: --with-pmix is required",
        until=Version(23, 11),
    ),
}


def parse_version(text: str) -> Version:
    """The version in ``slurm 22.05.8``, ``slurm-wlm 22.05.8``, ``slurm 24.11.0-0rc1`` or ``22.05``.

    Raises:
        VersionError: there is none in it.
    """
    found = _VERSION.search(text)
    if found is None:
        raise VersionError(
            f"Slurm's version {text.strip()[:80]!r}: no number such as 22.05 in it; see what `sbatch --version` prints"
        )
    year, month, micro = found.groups(default="0")
    return Version(int(year), int(month), int(micro))


def usable_version(text: str) -> tuple[Version, str]:
    """The version to go by, and a warning: "" where it is one that was looked up.

    Raises:
        VersionError: there is none in ``text``, or it is too old.
    """
    version = parse_version(text)
    if version < OLDEST:
        raise VersionError(
            f"Slurm {version}: is older than {OLDEST.release}, the oldest whose flags the harness knows; "
            "use a newer one"
        )
    if (version.year, version.month) > (NEWEST.year, NEWEST.month):
        return NEWEST, (
            f"Slurm {version} is newer than {NEWEST.release}, the newest that the harness knows, and is taken for it; "
            "flags that it has lost since then would be refused by sbatch or srun"
        )
    return version, ""


def has(feature: str, version: Version) -> bool:
    """Whether a version has a feature of the table.

    Raises:
        KeyError: the table has no such line.
    """
    return FEATURES[feature].in_version(version)


def features(version: Version) -> dict[str, bool]:
    """Every line of the table, for one version."""
    return {name: feature.in_version(version) for name, feature in FEATURES.items()}


def table() -> str:
    """The table for people: feature, versions that have it, what it is, what we do without it."""
    lines = []
    for name, f in FEATURES.items():
        until = f" until {f.until.release}" if f.until is not None else ""
        lines += [f"{name}: from {f.since.release}{until}", f"    {f.what}", f"    else: {f.otherwise}"]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
