"""Templates and containers on a real Slurm. Apptainer itself is not here: see standin_apptainer.py."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.store import Results

pytestmark = pytest.mark.timeout(300)

HARNESS = [sys.executable, "-m", "harness"]
STANDIN = Path(__file__).parent / "standin_apptainer.py"
BOTH = """\
schema: 1
name: inside
seed: 1
groups:
  - {name: halo, workload: mpi.halo, nodes: 2, ranks_per_node: 2, steps: 20}
  - {name: sum, workload: torch.collectives, nodes: 2, steps: 12, params: {message_bytes: [1024]}}
"""
HALO = "schema: 1\nname: small\nseed: 1\ngroups:\n  - {name: halo, workload: mpi.halo, nodes: 2, steps: 20}\n"
INSIDE = "/opt/inside"  # where the image has its Python


@pytest.fixture(scope="module")
def image(cluster: Any) -> Path:
    """An image, whose Python is this environment at another place, and `apptainer` on PATH beside it."""
    folder: Path = cluster.shared / "image"
    folder.mkdir()
    base = Path(sys.base_prefix)
    trees = {"/usr": "/usr", INSIDE: sys.prefix}
    if not base.is_relative_to("/usr"):
        trees[str(base)] = str(base)
    # Variables that would keep our code from being found, were they not overruled.
    (folder / "image.json").write_text(
        json.dumps({"trees": trees, "environment": {"PYTHONPATH": "/wrong", "OMP_NUM_THREADS": "77"}})
    )
    program = cluster.shared / "bin" / "apptainer"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\n" + STANDIN.read_text())
    program.chmod(0o755)
    cluster.on_head(f"chown -R alice {folder}")
    return folder


def site_with(cluster: Any, image: Path, *changes: tuple[str, str], runtime: str = "apptainer") -> Path:
    path: Path = cluster.site(*changes)
    path.write_text(
        path.read_text()
        + f"prologue: ['export PATH={cluster.shared}/bin:$PATH']\n"
        + f"container: {{runtime: {runtime}, image: {image}, python: {INSIDE}/bin/python, options: [--nv]}}\n"
    )
    return path


def run(cluster: Any, text: str, site: Path, name: str) -> tuple[Path, subprocess.CompletedProcess[str]]:
    campaign = cluster.shared / f"{name}.yaml"
    campaign.write_text(text)
    folder = cluster.shared / name
    done = cluster.run_as_user(
        [*HARNESS, "run", str(campaign), "--site", str(site), "--folder", str(folder), "--plain"], timeout=200
    )
    return folder, done


def entered(image: Path, start: int) -> list[tuple[str, str]]:
    """Node and module of each start in the container, those before ``start`` left out."""
    lines = (image / "entered.jsonl").read_text().splitlines()[start:]
    return sorted((json.loads(line)["node"], json.loads(line)["command"][2]) for line in lines)


def started(image: Path) -> int:
    log = image / "entered.jsonl"
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_agents_and_ranks_run_in_another_root_with_what_is_mounted(cluster: Any, image: Path) -> None:
    before = started(image)
    folder, done = run(cluster, BOTH, site_with(cluster, image), "inside")
    assert done.returncode == 0, done.stdout + done.stderr
    with Results(folder / "results.h5") as results:
        attempts = results.rows("attempts")
    assert [a["outcome"] for a in attempts] == ["completed", "completed"]
    # An agent on each node of each job, and at its end who looks what agents left; ranks of MPI come by srun, those of
    # torch are the agent's children.
    nodes = {a["job_key"]: json.loads(a["nodes"]) for a in attempts}
    halo = next(a["job_key"] for a in attempts if len(json.loads(a["rank_nodes"])) == 4)
    once = ("harness.runtime.agent", "harness.runtime.leftovers")
    assert entered(image, before) == sorted(
        [(n, module) for job in nodes.values() for n in job for module in once]
        + [(n, "harness.runtime.rank") for n in nodes[halo]] * 2
    )


def test_ranks_in_a_container_find_slurms_pmix_server(cluster: Any, image: Path) -> None:
    libraries = sorted(Path("/usr/lib").glob("*/libmpi.so.40"))
    assert libraries, "libmpi.so.40 is missing: apt install libopenmpi3"
    openmpi = f"plugin: pmix\n  environment: {{MPI4PY_MPIABI: openmpi, MPI4PY_LIBMPI: {libraries[0]}}}"
    site = site_with(cluster, image, ("plugin: pmi2                     # what PyPI's mpich speaks", openmpi))
    before = started(image)
    _, done = run(cluster, HALO, site, "inside-pmix")
    assert done.returncode == 0, done.stdout + done.stderr
    starts = (image / "entered.jsonl").read_text().splitlines()[before:]
    ranks = [json.loads(line)["binds"] for line in starts if "harness.runtime.rank" in line]
    assert len(ranks) == 2
    assert all(re.search(r"/pmix\.\d+\.\d+/$", binds[0][0]) for binds in ranks)


def test_a_cluster_without_pyxis_says_so_before_anything_is_submitted(cluster: Any, image: Path) -> None:
    folder, done = run(cluster, HALO, site_with(cluster, image, runtime="pyxis"), "no-pyxis")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith(
        "site emulated: Pyxis is not on this cluster: its srun knows no --container-image"
    )
    assert not folder.exists()


def test_a_template_of_ones_own_reaches_the_job(cluster: Any) -> None:
    templates = cluster.shared / "templates"
    templates.mkdir()
    (templates / "base.sh.j2").write_text(
        '{% extends "harness/base.sh.j2" %}\n'
        "{% block directives %}\n{{ super() -}}\n#SBATCH --comment=ours\n{% endblock %}\n"
        '{% block prologue %}\n{{ super() -}}\necho "from a template"\n{% endblock %}\n'
    )
    site = cluster.site()
    site.write_text(site.read_text() + f"templates: {templates}\n")
    folder, done = run(cluster, HALO, site, "own-template")
    assert done.returncode == 0, done.stdout + done.stderr
    (log,) = (folder / "logs").glob("*.out")
    assert log.read_text().startswith("from a template\n")
    job = cluster.run_as_user(["scontrol", "show", "job", log.stem.split("-")[1]]).stdout
    assert "Comment=ours" in job
    kept = json.loads((folder / "templates.json").read_text())
    assert [s["path"] for s in kept if s["name"] == "base.sh.j2"] == [str(templates / "base.sh.j2")]
