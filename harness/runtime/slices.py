"""MIG slices: which this job has on this node, and one for each rank, by UUID. Standard library only.

A process sees one slice at most, so each rank is shown its own by CUDA_VISIBLE_DEVICES, before anything
touches CUDA. Slurm names those that it gave in the same variable; where it names none, the job has the whole
node, and NVML lists them. Which ranks may use slices at all is asked when a campaign is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence

VISIBLE = "CUDA_VISIBLE_DEVICES"


class NoSlice(RuntimeError):
    """The site says MIG slices, and there is none for this rank; the message says what there is."""


def in_use(environment: Mapping[str, str]) -> bool:
    """Whether the site's GPUs are slices."""
    return environment.get("HARNESS_MIG") == "1"


def given(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Slices that Slurm gave this job on this node, by UUID; none where it named no UUIDs."""
    names = [name.strip() for name in environment.get(VISIBLE, "").split(",")]
    return tuple(name for name in names if name.startswith("MIG-"))


def of_job(environment: Mapping[str, str], seen: Callable[[], Sequence[str]]) -> tuple[str, ...]:
    """The job's slices on this node; ``seen`` asks NVML, and only where Slurm named none."""
    return given(environment) or tuple(seen())


def select(environment: MutableMapping[str, str], local_rank: int, seen: Callable[[], Sequence[str]]) -> None:
    """Show this rank its own slice, and no other; nothing happens where GPUs are whole.

    Raises:
        NoSlice: there are not enough.
    """
    if not in_use(environment):
        return
    slices = of_job(environment, seen)
    if local_rank >= len(slices):
        raise NoSlice(
            f"local rank {local_rank} has no MIG slice: this job sees {len(slices)} on this node "
            f"({VISIBLE}={environment.get(VISIBLE, '')!r}); lower ranks_per_node, or correct node.gpus and node.mig "
            "in the site file"
        )
    environment[VISIBLE] = slices[local_rank]
