"""Lines about the nodes themselves: see ``harness.sites.judge``. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.model.site import Site
from harness.runtime.clocks import of_trips
from harness.runtime.site_probe import NO_FOLDER, NO_PYTHON
from harness.sites.evidence import NOTE, OK, UNKNOWN, WRONG, Evidence, Line
from harness.sites.texts import Mount

CLOCK_S = 1.0  # events of different nodes are put in order by their times
LATE_S = 5.0  # a file that shows later than this must be allowed for
Looked = Mapping[str, Mapping[str, Any]]


def node_lines(site: Site, seen: Evidence, report: Mapping[str, Any]) -> list[Line]:
    """Every line about the nodes, those first that said nothing."""
    looked: Looked = report.get("looked", {})
    silent = {node: facts for node, facts in looked.items() if "failed" in facts}
    lines = [_silent(site, seen, node, facts) for node, facts in silent.items()]
    good = {node: facts for node, facts in looked.items() if node not in silent}
    if not good:
        return lines
    for part in (_names, _architecture, _cpus, _memory, _python, _gpus, _network, _modules):
        lines += part(site, seen, report, good)
    lines += _shared(site, seen, report, good)
    lines += _node_local(site, seen, report, good)
    lines += _clocks(site, seen, report, good)
    return lines


def _silent(site: Site, seen: Evidence, node: str, facts: Mapping[str, Any]) -> Line:
    code, said = facts["failed"], facts["said"] or "it said nothing"
    if code == NO_FOLDER:
        return Line(
            WRONG,
            "paths.shared",
            f"{node} does not see {seen.folder}, which the batch host does",
            "give a --folder that all nodes see, and name such folders in paths.shared",
        )
    if site.container is not None:
        return Line(
            WRONG,
            "container",
            f"nothing could be started in it on {node}: {said}",
            f"install {site.container.runtime} there, name the module that has it, or write container: null"
            if "not found" in said
            else "see what it says",
        )
    if code == NO_PYTHON:
        return Line(
            WRONG, "python", f"{node} has no {site.python}", "name an interpreter that all nodes have"
        )
    return Line(WRONG, "python", f"a step on {node} ended with code {code}: {said}", "see what it says")


def _names(site: Site, seen: Evidence, report: Mapping[str, Any], good: Looked) -> Iterator[Line]:
    wrong = {n: f["slurmd"] for n, f in good.items() if f["slurmd"] != n}
    hosts = {n: f["host"] for n, f in good.items()}
    if wrong:
        yield Line(
            WRONG, "nodes", f"steps for {', '.join(wrong)} ran on {', '.join(wrong.values())}", "ask the site"
        )
    elif len(set(hosts.values())) < len(hosts):
        yield Line(NOTE, "nodes", f"several call themselves alike: {_each(hosts)}")
    else:
        yield Line(OK, "nodes", f"each runs under its own name: {_each(hosts)}")


def _architecture(site: Site, seen: Evidence, report: Mapping[str, Any], good: Looked) -> Iterator[Line]:
    found = {n: f["architecture"] for n, f in good.items()}
    kinds = sorted(set(found.values()))
    ours = site.node.architecture
    if len(kinds) > 1:
        yield Line(
            WRONG,
            "node.architecture",
            f"the nodes differ: {_each(found)}",
            "give each a partition of its own in `partitions`, with a constraint",
        )
    elif ours not in (None, kinds[0]):
        yield Line(WRONG, "node.architecture", f"{kinds[0]}, and the file says {ours}", f"write {kinds[0]}")
    else:
        yield Line(OK, "node.architecture", kinds[0])


def _cpus(site: Site, seen: Evidence, report: Mapping[str, Any], good: Looked) -> Iterator[Line]:
    given, ours = report.get("slurm_cpus", {}), site.node.cpus
    if not given:
        yield Line(UNKNOWN, "node.cpus", "Slurm did not say how many it gave", "try again")
        return
    least = min(given.values())
    if site.node.exclusive and least < ours:
        yield Line(WRONG, "node.cpus", f"{ours}, and Slurm gave {_each(given)}", f"write cpus: {least}")
    elif site.node.exclusive and least > ours:
        yield Line(
            NOTE,
            "node.cpus",
            f"{ours}, and Slurm gave {_each(given)}: right if other nodes are smaller, else write {least}",
        )
    else:
        yield Line(OK, "node.cpus", f"{ours}; Slurm gave {_each(given)}")
    for node, facts in good.items():
        count, machine, allowed = given.get(node, 0), facts["cpus_machine"], facts["cpus_affinity"]
        if machine < count:
            yield Line(NOTE, "node.cpus", f"{node} has {machine} processors, and Slurm was told {count}")
        elif allowed < min(count, ours):
            yield Line(
                WRONG,
                "node.cpus",
                f"a step on {node} may use {allowed} of the {count} processors that Slurm gave",
                f"write cpus: {allowed}, or ask what binds steps that say --cpu-bind=none",
            )


def _memory(site: Site, seen: Evidence, report: Mapping[str, Any], good: Looked) -> Iterator[Line]:
    limits = {n: f["memory_limit_mb"] for n, f in good.items()}
    words = _each({n: f"{f['memory_mb']} MB, limit {limits[n] or 'none'}" for n, f in good.items()})
    asked = site.node.memory_mb or 0
    short = [n for n, f in good.items() if asked > min(f["memory_mb"], limits[n] or f["memory_mb"])]
    if short:
        yield Line(WRONG, "node.memory_mb", f"{asked}, and there is less: {words}", "write 0, for all of it")
    else:
        yield Line(OK, "node.memory_mb", words)


def _python(site: Site, seen: Evidence, report: Mapping[str, Any], good: Looked) -> Iterator[Line]:
    versions = {n: f["python"] for n, f in good.items()}
    kinds = sorted(set(versions.values()))
    if len(kinds) > 1:
        yield Line(
            WRONG, "python", f"the nodes have different ones: {_each(versions)}", "use one on shared storage"
        )
    else:
        inside = " in the container" if site.container is not None else ""
        yield Line(
            OK, "container.python" if site.container else "python", f"{kinds[0]} starts on every node{inside}"
        )
    packages = sorted({name for f in good.values() for name in f["imports"]})
    for name in packages:
        answers = {n: f["imports"][name] for n, f in good.items()}
        bad = {n: a["problem"] for n, a in answers.items() if "problem" in a}
        found = sorted({a["version"] for a in answers.values() if "version" in a})
        place = f"python: {name}"
        if bad and name in _EXTRA:
            yield Line(NOTE, place, f"cannot be imported, so {_EXTRA[name]}: {_each(bad)}")
        elif bad:
            yield Line(
                WRONG,
                place,
                f"cannot be imported: {_each(bad)}",
                f"pip install '{_PACKAGES[name]}' in that interpreter"
                + (f", or say --without {name}" if name in _OPTIONAL else ""),
            )
        elif len(found) > 1:
            yield Line(
                WRONG, place, f"the nodes have {', '.join(found)}", "use one interpreter on shared storage"
            )
        else:
            yield Line(OK, place, found[0] or "there")


_EXTRA = {"psutil": "processors are not measured", "pynvml": "GPUs are not measured"}
_OPTIONAL = ("torch", "mpi4py")  # as `--without` has them
_PACKAGES = {"torch": "hpc-harness[torch]", "mpi4py": "hpc-harness[mpi]", "numpy": "numpy"}


def _gpus(site: Site, seen: Evidence, report: Mapping[str, Any], good: Looked) -> Iterator[Line]:
    ours = site.node.gpus
    for node, facts in good.items():
        gpus = facts["gpus"]
        slurm = f"Slurm gave {gpus['slurm'] or 'none'}" + (f" ({gpus['visible']})" if gpus["visible"] else "")
        given = int(gpus["slurm"]) if str(gpus["slurm"]).isdigit() else None
        nothing = given is None and gpus.get("devices") == 0
        if ("problem" in gpus and nothing and ours) or (
            given is not None and given < ours <= gpus.get("count", ours)
        ):
            yield Line(
                WRONG,
                "node.gpus",
                f"{node}: {ours}, and {slurm}" + (", and there is no /dev/nvidia0" if nothing else ""),
                _asked(site, given or 0),
            )
            continue
        if "problem" in gpus:
            if ours:
                yield Line(
                    UNKNOWN,
                    "node.gpus",
                    f"{node}: {slurm}, and NVML cannot be asked: {gpus['problem']}",
                    f"look on {node} whether there are {ours}",
                )
            continue
        names = ", ".join(sorted({str(g["name"]) for g in gpus.get("gpus", ())}))
        count, slices = gpus["count"], len(gpus["slices"])
        if slices and not site.node.mig and ours:
            yield Line(
                WRONG, "node.mig", f"{node}: {slices} MIG slices of {count} GPUs ({names})", "write mig: true"
            )
        elif site.node.mig and not slices:
            yield Line(
                WRONG, "node.mig", f"{node}: {count} whole GPUs ({names}), no slices", "write mig: false"
            )
        elif (there := slices if site.node.mig else count) < ours:
            yield Line(
                WRONG,
                "node.gpus",
                f"{node}: {ours}, and NVML shows {there} ({names})",
                f"write gpus: {there}",
            )
        elif there > ours:
            yield Line(
                NOTE, "node.gpus", f"{node}: NVML shows {there} ({names}), and the file asks for {ours}"
            )
        else:
            yield Line(OK, "node.gpus", f"{node}: {there} ({names}); {slurm}")
    if not ours and all("problem" in f["gpus"] for f in good.values()):
        yield Line(OK, "node.gpus", "0, and NVML shows none")


def _asked(site: Site, given: int) -> str:
    if site.gres is not None and "gpu" in site.gres:
        return f"write gpus: {given}, or ask for more by gres = {site.gres}"
    return f"write gpus: {given}" + (
        ", or ask for them by gpu_request" if site.node.gpu_request == "none" else ""
    )


def _network(site: Site, seen: Evidence, report: Mapping[str, Any], good: Looked) -> Iterator[Line]:
    ours = site.network.interface
    used = {n: f["clock"]["interface"] for n, f in good.items() if f["clock"].get("interface", "lo") != "lo"}
    common = sorted(set.intersection(*(set(f["addresses"]) for f in good.values())) - {"lo"})
    through = f"; agents reach the batch host by {_each(used)}" if used else ""
    if ours is None:
        yield Line(
            OK,
            "network.interface",
            f"null: each library chooses; every node has {', '.join(common)}{through}",
        )
        return
    lacking = [n for n, f in good.items() if ours not in f["addresses"]]
    if lacking:
        best = next(iter(used.values()), common[0] if common else "")
        yield Line(
            WRONG,
            "network.interface",
            f"{ours} is missing, or has no IPv4 address, on {', '.join(lacking)}; every node has {', '.join(common)}",
            f"write interface: {best}" if best else "write null",
        )
    else:
        yield Line(
            OK,
            "network.interface",
            _each({n: f"{ours} {f['addresses'][ours]}" for n, f in good.items()}) + through,
        )


def _modules(site: Site, seen: Evidence, report: Mapping[str, Any], good: Looked) -> Iterator[Line]:
    if not site.modules:
        return
    loaded = set.intersection(*(set(f["modules"]) for f in good.values()))
    missing = [m for m in site.modules if not any(name == m or name.startswith(f"{m}/") for name in loaded)]
    if missing:
        yield Line(
            NOTE,
            "modules",
            f"{', '.join(missing)}: `module load` said nothing against it, and LOADEDMODULES does not name it",
        )
    else:
        yield Line(OK, "modules", f"loaded: {', '.join(sorted(loaded))}")


# ---- files and clocks ----


def _shared(site: Site, seen: Evidence, report: Mapping[str, Any], good: Looked) -> Iterator[Line]:
    clocks = _login_clocks(seen, report, good)
    worst_ms = 0.0
    for node, facts in good.items():
        answer = facts["answer"]
        if not facts["hello"]:
            yield Line(
                WRONG,
                "paths.shared",
                f"{node} reads something else in {seen.folder} than was written here",
                _ASK,
            )
            continue
        if node not in seen.seen:
            why = answer.get("problem", "not seen in time")
            yield Line(
                WRONG,
                "paths.shared",
                f"a file that {node} wrote in {seen.folder} was not seen here: {why}",
                _ASK,
            )
            continue
        if "problem" in answer:
            yield Line(
                WRONG,
                "paths.shared",
                f"the answer from here was not seen on {node}: {answer['problem']}",
                _ASK,
            )
            continue
        offset_ns, wrong_ns = clocks[node]
        there_ms = (seen.seen[node]["seen"] - (answer["sent"] + offset_ns)) / 1e6
        back_ms = (answer["back"] + offset_ns - seen.seen[node]["replied"]) / 1e6
        worst_ms = max(worst_ms, there_ms, back_ms)
        yield Line(
            OK,
            "paths.shared",
            f"{node} and this machine see each other's files in {seen.folder}: after {_ms(there_ms)} here, "
            f"{_ms(back_ms)} there (each within {_ms(wrong_ns / 1e6)})",
        )
    allowed_s = site.paths.visible_after_s
    if worst_ms / 1e3 > max(allowed_s, LATE_S):
        yield Line(
            WRONG,
            "paths.visible_after_s",
            f"a file took {worst_ms / 1e3:.1f} s to show, and the file says {allowed_s:g}",
            f"write at least {2 * worst_ms / 1e3:.0f}",
        )


_ASK = "give a --folder that all nodes see, and name such folders in paths.shared"


def _login_clocks(seen: Evidence, report: Mapping[str, Any], good: Looked) -> dict[str, tuple[int, int]]:
    """Node -> (this machine's clock less the node's, how wrong that can be), both in ns."""
    batch = report.get("clock", {})
    found = {}
    for node, facts in good.items():
        answer, own = facts["answer"], facts["clock"]
        by_files = None
        if node in seen.seen and "back" in answer:
            # A round trip by files: this machine's time is that of seeing and answering.
            middle = (seen.seen[node]["seen"] + seen.seen[node]["replied"]) // 2
            by_files = of_trips([(answer["sent"], middle, answer["back"])])
        if "offset_ns" in batch and "offset_ns" in own:
            found[node] = (
                batch["offset_ns"] + own["offset_ns"],
                batch["uncertainty_ns"] + own["uncertainty_ns"],
            )
        elif by_files is not None:
            found[node] = (by_files.offset_ns, by_files.uncertainty_ns)
        else:
            found[node] = (0, 1 << 62)
    return found


def _clocks(site: Site, seen: Evidence, report: Mapping[str, Any], good: Looked) -> Iterator[Line]:
    batch = report.get("batch", "")
    for node, facts in good.items():
        own = facts["clock"]
        if "problem" in own:
            yield Line(
                WRONG,
                "network",
                f"{node} cannot reach the batch host {batch} by TCP: {own['problem']}",
                "agents reach their supervisor so: ask which ports are open between compute nodes",
            )
        elif node != batch:
            yield _clock_line(
                f"{batch} less {node}", own["offset_ns"], own["uncertainty_ns"], own["round_trips"], "TCP"
            )
    login = report.get("clock", {})
    if "offset_ns" in login:
        yield _clock_line(
            f"this machine less {batch}",
            login["offset_ns"],
            login["uncertainty_ns"],
            login["round_trips"],
            "TCP",
        )
        return
    offset_ns, wrong_ns = _login_clocks(seen, report, good).get(batch, (0, 1 << 62))
    if wrong_ns >= 1 << 62:
        why = login.get("problem", "")
        yield Line(
            UNKNOWN,
            "clocks",
            f"this machine and {batch}: neither TCP ({why}) nor files went round",
            "try again",
        )
    else:
        yield _clock_line(f"this machine less {batch}", offset_ns, wrong_ns, 1, "files")


def _clock_line(whose: str, offset_ns: int, wrong_ns: int, trips: int, how: str) -> Line:
    said = (
        f"{whose}: {offset_ns / 1e6:+.3f} ms, within {wrong_ns / 1e6:.3f} ms "
        f"(the shortest of {trips} round trips by {how}, halved)"
    )
    if abs(offset_ns) - wrong_ns > CLOCK_S * 1e9:
        return Line(
            WRONG, "clocks", said, "times of different machines cannot be compared: ask for NTP or chrony"
        )
    if wrong_ns > CLOCK_S * 1e9:
        return Line(NOTE, "clocks", f"{said}; too coarse to say more")
    return Line(OK, "clocks", said)


def _node_local(site: Site, seen: Evidence, report: Mapping[str, Any], good: Looked) -> Iterator[Line]:
    path = site.paths.node_local
    problems = {n: f["node_local"]["problem"] for n, f in good.items() if "problem" in f["node_local"]}
    if problems:
        yield Line(
            WRONG,
            "paths.node_local",
            f"{path} cannot be written: {_each(problems)}",
            "name a folder that can",
        )
        return
    strangers = {n: ", ".join(names) for n, names in report.get("strangers", {}).items() if names}
    kinds = {n: f["node_local"]["type"] for n, f in good.items()}
    remote = sorted({kind for kind in kinds.values() if Mount("", "", kind, ()).network})
    free = _each({n: f"{f['node_local']['free_mb']} MB free, {kinds[n]}" for n, f in good.items()})
    if strangers:
        yield Line(
            WRONG,
            "paths.node_local",
            f"{path} is not private: {', '.join(strangers)} saw what another node wrote there",
            "name a folder on the node's own disk or memory",
        )
    elif remote:
        yield Line(
            WRONG,
            "paths.node_local",
            f"{path} lies on {', '.join(remote)}",
            "name a folder on the node itself",
        )
    elif len(good) < 2:
        yield Line(
            OK,
            "paths.node_local",
            f"{path} can be written: {free}; with one node nobody else can look into it",
        )
    else:
        yield Line(OK, "paths.node_local", f"{path} is private to each node: {free}")


def _ms(value: float) -> str:
    return f"{value:.0f} ms" if abs(value) >= 10 else f"{value:.1f} ms"


def _each(values: Mapping[str, Any]) -> str:
    """``p1, p2: 4; p3: 8``: nodes of one value together."""
    together: dict[str, list[str]] = {}
    for node, value in values.items():
        together.setdefault(str(value), []).append(node)
    return "; ".join(f"{', '.join(nodes)}: {value}" for value, nodes in together.items())
