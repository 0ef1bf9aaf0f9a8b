"""Mail about an outcome, through the sendmail or mail of the machine. No shell, and no header that we did not write.

Mail is a courtesy: that it could not be sent is written into the history, and stops nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from email.message import EmailMessage
from typing import Any

from harness.model.fields import bad_character
from harness.schedule import programs
from harness.schedule.folder import ENDED, SKIPPED, ScheduleDir, Spec
from harness.slurm.commands import CommandError

# Mail programs take addresses that begin with |, / or - for something else.
_ADDRESS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._%+-]{0,63}(@[A-Za-z0-9][A-Za-z0-9.-]{0,252})?")
_MAX_CASES = 200
_MAX_LINE = 240  # characters; mail allows 998 bytes


def is_address(text: str) -> bool:
    """Whether this is the address of one person, or the name of a local user."""
    return _ADDRESS.fullmatch(text) is not None


def wanted(spec: Spec, outcome: Mapping[str, Any]) -> bool:
    """Whether somebody asked to be told of this."""
    if not spec.mail or spec.mail_on == "never":
        return False
    return spec.mail_on == "always" or outcome["what"] != ENDED or outcome["exit"] != 0


def words(outcome: Mapping[str, Any]) -> str:
    """An outcome in few words: ``fail (1 fail, 3 pass)``."""
    if outcome["what"] == SKIPPED:
        return "not started"
    if outcome["what"] != ENDED:
        return "could not start"
    verdict = {0: "pass", 1: "fail", 3: "unknown"}.get(outcome["exit"], f"exit code {outcome['exit']}")
    counts = ", ".join(f"{count} {name}" for name, count in outcome["counts"].items())
    return f"{verdict} ({counts})" if counts else verdict


def message(
    spec: Spec, folder: ScheduleDir, outcome: Mapping[str, Any], cases: tuple[str, ...]
) -> EmailMessage:
    """The mail about one outcome; ``cases`` are lines, one a case."""
    mail = EmailMessage()
    mail["To"] = spec.mail
    mail["Subject"] = _line(f"harness: {spec.campaign_name} on {spec.site_name}: {words(outcome)}")
    mail["Auto-Submitted"] = "auto-generated"
    shown = [
        *cases[:_MAX_CASES],
        *([f"... and {len(cases) - _MAX_CASES} more"] if len(cases) > _MAX_CASES else []),
    ]
    body = [
        f"{spec.campaign_name} on {spec.site_name}, due {outcome['moment']}: {words(outcome)}",
        *([str(outcome["why"])] if outcome.get("why") else []),
        "",
        *shown,
        *([""] if shown else []),
        *([f"report    {outcome['report']}"] if outcome.get("report") else []),
        f"schedule  {folder.path}",
        f"campaign  {spec.campaign}",
        "",
        f"The history:   harness schedule history {folder.path}",
        f"To end this:   harness schedule remove {folder.path}",
    ]
    mail.set_content("\n".join(map(_line, body)) + "\n", cte="8bit")  # readable as it is, also in a terminal
    return mail


def _line(text: str) -> str:
    return "".join(c if not bad_character(c) else "?" for c in text[:_MAX_LINE])


def send(mail: EmailMessage) -> str:
    """Hand a mail to the machine; returns "" or why that was not possible."""
    try:
        if programs.find("sendmail"):
            code, _, said = programs.run(["sendmail", "-i", "-t"], mail.as_bytes())
        elif programs.find("mail"):
            code, _, said = programs.run(
                ["mail", "-s", mail["Subject"], mail["To"]], mail.get_content().encode()
            )
        else:
            return f"neither sendmail nor mail is on {os.uname().nodename}"
    except CommandError as error:
        return str(error)
    return f"the mail program ended with exit code {code}, and said: {said or 'nothing'}" if code else ""
