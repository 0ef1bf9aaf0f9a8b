"""``python -m harness.devcluster VERB``: the same verbs as ``harness cluster``, without the rest."""

import argparse
import sys

from harness.devcluster import cli


def _run() -> int:
    parser = argparse.ArgumentParser(prog="python -m harness.devcluster", description=cli.__doc__)
    cli.add_arguments(parser)
    return cli.main(parser.parse_args())


if __name__ == "__main__":
    sys.exit(_run())
