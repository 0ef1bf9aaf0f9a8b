"""Which Debian packages the emulated cluster needs, and which of them this machine lacks.

It looks for files, starts nothing, and installs nothing: ``make setup`` does that, from the list
that ``python -m harness.devcluster.packages`` prints.
"""

from __future__ import annotations

import glob
import os

# Package -> what must be there. A pattern is looked for as it is, a bare name as a program.
_EVIDENCE: dict[str, tuple[str, ...]] = {
    "slurm-wlm": (),
    "slurmctld": ("slurmctld",),
    "slurmdbd": ("slurmdbd",),
    "slurmd": ("slurmd", "slurmstepd"),
    "slurm-client": ("sbatch", "srun", "sacct", "sacctmgr", "scontrol"),
    "slurm-wlm-plugins": ("/usr/lib/*/slurm-wlm/mpi_pmix.so",),
    "munge": ("munged",),
    "mariadb-server-core": ("mariadbd", "/usr/share/mysql/mysql_system_tables.sql"),
    "iproute2": ("ip",),
    "nftables": ("nft",),
    # mpi_pmix opens libpmix.so, unversioned, which only the -dev package has.
    "libpmix2": ("/usr/lib/*/pmix2/lib/libpmix.so.2",),
    "libpmix-dev": ("/usr/lib/*/pmix2/lib/libpmix.so",),
    "openmpi-bin": ("mpirun.openmpi",),
    "libopenmpi-dev": ("/usr/lib/*/libmpi.so",),
}

REQUIRED_PACKAGES: tuple[str, ...] = tuple(_EVIDENCE)

# A cluster comes up without these: only MPI programs of the system's Open MPI need them.
_OPTIONAL = frozenset({"openmpi-bin", "libopenmpi-dev"})

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _present(evidence: str) -> bool:
    if evidence.startswith("/"):
        return bool(glob.glob(evidence))
    return any(os.access(os.path.join(folder, evidence), os.X_OK) for folder in SYSTEM_PATH.split(":"))


def missing_packages() -> tuple[str, ...]:
    """The packages without which `up` would fail."""
    return tuple(
        package
        for package, evidence in _EVIDENCE.items()
        if package not in _OPTIONAL and not all(_present(item) for item in evidence)
    )


if __name__ == "__main__":
    print(" ".join(REQUIRED_PACKAGES))
