"""`harness schedule` as a person uses it: what is printed, installed, listed, refused; and what a tick costs."""

import contextlib
import io
import json
import os
import re
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from harness.schedule import install
from harness.schedule.folder import ScheduleDir, ScheduleError
from harness.verbs.scheduling import spelt_out

CAMPAIGN = "schema: 1\nname: nightly\nseed: 1\ngroups: [{name: g, workload: mpi.halo, nodes: 4, steps: 8}]\n"
SITE = """\
schema: 1
name: somewhere
kind: production
launcher: slurm
partition: batch
limits: {max_nodes: 4, max_time_min: 60}
node: {cpus: 4, exclusive: true}
mpi: {plugin: pmi2}
requeue: true
accounting: true
"""
# What crontab is to a program: it lists a file and replaces it. Like cron's own, it wants a newline at the end.
CRONTAB = """\
#!/bin/sh
here=$(dirname "$0")
case $1 in
    -l) cat "$here/table" 2>/dev/null || { echo "no crontab for ann" >&2; exit 1; } ;;
    -r) rm "$here/table" ;;
    *) [ -z "$(tail -c 1 "$1")" ] || { echo "new crontab file is missing newline before EOF" >&2; exit 1; }
       cat "$1" >"$here/table" ;;
esac
"""


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    returncode: int
    stdout: str
    stderr: str


class Person:
    """Someone with a shell, in a folder of their own."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.bin = place / "bin"
        self.bin.mkdir()
        (place / "c.yaml").write_text(CAMPAIGN)
        (place / "s.yaml").write_text(SITE)
        self.root = place / "schedules" / "nightly"

    def program(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def environment(self, **more: str) -> dict[str, str]:
        return {"PATH": f"{self.bin}:/usr/bin:/bin", "TZ": "Europe/Berlin", "LOGNAME": "ann", **more}

    def run(self, *words: str, **more: str) -> Ended:
        """The command, in this process, which is quicker; its environment and folder are the person's."""
        before, folder = dict(os.environ), os.getcwd()
        out, err = io.StringIO(), io.StringIO()
        try:
            os.environ.clear()
            os.environ.update(self.environment(**more))
            time.tzset()
            os.chdir(self.place)
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = main(["schedule", *words])
        finally:
            os.chdir(folder)
            os.environ.clear()
            os.environ.update(before)
            time.tzset()
        return Ended(code, out.getvalue(), err.getvalue())

    def start(self, *words: str, **more: str) -> Ended:
        """The command as a process of its own."""
        done = subprocess.run(
            [sys.executable, "-m", "harness", "schedule", *words],
            cwd=self.place,
            env=self.environment(**more),
            capture_output=True,
            text=True,
            timeout=60,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def add(self, *words: str, **more: str) -> Ended:
        return self.run("c.yaml", "--site", "s.yaml", "--every", "day", *words, **more)


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path)


def _spec(person: Person) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((person.root / "schedule.json").read_text())
    return data


def test_without_install_everything_is_shown_and_nothing_is_changed(person: Person) -> None:
    result = person.add("--how", "cron", "--mail", "ann@example.org")
    assert (result.returncode, result.stderr) == (0, "")
    shown = re.sub(r"next      \d{4}-\d\d-\d\d 02:00", "next      DAY 02:00", result.stdout)
    shown = re.sub(r"[0-9.]+ node-hours expected, [0-9.]+ at most", "N node-hours", shown)
    folder = ScheduleDir(person.root)
    assert shown == (
        "nightly on somewhere, every day at 02:00 (Europe/Berlin)\n"
        "  next      DAY 02:00\n"
        "  each time 1 jobs, N node-hours\n"
        f"  campaign  {person.place}/c.yaml  (read again each time)\n"
        f"  site      {person.place}/s.yaml\n"
        f"  folder    {person.root}  (a run folder each time; the newest 30 are kept whole)\n"
        "  mail      what is not a pass, to ann@example.org\n"
        "  environment as here: LOGNAME, PATH, TZ\n"
        "\n"
        "At the top of your crontab on this host; looks every few minutes, and drives by single steps:\n"
        "\n"
        f"# >>> harness schedule {folder.id} {person.root}\n"
        "# nightly on somewhere, every day at 02:00; to remove it: harness schedule remove "
        f"{person.root}\n"
        f"{int(folder.id, 16) % 5}-59/5 * * * * {sys.executable} -m harness schedule tick {person.root}"
        f" >>{person.root}/tick.log 2>&1\n"
        f"# <<< harness schedule {folder.id}\n"
        "\n"
        "Nothing was installed. The same command with --install does that.\n"
    )
    assert sorted(p.name for p in person.place.iterdir()) == ["bin", "c.yaml", "s.yaml"]


def test_an_entry_is_installed_listed_and_removed_and_the_rest_of_the_crontab_is_as_it_was(
    person: Person,
) -> None:
    person.program("crontab", CRONTAB)
    theirs = b"MAILTO=ann\n5 4 * * * /bin/true \xff%\n"
    (person.bin / "table").write_bytes(theirs)
    installed = person.add("--how", "cron", "--install")
    assert installed.returncode == 0, installed.stderr
    assert f"installed in the crontab of ann on {os.uname().nodename}; first due " in installed.stdout
    assert f"to remove it:  harness schedule remove {person.root}" in installed.stdout
    table = (person.bin / "table").read_bytes()
    assert table.startswith(b"# >>> harness schedule ")
    assert table.endswith(theirs)
    assert table.count(b"harness schedule tick") == 1
    assert _spec(person)["state"] == "installed"

    assert person.add("--how", "cron", "--install").returncode == 0  # again: the same
    assert (person.bin / "table").read_bytes() == table

    (row,) = json.loads(person.run("list", "--json").stdout)
    assert (row["campaign"], row["how"], row["state"], row["last"]) == ("nightly", "cron", "installed", "")
    (person.bin / "table").write_bytes(theirs)
    (row,) = json.loads(person.run("list", "--json").stdout)
    assert row["state"] == "installed, but its entry is gone"
    assert person.run("install", str(person.root)).returncode == 0
    assert (person.bin / "table").read_bytes() == table

    removed = person.run("remove", str(person.root))
    assert (removed.returncode, removed.stderr) == (0, "")
    assert (person.bin / "table").read_bytes() == theirs
    assert _spec(person)["state"] == "removed"
    tick = person.run("tick", str(person.root))
    assert (tick.returncode, tick.stderr.split(":")[1].split(";")[0]) == (0, " was removed")


def test_a_crontab_that_was_empty_is_removed_again(person: Person) -> None:
    person.program("crontab", CRONTAB)
    assert person.add("--how", "cron", "--install").returncode == 0
    assert (person.bin / "table").exists()
    assert person.run("remove", str(person.root)).returncode == 0
    assert not (person.bin / "table").exists()


def test_a_folder_can_be_prepared_for_an_entry_that_somebody_else_puts_somewhere(person: Person) -> None:
    result = person.add("--how", "cron", "--prepare")
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith(
        f"made {person.root}; the entry is yours to install, or: harness schedule install {person.root}\n"
    )
    assert sorted(p.name for p in person.root.iterdir()) == ["runs", "schedule.json"]
    assert person.run("tick", str(person.root)).returncode == 0


def test_a_campaign_that_was_broken_since_is_said_with_its_line_and_written_down(person: Person) -> None:
    assert person.add("--how", "cron", "--prepare").returncode == 0
    (person.place / "c.yaml").write_text(CAMPAIGN.replace("seed: 1", "seed: 1\nseeds: 1"))
    tick = person.run("tick", "--now", str(person.root))
    assert tick.returncode == 2
    started, failed = ScheduleDir(person.root).lines()
    assert (started["what"], failed["what"], failed["exit"]) == ("started", "failed", 2)
    assert failed["why"].startswith(f"{person.place}/c.yaml:4: seeds = 1, is an unknown key")
    assert failed["why"] in tick.stderr
    assert person.run("tick", str(person.root)).returncode == 0


def test_another_schedule_in_the_folder_is_not_replaced_unless_told(person: Person) -> None:
    assert person.add("--how", "cron", "--prepare").returncode == 0
    before = (person.root / "schedule.json").read_text()
    refused = person.add("--how", "cron", "--at", "03:00", "--keep", "5", "--prepare")
    assert (refused.returncode, refused.stderr) == (
        2,
        f"{person.root}: is another schedule already (at: 02:00 -> 03:00; keep: 30 -> 5); add --replace to change it, "
        "or choose another --folder\n",
    )
    assert (person.root / "schedule.json").read_text() == before
    assert (
        person.add("--how", "cron", "--at", "03:00", "--keep", "5", "--prepare", "--replace").returncode == 0
    )
    assert (_spec(person)["at"], _spec(person)["keep"]) == ("03:00", 5)


def test_a_folder_that_holds_something_else_is_refused(person: Person) -> None:
    person.root.mkdir(parents=True)
    (person.root / "thesis.tex").write_text("")
    result = person.add("--how", "cron")
    assert (result.returncode, result.stderr) == (
        2,
        f"{person.root}: exists and is no folder of a schedule; choose another --folder, or leave it out\n",
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--at", "25:00"), "--at 25:00: is no time of day; write it as HH:MM, 00:00 to 23:59"),
        (("--on", "sunday"), "--on sunday: means something only with --every week"),
        (("--keep", "0"), "--keep 0: at least one run must be kept; write 1 or more"),
        (("--job-minutes", "2"), "--job-minutes 2: is too short for a job to do anything; write 5 or more"),
        (
            ("--how", "self", "--job-minutes", "90"),
            "--job-minutes 90: site somewhere allows at most 60; lower it",
        ),
        (("--mail", "ann@x\nBcc: b@x"), "--mail 'ann@x\\nBcc: b@x': is no address of one person"),
        (("--mail", "-oQ/tmp"), "--mail '-oQ/tmp': is no address of one person"),
        (
            ("--how", "self", "--job-option=--begin=now"),
            "--job-option --begin=now: the schedule sets --begin itself",
        ),
        (("--folder", "/a\\b", "--how", "cron"), "the schedule's folder '/a\\\\b': holds a backslash"),
    ],
)
def test_bad_input_is_refused_in_words(words: tuple[str, ...], said: str, person: Person) -> None:
    words = tuple(
        f"--mail={w}" if words[0] == "--mail" and w != "--mail" else w for w in words if w != "--mail"
    )
    result = person.add(*words)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(said)


def test_mistakes_of_the_campaign_are_told_before_anything_else(person: Person) -> None:
    (person.place / "c.yaml").write_text(CAMPAIGN.replace("seed: 1", "seed: 1\nseeds: 1"))
    result = person.add("--how", "cron", "--install")
    assert result.returncode == 2
    assert result.stderr.startswith("c.yaml:4: seeds = 1, is an unknown key")
    assert not person.root.exists()


@pytest.mark.parametrize(
    ("program", "text", "how", "said"),
    [
        (
            None,
            "",
            "cron",
            "crontab: command not found; choose --how scrontab (where Slurm has it) or --how self\n",
        ),
        (
            "crontab",
            "#!/bin/sh\necho 'You (ann) are not allowed to use this program (crontab)' >&2\nexit 1\n",
            "cron",
            "`crontab -l` said: You (ann) are not allowed to use this program (crontab); choose --how scrontab (where "
            "Slurm has it) or --how self\n",
        ),
        (
            "scrontab",
            "#!/bin/sh\necho 'scrontab: fatal: scrontab is disabled on this cluster' >&2\nexit 1\n",
            "scrontab",
            "scrontab is switched off here (ScronParameters=enable is not set); choose --how self, which every Slurm "
            "can, or --how cron where login nodes allow it\n",
        ),
    ],
)
def test_where_an_entry_cannot_be_installed_the_other_ways_are_named(
    program: str | None, text: str, how: str, said: str, person: Person
) -> None:
    if program is not None:
        person.program(program, text)
    result = person.add("--how", how, "--install", PATH=f"{person.bin}:/bin" if program else str(person.bin))
    assert (result.returncode, result.stderr) == (2, said)
    assert _spec(person)["state"] == "prepared"


def test_scrontab_is_taken_by_itself_where_it_works_and_else_a_job(person: Person) -> None:
    assert "A small job, submitted now to begin at the next moment" in person.add().stdout
    person.program("scrontab", "#!/bin/sh\necho 'no crontab for ann'\nexit 1\n")
    shown = person.add().stdout
    assert "At the top of your scrontab; starts a small job at each moment" in shown
    assert (
        "note: a job of this campaign takes all 4 nodes, and must wait while the schedule's own job" in shown
    )


def test_a_site_without_slurm_has_only_cron(person: Person) -> None:
    result = person.run("c.yaml", "--site", "local", "--every", "day", "--how", "self")
    assert (result.returncode, result.stderr) == (
        2,
        "--how self: the site is this machine, without Slurm; use --how cron\n",
    )


def test_schedule_campaign_is_short_for_schedule_add() -> None:
    assert spelt_out(["schedule", "c.yaml", "--every", "day"]) == [
        "schedule",
        "add",
        "c.yaml",
        "--every",
        "day",
    ]
    assert spelt_out(["schedule", "--every", "day", "c.yaml"]) == [
        "schedule",
        "add",
        "--every",
        "day",
        "c.yaml",
    ]
    assert spelt_out(["schedule", "tick", "x"]) == ["schedule", "tick", "x"]
    assert spelt_out(["schedule", "--help"]) == ["schedule", "--help"]
    assert spelt_out(["schedule"]) == ["schedule"]


def test_overrides_are_kept_and_named(person: Person) -> None:
    assert person.add("--how", "cron", "--prepare", "-s", "seed=7").returncode == 0
    assert _spec(person)["overrides"] == ["seed=7"]


def test_only_variables_that_say_where_programs_are_travel(person: Person) -> None:
    environment = {
        "SECRET_TOKEN": "x",
        "MODULEPATH": "/m",
        "BASH_FUNC_module%%": "() { :; }",
        "SLURM_JOB_ID": "3",
    }
    assert person.add("--how", "cron", "--prepare", **environment).returncode == 0
    assert sorted(_spec(person)["environment"]) == [
        "BASH_FUNC_module%%",
        "LOGNAME",
        "MODULEPATH",
        "PATH",
        "TZ",
    ]


def test_an_interpreter_that_needs_variables_to_start_gets_just_these(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\n[ -n "$PYTHONPATH" ] || { echo "No module named harness" >&2; exit 1; }\n')
    python.chmod(0o755)
    assert install.needs(sys.executable, {"PYTHONPATH": "/x"}) == ()
    assert install.needs(str(python), {"PYTHONPATH": "/x", "HOME": "/y"}) == ("PYTHONPATH",)
    with pytest.raises(
        ScheduleError, match=r"does not start in an empty environment, .*No module named harness.*pip ins"
    ):
        install.needs(str(python), {"HOME": "/y"})


def test_a_tick_that_finds_nothing_to_do_costs_next_to_nothing_and_asks_nobody(person: Person) -> None:
    for name in ("sbatch", "squeue", "sacct", "scontrol", "sinfo", "scrontab", "crontab"):
        person.program(name, f"#!/bin/sh\necho {name} >>{person.place}/asked\n")
    assert person.add("--how", "cron", "--prepare").returncode == 0
    (person.place / "asked").unlink(missing_ok=True)
    line = {"what": "skipped", "wall_s": 1.0, "moment": "2026-01-01T0200", "moment_s": 1.0, "why": "x"}
    (person.root / "history.jsonl").write_text((json.dumps(line) + "\n") * 2000)  # years
    costs = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert person.start("tick", str(person.root)).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        costs.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(costs) < 0.2, f"processor seconds: {costs}"
    assert not (person.place / "asked").exists()


def test_the_history_is_shown_in_words_and_as_data(person: Person) -> None:
    assert person.add("--how", "cron", "--prepare").returncode == 0
    folder = ScheduleDir(person.root)
    moment = {"moment": "2026-05-02T0200", "moment_s": 5.0}
    folder.tell("started", run="2026-05-02T0200", **moment, by={"process": 1, "host": "login1", "job": "17"})
    folder.tell("trouble", why="squeue: no answer")
    folder.tell(
        "ended", run="2026-05-02T0200", **moment, exit=1, counts={"fail": 1, "pass": 3}, report="/r.html"
    )
    folder.tell("told", of="ended 2026-05-02T0200", to="ann", why="")
    folder.tell(
        "skipped", moment="2026-05-03T0200", moment_s=9.0, why="the run of 2026-05-02T0200 has not ended"
    )
    folder.tell("failed", run="x", moment="2026-05-04T0200", moment_s=11.0, why="c.yaml:3: no", exit=2)
    shown = person.run("history", str(person.root)).stdout.splitlines()
    assert [line[21:] for line in shown] == [
        "started 2026-05-02T0200 on login1, job 17",
        "trouble: squeue: no answer",
        "ended 2026-05-02T0200: fail (1 fail, 3 pass); /r.html",
        "skipped 2026-05-03T0200: the run of 2026-05-02T0200 has not ended",
        "failed 2026-05-04T0200: c.yaml:3: no",
    ]
    data = json.loads(person.run("history", str(person.root), "--json", "--lines", "2").stdout)
    assert [line["what"] for line in data] == ["skipped", "failed"]
    (row,) = json.loads(person.run("list", "--json").stdout)
    assert row["last"] == "2026-05-04T0200 could not start"


def test_what_is_no_schedule_is_said(person: Person) -> None:
    for words in (("tick", "."), ("history", "."), ("remove", "."), ("install", ".")):
        result = person.run(*words)
        assert result.returncode == 2
        assert result.stderr.startswith(
            f"{person.place}: is no folder of a schedule; `harness schedule list` shows"
        )
    result = person.run("list")
    assert (result.returncode, result.stdout) == (
        0,
        f"no schedule in {person.place}/schedules, and none in your crontab\n",
    )


@pytest.mark.mpi
def test_a_campaign_without_slurm_is_run_by_ticks_to_its_report(person: Person) -> None:
    (person.place / "c.yaml").write_text(
        "schema: 1\nname: nightly\nseed: 1\ngroups:\n"
        "  - {name: g, workload: mpi.halo, nodes: 1, steps: 8, params: {rows: 64, columns: 64}}\n"
    )
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    added = person.start(
        "c.yaml", "--site", "local", "--every", "day", "--keep", "1", "--prepare", **environment
    )
    assert added.returncode == 0, added.stderr
    result = person.start("tick", "--now", str(person.root), **environment)
    end = time.monotonic() + 50
    while result.returncode == 4:
        assert time.monotonic() < end, "the run did not end"
        time.sleep(0.5)
        result = person.start("tick", str(person.root), **environment)
    assert result.returncode == 0, result.stdout + result.stderr
    latest = person.root / "latest"
    assert {"report.html", "results.h5", "summary.json"} <= {p.name for p in latest.iterdir()}
    assert [x["what"] for x in ScheduleDir(person.root).lines()] == ["started", "ended"]
    assert person.start("tick", str(person.root), **environment).returncode == 0
