"""``status`` and ``env``: what is up, as the daemon, the record and Slurm each say."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from harness.devcluster import state
from harness.devcluster.folder import ENVIRONMENT_NAME, ClusterFolder, read_cookie
from harness.devcluster.packages import SYSTEM_PATH
from harness.devcluster.power import request

_SLURM_S = 15.0


def environment_lines(folder: ClusterFolder) -> str:
    """Shell lines for `eval`, after which sbatch and its kin talk to this cluster."""
    if read_cookie(folder) is None or not folder.slurm_conf.exists():
        raise state.none_up(folder)
    values = {"SLURM_CONF": str(folder.slurm_conf), ENVIRONMENT_NAME: str(folder.root)}
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items())


def gather(folder: ClusterFolder) -> dict[str, Any]:
    """Everything known about the cluster; needs no root."""
    cluster = state.read(folder)
    if cluster is None:
        raise state.none_up(folder)
    answer = request(folder, {"verb": "status"}, timeout_s=10.0)
    power: Mapping[str, str] = answer["nodes"]
    states = _slurm_states(folder)
    return {
        "folder": cluster.folder,
        "emulated": True,
        "id": cluster.identity,
        "phase": answer["phase"],
        "up_since": datetime.fromtimestamp(cluster.since_wall_ns / 1e9, timezone.utc).isoformat(),
        "slurm_version": _slurm(folder, "scontrol", "--version").removeprefix("slurm-wlm ").strip(),
        "controller_ping": _slurm(folder, "scontrol", "ping").strip(),
        "user": cluster.user.name,
        "uid": cluster.user.uid,
        "account": cluster.user.account,
        "shared": str(folder.shared),
        "subnet": cluster.subnet,
        "bridge": cluster.bridge,
        "cpus": cluster.cpus,
        "memory_mb": cluster.memory_mb,
        "gres": cluster.gres,
        "accounting": cluster.accounting,
        "settings": list(cluster.settings),
        "faults": answer["faults"],
        "cgroup": cluster.cgroup,
        "cgroup_why": cluster.cgroup_why,
        "proctrack": "linuxproc" if cluster.cgroup == "none" else "cgroup",
        "daemon_pid": None if cluster.daemon is None else cluster.daemon.pid,
        "head": {
            "address": cluster.head.address,
            "power": power[cluster.head.name],
            "pid": None if cluster.head.init is None else cluster.head.init.pid,
        },
        "nodes": [
            {
                "name": host.name,
                "address": host.address,
                "link": host.link,
                "power": power[host.name],
                "slurm_state": states.get(host.name, "unknown"),
                "pid": None if host.init is None else host.init.pid,
            }
            for host in cluster.nodes
        ],
    }


def _slurm(folder: ClusterFolder, *command: str) -> str:
    """What a Slurm client says; a controller that is away is an answer, not an error."""
    try:
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=_SLURM_S,
            env={"PATH": SYSTEM_PATH, "LC_ALL": "C", "SLURM_CONF": str(folder.slurm_conf)},
        )
    except subprocess.TimeoutExpired:
        return f"{' '.join(command)}: no answer within {_SLURM_S:g} s"
    return result.stdout or result.stderr


def _slurm_states(folder: ClusterFolder) -> dict[str, str]:
    lines = _slurm(folder, "sinfo", "--Node", "--noheader", "--format=%N %T").splitlines()
    return {fields[0]: fields[1] for fields in map(str.split, lines) if len(fields) == 2}


def as_json(status: Mapping[str, Any]) -> str:
    """For programs: every field, under its own name."""
    return json.dumps(status, indent=2)


def as_text(status: Mapping[str, Any]) -> str:
    """For people: the cluster in a few lines, then a line for each node."""
    lines = [
        f"emulated cluster {status['id']} in {status['folder']}, {status['phase']} since {status['up_since']}",
        f"Slurm {status['slurm_version']}: {status['controller_ping']}",
        f"user {status['user']} (uid {status['uid']}), account {status['account']}, shared {status['shared']}",
        f"subnet {status['subnet']} on {status['bridge']}, {status['cpus']} CPUs and {status['memory_mb']} MB"
        f" claimed a node, gres {status['gres'] or 'none'}",
        f"proctrack {status['proctrack']}, control groups {status['cgroup']}"
        + (f" ({status['cgroup_why']})" if status["cgroup_why"] else ""),
    ]
    if not status["accounting"]:
        lines.append("no accounting: neither MariaDB nor slurmdbd, and `sacct` fails")
    lines += [f"--conf {line}" for line in status["settings"]]
    lines += [
        f"fault {fault['id']}: {_kind(fault)}, {fault['state']} until {fault['until']}"
        for fault in status["faults"]
    ]
    lines.append(f"{'node':<6} {'power':<6} {'slurm':<12} {'address':<16} pid")
    lines += [
        f"{node['name']:<6} {node['power']:<6} {node['slurm_state']:<12} {node['address']:<16} {node['pid'] or '-'}"
        for node in status["nodes"]
    ]
    return "\n".join(lines)


def _kind(fault: Mapping[str, Any]) -> str:
    """What a fault does to whom, in words."""
    sides = fault["options"]
    cut = f"{','.join(sides['from'])}|{','.join(sides['to'])}" if "from" in sides else ""
    return f"{fault['kind']} {cut or ','.join(fault['nodes'])}".rstrip()
