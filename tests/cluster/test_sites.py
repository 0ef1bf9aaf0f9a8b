"""Site files on a real Slurm cluster, as its ordinary user: written by probe, proved by check, used by run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import config
from tests.cluster.driving import HARNESS, on_login

pytestmark = pytest.mark.timeout(300)

CAMPAIGN = (
    "schema: 1\nname: small\nseed: 1\ngroups:\n  - {name: halo, workload: mpi.halo, nodes: 2, steps: 20}\n"
)


def _probe(cluster: Any, *options: str) -> Path:
    path: Path = cluster.shared / f"probed-{time.time_ns()}.yaml"
    done = cluster.run_as_user([*HARNESS, "site", "probe", "--out", str(path), *options])
    assert done.returncode == 0, done.stdout + done.stderr
    return path


def _check(
    cluster: Any, site: Path, *options: str, without: tuple[str, ...] = ("torch",)
) -> tuple[int, dict[str, Any]]:
    skipped = [word for name in without for word in ("--without", name)]
    done = cluster.run_as_user(
        [*HARNESS, "site", "check", str(site), "--json", *skipped, *options], timeout=200
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def _lines(result: dict[str, Any], *statuses: str) -> dict[str, str]:
    """Place -> what to change, or what was said, of the lines of these statuses."""
    return {
        one["place"]: one["change"] or one["said"] for one in result["lines"] if one["status"] in statuses
    }


def _changed(site: Path, *changes: tuple[str, str]) -> Path:
    text = site.read_text()
    for old, new in changes:
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in\n{text}"
        text = text.replace(old, new)
    path = site.with_name(f"changed-{time.time_ns()}.yaml")
    path.write_text(text)
    return path


def _jobs(cluster: Any) -> str:
    """Jobs of the check that are in the queue."""
    queue: str = cluster.run_as_user(["squeue", "-h", "-o", "%j %T"]).stdout
    return "\n".join(one for one in queue.splitlines() if one.startswith("hh.site-check"))


def test_what_probe_writes_check_proves_and_run_uses(cluster: Any) -> None:
    site = _probe(cluster)
    found, _ = config.load_site(site)
    assert (found.kind, found.partition, found.limits.max_nodes, found.node.cpus, found.mpi.plugin) == (
        "production", "batch", 4, 4, "pmi2",
    )  # fmt: skip
    assert (found.accounting, found.requeue, found.power, found.node.architecture) == (
        True, True, None, os.uname().machine,
    )  # fmt: skip
    code, result = _check(cluster, site, without=())
    assert (code, _lines(result, "wrong", "unknown")) == (0, {})
    good = _lines(result, "ok")
    assert good["mpi.plugin"].startswith("pmi2: one world of 4 ranks (MPICH")
    assert "is private to each node" in good["paths.node_local"]
    assert "sacct knows the job" in good["accounting"]
    assert result["seen"]["job"]["JobState"] == "COMPLETED"  # it was not cancelled
    assert _jobs(cluster) == ""
    assert not list(cluster.shared.glob("site-check-*"))
    campaign = cluster.shared / "probed-campaign.yaml"
    campaign.write_text(CAMPAIGN)
    folder = cluster.shared / "probed-run"
    run = cluster.run_as_user(
        [*HARNESS, "run", str(campaign), "--site", str(site), "--folder", str(folder)], timeout=200
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_a_cluster_without_accounting_is_probed_and_proved(cluster_without_accounting: Any) -> None:
    cluster = cluster_without_accounting
    site = _probe(cluster)
    assert config.load_site(site)[0].accounting is False
    code, result = _check(cluster, site, without=("torch", "mpi4py"))
    assert (code, _lines(result, "wrong", "unknown")) == (0, {})
    assert _lines(result, "ok")["accounting"] == "none, as the file says"
    code, result = _check(
        cluster, _changed(site, ("accounting: false", "accounting: true")), without=("torch", "mpi4py")
    )
    assert (code, _lines(result, "wrong")) == (1, {"accounting": "write accounting: false"})


def test_everything_that_is_wrong_is_told_by_one_job(cluster: Any) -> None:
    power = '{command: ["{python}", "-m", "harness", "cluster", "power", "{action}", "{node}"]}'
    site = _changed(
        _probe(cluster, "--kind", "staging"),
        ("power: null", f"power: {power}"),
        ("plugin: pmi2", "plugin: none"),
        ("  cpus: 4", "  cpus: 8"),
        ("interface: null", "interface: ib0"),
        ("node_local: /tmp", f"node_local: {cluster.shared}"),
        ("architecture: x86_64", "architecture: riscv64"),
        ("max_nodes: 4", "max_nodes: 40"),
    )
    code, result = _check(cluster, site)
    assert (code, _lines(result, "wrong", "unknown")) == (
        1,
        {
            "mpi.plugin": "write plugin: pmi2",
            "node.cpus": "write cpus: 4",
            "network.interface": "write interface: eth0",
            "paths.node_local": "name a folder on the node's own disk or memory",
            "node.architecture": "write x86_64",
            "limits.max_nodes": "write 4",
        },
    )
    said = {one["place"]: one["said"] for one in result["lines"]}
    assert said["power.command"] == "status of p2: on"
    assert said["mpi.plugin"].startswith("none: 4 worlds of 1 rank (MPICH")


def test_what_keeps_the_job_from_starting_is_told(cluster: Any) -> None:
    site = _changed(_probe(cluster), ("poll_s: 10", "poll_s: 2"))
    for change, place in (
        (("partition: batch", "partition: nope"), "partition"),
        (("python: ", "python: /opt/none/bin/python # "), "python"),
        (("modules: []", "modules: [cuda/12]"), "modules"),
        (("prologue: []", "prologue: ['true', 'false']"), "prologue[1]"),
    ):
        code, result = _check(cluster, _changed(site, change))
        assert (code, list(_lines(result, "wrong", "unknown"))) == (1, [place]), result["lines"]


def test_a_folder_that_nodes_do_not_share_is_told(cluster: Any) -> None:
    private = f"/tmp/harness-not-shared-{os.getpid()}"
    try:
        cluster.run_as_user(["mkdir", "-m", "700", private])
        site = _changed(_probe(cluster), ("poll_s: 10", "poll_s: 2"))
        code, result = _check(cluster, site, "--folder", private)
    finally:
        cluster.run_as_user(["rm", "-rf", private])
    assert (code, _lines(result, "wrong", "unknown")) == (
        1,
        {"paths.shared": "give a --folder that all nodes see, and name such folders in paths.shared"},
    )


def test_gpus_that_slurm_counts_are_asked_for_and_given(clusters: Callable[..., Any]) -> None:
    cluster = clusters("--nodes", "2", "--gres", "gpu:2")
    site = _probe(cluster)
    found, _ = config.load_site(site)
    assert (found.node.gpus, found.node.gpu_request, found.limits.max_nodes) == (2, "gpus-per-node", 2)
    for given in (site, _changed(site, ("gpu_request: gpus-per-node", "gpu_request: gres"))):
        code, result = _check(cluster, given, "--nodes", "1", without=("torch", "mpi4py"))
        assert (code, list(_lines(result, "wrong", "unknown"))) == (
            3,
            ["node.gpus"],
        )  # there is no driver here
        (said,) = (one["said"] for one in result["lines"] if one["place"] == "node.gpus")
        assert "Slurm gave 2 (0,1), and NVML cannot be asked" in said


def test_limits_of_the_association_are_found(clusters: Callable[..., Any]) -> None:
    cluster = clusters("--conf", "AccountingStorageEnforce=limits,qos")
    with cluster.limits("MaxSubmitJobs=5 MaxWall=30"):
        limits = config.load_site(_probe(cluster))[0].limits
    assert (limits.max_jobs_in_queue, limits.max_time_min) == (5, 30)


def test_a_limit_of_the_account_that_no_job_of_the_file_fits_is_told_at_once(
    clusters: Callable[..., Any],
) -> None:
    cluster = clusters("--conf", "AccountingStorageEnforce=limits,qos")
    cluster.on_head("sacctmgr --immediate modify account lab set GrpTRES=node=1")
    try:
        site = _probe(cluster)
        assert config.load_site(site)[0].limits.max_nodes == 1
        given = _changed(site, ("max_nodes: 1", "max_nodes: 2"))
        code, result = _check(cluster, given, without=("torch", "mpi4py"))
    finally:
        cluster.on_head("sacctmgr --immediate modify account lab set GrpTRES=node=-1")
    assert (code, _lines(result, "wrong", "unknown")) == (1, {"limits.max_nodes": "write 1"})
    assert result["seen"]["waited_s"] < 60
    assert _jobs(cluster) == ""


def test_an_interrupted_check_leaves_no_job(cluster: Any) -> None:
    site = _probe(cluster)
    blocking = cluster.run_as_user(
        ["sbatch", "--parsable", "-N4", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 200"]
    )
    job = blocking.stdout.strip()
    try:
        with subprocess.Popen(
            on_login(cluster, [*HARNESS, "site", "check", str(site)]),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as check:
            end = time.monotonic() + 60
            while "PENDING" not in _jobs(cluster):
                assert time.monotonic() < end, "nothing was submitted within a minute"
                time.sleep(0.2)
            os.killpg(check.pid, signal.SIGINT)  # what Ctrl-C at a terminal sends
            check.communicate(timeout=60)
        assert check.returncode == 130
        assert _jobs(cluster) == ""
        assert not list(cluster.shared.glob("site-check-*"))
    finally:
        cluster.run_as_user(["scancel", job])
