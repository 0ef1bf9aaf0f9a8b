"""Everything that talks to Slurm: bounded client calls, states, one batched query a poll, submission."""
