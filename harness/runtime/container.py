"""Puts a process of ours into the site's container: the arguments around it, and what reaches its inside.

The supervisor stays outside, where Slurm's commands are. Agents and ranks go in, one container each: they
see each other's processes, the network and ``/dev/shm`` as if there were none, and the run folder and the
node-local folder at their own paths. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.model.container import (
    Mount,
    image_problem,
    mount_problem,
    option_problem,
    parse_mount,
    path_problem,
)
from harness.slurm.commands import CommandError, run_command

# Set by our scripts. An image's own value of them would win, were they not named.
_OURS = (
    "CUBLAS_WORKSPACE_CONFIG",
    "GLOO_SOCKET_IFNAME",
    "LC_ALL",
    "MPIR_CVAR_CH4_CMA_ENABLE",
    "MPIR_CVAR_POLLS_BEFORE_YIELD",
    "NCCL_SOCKET_IFNAME",
    "OMPI_MCA_mpi_yield_when_idle",
    "OMP_NUM_THREADS",
    "PYTHONNOUSERSITE",
    "PYTHONPATH",
    "PYTHONUNBUFFERED",
    "TORCH_FR_BUFFER_SIZE",
)
# Of the machine outside, or read by the runtime itself: the image's own are right.
_NOT_INSIDE = frozenset(
    ("PATH", "LD_LIBRARY_PATH", "LD_PRELOAD", "HOME", "TMPDIR", "SHELL", "USER", "BASH_ENV")
)

# A caller's own defaults must not set the container apart; see harness.model.container for what that breaks.
_APART = re.compile(r"^(APPTAINER|SINGULARITY)_(CLEANENV|COMPAT|CONTAIN|CONTAINALL|IPC|NET|PID|PWD|CWD)$")

# No value is put into this text: they are its arguments. Slurm's PMIx server shares memory with its ranks in a
# folder of slurmd's spool, whose name only the task's own environment tells. PMIx 4.2 does without it if it must;
# ranks of older ones fail in gds_dstore.
_ENTER = (
    "command -v apptainer >/dev/null || { "
    'echo "apptainer: not found on ${SLURMD_NODENAME:-this node}; load its module in the site file (modules)" >&2; '
    "exit 127; }; "
    'exec apptainer exec ${PMIX_SERVER_TMPDIR:+--bind "$PMIX_SERVER_TMPDIR"} "$@"'
)

NO_PYXIS = (
    "Pyxis is not on this cluster: its srun knows no --container-image. Ask for the plug-in, or write "
    "`runtime: apptainer` in the site file, or leave `container` out"
)


@dataclass(frozen=True)
class Container:
    """The container of one job. ``folder`` is where its processes start; it is one of the mounts."""

    runtime: str
    image: str
    python: str
    mounts: tuple[Mount, ...]
    options: tuple[str, ...]
    folder: str
    names: tuple[str, ...]  # variables of the site that reach the inside whatever the image sets

    @classmethod
    def of_site(cls, site: Mapping[str, Any], run_folder: str) -> Container | None:
        """That of ``site.json``; None where the site has none.

        Raises:
            CommandError: something in it cannot be passed on.
        """
        given = site.get("container")
        if given is None:
            return None
        own = (run_folder, site["paths"]["node_local"])
        problems = [f"{path!r}: {p}" for path in own if (p := path_problem(path))]
        problems += [f"mount {text!r}: {p}" for text in given["mounts"] if (p := mount_problem(text))]
        problems += [
            f"option {text!r}: {p}"
            for text in given["options"]
            if (p := option_problem(given["runtime"], text))
        ]
        if problem := image_problem(given["image"]):
            problems.append(f"image {given['image']!r}: {problem}")
        if problems:
            raise CommandError("container: " + "; ".join(problems))
        mounts = dict.fromkeys([*((p, p) for p in own), *(parse_mount(text) for text in given["mounts"])])
        names = {*site.get("environment", {}), *site["mpi"].get("environment", {})} - _NOT_INSIDE
        return cls(
            given["runtime"],
            given["image"],
            given["python"],
            tuple(mounts),
            tuple(given["options"]),
            run_folder,
            tuple(sorted(names)),
        )

    def arguments(self, module: Sequence[str], variables: Mapping[str, str]) -> tuple[list[str], list[str]]:
        """Further arguments of ``srun``, and the process that it starts: ``module`` and its arguments, by python -m."""
        inside = [self.python, "-m", *module]
        if self.runtime == "pyxis":
            return [
                f"--container-image={self.image}",
                f"--container-mounts={','.join(f'{a}:{b}' for a, b in self.mounts)}",
                f"--container-workdir={self.folder}",
                f"--container-env={','.join(self._passed(variables))}",
                *self.options,
            ], inside
        binds = [word for a, b in self.mounts for word in ("--bind", a if a == b else f"{a}:{b}")]
        command = [*binds, "--pwd", self.folder, *self.options, self.image, *inside]
        return [], ["sh", "-c", _ENTER, "apptainer", *command]

    def environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        """The environment of ``srun``: as it is, and what makes ours win over an image's."""
        kept = {k: v for k, v in variables.items() if not _APART.match(k)}
        kept["PYTHONNOUSERSITE"] = "1"  # a home folder that is mounted holds packages of another interpreter
        if self.runtime == "apptainer":
            kept |= {f"APPTAINERENV_{name}": kept[name] for name in self._passed(kept) if name in kept}
        return kept

    def _passed(self, variables: Iterable[str]) -> list[str]:
        ours = (name for name in variables if name.startswith("HARNESS_"))
        return sorted({*_OURS, *self.names, *ours})

    def problem(self) -> str:
        """Why nothing can be started in it here, in words; "" when nothing is known against it."""
        return pyxis_problem() if self.runtime == "pyxis" else ""


def pyxis_problem() -> str:
    """Why Pyxis cannot be used here, in words; "" when it can.

    An ``srun`` without it says no more than "unrecognized option". Its ``--help`` asks no controller.
    """
    try:
        said = run_command(["srun", "--help"], timeout_s=20)
    except CommandError as error:
        return str(error)
    return "" if "--container-image" in said else NO_PYXIS
