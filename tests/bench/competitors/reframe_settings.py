"""ReFrame's settings on the emulated cluster, tuned: all tests at once in the queue, one poll a second at most.

`local` as launcher, since `echo` needs no srun: it spares its jobs a step.
"""

import os

site_configuration = {
    "systems": [
        {
            "name": "emulated",
            "hostnames": [".*"],
            "partitions": [
                {
                    "name": "batch",
                    "scheduler": "slurm",
                    "launcher": "local",
                    "access": ["--partition=batch"],
                    "environs": ["builtin"],
                    "max_jobs": int(os.environ["BENCH_CASES"]),
                }
            ],
        }
    ],
    "general": [
        {
            "poll_rate_max": 1,
            "poll_rate_min": 1,
            "pipeline_timeout": None,
            "colorize": False,
            # Else it reads the machine's processors, compiles nothing, and writes into the home folder.
            "remote_detect": False,
            "report_file": "report.json",
        }
    ],
}
