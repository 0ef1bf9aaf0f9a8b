"""ReFrame: one trivial test, parametrised to BENCH_CASES of them."""

import os

import reframe as rfm
import reframe.utility.sanity as sn


@rfm.simple_test
class Trivial(rfm.RunOnlyRegressionTest):
    """Passes when it said so and the job's exit code is 0."""

    number = parameter(range(int(os.environ["BENCH_CASES"])))  # noqa: F821 (ReFrame's own word)
    valid_systems = ["*"]  # noqa: RUF012
    valid_prog_environs = ["*"]  # noqa: RUF012
    sourcesdir = None
    executable = "echo"
    executable_opts = ["ended"]  # noqa: RUF012
    num_tasks = 1
    time_limit = "5m"

    @sanity_function  # noqa: F821
    def ended_well(self):  # type: ignore[no-untyped-def]
        """By its output, as ReFrame means it."""
        return sn.all([sn.assert_eq(self.job.exitcode, 0), sn.assert_found(r"^ended$", self.stdout)])
