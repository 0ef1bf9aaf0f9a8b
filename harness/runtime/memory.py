"""Whether a process was killed for memory: the kernel's own count, in the process's memory cgroup.

A process that the kernel kills for memory dies of SIGKILL like any other; only the cgroup knows. Source:
Documentation/admin-guide/cgroup-v1/memory.rst (memory.oom_control) and cgroup-v2.rst (memory.events).
Standard library only; no effects.
"""

from __future__ import annotations

from pathlib import Path

_V1 = Path("/sys/fs/cgroup/memory")
_V2 = Path("/sys/fs/cgroup")


def counter_of(pid: int) -> Path | None:
    """File that counts the kills in a process's memory cgroup; None where there is none to be read."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            file = _V1 / path.lstrip("/") / "memory.oom_control"
        elif not controllers:
            file = _V2 / path.lstrip("/") / "memory.events"
        else:
            continue
        if file.is_file():
            return file
    return None


def kills(counter: Path | None) -> int:
    """Processes of that cgroup killed for memory until now; 0 where it cannot be read (any more)."""
    try:
        lines = counter.read_text(encoding="ascii").splitlines() if counter is not None else []
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
