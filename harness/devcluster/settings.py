"""A site's own lines for slurm.conf (``up --conf``): which are taken, and where they go. Pure.

They are for trying what a site does that we do not: preemption, a second partition, other limits. A
line takes the place of ours with the same key, or is added. Refused is what the emulation itself
stands on (names, addresses, ports, paths, the user, authentication, how jobs are tracked), since a
cluster without it would not come up, or would touch what is not its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from harness.devcluster.errors import ClusterError

_NODE_KEYS = (
    "CPUs", "Boards", "Sockets", "SocketsPerBoard", "CoresPerSocket", "ThreadsPerCore", "RealMemory",
    "Feature", "Features", "Weight", "TmpDisk",
)  # fmt: skip
# Several lines with these keys are several things; with any other key the last one would silently win.
_MANY = ("partitionname", "nodename", "nodeset", "downnodes")

# Keys in lower case (Slurm does not mind the case), and what to do instead.
_REFUSED = {
    "accountingstoragetype": "use --no-accounting, or leave it: slurmdbd is the default",
    "grestypes": "use --gres NAME:COUNT",
    "proctracktype": "it follows from the machine's control groups: see `status`",
    "taskplugin": "it follows from the machine's control groups: see `status`",
    "include": "give the lines themselves",
}
_STANDS_ON = re.compile(
    r"clustername|control(machine|addr)|backup\w*|slurmctld(host|addr|port|portrange|primary\w*)|slurmdport"
    r"|slurmd?user|auth\w+|cred(type|info)|statesavelocation|slurmdspooldir|\w+(pidfile|logfile)|plugindir"
    r"|accountingstorage(host|port|pass|user|loc|backuphost|externalhost|parameters)|jobcomp\w+|chosloc"
    r"|rebootprogram|nodeaddr|nodehostname"
)


def check(settings: Sequence[str]) -> tuple[str, ...]:
    """The settings, if each may be taken; a ClusterError says which may not, and what to do."""
    seen: set[str] = set()
    for text in settings:
        key, value = _split(text)
        low = key.lower()
        if low in _REFUSED:
            raise _refusal(text, _REFUSED[low])
        if _STANDS_ON.fullmatch(low):
            raise _refusal(text, f"the emulation stands on {key}; leave it out")
        if low == "slurmdparameters" and "config_overrides" not in value.split(","):
            raise _refusal(text, "keep config_overrides in it: nodes claim CPUs that are not there")
        if low == "nodename":
            _node_options(text)
        if low in seen and low not in _MANY:
            raise _refusal(text, f"{key} is given twice; give it once, with what is meant")
        seen.add(low)
    return tuple(settings)


def merge(lines: Sequence[str], settings: Sequence[str]) -> list[str]:
    """slurm.conf's lines with the settings in place of the same key, or after them.

    A PartitionName line takes the place of the partition of that name. PartitionName=DEFAULT goes before
    every partition, since it concerns those that follow. NodeName is not ours to place: see `node_options`.
    """
    found = list(lines)
    for text in settings:
        key, value = _split(text)
        low = key.lower()
        if low == "nodename":
            continue
        name = value.split()[0].lower() if low == "partitionname" else None
        place = next((i for i, line in enumerate(found) if _same(line, low, name)), None)
        if low in _MANY and low != "partitionname":
            place = None
        if place is not None:
            found[place] = text
        elif name == "default":
            first = next(i for i, line in enumerate(found) if line.lower().startswith("partitionname="))
            found.insert(first, text)
        else:
            found.append(text)
    return found


def node_options(settings: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
    """What is said of single nodes: name -> option -> value."""
    found: dict[str, dict[str, str]] = {}
    for text in settings:
        if _split(text)[0].lower() == "nodename":
            names, options = _node_options(text)
            for name in names:
                found.setdefault(name, {}).update(options)
    return found


def check_nodes(settings: Sequence[str], names: Sequence[str]) -> None:
    """Refuse what is said of nodes that there are not."""
    unknown = sorted(set(node_options(settings)) - set(names))
    if unknown:
        raise ClusterError(
            f"--conf NodeName={unknown[0]}: there are {names[0]} to {names[-1]}; name one of them",
            exit_status=2,
        )


def _split(text: str) -> tuple[str, str]:
    match = re.fullmatch(r"([A-Za-z]+)=([^\n\r#]*\S)", text)
    if match is None:
        raise ClusterError(
            f"--conf {text!r} is not KEY=VALUE on one line (and no '#'), such as MaxArraySize=101",
            exit_status=2,
        )
    return match[1], match[2]


def _same(line: str, key: str, partition: str | None) -> bool:
    ours, _, value = line.partition("=")
    return ours.lower() == key and (partition is None or value.split()[0].lower() == partition)


def _node_options(text: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """'NodeName=p[1-2] Feature=fast' as names and options."""
    expression, *words = _split(text)[1].split()
    match = re.fullmatch(r"p(?:([0-9]{1,3})|\[([0-9]{1,3})-([0-9]{1,3})\])", expression)
    if match is None:
        raise _refusal(text, "name one node (p1) or a range of them (p[1-2])")
    first, last = (match[1], match[1]) if match[1] else (match[2], match[3])
    options: dict[str, str] = {}
    known = {key.lower(): key for key in _NODE_KEYS}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not value or key.lower() not in known:
            raise _refusal(
                text, f"{word}: of a node can be said {', '.join(_NODE_KEYS)}; others are the emulation's"
            )
        options[known[key.lower()]] = value
    return tuple(f"p{number}" for number in range(int(first), int(last) + 1)), options


def _refusal(text: str, why: str) -> ClusterError:
    return ClusterError(f"--conf '{text}': refused: {why}", exit_status=2)
