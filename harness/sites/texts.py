"""What Slurm's commands and /proc print -> facts. Pure, and forgiving: a field that is not there is not known.

Only what versions 20.11 to 25.11 print alike is read: ``scontrol -o``, ``sinfo -o``, ``sacctmgr -nP``. Their
JSON needs plugins that a site may lack. UNLIMITED, (null), N/A and INFINITE are all None.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_KEY = re.compile(r"(?:^|\s)([A-Za-z][A-Za-z0-9_/:.\[\]-]*)=")
_NOTHING = frozenset(
    ("", "(null)", "none", "n/a", "unlimited", "infinite", "unknown", "notset", "not_set", "-1", "4294967295")
)
_OUT_OF_SERVICE = re.compile(r"DOWN|DRAIN|DRAINED|DRAINING|FAIL|FAILING|FUTURE|INVAL|INVALID_REG|NOT_RESPONDING|"
                             r"UNKNOWN|ERROR|REBOOT_ISSUED")  # fmt: skip
_NETWORK = re.compile(
    r"^(nfs4?|lustre|gpfs|beegfs|ceph|panfs|wekafs|pvfs2|orangefs|afs|cifs|smb3|9p|virtiofs|"
    r"fuse\.(ceph|ceph-fuse|glusterfs|beegfs|sshfs|juicefs|wekafs|s3fs|lustre))$"
)


_SUFFIX = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True)
class Gres:
    """One kind of generic resource of a node."""

    name: str
    type: str
    count: int

    @property
    def mig(self) -> bool:
        """Whether its type is that of MIG slices, such as 1g.10gb or a100_3g.20gb."""
        return re.search(r"(^|[_-])\d+g\.\d+gb", self.type) is not None


@dataclass(frozen=True)
class Node:
    """A node as Slurm describes it. ``architecture`` is "" where it is not known."""

    name: str
    architecture: str
    cpus: int
    memory_mb: int
    gres: tuple[Gres, ...]
    features: tuple[str, ...]
    state: str
    partitions: tuple[str, ...]

    @property
    def in_service(self) -> bool:
        """Whether jobs can start on it, if not at once: one that is powered down to save energy counts."""
        parts = re.split(r"[+~#!%$@^-]", self.state.upper())
        return "*" not in self.state and not any(_OUT_OF_SERVICE.fullmatch(part) for part in parts)

    @property
    def gpus(self) -> tuple[Gres, ...]:
        """Its GPUs, by type."""
        return tuple(g for g in self.gres if g.name == "gpu" and g.count)


@dataclass(frozen=True)
class SlurmPartition:
    """A partition as Slurm describes it; None is without limit."""

    name: str
    default: bool
    up: bool
    state: str
    total_nodes: int | None
    max_nodes: int | None
    max_time_min: int | None
    max_cpus_per_node: int | None
    allow_accounts: tuple[str, ...]
    oversubscribe: str
    qos: str
    reservation_needed: bool
    root_only: bool
    hidden: bool


@dataclass(frozen=True)
class Bound:
    """One limit of an association or of a quality of service."""

    what: str  # nodes, cpus, gpus, time_min, jobs (in the queue), running (jobs)
    most: int
    field: str  # as Slurm calls it
    said: str  # as Slurm would write it
    shared: bool = False  # of all jobs together, so that other jobs count


@dataclass(frozen=True)
class Limit:
    """Limits of an association or of a quality of service."""

    name: str  # account, or quality of service
    partition: str
    default_qos: str
    bounds: tuple[Bound, ...] = ()
    parent: str = ""  # account above


@dataclass(frozen=True)
class Mount:
    """One line of /proc/mounts."""

    source: str
    path: str
    type: str
    options: tuple[str, ...]

    @property
    def network(self) -> bool:
        """Whether it is a file system that several machines can mount."""
        return _NETWORK.match(self.type) is not None


def nothing(value: str) -> bool:
    """Whether a value is one of Slurm's many words for none."""
    return value.strip().lower() in _NOTHING


def number(value: str) -> int | None:
    """A whole number, perhaps with a suffix of words (``10 sec``); None for Slurm's words for none."""
    found = re.match(r"\d+", value.strip())
    return None if nothing(value) or not found else int(found.group())


def minutes(value: str) -> int | None:
    """``days-hh:mm:ss``, ``hh:mm:ss``, ``mm:ss`` or minutes, seconds dropped; None for words for none."""
    if nothing(value):
        return None
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", value.strip())
    if not found:
        return None
    days, first, second, _ = (int(part) if part else 0 for part in found.groups())
    if found.group(1) is not None:  # days-hh[:mm[:ss]]
        return days * 1440 + first * 60 + second
    if found.group(4) is not None:  # hh:mm:ss
        return first * 60 + second
    return first  # mm[:ss]


def records(text: str) -> Iterator[dict[str, str]]:
    """Records of ``scontrol -o``: one a line, ``Key=value`` parted by blanks, where values may hold blanks."""
    for line in text.splitlines():
        keys = list(_KEY.finditer(line))
        ends = [key.start() for key in keys[1:]] + [len(line)] * bool(keys)
        record: dict[str, str] = {}
        for key, end in zip(keys, ends, strict=True):
            record.setdefault(key.group(1), line[key.end() : end].strip())  # comments and reasons come last
        if record:
            yield record


def config(text: str) -> dict[str, str]:
    """``scontrol show config``: ``Key = value`` lines, those of cgroup and MPI as well."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, sign, value = line.partition("=")
        if sign and key.strip() and " " not in key.strip():
            found.setdefault(key.strip(), value.strip())
    return found


def gres(text: str) -> tuple[Gres, ...]:
    """``gpu:h100:8(S:0-1),nvme:1``: name, type if there is one, count."""
    found = []
    for part in [] if nothing(text) else re.sub(r"\([^)]*\)", "", text).split(","):
        name, *rest = part.strip().split(":")
        count = re.fullmatch(r"(\d+)([KMG]?)", rest[-1]) if rest else None
        kind = rest[:-1] if count else rest
        many = int(count.group(1)) * _SUFFIX[count.group(2)] if count else 1
        if name:
            found.append(Gres(name, ":".join(kind), many))
    return tuple(found)


def nodes(text: str) -> list[Node]:
    """``scontrol -o show node``."""
    return [
        Node(
            name=r["NodeName"],
            architecture="" if nothing(r.get("Arch", "")) else r["Arch"],
            cpus=number(r.get("CPUEfctv", "")) or number(r.get("CPUTot", "")) or 1,
            memory_mb=number(r.get("RealMemory", "")) or 0,
            gres=gres(r.get("Gres", "")),
            features=_words(r.get("ActiveFeatures", "") or r.get("AvailableFeatures", "")),
            state=r.get("State", "UNKNOWN"),
            partitions=_words(r.get("Partitions", "")),
        )
        for r in records(text)
        if "NodeName" in r
    ]


def partitions(text: str) -> list[SlurmPartition]:
    """``scontrol -o show partition``."""
    return [
        SlurmPartition(
            name=r["PartitionName"],
            default=r.get("Default") == "YES",
            up=r.get("State", "UP") == "UP",
            state=r.get("State", "UP"),
            total_nodes=number(r.get("TotalNodes", "")),
            max_nodes=number(r.get("MaxNodes", "")),
            max_time_min=minutes(r.get("MaxTime", "")),
            max_cpus_per_node=number(r.get("MaxCPUsPerNode", "")),
            allow_accounts=() if r.get("AllowAccounts", "ALL") == "ALL" else _words(r["AllowAccounts"]),
            oversubscribe=r.get("OverSubscribe", "NO"),
            qos="" if nothing(r.get("QoS", "")) else r["QoS"],
            reservation_needed=r.get("ReqResv") == "YES",
            root_only=r.get("RootOnly") == "YES",
            hidden=r.get("Hidden") == "YES",
        )
        for r in records(text)
        if "PartitionName" in r
    ]


SINFO_FORMAT = "%P|%a|%l|%D|%c|%m|%G|%f|%T"


def visible_partitions(text: str) -> dict[str, int]:
    """``sinfo -h -o SINFO_FORMAT``: partitions that this user sees, and how many nodes each has."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        parts = line.split("|")
        if len(parts) == 9:
            name = parts[0].rstrip("*")
            found[name] = found.get(name, 0) + (number(parts[3]) or 0)
    return found


def nodes_of_sinfo(text: str) -> list[Node]:
    """The same lines as nodes, each line one of many alike: where ``scontrol show node`` is not allowed."""
    found: list[Node] = []
    for line in text.splitlines():
        parts = line.split("|")
        if len(parts) == 9:
            name, _, _, count, cpus, memory, resources, features, state = parts
            for index in range(number(count) or 0):
                found.append(
                    Node(
                        f"{name.rstrip('*')}-{len(found)}-{index}",
                        "",
                        number(cpus) or 1,
                        number(memory) or 0,
                        gres(resources),
                        _words(features),
                        state,
                        (name.rstrip("*"),),
                    )
                )
    return found


ASSOCIATION_FIELDS = (
    "Cluster", "Account", "ParentName", "Partition", "DefaultQOS",
    "MaxJobs", "MaxSubmit", "MaxWall", "MaxTRES", "GrpTRES", "GrpJobs", "GrpSubmit",
)  # fmt: skip
QOS_FIELDS = (
    "Name", "MaxJobsPU", "MaxSubmitPU", "MaxWall", "MaxTRES", "MaxTRESPU", "GrpTRES", "GrpJobs", "GrpSubmit",
)  # fmt: skip
_TRES = {"node": "nodes", "cpu": "cpus", "gres/gpu": "gpus"}


def associations(text: str, cluster: str) -> list[Limit]:
    """``sacctmgr -nP show assoc format=ASSOCIATION_FIELDS``: those of one cluster."""
    found = []
    for line in text.splitlines():
        parts = line.split("|")
        if len(parts) == len(ASSOCIATION_FIELDS) and parts[0].lower() in ("", cluster.lower()):
            _, account, parent, partition, qos = parts[:5]
            said = dict(zip(ASSOCIATION_FIELDS[5:], parts[5:], strict=True))
            found.append(Limit(account, partition, qos, _bounds(said), parent))
    return found


def qualities(text: str) -> dict[str, Limit]:
    """``sacctmgr -nP show qos format=QOS_FIELDS``, by name."""
    found = {}
    for line in text.splitlines():
        parts = line.split("|")
        if len(parts) == len(QOS_FIELDS):
            said = dict(zip(QOS_FIELDS[1:], parts[1:], strict=True))
            found[parts[0]] = Limit(parts[0], "", "", _bounds(said))
    return found


def _bounds(fields: Mapping[str, str]) -> tuple[Bound, ...]:
    found: list[Bound] = []
    for field, value in fields.items():
        shared = field.startswith("Grp") or field.endswith("PU")
        if "TRES" in field:
            for part in value.split(","):
                name, _, count = part.strip().partition("=")
                if name in _TRES and (most := number(count)) is not None:
                    found.append(Bound(_TRES[name], most, field, f"{field}={name}={most}", shared))
        elif field == "MaxWall":
            if (most := minutes(value)) is not None:
                found.append(Bound("time_min", most, field, f"MaxWall is {most} minutes"))
        elif (most := number(value)) is not None:
            what = "jobs" if "Submit" in field else "running"
            found.append(Bound(what, most, field, f"{field}={most}", shared))
    return tuple(found)


MPI_LIST = ("sh", "-c", "exec srun --mpi=list 2>&1")  # before 22.05 it came on standard error


def mpi_plugins(text: str) -> tuple[str, ...]:
    """``srun --mpi=list``: plug-ins without versions, in the order printed."""
    found: list[str] = []
    for line in text.splitlines():
        word = line.removeprefix("srun:").strip()
        if re.fullmatch(r"[a-z0-9_]{1,32}", word) and not re.fullmatch(r"pmix_v\d+", word):
            found.append(word)
    return tuple(dict.fromkeys(found))


def mounts(text: str) -> list[Mount]:
    """/proc/mounts; later lines hide earlier ones of the same path."""
    found: dict[str, Mount] = {}
    for line in text.splitlines():
        parts = line.split(" ")
        if len(parts) >= 4:
            source, path, kind, options = (_unescape(p) for p in parts[:4])
            found.pop(path, None)
            found[path] = Mount(source, path, kind, tuple(options.split(",")))
    return list(found.values())


def mount_of(path: str, known: list[Mount]) -> Mount | None:
    """The mount that a path lies on."""
    return max(
        (m for m in known if path == m.path or path.startswith(m.path.rstrip("/") + "/")),
        key=lambda m: len(m.path),
        default=None,
    )


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), text)


def _words(text: str) -> tuple[str, ...]:
    return () if nothing(text) else tuple(w for w in (part.strip() for part in text.split(",")) if w)


def first(values: Mapping[str, str], *names: str) -> str:
    """The first of these values that says something; "" where none does."""
    return next((values[n] for n in names if n in values and not nothing(values[n])), "")
