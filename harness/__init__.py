"""Slurm-native batch harness: does it scale, does it survive, is the answer still right?

The package is split by who runs it. A login node runs ``cli``, ``config``, ``plan``, ``render``,
``driver`` and ``slurm``; a job runs ``runtime``, ``workloads`` and ``faults``; a laptop runs
``store`` and the separate package ``analysis``. ``model`` is shared by all and imports nothing.
"""

__version__ = "0.1.0"
