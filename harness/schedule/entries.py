"""The texts that make ticks happen: a line for cron, an entry for scrontab, a job that submits itself. Pure.

Each names interpreter and folder absolutely, quotes them, and expects nothing of its environment. In a
crontab or scrontab ours stands between two marked lines, at the top, so that variables and shells that
others set below do not change it, nor it theirs. Everything outside the marks is kept byte for byte.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from harness.model.fields import bad_character
from harness.schedule.folder import ScheduleDir, ScheduleError, Spec
from harness.schedule.when import cron_fields, poll_fields
from harness.script import directive, shell

_BEGIN = "# >>> harness schedule {id} {path}"
_END = "# <<< harness schedule {id}"
_FOUND = re.compile(rb"^# >>> harness schedule ([0-9a-f]{8}) (.*)$", re.MULTILINE)
_MAX_CRON = 900  # bytes of a command that every cron takes
_OPTION = re.compile(r"--([a-z][a-z-]*)(?:=(.*))?")
# What the schedule itself says of its job, or what would make it another kind of job.
_OURS = {
    "job-name", "dependency", "output", "error", "open-mode", "time", "begin", "array", "wrap", "parsable", "wait",
    "test-only", "ntasks", "nodes", "chdir",
}  # fmt: skip


def job_name(folder: ScheduleDir, spec: Spec) -> str:
    """Name of the job that submits itself; it alone has this name."""
    return f"hh.schedule.{spec.campaign_name}.{folder.id}"


def tick_words(folder: ScheduleDir, spec: Spec) -> list[str]:
    """The command of a tick."""
    needs = [f"{name}={spec.environment[name]}" for name in spec.needs]
    whole = ["--until-complete"] if spec.how != "cron" else []
    return [
        *(["/usr/bin/env", *needs] if needs else []),
        *(spec.python, "-m", "harness", "schedule", "tick", *whole, str(folder.path)),
    ]


def check(folder: ScheduleDir, spec: Spec) -> None:
    """Refuse what an entry could not say.

    Raises:
        ScheduleError: a path or option cannot be written there.
    """
    for noun, text in (("the schedule's folder", str(folder.path)), ("the interpreter", spec.python)):
        bad = bad_character(text)
        if bad or "\\" in text:
            what = f"the control character {bad}" if bad else "a backslash"
            raise ScheduleError(
                f"{noun} {text!r}: holds {what}, which an entry cannot; choose another --folder, or another interpreter"
            )
        if spec.how == "scrontab" and re.search(r"\s", text):
            raise ScheduleError(
                f"{noun} {text!r}: holds a blank, which lines of scrontab cannot; choose another --folder, or "
                "--how self"
            )
    for option in spec.job_options:
        match = _OPTION.fullmatch(option)
        if match is None or bad_character(option):
            raise ScheduleError(f"--job-option {option!r}: is no option of sbatch; write it as --NAME=VALUE")
        if match[1] in _OURS:
            raise ScheduleError(
                f"--job-option {option}: the schedule sets --{match[1]} itself; leave it out"
                + (" and use --job-minutes" if match[1] == "time" else "")
            )
        if spec.how == "scrontab" and re.search(r"[\s\\]", option):
            raise ScheduleError(
                f"--job-option {option!r}: holds a blank or backslash, which lines of scrontab cannot; change it, or "
                "use --how self"
            )


def cron_block(folder: ScheduleDir, spec: Spec) -> str:
    """Our part of a crontab: one line that looks every few minutes whether something is due."""
    words = shlex.join(tick_words(folder, spec))
    command = f"{words} >>{shlex.quote(str(folder.log))} 2>&1".replace(
        "%", "\\%"
    )  # cron ends a line at a bare %
    if len(command.encode()) > _MAX_CRON:
        raise ScheduleError(
            f"{folder.path}: makes a line of {len(command.encode())} bytes, and cron takes {_MAX_CRON}; choose a "
            "shorter --folder"
        )
    return _block(folder, spec, [f"{poll_fields(spec.when, int(folder.id, 16))} {command}"])


def scrontab_block(folder: ScheduleDir, spec: Spec, site: Mapping[str, str | None]) -> str:
    """Our part of a scrontab: its small job, started at each moment."""
    options = {"job-name": f"{job_name(folder, spec)}.cron", **_common(folder, spec, site)}
    lines = [f"#SCRON --{name}={value}" if value else f"#SCRON --{name}" for name, value in options.items()]
    return _block(
        folder, spec, [*lines, f"{cron_fields(spec.when)} exec {shlex.join(tick_words(folder, spec))}"]
    )


def job_script(folder: ScheduleDir, spec: Spec, site: Mapping[str, str | None]) -> str:
    """The job that submits itself again: one at a time (singleton), in the schedule's folder."""
    options = {
        "job-name": job_name(folder, spec),
        "dependency": "singleton",
        "requeue" if site.get("requeue") else "no-requeue": "",
        "chdir": str(folder.path),
        "export": "ALL",
        **_common(folder, spec, site),
    }
    lines = [f"#SBATCH --{name}={directive(v)}" if v else f"#SBATCH --{name}" for name, v in options.items()]
    words = " ".join(shell(word) for word in tick_words(folder, spec))
    return "\n".join(
        [
            "#!/bin/bash",
            f"# {spec.campaign_name} on {spec.site_name}, {spec.when.words()}",
            *lines,
            "",
            "# It submits its successor first; exec, so that signals reach it and not a shell around it.",
            f"exec {words}",
            "",
        ]
    )


def _common(folder: ScheduleDir, spec: Spec, site: Mapping[str, str | None]) -> dict[str, str]:
    options = {
        "time": str(spec.job_minutes),
        "nodes": "1",
        "ntasks": "1",
        "mem": "2G",
        "output": str(folder.log).replace("%", "%%"),
        "open-mode": "append",
    }
    options |= {name: value for name in ("partition", "account", "qos") if (value := site.get(name))}
    if (
        spec.mail and spec.mail_on != "never"
    ):  # nodes seldom have a mail program: Slurm's word is better than none
        options |= {"mail-type": "FAIL", "mail-user": spec.mail}
    for option in spec.job_options:
        match = _OPTION.fullmatch(option)
        assert match is not None  # check() refused it
        options[match[1]] = match[2] or ""
    return options


def _block(folder: ScheduleDir, spec: Spec, lines: Sequence[str]) -> str:
    about = (
        f"# {spec.campaign_name} on {spec.site_name}, {spec.when.words()}; to remove it: "
        f"harness schedule remove {shlex.quote(str(folder.path))}"
    )
    marks = {"id": folder.id, "path": folder.path}
    return "\n".join([_BEGIN.format(**marks), about, *lines, _END.format(**marks), ""])


def with_block(table: bytes, schedule_id: str, block: str) -> bytes:
    """A crontab or scrontab with our block at its top, in the place of an older one."""
    return block.encode() + without_block(table, schedule_id)


def without_block(table: bytes, schedule_id: str) -> bytes:
    """A crontab or scrontab as it is without our block.

    Raises:
        ScheduleError: the block has lost its last line, so that nobody knows where it ends.
    """
    lines = table.splitlines(keepends=True)
    begin = _BEGIN.format(id=schedule_id, path="").encode()
    end = _END.format(id=schedule_id).encode()
    kept: list[bytes] = []
    inside = False
    for line in lines:
        if line.startswith(begin):
            inside = True
        elif inside and line.rstrip() == end:
            inside = False
        elif not inside:
            kept.append(line)
    if inside:
        raise ScheduleError(
            f"the marked lines of schedule {schedule_id} have lost their last one, {end.decode()!r}; put it back where "
            "they end (`crontab -e`, `scrontab -e`), then try again"
        )
    return b"".join(kept)


def schedules_in(table: bytes) -> dict[str, str]:
    """Schedule id -> folder, of all marked blocks of a crontab or scrontab."""
    return {m[1].decode(): m[2].decode(errors="replace").strip() for m in _FOUND.finditer(table)}


def is_disabled(table: bytes, schedule_id: str) -> bool:
    """Whether Slurm has switched our entry off, as it does when its job is cancelled."""
    begin = table.find(_BEGIN.format(id=schedule_id, path="").encode())
    end = table.find(_END.format(id=schedule_id).encode(), begin)
    return begin >= 0 and b"\n#DISABLED: " in table[begin:end]
