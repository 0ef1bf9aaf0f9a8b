"""Facts of a cluster -> a site file, each value with where it came from. Pure.

It guesses nothing silently: a value that no source named is a default, and its comment says "check this
line". It takes the smaller of two limits, and the smallest node of a partition, so that what fits the file
fits the cluster.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from harness.sites import limits, texts
from harness.sites.facts import CHECK, Facts, NoPartition, Place, chosen, places_of, slug
from harness.sites.texts import Bound, Gres, Limit, Mount, Node, SlurmPartition
from harness.sites.yaml_text import Line, document

_HOMES = ("HOME", "SCRATCH", "WORK", "PROJECT", "PROJECTS", "DATA", "GROUP_HOME", "PWD")
# MPI library -> plug-ins that it speaks, best first.
_SPEAKS = (
    (re.compile("open ?mpi|prrte", re.I), ("pmix", "pmi2")),
    (re.compile("cray", re.I), ("cray_shasta", "pmi2", "pmix")),
    (re.compile("intel", re.I), ("pmi2", "pmix")),
    (re.compile("mvapich", re.I), ("pmi2", "pmix")),
    (re.compile("mpich", re.I), ("pmi2", "pmix")),
)


def site_file(facts: Facts, *, wanted: Sequence[str], name: str, kind: str, header: str) -> str:
    """The text of a site file for the partitions ``wanted``, the first of them the site's own.

    Raises:
        NoPartition: the cluster has no such partition, or none that jobs may use.
    """
    places = [place for partition in chosen(facts, wanted) for place in places_of(facts, partition)]
    if not places:
        names = ", ".join(wanted) or "the default one"
        raise NoPartition(
            f"partition {names}: has no node that jobs can use now (`sinfo -R` says why); choose another "
            f"by --partition, there are: {', '.join(sorted(facts.visible)) or 'none'}"
        )
    first, *others = places
    version = f"Slurm {facts.version}" if facts.version else "Slurm"
    cluster = facts.config.get("ClusterName", "")
    lines = [
        Line("schema", 1),
        Line(
            "name",
            slug(name or cluster or "cluster"),
            "--name" if name else "scontrol show config: ClusterName",
        ),
        Line("description", f"{cluster or 'a cluster'}, {version}", "for people; change it as you like"),
        Line(
            "kind",
            kind,
            "--kind" if kind != "production" else "nothing beyond the job's own processes is disturbed",
        ),
        Line("launcher", "slurm"),
        *_options(facts, first),
        _limits(facts, first, whole=True),
        _node(facts, first),
        _python(facts, first),
        Line("environment", {}, "variables for every job"),
        Line("modules", _modules(facts), _modules_from(facts)),
        Line("prologue", [], "shell that every job runs after its modules"),
        _mpi(facts),
        Line(
            "network",
            (Line("interface", None, f"gloo and NCCL choose; `site check` names the one in use; {CHECK}"),),
        ),
        _paths(facts),
        _requeue(facts),
        _accounting(facts),
        Line("power", None, "only with kind: staging, and nodes that are yours to switch off"),
        Line(
            "scheduler", (Line("poll_s", 10, "default"), Line("call_timeout_s", 30, "default"), _calls(facts))
        ),
    ]
    if others:
        lines.append(
            Line("partitions", tuple(_part(facts, first, place) for place in others), _WHY_PARTITIONS)
        )
    unused = [p for p in sorted(facts.visible) if p not in {place.partition.name for place in places}]
    if unused:
        header += (
            f"\nOther partitions here: {', '.join(unused)}. Probe them too with further --partition NAME."
        )
    return document(lines, header)


_WHY_PARTITIONS = "nodes that differ; a group of a campaign runs there with `partition: NAME`"


# ---- the parts of the file ----


def _options(facts: Facts, place: Place) -> list[Line]:
    p = place.partition
    which = "scontrol show partition: Default=YES" if p.default else "scontrol show partition"
    if p.reservation_needed:
        which += "; it needs a reservation (ReqResv=YES)"
    if not p.up:
        which += f"; it is {p.state} now, so that jobs would wait or be refused; {CHECK}"
    return [
        Line("partition", p.name, which),
        _account(facts, p),
        Line("qos", None, _qos_from(facts, p)),
        Line("reservation", None, f"ReqResv=YES: name one; {CHECK}" if p.reservation_needed else "none"),
        Line("constraint", place.constraint or None, place.split or "none"),
        Line("gres", None, "none beside GPUs"),
        Line(
            "licenses",
            None,
            f"there are: {facts.config['Licenses']}" if texts.first(facts.config, "Licenses") else "none",
        ),
    ]


def _account(facts: Facts, partition: SlurmPartition) -> Line:
    names = list(dict.fromkeys(a.name for a in _associations(facts, partition)))
    if not facts.associations:
        return Line("account", None, f"your default account; {_why(facts, 'sacctmgr')}")
    allowed = [n for n in names if n in partition.allow_accounts] if partition.allow_accounts else names
    if partition.allow_accounts and not allowed:
        return Line(
            "account",
            None,
            f"the partition allows {', '.join(partition.allow_accounts)}, and yours are {', '.join(names)}; {CHECK}",
        )
    if len(allowed) == 1:
        more = " that the partition allows" if partition.allow_accounts else ""
        return Line("account", allowed[0], f"sacctmgr show assoc: the only one of yours{more}")
    return Line("account", None, f"sacctmgr show assoc: your default of {', '.join(allowed)}; {CHECK}")


def _qos_from(facts: Facts, partition: SlurmPartition) -> str:
    defaults = {a.default_qos for a in _associations(facts, partition) if a.default_qos}
    said = f"your default, {', '.join(sorted(defaults))}" if defaults else "your default"
    return f"sacctmgr show assoc: {said}" if facts.associations else said


def _associations(facts: Facts, partition: SlurmPartition) -> list[Limit]:
    return [a for a in facts.associations if a.partition in ("", partition.name)]


def _limits(facts: Facts, place: Place, *, whole: bool) -> Line:
    p = place.partition
    applying = _applying(facts, p)
    nodes = [(len(place.nodes), f"sinfo: {len(place.nodes)} of {place.all_nodes} nodes can be used now")]
    times: list[tuple[int, str]] = []
    submit: list[tuple[int, str]] = []
    if p.max_nodes is not None:
        nodes.append((p.max_nodes, f"scontrol show partition: MaxNodes={p.max_nodes}"))
    if p.max_time_min is not None:
        times.append((p.max_time_min, f"scontrol show partition: MaxTime is {p.max_time_min} minutes"))
    lists = {limits.NODES: nodes, limits.TIME: times, limits.JOBS: submit}
    whole_nodes = not p.oversubscribe.startswith("FORCE")
    node = {line.key: line.value for line in _node(facts, place).value}
    for one in limits.ceilings(applying, cpus=node["cpus"] if whole_nodes else None, gpus=node["gpus"]):
        lists[one.key].append((one.most, one.said))
    time, from_ = min(times, default=(1440, f"no limit found, a day taken; {CHECK}"))
    if not 3 <= time <= 43_200:
        from_ += f", beyond what a site file can say; {CHECK}"
    lines = [
        Line("max_nodes", *_at_least_one(min(nodes))),
        Line("max_time_min", min(max(time, 3), 43_200), from_),
    ]
    if whole:
        size = texts.number(texts.first(facts.config, "MaxArraySize"))
        lines.append(
            Line("max_array_size", 1000, f"MaxArraySize is not told; its default; {CHECK}")
            if size is None
            else Line(
                "max_array_size",
                min(max(size - 1, 1), 4_000_001),
                f"scontrol show config: MaxArraySize={size}",
            )
        )
        none = "no limit of your association or quality of service"
        unknown = (
            f"{_why(facts, 'sacctmgr')}; {CHECK}" if not facts.associations else _unenforced(facts) or none
        )
        most, from_ = min(submit, default=(None, unknown))
        running = min(((b.most, b.said) for b, _ in applying if b.what == "running"), default=None)
        if running is not None:
            from_ += f"; at most {running[0]} run at a time ({running[1]})"
        lines.append(Line("max_jobs_in_queue", None if most is None else max(most, 1), from_))
    return Line("limits", tuple(lines))


def _at_least_one(found: tuple[int, str]) -> tuple[int, str]:
    return (found[0], found[1]) if found[0] >= 1 else (1, f"{found[1]}; {CHECK}")


def _unenforced(facts: Facts) -> str:
    enforced = limits.enforced(facts.config)
    return "" if enforced else "AccountingStorageEnforce has no limits in it, so none are enforced"


def _applying(facts: Facts, partition: SlurmPartition) -> list[tuple[Bound, str]]:
    """Limits that Slurm enforces on this user's jobs there."""
    if not limits.enforced(facts.config):
        return []
    own = _associations(facts, partition)
    names = {a.default_qos or "normal" for a in own} | {partition.qos} - {""}
    qualities = [facts.qualities[name] for name in sorted(names) if name in facts.qualities]
    return limits.bounds(own, facts.accounts, qualities)


def _node(facts: Facts, place: Place) -> Line:
    nodes, p = place.nodes, place.partition
    cpus = min(n.cpus for n in nodes)
    alike = len({n.cpus for n in nodes}) == 1
    from_ = "CPUEfctv (CPUTot before 22.05)" + (
        "" if alike else f"; the smallest: {_span(n.cpus for n in nodes)}"
    )
    if p.max_cpus_per_node is not None and p.max_cpus_per_node < cpus:
        cpus, from_ = p.max_cpus_per_node, f"scontrol show partition: MaxCPUsPerNode={p.max_cpus_per_node}"
    architecture = place.architecture or None
    memory = "MEMORY" in facts.config.get("SelectTypeParameters", "").upper()
    smallest = min(n.memory_mb for n in nodes)
    forced = p.oversubscribe.startswith("FORCE")
    return Line(
        "node",
        (
            Line(
                "architecture",
                architecture,
                "Arch" if architecture else f"not told, as on this machine ({facts.machine}); {CHECK}",
            ),
            Line("cpus", max(cpus, 1), from_),
            *_gpus(facts, nodes),
            Line(
                "memory_mb",
                0 if memory else None,
                f"all of it: SelectTypeParameters counts memory; RealMemory is {smallest} MB"
                + ("" if len({n.memory_mb for n in nodes}) == 1 else " at least")
                if memory
                else f"SelectTypeParameters does not count memory; RealMemory is {smallest} MB",
            ),
            Line(
                "exclusive",
                not forced,
                f"OverSubscribe={p.oversubscribe} shares nodes whatever is asked; times mean little"
                if forced
                else "whole nodes, so that no neighbour is measured"
                + (", as the partition gives them anyway" if p.oversubscribe == "EXCLUSIVE" else ""),
            ),
        ),
        f"scontrol show node: {len(nodes)} nodes of {p.name}" + (f", {architecture}" if architecture else ""),
    )


def _span(numbers: Any) -> str:
    counts = Counter(numbers)
    return ", ".join(f"{value} on {count}" for value, count in sorted(counts.items()))


def _gpus(facts: Facts, nodes: Sequence[Node]) -> list[Line]:
    """GPUs that every node has: of the commonest type where all have it, else of any type."""
    have = [n for n in nodes if n.gpus]
    if not have:
        return [Line("gpus", 0, "Gres names no GPU")]
    if len(have) < len(nodes):
        said = f"only {len(have)} of {len(nodes)} nodes have GPUs ({_kinds(have)}); a constraint would keep to them"
        return [Line("gpus", 0, f"{said}; {CHECK}")]
    types = Counter(g.type for n in nodes for g in {Gres("gpu", g.type, 0) for g in n.gpus})
    common = [t for t, count in types.items() if count == len(nodes)]
    several = len(types) > 1
    kind = max(common, key=lambda t: min(_count(n, t) for n in nodes), default="") if several else ""
    counts = [_count(n, kind) if kind else sum(g.count for g in n.gpus) for n in nodes]
    mig = any(g.mig for n in nodes for g in n.gpus if not kind or g.type == kind)
    tres = "cons_tres" in facts.config.get("SelectType", "select/cons_tres")
    from_ = f"Gres: {_kinds(nodes)}"
    if len(set(counts)) > 1:
        from_ += f"; the smallest: {_span(counts)}"
    if several and not kind:
        from_ += f"; types differ: add gpu_type to have like nodes; {CHECK}"
    lines = [Line("gpus", min(counts), from_ + facts.gpus_here)]
    if kind:
        lines.append(Line("gpu_type", kind, "the type that every node has"))
    lines.append(
        Line(
            "gpu_request",
            "gpus-per-node" if tres else "gres",
            f"SelectType={facts.config.get('SelectType', 'unknown')}",
        )
    )
    if mig:
        lines.append(Line("mig", True, "the type is that of MIG slices"))
    return lines


def _count(node: Node, kind: str) -> int:
    return sum(g.count for g in node.gpus if g.type == kind)


def _kinds(nodes: Sequence[Node]) -> str:
    counts = Counter(f"gpu:{g.type}:{g.count}" if g.type else f"gpu:{g.count}" for n in nodes for g in n.gpus)
    return ", ".join(f"{kind} on {count}" for kind, count in sorted(counts.items()))


def _python(facts: Facts, place: Place) -> Line:
    if place.architecture and place.architecture != facts.machine:
        return Line(
            "python",
            "/name/an/interpreter/of/these/nodes",
            f"the nodes are {place.architecture}, and the interpreter that probed is for {facts.machine}; {CHECK}",
        )
    mount = texts.mount_of(facts.python, list(facts.mounts))
    if mount is not None and mount.network:
        return Line("python", facts.python, f"the interpreter that probed; on {mount.path} ({mount.type})")
    return Line(
        "python", facts.python, f"the interpreter that probed; its folder may not be on the nodes; {CHECK}"
    )


def _modules(facts: Facts) -> list[str]:
    loaded = [m for m in facts.environment.get("LOADEDMODULES", "").split(":") if m and not m.startswith("-")]
    return [m for m in loaded if m.split() == [m]]


def _modules_from(facts: Facts) -> str:
    return f"those of the shell that probed (LOADEDMODULES); {CHECK}" if _modules(facts) else "none"


def _mpi(facts: Facts) -> Line:
    listed = f"srun --mpi=list: {', '.join(facts.mpi)}" if facts.mpi else _why(facts, "srun")
    default = texts.first(facts.config, "MpiDefault")
    library = facts.mpi_library
    speaks = next((plugins for name, plugins in _SPEAKS if library and name.search(library)), ())
    usable = [p for p in speaks if p in facts.mpi]
    if usable:
        plugin, from_ = usable[0], f"{library} of mpi4py here speaks it; {listed}"
    elif default and default in facts.mpi:
        plugin, from_ = default, f"scontrol show config: MpiDefault; {listed}; {CHECK}"
    else:
        plugin = next((p for p in ("pmix", "pmi2") if p in facts.mpi), "none" if facts.mpi else "pmix")
        from_ = f"no MPI library found here, a common one taken; {listed}; {CHECK}"
    return Line(
        "mpi", (Line("plugin", plugin, from_), Line("environment", {}, "variables for jobs with MPI ranks"))
    )


def _paths(facts: Facts) -> Line:
    local = texts.first(facts.config, "TmpFS")
    usable = local.startswith("/") and "%" not in local
    private = "tmpfs" in facts.config.get("JobContainerType", "")
    shared = shared_folders(facts)
    kept = [m for m in facts.mounts if m.path in shared]
    late = max((_late_s(m) for m in kept), default=0)
    others = sorted(m.path for m in facts.mounts if m.network and "rw" in m.options and m.path not in shared)
    return Line(
        "paths",
        (
            Line(
                "node_local",
                local if usable else "/tmp",
                ("scontrol show config: TmpFS" if usable else f"TmpFS names none; {CHECK}")
                + (", private to each job (JobContainerType)" if private else ""),
            ),
            Line(
                "shared",
                shared,
                "/proc/mounts: "
                + ", ".join(f"{m.path} is {m.type}" for m in kept)
                + (f"; others: {', '.join(others[:8])}" if others else "")
                if shared
                else "no file system of the network in /proc/mounts holds your folders, so not checked; "
                + (f"there are: {', '.join(others[:8])}; " if others else "")
                + CHECK,
            ),
            Line(
                "visible_after_s",
                late,
                f"attribute cache of {', '.join(m.type for m in kept if _late_s(m))}; `site check` measures; {CHECK}"
                if late
                else "nothing says that files show late; `site check` measures",
            ),
        ),
    )


def shared_folders(facts: Facts) -> list[str]:
    """Mounts of the network that this user's own folders lie on."""
    known = list(facts.mounts)
    homes = [facts.environment.get(name, "") for name in _HOMES]
    found = [texts.mount_of(home, known) for home in homes if home.startswith("/")]
    return sorted({m.path for m in found if m is not None and m.network and "rw" in m.options})


def _late_s(mount: Mount) -> int:
    """How long NFS may keep old attributes: actimeo or acdirmax, 60 s unless told, and noac for none."""
    if not mount.type.startswith("nfs") or "noac" in mount.options:
        return 0
    told = {k: v for k, _, v in (option.partition("=") for option in mount.options)}
    return min(int(next((told[k] for k in ("actimeo", "acdirmax") if told.get(k, "").isdigit()), "60")), 600)


def _requeue(facts: Facts) -> Line:
    value = texts.first(facts.config, "JobRequeue")
    if value == "1":
        return Line("requeue", True, "scontrol show config: JobRequeue=1")
    if value == "0":
        return Line(
            "requeue",
            False,
            f"scontrol show config: JobRequeue=0; --requeue may be allowed all the same: ask, or try true; {CHECK}",
        )
    return Line("requeue", True, f"JobRequeue is not told; Slurm's default; {CHECK}")


def _accounting(facts: Facts) -> Line:
    kind = texts.first(facts.config, "AccountingStorageType")
    if facts.accounts_answer:
        return Line("accounting", True, "sacct answered")
    if kind in ("", "accounting_storage/none"):
        return Line("accounting", False, "scontrol show config: AccountingStorageType names none")
    return Line("accounting", False, f"{_why(facts, 'sacct')}; {CHECK}")


def _calls(facts: Facts) -> Line:
    limited = "rl_enable" in facts.config.get("SlurmctldParameters", "")
    return Line(
        "calls_per_minute", 60, "default" + ("; slurmctld limits users too (rl_enable)" if limited else "")
    )


def _part(facts: Facts, first: Place, place: Place) -> Line:
    """One entry of ``partitions``: what differs from the site's own."""
    lines = [
        line
        for line in _options(facts, place)
        if line.key in ("partition", "account", "constraint", "reservation")
    ]
    lines += [_limits(facts, place, whole=False), _node(facts, place)]
    if place.architecture != first.architecture:
        lines += [
            _python(facts, place),
            Line("modules", [], f"the site's own may be of {first.architecture}; {CHECK}"),
        ]
    return Line(place.key, tuple(lines), place.split)


def _why(facts: Facts, command: str) -> str:
    return facts.trouble.get(command, f"{command} told nothing")[:300]
