"""Whether bash can read the scripts of a plan, asked before they are written or submitted. Runs ``bash -n``.

A site's prologue and templates of a person's own are code: a line that bash cannot read, or a here-document that
never ends, would otherwise be found in a job that waited for hours. Nothing is executed. Scripts that differ in
numbers alone are read once; one whose first line names another shell is left alone, and so is all without bash.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from harness.script import RenderError, short

LIMIT_S = 10.0  # for bash to read one script
_BASH = re.compile(r"#!\s*\S*(/|\s)(ba)?sh(\s|$)")
_SAID = re.compile(r"/dev/stdin: line (?P<line>\d+): (?P<words>.+)")


def refuse_bad(scripts: Mapping[str, str], own: Mapping[str, Sequence[str]]) -> None:
    """Refuse scripts that bash cannot read.

    Args:
        scripts: name -> text.
        own: of each script, lines of the site's prologue that it holds as they are.

    Raises:
        RenderError: the script, its line and what bash says; and the line of the prologue, if it is one.
    """
    bash = shutil.which("bash")
    seen = set()
    for name, text in scripts.items() if bash else ():
        alike = re.sub(r"\d+", "0", text)
        if bash is None or alike in seen or not _BASH.match(text):
            continue
        seen.add(alike)
        problem = _problem(bash, text)
        if problem is None:
            continue
        line, words = problem
        bad = [
            f"prologue[{number}] of the site file is {short(code)}"
            for number, code in enumerate(own.get(name, ()))
            if _problem(bash, f"{{\n{code}\n}}\n")
        ]
        stands = "" if bad or not line else f" ({short(text.splitlines()[line - 1].strip())})"
        where = f"{name}.sh, line {line} of the script{stands}" if line else f"{name}.sh"
        why = "; ".join(bad) if bad else "look at own templates and at the site's prologue"
        raise RenderError(f"{where}: bash cannot read it: {words}; {why}; correct it")


def _problem(bash: str, text: str) -> tuple[int, str] | None:
    """Line and words of the first thing that bash cannot read; None where there is none, or it does not say."""
    try:
        done = subprocess.run(
            [bash, "-n", "-O", "extglob", "/dev/stdin"],  # of standard input itself it counts no lines
            input=text.encode(),
            capture_output=True,
            timeout=LIMIT_S,
            env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    said = done.stderr.decode(errors="replace").splitlines()
    endless = next((line for line in said if "here-document" in line), "")
    if done.returncode == 0 and not endless:
        return None
    first = endless or next(iter(said), "")
    found = _SAID.fullmatch(first)
    if found is None:
        return 0, first or f"it ends with {done.returncode}"
    words = found["words"].removeprefix("warning: ")
    if at := re.match(r"here-document at line (\d+) delimited by end-of-file", words):
        return int(at[1]), words
    return min(int(found["line"]), len(text.splitlines())), words
