"""One node as ``harness site check`` sees it: said in one line of JSON on standard output.

Started as an agent is, by a step of its own; what it imports it imports in processes of their own, so that a
library which crashes is a finding. It leaves one mark in the node-local folder and one file in the shared
one, which the login node looks for. Standard library only.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.rundir import write_json
from harness.runtime import clocks
from harness.runtime.network import addresses, interface_of
from harness.runtime.site_probe import HELLO, MARK, REPLY, REPLY_S, REQUEST, SEEN, tail
from harness.telemetry.gpu import Gpu, NoGpu

IMPORT_S = 150.0  # a first import of torch over a cold network file system takes a minute or two
CONNECT_S = 5.0

_IMPORT = (
    "import importlib, importlib.metadata, json, sys\n"
    "name = sys.argv[1]\n"
    "module = importlib.import_module(name)\n"
    "facts = {'version': str(getattr(module, '__version__', ''))}\n"
    "if name == 'torch':\n"
    "    facts |= {'cuda': module.version.cuda, 'gpus': module.cuda.device_count() if module.version.cuda else 0}\n"
    "print(json.dumps(facts))\n"
)


def imported(name: str) -> dict[str, Any]:
    """Version of a package, or how its import ended."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _IMPORT, name],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=IMPORT_S,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return {"problem": f"not imported within {IMPORT_S:g} s"}
    lines = done.stdout.strip().splitlines()
    try:
        if done.returncode == 0:
            return dict(json.loads(lines[-1]))
    except (ValueError, IndexError):
        return {"problem": f"said {tail(done.stdout)!r}"}
    how = f"killed by signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
    return {
        "problem": f"{how}: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'it said nothing'}"
    }


def memory_limit_mb(proc: Path = Path("/proc"), root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """The smallest limit of the cgroups that this process is in, of version 1 or 2; None without any."""
    found = []
    for line in (proc / "self" / "cgroup").read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, name = root, "memory.max"
        elif "memory" in controllers.split(","):
            base, name = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = base / path.lstrip("/")
        for folder in (group, *group.parents):
            if not folder.is_relative_to(base):
                break
            try:
                text = (folder / name).read_text(encoding="ascii").strip()
            except OSError:
                continue
            if text.isdigit() and int(text) < 1 << 60:
                found.append(int(text) >> 20)
    return min(found, default=None)


def node_local(path: str, job: str, node: str) -> dict[str, Any]:
    """Whether the node-local folder can be written, and what it lies on; leaves a mark there."""
    mark = Path(path) / f"hh-site-check-{job}-{node}"
    try:
        mark.write_text(node, encoding="utf-8")
        free_mb = shutil.disk_usage(path).free >> 20
    except OSError as error:
        return {"problem": f"{error.strerror or error}"}
    return {"free_mb": free_mb, "type": _file_system(path)}


def _file_system(path: str) -> str:
    best, kind = "", ""
    for line in Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines():
        _, point, name, *_ = line.split(" ")
        if (path == point or path.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, kind = point, name
    return kind


def gpus() -> dict[str, Any]:
    """What NVML shows, and what Slurm says that it gave."""
    given = {
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        "slurm": os.environ.get("SLURM_GPUS_ON_NODE", ""),
        "devices": len(list(Path("/dev").glob("nvidia[0-9]*"))),
    }
    try:
        seen = Gpu()
        return {**given, "count": seen.count, "slices": list(seen.slices()), **seen.facts()}
    except NoGpu as error:
        return {**given, "problem": str(error)}


def clock(hosts: Sequence[str], port: int, token: str) -> dict[str, Any]:
    """The batch host's clock less this one's, by TCP: the way by which agents reach their supervisor."""
    problem = "no address"
    for host in hosts:
        try:
            offset, own = clocks.measure(host, port, token, CONNECT_S)
            return {**asdict(offset), "to": host, "own": own, "interface": interface_of(own)}
        except OSError as error:
            problem = f"{host}:{port}: {error}"
    return {"problem": problem}


class Answer(threading.Thread):
    """Leaves a file for the login node, and waits for the one that it answers with."""

    def __init__(self, folder: Path, node: str) -> None:
        super().__init__(daemon=True)
        self._folder, self._node = folder, node
        self.facts: dict[str, Any] = {"problem": f"not seen within {REPLY_S:g} s"}

    def run(self) -> None:
        """Note when the answer is seen here, and what it says of when it was written there."""
        sent = time.time_ns()
        try:
            write_json(self._folder / SEEN / f"{self._node}.json", {"wall_ns": sent})
        except OSError as error:
            self.facts = {"problem": f"{error.strerror or error}"}
            return
        end = time.monotonic() + REPLY_S
        while time.monotonic() < end:
            try:
                reply = json.loads((self._folder / f"{self._node}-{REPLY}").read_text(encoding="utf-8"))
            except (OSError, ValueError):
                time.sleep(0.02)
                continue
            self.facts = {"sent": sent, "back": time.time_ns(), **reply}
            return


def look(node: str, folder: Path, batch: str, hosts: Sequence[str], port: int) -> dict[str, Any]:
    """Everything about this node."""
    request = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
    answer = Answer(folder, node)
    answer.start()
    own = ["127.0.0.1"] if node == batch else [batch, *hosts]
    hello = (folder / HELLO).read_text(encoding="utf-8", errors="replace").strip()
    with ThreadPoolExecutor(max_workers=4) as pool:
        packages = dict(zip(request["imports"], pool.map(imported, request["imports"]), strict=True))
    facts = {
        "node": node,
        "slurmd": os.environ.get("SLURMD_NODENAME", ""),
        "host": socket.gethostname(),
        "architecture": os.uname().machine,
        "kernel": os.uname().release,
        "python": sys.version.split()[0],
        "cpus_machine": os.cpu_count() or 0,
        "cpus_affinity": len(os.sched_getaffinity(0)),
        "memory_mb": (os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) >> 20,
        "memory_limit_mb": memory_limit_mb(),
        "hello": hello == request["hello"],
        "addresses": addresses(),
        "clock": clock(own, port, request["token"]),
        "imports": packages,
        "gpus": gpus(),
        "node_local": node_local(
            request["site"]["paths"]["node_local"], os.environ.get("SLURM_JOB_ID", ""), node
        ),
        "modules": [m for m in os.environ.get("LOADEDMODULES", "").split(":") if m],
    }
    answer.join(REPLY_S + 1)
    return {**facts, "answer": answer.facts}


if __name__ == "__main__":
    name, where, host, others, number = sys.argv[1:6]
    said = look(
        name, Path(where), host, [a for a in others.split(",") if a and a != "127.0.0.1"], int(number)
    )
    print(f"{MARK}{json.dumps(said)}\n", end="", flush=True)
