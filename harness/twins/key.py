"""What must be equal for two runs of a twin to be the same run: the key under which its records are kept.

Where something that the answer may depend on cannot be known here, there is no key, and the twin runs each time:
what a container holds, what a user's program is made of, what an interpreter of other machines has installed.
"""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.model.case import Case, Plan, content_id

# Keys of a site that say how its scheduler is asked and who pays, and nothing of what a job computes.
_NO_MATTER = frozenset(
    (
        "description",
        "limits",
        "scheduler",
        "partitions",  # each is resolved by itself
        "account",
        "qos",
        "reservation",
        "licenses",
        "exclude_nodes",
        "power",
        "accounting",
        "templates",  # their texts count, not the folder
        "expected",
    )
)
_ASK_S = 30.0
_ASK = (
    "import importlib.metadata as m, sys, platform\n"
    "print(sys.version, platform.machine())\n"
    "print(*sorted({str(d.metadata['Name']) + '==' + str(d.version) for d in m.distributions()}), sep='\\n')"
)


def keys(
    plan: Plan, *, code_sha256: str, site: Mapping[str, Any], templates: Mapping[str, Mapping[str, str]]
) -> dict[str, str]:
    """The key of each twin that has one, by case id.

    Args:
        plan: with every case in a job, the twins too.
        code_sha256: of the sources that jobs run.
        site: as jobs read it, with its partitions resolved (``prepare.site_for_jobs``).
        templates: for each template that a submission names, the digests of all the files it is made of.
    """
    found: dict[str, str] = {}
    installed: dict[str, str] = {}
    for submission in plan.submissions:
        for case in (plan.case(case_id) for job in submission.jobs for case_id in job.case_ids):
            there = site["partitions"][case.partition] if case.partition else site
            if not case.is_twin or case.command is not None or there["container"] is not None:
                continue
            python = there["python"]
            if python not in installed:
                installed[python] = _installed(python)
            if installed[python]:
                found[case.case_id] = content_id(
                    {
                        "case": _of_case(case),
                        "code": code_sha256,
                        "site": {k: v for k, v in there.items() if k not in _NO_MATTER},
                        "machine": _machine() if _is_here(there) else "",
                        "installed": installed[python],
                        "templates": dict(templates[submission.template]),
                    },
                    length=40,
                )
    return found


def _of_case(case: Case) -> dict[str, Any]:
    """All of a case but how long it may take: its id alone says nothing of how often states are digested."""
    return {k: v for k, v in case.to_json().items() if k != "time_limit_min"}


def _installed(python: str) -> str:
    """Digest of an interpreter's version and of all packages that it has; "" where it cannot be asked from here."""
    try:
        said = subprocess.run(
            [python, "-c", _ASK], capture_output=True, timeout=_ASK_S, check=True, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return hashlib.sha256(said.stdout).hexdigest()


def _is_here(site: Mapping[str, Any]) -> bool:
    """Whether jobs run on this very machine, of which the site file says little."""
    return bool(site["launcher"] == "local" or site["kind"] == "emulated")


def _machine() -> str:
    """This machine's kind of processor: another kind may round otherwise."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    except OSError:
        return platform.machine()
    kept = ("vendor_id", "model name", "flags", "Features", "CPU implementer", "CPU part")
    lines = [line for line in first.splitlines() if line.split("\t")[0].strip(" :") in kept]
    return hashlib.sha256("\n".join([platform.machine(), *lines]).encode()).hexdigest()
