"""Entries: their whole texts, what cron, scrontab and sbatch make of them, and tables that are others' as well."""

import os
import shlex
import subprocess
from dataclasses import replace
from email import message_from_bytes
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.model.fields import bad_character
from harness.schedule import entries, mail
from harness.schedule.folder import ScheduleDir, ScheduleError
from tests.unit.weekly import WEEKLY

SPEC = replace(WEEKLY, python="/opt/harness/bin/python")
SITE = {"partition": "batch", "account": "lab", "qos": None, "requeue": "yes"}
FOLDER = ScheduleDir("/shared/ann/weekly")
PATHS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40).filter(
    lambda text: not bad_character(text) and "\\" not in text
)


def test_the_entry_of_cron_is_exactly_this() -> None:
    assert entries.cron_block(FOLDER, SPEC) == (
        "# >>> harness schedule 508d38d5 /shared/ann/weekly\n"
        "# weekly on alps, every week on sunday at 02:00; to remove it: harness schedule remove /shared/ann/weekly\n"
        "0-59/5 * * * * /opt/harness/bin/python -m harness schedule tick /shared/ann/weekly"
        " >>/shared/ann/weekly/tick.log 2>&1\n"
        "# <<< harness schedule 508d38d5\n"
    )


def test_the_entry_of_scrontab_is_exactly_this() -> None:
    spec = replace(SPEC, how="scrontab", job_options=("--mem=4G", "--exclusive"), mail="ann@example.org")
    assert entries.scrontab_block(FOLDER, spec, SITE) == (
        "# >>> harness schedule 508d38d5 /shared/ann/weekly\n"
        "# weekly on alps, every week on sunday at 02:00; to remove it: harness schedule remove /shared/ann/weekly\n"
        "#SCRON --job-name=hh.schedule.weekly.508d38d5.cron\n"
        "#SCRON --time=30\n"
        "#SCRON --nodes=1\n"
        "#SCRON --ntasks=1\n"
        "#SCRON --mem=4G\n"
        "#SCRON --output=/shared/ann/weekly/tick.log\n"
        "#SCRON --open-mode=append\n"
        "#SCRON --partition=batch\n"
        "#SCRON --account=lab\n"
        "#SCRON --mail-type=FAIL\n"
        "#SCRON --mail-user=ann@example.org\n"
        "#SCRON --exclusive\n"
        "0 2 * * 0 exec /opt/harness/bin/python -m harness schedule tick --until-complete /shared/ann/weekly\n"
        "# <<< harness schedule 508d38d5\n"
    )


def test_the_job_that_submits_itself_is_exactly_this() -> None:
    spec = replace(
        SPEC,
        how="self",
        job_options=("--constraint=a b",),
        needs=("LD_LIBRARY_PATH",),
        environment={"LD_LIBRARY_PATH": "/opt/a b"},
    )
    folder = ScheduleDir("/shared/ann's 100%/weekly")
    assert entries.job_script(folder, spec, {**SITE, "requeue": None}) == (
        "#!/bin/bash\n"
        "# weekly on alps, every week on sunday at 02:00\n"
        f"#SBATCH --job-name=hh.schedule.weekly.{folder.id}\n"
        "#SBATCH --dependency=singleton\n"
        "#SBATCH --no-requeue\n"
        '#SBATCH --chdir="/shared/ann\'s 100%/weekly"\n'
        "#SBATCH --export=ALL\n"
        "#SBATCH --time=30\n"
        "#SBATCH --nodes=1\n"
        "#SBATCH --ntasks=1\n"
        "#SBATCH --mem=2G\n"
        '#SBATCH --output="/shared/ann\'s 100%%/weekly/tick.log"\n'
        "#SBATCH --open-mode=append\n"
        "#SBATCH --partition=batch\n"
        "#SBATCH --account=lab\n"
        '#SBATCH --constraint="a b"\n'
        "\n"
        "# It submits its successor first; exec, so that signals reach it and not a shell around it.\n"
        "exec /usr/bin/env 'LD_LIBRARY_PATH=/opt/a b' /opt/harness/bin/python -m harness schedule tick "
        "--until-complete '/shared/ann'\"'\"'s 100%/weekly'\n"
    )


def _as_cron_does(line: str) -> str:
    """The command that cron gives to /bin/sh: up to a bare %, with the backslash before each other one taken away."""
    command, escaped = "", False
    for character in line.split(" ", 5)[5]:
        if escaped:
            command = command[:-1] + character if character == "%" else command + character
            escaped = False
            continue
        if character == "%":
            break
        escaped = character == "\\"
        command += character
    return command


def _arguments(command: str) -> list[str]:
    """What a program is given by a shell command whose program is replaced by one that prints its arguments."""
    first, _, rest = command.partition(" -m harness ")
    assert shlex.split(first)[-1] == SPEC.python, "the interpreter is no longer one word"
    done = subprocess.run(
        ["/bin/sh", "-c", f"printf '%s\\0' -m harness {rest}"],
        capture_output=True,
        timeout=20,
        env={},
        check=True,
    )
    return os.fsdecode(done.stdout).split("\0")[:-1]


@settings(deadline=None, max_examples=40)
@given(PATHS)
def test_any_folder_comes_through_cron_and_a_shell_as_one_word(name: str) -> None:
    folder = ScheduleDir(f"/shared/{name}")
    try:
        entries.check(folder, SPEC)
        line = entries.cron_block(folder, SPEC).split("\n")[2]
    except ScheduleError:
        assert len(name.encode()) > 100
        return
    command = _as_cron_does(line)
    words = command.removesuffix(f" >>{shlex.quote(str(folder.log))} 2>&1")
    assert words != command
    assert _arguments(words) == ["-m", "harness", "schedule", "tick", str(folder.path)]


@settings(deadline=None, max_examples=40)
@given(PATHS)
def test_any_folder_comes_through_the_script_of_a_job_as_one_word_and_adds_no_line(name: str) -> None:
    folder = ScheduleDir(f"/shared/{name}")
    script = entries.job_script(folder, replace(SPEC, how="self"), SITE)
    assert script.count("\n") == 18
    last = script.splitlines()[-1].removeprefix("exec ")
    assert _arguments(last) == ["-m", "harness", "schedule", "tick", "--until-complete", str(folder.path)]


@pytest.mark.parametrize(
    ("path", "change", "said"),
    [
        (
            "/a\\b",
            {},
            "the schedule's folder '/a\\\\b': holds a backslash, which an entry cannot; choose another --folder",
        ),
        ("/a\nb", {}, "the schedule's folder '/a\\nb': holds the control character"),
        (
            "/a b",
            {"how": "scrontab"},
            "the schedule's folder '/a b': holds a blank, which lines of scrontab cannot",
        ),
        (
            "/a",
            {"job_options": ("-p x",)},
            "--job-option '-p x': is no option of sbatch; write it as --NAME=VALUE",
        ),
        ("/a", {"job_options": ("--qos=a\nb",)}, "--job-option '--qos=a\\nb': is no option of sbatch"),
        (
            "/a",
            {"job_options": ("--time=9",)},
            "--job-option --time=9: the schedule sets --time itself; leave it out and",
        ),
        (
            "/a",
            {"job_options": ("--wrap=rm",)},
            "--job-option --wrap=rm: the schedule sets --wrap itself; leave it out",
        ),
        (
            "/a",
            {"how": "scrontab", "job_options": ("--constraint=a b",)},
            "--job-option '--constraint=a b': holds a blank or backslash, which lines of scrontab cannot",
        ),
    ],
)
def test_what_an_entry_cannot_say_is_refused(path: str, change: dict[str, object], said: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        entries.check(ScheduleDir(path), replace(SPEC, **change))  # type: ignore[arg-type]
    assert str(caught.value).startswith(said)


def test_a_line_that_is_too_long_for_cron_is_refused() -> None:
    with pytest.raises(
        ScheduleError, match=r"makes a line of 9\d\d bytes, and cron takes 900; choose a shorter"
    ):
        entries.cron_block(ScheduleDir("/" + "x" * 420), SPEC)


TABLES = st.lists(
    st.one_of(
        st.binary(max_size=20),
        st.sampled_from([b"MAILTO=ann", b"# comment", b"\xff\xfe", b"0 0 * * * run", b""]),
    ),
    max_size=6,
).map(b"\n".join)


@given(TABLES)
def test_a_table_is_the_same_after_our_block_came_was_replaced_and_went(table: bytes) -> None:
    block = entries.cron_block(FOLDER, SPEC)
    once = entries.with_block(table, FOLDER.id, block)
    assert once == block.encode() + table
    again = entries.with_block(once, FOLDER.id, entries.cron_block(FOLDER, replace(SPEC, every="day", on="")))
    assert again.count(b"# >>> harness schedule") == 1
    assert b"every day at 02:00" in again
    assert entries.without_block(again, FOLDER.id) == table
    assert entries.without_block(table, FOLDER.id) == table


def test_the_blocks_of_other_schedules_stay() -> None:
    other = ScheduleDir("/shared/ann/night ly")
    both = entries.with_block(
        entries.with_block(b"# hers\n", other.id, entries.cron_block(other, SPEC)),
        FOLDER.id,
        entries.cron_block(FOLDER, SPEC),
    )
    assert entries.schedules_in(both) == {FOLDER.id: str(FOLDER.path), other.id: str(other.path)}
    assert entries.schedules_in(entries.without_block(both, FOLDER.id)) == {other.id: str(other.path)}


def test_a_block_that_slurm_switched_off_is_seen_and_can_be_removed() -> None:
    block = entries.scrontab_block(FOLDER, replace(SPEC, how="scrontab"), SITE)
    off = "".join(f"#DISABLED: {x}" if x[0] in "#0" and "SCRON" in x else x for x in block.splitlines(True))
    assert not entries.is_disabled(block.encode(), FOLDER.id)
    assert entries.is_disabled(b"#DISABLED: 0 0 * * * hers\n" + off.encode(), FOLDER.id)
    assert not entries.is_disabled(b"#DISABLED: 0 0 * * * hers\n" + block.encode(), FOLDER.id)
    assert entries.without_block(off.encode() + b"# hers\n", FOLDER.id) == b"# hers\n"


def test_a_block_that_lost_its_end_is_left_alone() -> None:
    damaged = entries.cron_block(FOLDER, SPEC).replace("# <<<", "# <<")
    with pytest.raises(ScheduleError, match=r"schedule 508d38d5 have lost their last one, .* put it back"):
        entries.without_block(damaged.encode() + b"# hers\n", FOLDER.id)


@settings(deadline=None)
@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60))
def test_no_text_adds_a_header_to_a_mail(campaign: str, why: str, case: str) -> None:
    spec = replace(SPEC, mail="ann@example.org", campaign_name=campaign)
    sent = mail.message(spec, FOLDER, {"what": "failed", "moment": "2026-05-02T0200", "why": why}, (case,))
    read = message_from_bytes(sent.as_bytes())
    assert sorted(read.keys()) == [
        "Auto-Submitted",
        "Content-Transfer-Encoding",
        "Content-Type",
        "MIME-Version",
        "Subject",
        "To",
    ]
    assert read["To"] == "ann@example.org"


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("ann", True), ("ann@example.org", True), ("a.b+c@x-y.org", True), ("", False), ("-s", False), ("|sh", False),
        ("/tmp/file", False), ("ann bob", False), ("ann@example.org\nBcc: x", False), ("a@b@c", False), ("a,b", False),
    ],
)  # fmt: skip
def test_an_address_is_that_of_one_person(text: str, good: bool) -> None:
    assert mail.is_address(text) is good


def test_the_same_folder_has_the_same_id_however_it_is_written(tmp_path: Path) -> None:
    assert ScheduleDir(f"{tmp_path}/x/../s/").id == ScheduleDir(tmp_path / "s").id
