"""What differs between versions of Slurm: how a version is read, and what the table says of each."""

from __future__ import annotations

import itertools

import pytest

from harness.slurm.versions import (
    FEATURES,
    NEWEST,
    OLDEST,
    Version,
    VersionError,
    features,
    has,
    parse_version,
    table,
    usable_version,
)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("slurm 22.05.8", Version(22, 5, 8)),
        ("slurm-wlm 22.05.8\n", Version(22, 5, 8)),
        ("slurm 24.11.0-0rc1", Version(24, 11, 0)),
        ("slurm 20.02.7", Version(20, 2, 7)),
        ("slurm 25.11", Version(25, 11)),
        ("20.11", Version(20, 11)),
        ("slurm 2.6.5", Version(2, 6, 5)),
        ("slurm-wlm 23.11.4-1.2ubuntu5", Version(23, 11, 4)),
    ],
)
def test_a_version_is_read_as_slurm_and_its_packagers_print_it(text: str, version: Version) -> None:
    assert parse_version(text) == version


@pytest.mark.parametrize("text", ["", "slurm", "sbatch: error: no configuration", "slurm twenty"])
def test_a_text_without_a_version_is_refused(text: str) -> None:
    with pytest.raises(VersionError) as caught:
        parse_version(text)
    assert str(caught.value) == (
        f"Slurm's version {text!r}: no number such as 22.05 in it; see what `sbatch --version` prints"
    )


def test_what_is_older_than_20_02_is_refused_with_words() -> None:
    with pytest.raises(VersionError) as caught:
        usable_version("slurm 19.05.8")
    assert str(caught.value) == (
        "Slurm 19.05.8: is older than 20.02, the oldest whose flags the harness knows; use a newer one"
    )


def test_what_is_newer_than_all_known_is_taken_for_the_newest_and_said() -> None:
    version, warning = usable_version("slurm 27.11.2")
    assert version == NEWEST
    assert warning.startswith("Slurm 27.11.2 is newer than 26.05, the newest that the harness knows")


@pytest.mark.parametrize("text", ["slurm 20.02.0", "slurm 22.05.8", "slurm 25.11.0-0rc1", "slurm 26.05.9"])
def test_what_is_known_needs_no_warning(text: str) -> None:
    assert usable_version(text) == (parse_version(text), "")


# Which features are new, or gone, from one release to the next: read against Slurm's own notes.
CHANGES = {
    "20.11": ({"overlap", "scrontab", "now_minus"}, set()),
    "21.08": ({"container_oci", "json", "node_state_flags"}, set()),
    "22.05": (
        {
            "overlap_gres", "exact_by_cpus_per_task", "srun_cpus_per_task", "prefer", "mpi_list_on_stdout",
            "cgroup_v2",
        },
        set(),
    ),
    "23.02": (
        {
            "tres_per_task", "requeue_limit_set", "log_folders_made", "one_of_exclusive_and_oversubscribe",
            "sacct_failed_node",
        },
        {"sacct_reserved"},
    ),
    "23.11": ({"external_launcher"}, {"srun_cpus_per_task", "pmix_unless_left_out"}),
    "24.05": (set(), set()),
    "24.11": ({"sacct_restarts"}, set()),
    "25.05": (set(), set()),
    "25.11": ({"expedited_requeue"}, set()),
    "26.05": (set(), set()),
}  # fmt: skip


def test_each_release_differs_from_the_one_before_as_its_notes_say() -> None:
    releases = [OLDEST, *(parse_version(r) for r in CHANGES)]
    seen = {}
    for before, after in itertools.pairwise(releases):
        old, new = features(before), features(after)
        seen[after.release] = (
            {n for n in FEATURES if new[n] and not old[n]},
            {n for n in FEATURES if old[n] and not new[n]},
        )
    assert seen == CHANGES


def test_a_patch_release_has_what_its_release_has() -> None:
    assert (has("overlap", Version(20, 11, 9)), has("overlap", Version(20, 2, 99))) == (True, False)
    assert (has("srun_cpus_per_task", Version(23, 2, 8)), has("srun_cpus_per_task", Version(23, 11, 0))) == (
        True,
        False,
    )


def test_a_name_that_is_not_in_the_table_is_an_error() -> None:
    with pytest.raises(KeyError):
        has("overlapp", NEWEST)


def test_every_line_says_what_is_done_without_it_and_where_it_was_read() -> None:
    assert [n for n, f in FEATURES.items() if not (f.what and f.otherwise and f.source)] == []


def test_the_table_can_be_printed() -> None:
    lines = table().splitlines()
    assert len(lines) == 3 * len(FEATURES)
    assert "srun_cpus_per_task: from 22.05 until 23.11" in lines


# ---- argument lists: what is really started ----


def started(version: Version, monkeypatch: pytest.MonkeyPatch, **surrounding: str) -> list[list[str]]:
    """The command lines of an agent and of MPI ranks in a job of that Slurm, and the variables they are given."""
    import asyncio
    from pathlib import Path
    from typing import Any

    from harness.runtime import launcher

    commands: list[list[str]] = []

    async def start(arguments: list[str], environment: dict[str, str], log: Path) -> Any:
        commands.append(list(arguments))
        commands.append(sorted(k for k in environment if k in surrounding))

    monkeypatch.setattr(launcher, "_start", start)
    monkeypatch.setattr(launcher, "run_command", lambda *a, **k: "n1\nn2\n")
    monkeypatch.setattr(launcher.sys, "executable", "/opt/python")
    for name, value in surrounding.items():
        monkeypatch.setenv(name, value)
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]", "SLURMD_NODENAME": "n1"}
    slurm = launcher.SlurmLauncher({**job, "SLURM_JOB_CPUS_PER_NODE": "4(x2)"}, "pmix", version=version)
    asyncio.run(slurm.agent("n2", {}, Path("/log")))
    asyncio.run(slurm.step(["n1", "n2"], 2, Path("/spec"), {}, Path("/a%b")))
    return commands


AGENT = [
    "srun", "-N1", "-n1", "-w", "n2", "-c4", "--overlap", "--no-kill", "--mpi=none", "--cpu-bind=none", "--mem=0",
    "--input=none", "--export=ALL", "-J", "agent", "/opt/python", "-m", "harness.runtime.agent",
]  # fmt: skip
RANKS = [
    "srun", "-N2", "-n4", "--ntasks-per-node=2", "-w", "n1,n2", "--distribution=block", "--overlap", "--no-kill",
    "--overcommit", "--mpi=pmix", "--cpu-bind=none", "--mem=0", "--input=none", "--export=ALL",
    "--kill-on-bad-exit=0", "--output=/a%%b/rank-%t.log", "-J", "ranks",
    "/opt/python", "-m", "harness.runtime.rank", "/spec",
]  # fmt: skip


@pytest.mark.parametrize("release", ["20.11", "22.05", "25.11", "26.05"])
def test_steps_share_processors_by_a_flag_where_there_is_one(
    release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert started(parse_version(release), monkeypatch)[::2] == [AGENT, RANKS]


def test_steps_of_20_02_are_started_without_the_flag_that_it_does_not_know(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without = [[word for word in command if word != "--overlap"] for command in (AGENT, RANKS)]
    assert started(parse_version("20.02"), monkeypatch)[::2] == without


def test_no_variable_by_which_any_version_would_shape_a_step_reaches_srun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shaping = dict.fromkeys(
        (
            "SLURM_CPUS_PER_TASK", "SRUN_CPUS_PER_TASK", "SLURM_TRES_PER_TASK", "SLURM_EXACT", "SLURM_HINT",
            "SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "SLURM_OVERCOMMIT", "SLURM_THREADS_PER_CORE", "SBATCH_EXCLUSIVE",
        ),
        "1",
    )  # fmt: skip
    kept = {"SLURM_GPUS_PER_NODE": "8", "SLURM_CONF": "/x", "SLURM_WAIT4SWITCH": "1"}
    _, agent, _, ranks = started(NEWEST, monkeypatch, **shaping, **kept)
    assert (agent, ranks) == (sorted(kept), sorted(kept))
