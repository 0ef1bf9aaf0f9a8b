"""``ours_planned.py CAMPAIGN SITE FOLDER``: make the run folder and submit nothing, so that `advance` does all."""

import sys
from pathlib import Path

if __name__ == "__main__":
    from harness.cli import build_parser
    from harness.prepare import open_or_make
    from harness.verbs.before import read

    campaign, site, folder = sys.argv[1:]
    command = ["run", campaign, "--site", site, "--folder", folder]
    options = build_parser("run").parse_args(command)
    options.command = ["harness", *command]
    given, planned = read(options)
    open_or_make(Path(folder), given, planned)
