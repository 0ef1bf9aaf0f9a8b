"""The job of ``harness site check``, on its batch host: looks at each node, and at each way to start MPI.

One single-node step a node, as agents are started; one step over all nodes for each MPI plug-in. What a step
says comes back by its standard output, so that a folder which nodes do not share is a finding and not the
end. Everything that could crash is a process of its own. Standard library only.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.rundir import write_json
from harness.runtime import clocks
from harness.runtime.container import Container
from harness.runtime.network import addresses
from harness.slurm.commands import CommandError, run_command

REQUEST, HELLO, REPLY, REPORT, OUT = "check.json", "login.txt", "reply.json", "report.json", "job.out"
SEEN = "seen"  # folder of one file a node, which the login node looks for
MARK = "SITE-CHECK "  # before what a step says of itself, among all that libraries print
NO_PYTHON, NO_FOLDER = 92, 93
NODE_S, MPI_S, REPLY_S, LOGIN_S = 240.0, 60.0, 60.0, 3.0

# What a step runs first: it needs neither the folder nor the interpreter to be there to say that they are not.
# NFS may show a new file late, so it is looked for again.
_FIRST = (
    'test -x "$1" || exit 92; n=0; until test -r "$2"; do n=$((n+1)); test $n -gt "$3" && exit 93; sleep 1; done; '
    'shift 3; exec "$@"'
)
_SHAPE = re.compile(r"^(SBATCH_|SRUN_|SLURM_(NTASKS|NPROCS|TASKS_PER_NODE|STEP_|DISTRIBUTION|CPU_BIND|MEM_PER|"
                    r"CPUS_PER_|TRES_PER_|GPUS_PER_))")  # fmt: skip


def late_s(visible_after_s: float) -> int:
    """How many seconds a folder that was just made is looked for, before it counts as not shared."""
    return 5 + math.ceil(visible_after_s)


def cpus_per_node(text: str) -> list[int]:
    """SLURM_JOB_CPUS_PER_NODE, such as ``4(x2),8``, node by node."""
    counts: list[int] = []
    for part in text.split(","):
        if found := re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip()):
            counts += [int(found[1])] * int(found[2] or 1)
    return counts


def marked(output: str) -> list[dict[str, Any]]:
    """What steps said of themselves, among all else that was printed."""
    found = []
    for line in output.splitlines():
        _, mark, text = line.partition(MARK)
        if mark:
            try:
                found.append(json.loads(text))
            except ValueError:
                continue  # two lines that were printed into each other: the count will be short
    return found


def tail(text: str, limit: int = 400) -> str:
    """The end of an output, on one line."""
    return " | ".join(line.strip() for line in text.strip().splitlines()[-4:] if line.strip())[-limit:]


class Steps:
    """Starts steps of this job, each bounded in time."""

    def __init__(self, site: Mapping[str, Any], folder: Path, overlap: bool) -> None:
        self._site, self._folder = site, folder
        self._late_s = late_s(site["paths"]["visible_after_s"])
        self._common = [
            *(["--overlap"] if overlap else []),
            "--no-kill", "--cpu-bind=none", "--mem=0", "--input=none", "--export=ALL",
        ]  # fmt: skip
        self._environment = {k: v for k, v in os.environ.items() if not _SHAPE.match(k)}
        self._container = Container.of_site(site, str(folder))
        self.python: str = site["container"]["python"] if self._container else sys.executable

    def module(
        self, options: Sequence[str], module: Sequence[str], deadline_s: float
    ) -> tuple[int, str, str]:
        """``python -m`` of a module of ours, as agents and ranks are run: exit code, output, errors."""
        if self._container is not None:
            if problem := self._container.problem():
                return 1, "", problem
            more, command = self._container.arguments(module, self._environment)
            return self._run(
                [*options, *more, *command], deadline_s, self._container.environment(self._environment)
            )
        first = ["sh", "-c", _FIRST, "sh", self.python, str(self._folder / HELLO), str(self._late_s)]
        return self._run([*options, *first, self.python, "-m", *module], deadline_s, self._environment)

    def shell(self, options: Sequence[str], script: str, *arguments: str) -> tuple[int, str, str]:
        """A line of shell, outside any container."""
        return self._run([*options, "sh", "-c", script, "sh", *arguments], 60.0, self._environment)

    def _run(
        self, arguments: Sequence[str], deadline_s: float, environment: Mapping[str, str]
    ) -> tuple[int, str, str]:
        process = subprocess.Popen(
            ["srun", *self._common, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=dict(environment),
        )
        try:
            output, errors = process.communicate(timeout=deadline_s)
        except subprocess.TimeoutExpired:
            process.terminate()  # srun then ends the step's tasks
            try:
                output, errors = process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                output, errors = process.communicate()
            return 124, output, f"{errors}\nnot finished within {deadline_s:g} s"
        return process.returncode, output, errors


def on_node(node: str, cpus: int) -> list[str]:
    """Options of a step of one process on one node, as an agent has them."""
    return ["-N1", "-n1", "-w", node, f"-c{cpus}", "--mpi=none", "-J", "look"]


def look_at_nodes(steps: Steps, nodes: Sequence[str], cpus: int, ask: Sequence[str]) -> dict[str, Any]:
    """What each node says of itself, or why it said nothing."""

    def one(node: str) -> dict[str, Any]:
        code, output, errors = steps.module(
            on_node(node, cpus), ["harness.runtime.site_probe_node", node, *ask], NODE_S
        )
        said = marked(output)
        return said[-1] if said else {"failed": code, "said": tail(errors or output)}

    with ThreadPoolExecutor(max_workers=8) as pool:
        return dict(zip(nodes, pool.map(one, nodes), strict=True))


def strangers(steps: Steps, nodes: Sequence[str], cpus: int, path: str, job: str) -> dict[str, list[str]]:
    """Node -> other nodes whose marks it sees in its node-local folder; then the marks are removed."""
    look = 'for f in "$1"/hh-site-check-"$2"-*; do test -e "$f" && echo "$f"; done; true'
    found: dict[str, list[str]] = {}
    for node in nodes:
        _, output, _ = steps.shell(on_node(node, cpus), look, path, job)
        names = [line.rpartition(f"hh-site-check-{job}-")[2] for line in output.splitlines()]
        found[node] = [name for name in names if name and name != node]
    for node in nodes:
        steps.shell(on_node(node, cpus), 'rm -f "$1"/hh-site-check-"$2"-"$3"', path, job, node)
    return found


def worlds(steps: Steps, nodes: Sequence[str], ranks_per_node: int, plugin: str) -> dict[str, Any]:
    """What MPI makes of a step that is started with one plug-in: the sizes that its ranks saw."""
    ranks = len(nodes) * ranks_per_node
    options = [
        f"-N{len(nodes)}", f"-n{ranks}", f"--ntasks-per-node={ranks_per_node}", "-w", ",".join(nodes),
        "--distribution=block", "--overcommit", f"--mpi={plugin}", "-J", "world",
    ]  # fmt: skip
    code, output, errors = steps.module(options, ["harness.runtime.site_probe_world"], MPI_S)
    said = marked(output)
    return {
        "ranks": ranks,
        "code": code,
        "sizes": sorted(s["size"] for s in said),
        "numbers": sorted(s["rank"] for s in said),
        "library": said[0]["library"] if said else "",
        "said": "" if len(said) == ranks else tail(errors or output),
    }


def login_clock(request: Mapping[str, Any]) -> dict[str, Any]:
    """The login node's clock less this one's, by TCP; or why it could not be asked so."""
    problem = "it named no address"
    for address in request["login_addresses"]:
        try:
            offset, _ = clocks.measure(address, request["login_port"], request["token"], LOGIN_S)
            return {**asdict(offset), "how": "TCP"}
        except OSError as error:
            problem = f"{address}: {error}"
    return {"problem": problem}


def main(arguments: Sequence[str]) -> int:
    """``python -m harness.runtime.site_probe FOLDER``."""
    folder = Path(arguments[0])
    request = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
    site, job = request["site"], os.environ["SLURM_JOB_ID"]
    names = run_command(
        ["scontrol", "show", "hostnames", os.environ["SLURM_JOB_NODELIST"]], timeout_s=20
    ).split()
    batch = os.environ.get("SLURMD_NODENAME", names[0])
    counts = cpus_per_node(os.environ.get("SLURM_JOB_CPUS_PER_NODE", ""))
    cpus = min(counts, default=1)
    report: dict[str, Any] = {
        "job_id": job,
        "batch": batch,
        "nodes": names,
        "slurm_cpus": dict(zip(names, counts, strict=False)),
        "python": sys.version.split()[0],
        "problem": "",
    }
    os.environ.update(site["mpi"]["environment"])
    try:
        steps = Steps(site, folder, request["overlap"])
        report["clock"] = login_clock(request)
        with clocks.Server(request["token"]) as server:
            where = [str(folder), batch, ",".join(addresses().values()), str(server.port)]
            report["looked"] = look_at_nodes(steps, names, cpus, where)
        report["strangers"] = strangers(steps, names, cpus, site["paths"]["node_local"], job)
        report["mpi"] = {
            p: worlds(steps, names, request["ranks_per_node"], p) for p in _plugins(site, request)
        }
    except CommandError as error:
        report["problem"] = str(error)
    write_json(folder / REPORT, {**report, "wall_ns": time.time_ns()})
    return 0


def _plugins(site: Mapping[str, Any], request: Mapping[str, Any]) -> list[str]:
    """The site's own first, then others that this Slurm has: few, since each costs a step."""
    others = [p for p in request["plugins"] if p not in ("none", "openmpi")]
    return list(dict.fromkeys([site["mpi"]["plugin"], *others]))[:4] if request["mpi"] else []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
