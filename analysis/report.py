"""The report: ``report.html`` (one offline file), ``junit.xml`` and ``summary.json`` of one results file.

What is computed elsewhere is only arranged here; the words and looks are in ``analysis/templates``. Everything
that comes from the results file is hostile: Jinja2 escapes it, control characters are replaced, and the page's own
policy forbids any script but ours and any request at all.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from analysis import page, text
from analysis.commandline import dump, guarded, parser
from analysis.results import CampaignResults, load
from analysis.summary import junit, summarise
from analysis.verdict import CaseVerdict, judge

_INDENT = re.compile(r"\n\s+<")  # of the templates; text of the file never holds a bare <


@dataclass(frozen=True)
class Paths:
    """Files that were written."""

    report_html: Path
    junit_xml: Path
    summary_json: Path


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("analysis", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: text.clean(value) if type(value) is str else value,
    )
    environment.filters.update(
        seconds=text.seconds,
        size=text.size,
        percent=text.percent,
        digits=text.digits,
        signed=text.signed,
        instant=text.instant,
        si=text.si,
        quantity=text.quantity,
    )
    environment.globals["count"] = text.count
    return environment


def html(results: CampaignResults, verdicts: Sequence[CaseVerdict]) -> str:
    """The page, self-contained.

    Raises:
        StoreError: samples of the file are damaged.
    """
    environment = _environment()
    loader = environment.loader
    assert loader is not None  # given just above
    script = loader.get_source(environment, "report.js")[0]
    style = loader.get_source(environment, "report.css")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    rendered = environment.get_template("report.html.j2").render(
        page.contents(results, verdicts), script=Markup(script), style=Markup(style), script_digest=digest
    )
    return _INDENT.sub("\n<", rendered)


def _put(path: Path, content: str) -> None:
    """Write under a temporary name, then rename: nobody ever reads half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(content, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write(results_path: Path | str, out_folder: Path | str | None = None) -> Paths:
    """Judge a results file and write report, JUnit and summary.

    Args:
        results_path: the results file.
        out_folder: made where it does not exist; by default the folder of the results file.

    Raises:
        StoreError: the results file cannot be read.
        OSError: the folder cannot be written.
    """
    with load(results_path) as results:
        verdicts = judge(results)
        page_html = html(results, verdicts)
        junit_xml, summary = junit(results, verdicts), dump(summarise(results, verdicts)) + "\n"
    folder = Path(out_folder) if out_folder is not None else Path(results_path).parent
    folder.mkdir(parents=True, exist_ok=True)
    paths = Paths(folder / "report.html", folder / "junit.xml", folder / "summary.json")
    _put(paths.junit_xml, junit_xml)
    _put(paths.summary_json, summary)
    _put(paths.report_html, page_html)
    return paths


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m analysis.report results.h5 [--out FOLDER] [--json]``; 0 when written, whatever the verdicts."""
    options = parser("report", "Write report.html, junit.xml and summary.json.")
    options.add_argument("--out", metavar="FOLDER", help="where to; by default beside the results file")
    options.add_argument("--json", action="store_true", help="print the paths as JSON")
    arguments = options.parse_args(argv)

    def act() -> int:
        paths = write(arguments.results, arguments.out)
        named: dict[str, Any] = {
            "report": str(paths.report_html), "junit": str(paths.junit_xml), "summary": str(paths.summary_json)
        }  # fmt: skip
        print(dump(named) if arguments.json else "\n".join(text.one_line(p, 4096) for p in named.values()))
        return 0

    return guarded(act)


if __name__ == "__main__":
    sys.exit(main())
