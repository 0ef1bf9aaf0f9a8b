"""What bash cannot read is found before anything is submitted."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest

from harness import shell_syntax
from harness.render import RenderError
from harness.shell_syntax import refuse_bad


def refusal(text: str, *prologue: str) -> str:
    with pytest.raises(RenderError) as refused:
        refuse_bad({"0000": "#!/bin/bash\n" + text}, {"0000": prologue})
    return str(refused.value)


def test_what_bash_cannot_read_is_refused_with_its_line() -> None:
    assert refusal("echo a\nif true; then\n}\necho b\n") == (
        "0000.sh, line 4 of the script ('}'): bash cannot read it: syntax error near unexpected token `}'; look at own "
        "templates and at the site's prologue; correct it"
    )


def test_a_here_document_that_never_ends_is_refused_where_it_begins() -> None:
    assert refusal("echo a\n{\ncat <<EOF\n} || exit\n", "true", "cat <<EOF") == (
        "0000.sh, line 4 of the script: bash cannot read it: here-document at line 4 delimited by end-of-file (wanted "
        "`EOF'); prologue[1] of the site file is 'cat <<EOF'; correct it"
    )


def test_good_scripts_and_other_shells_pass_and_nothing_is_run(tmp_path: Path) -> None:
    texts = {
        "good": f"#!/bin/bash\ntouch {tmp_path}/ran\ncase x in !(a|b)) true ;; esac\n",
        "other": "#!/usr/bin/fish\nif true\nend\n",
    }
    refuse_bad(texts, {})
    assert list(tmp_path.iterdir()) == []


def test_scripts_that_differ_in_numbers_alone_are_read_once_and_bad_ones_among_them_found() -> None:
    many = {f"{n:04}": f"#!/bin/bash\n#SBATCH --nodes={n}\nexec job {n}\n" for n in range(500)}
    with mock.patch.object(shell_syntax.subprocess, "run", wraps=shell_syntax.subprocess.run) as run:
        refuse_bad(many, {})
    assert run.call_count == 1
    with pytest.raises(RenderError, match=r"^0500\.sh, line 2"):
        refuse_bad({**many, "0500": "#!/bin/bash\nfi\n"}, {})


def test_without_bash_nothing_is_said() -> None:
    with mock.patch.object(shell_syntax.shutil, "which", return_value=None):
        refuse_bad({"0000": "#!/bin/bash\nfi\n"}, {})
